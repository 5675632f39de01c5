"""Reservations from earlier cycles: kept until all their GPUs are free, then started on exactly these, or let go."""

from collections.abc import Container

from pumasi.events.facts import NodeState
from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import JobState, span_gpus
from pumasi.scheduler.board import Board
from pumasi.scheduler.placement import is_still_asked
from pumasi.state.records import Job, Reservation


def settle_reservations(board: Board, pools: Container[PoolId]) -> None:
    """At the start of a cycle: start what can start, let go what cannot any more, keep the rest as it is.

    Only these `pools` are looked at: those where something has changed since that was last done.
    """
    for reservation in list(board.state.reservations.values()):
        if reservation.pool not in pools:
            continue
        if not _is_sound(board, reservation):
            board.release(reservation)
        elif _is_clear(board, reservation) and not start_if_carried(board, reservation):
            _wait_or_ask_anew(board, reservation)


def _is_sound(board: Board, reservation: Reservation) -> bool:
    """True if its job still waits, may still run there, and its nodes and its owner's entitlement still stand."""
    job = board.state.jobs.get(reservation.job)
    if job is None or job.state is not JobState.WAITING or not board.is_connected(reservation.pool):
        return False
    needs = [fit.need for fit in board.rules.demand_of(job.owner, job.spec).fits if fit.pool == reservation.pool]
    if not needs or not is_still_asked(board.free(reservation.pool), reservation.spans, needs[0]):
        return False
    account = board.account(job.owner, reservation.pool)
    states = board.state.occupancy[reservation.pool].node_states
    missing = job.spec.gpus - (account.due - account.home)
    if missing > 0 and board.ending_home(job.owner, reservation.pool) < missing:
        return False
    return not any(
        states.get(node, NodeState.UP) is not NodeState.UP
        for span in reservation.spans if states
        for node in range(span.first, span.first + span.nodes)
    )  # fmt: skip


def _is_clear(board: Board, reservation: Reservation) -> bool:
    used = board.state.occupancy[reservation.pool].used
    return not any(
        used[node] & span.gpu_mask
        for span in reservation.spans
        for node in range(span.first, span.first + span.nodes)
    )  # fmt: skip


def start_if_carried(board: Board, reservation: Reservation) -> bool:
    """Start it on its GPUs, which are free, if power and its entitlement carry it and no earlier promise needs that."""
    job = board.state.jobs[reservation.job]
    account = board.account(job.owner, reservation.pool)
    idle = account.due - account.home - account.lent
    if idle < job.spec.gpus or not board.has_power(reservation) or _breaks_a_promise(board, reservation, job, idle):
        return False
    board.start_reserved(job, reservation)
    return True


def _wait_or_ask_anew(board: Board, reservation: Reservation) -> None:
    """It cannot start on free GPUs: if power is not why, and nothing on its entitlement ends, its job must ask anew."""
    if board.has_power(reservation) and not _is_any_ending(board, reservation):
        board.release(reservation)


def _breaks_a_promise(board: Board, reservation: Reservation, job: Job, idle: int) -> bool:
    """True if a job of the same owner with an earlier promise would get its entitlement too late for the start of this.

    Both count on what is idle there now, and this one's GPUs may have come free before the loans that it had ended.
    """
    earlier = [
        (held.due_ms, span_gpus(held.spans))
        for held in board.reserved.values()
        if held.pool == reservation.pool
        and held.due_ms < reservation.due_ms
        and board.state.jobs[held.job].owner == job.owner
    ]
    promised = 0
    for due_ms, gpus in sorted(earlier):
        promised += gpus
        spare = idle + _coming_free(board, reservation.pool, job.owner, due_ms) - promised
        if 0 <= spare < job.spec.gpus:
            return True
    return False


def _coming_free(board: Board, pool: PoolId, owner: OwnerId, by_ms: int) -> int:
    """GPUs of an owner's entitlement whose users have been told to be gone by a moment."""
    tenants = board.tenants(pool)
    leaving = [board.state.jobs[job] for job, kill_at_ms in tenants.stopping.items() if kill_at_ms <= by_ms]
    return sum(charge.gpus for job in leaving for charge in tenants.charges(job) if charge.owner == owner)


def _is_any_ending(board: Board, reservation: Reservation) -> bool:
    """True if some job that counts on the entitlement is stopping."""
    owner = board.state.jobs[reservation.job].owner
    state = board.state
    return any(
        attempt.stop is not None and any(charge.owner == owner for charge in attempt.charges)
        for job in state.active[reservation.pool]
        for attempt in state.jobs[job].attempts[-1:]
    )
