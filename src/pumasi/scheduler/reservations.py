"""Reservations from earlier cycles: kept until all their GPUs are free, then started on exactly these, or let go."""

from collections.abc import Container

from pumasi.events.facts import NodeState
from pumasi.model.ids import PoolId
from pumasi.model.jobs import JobState
from pumasi.scheduler.board import Board
from pumasi.state.records import Reservation


def settle_reservations(board: Board, pools: Container[PoolId]) -> None:
    """At the start of a cycle: start what can start, let go what cannot any more, keep the rest as it is.

    Only these `pools` are looked at: those where something has changed since that was last done.
    """
    for reservation in list(board.state.reservations.values()):
        if reservation.pool not in pools:
            continue
        if not _is_sound(board, reservation):
            board.release(reservation)
        elif _is_clear(board, reservation) and board.has_power(reservation):
            _start_or_wait(board, reservation)


def _is_sound(board: Board, reservation: Reservation) -> bool:
    """True if its job still waits, may still run there, and its nodes and its owner's entitlement still stand."""
    job = board.state.jobs.get(reservation.job)
    if job is None or job.state is not JobState.WAITING or not board.is_connected(reservation.pool):
        return False
    if all(fit.pool != reservation.pool for fit in board.rules.demand_of(job.owner, job.spec).fits):
        return False
    account = board.account(job.owner, reservation.pool)
    states = board.state.occupancy[reservation.pool].node_states
    staying = account.home - board.ending_home(job.owner, reservation.pool)
    return account.due - staying >= job.spec.gpus and not any(
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


def _start_or_wait(board: Board, reservation: Reservation) -> None:
    """Its GPUs are free. It starts unless its entitlement is still in use; if nothing there ends, it must ask anew."""
    job = board.state.jobs[reservation.job]
    account = board.account(job.owner, reservation.pool)
    if account.due - account.home - account.lent >= job.spec.gpus:
        board.start_reserved(job, reservation)
    elif not _is_any_ending(board, reservation):
        board.release(reservation)


def _is_any_ending(board: Board, reservation: Reservation) -> bool:
    """True if some job that counts on the entitlement is stopping."""
    owner = board.state.jobs[reservation.job].owner
    state = board.state
    return any(
        attempt.stop is not None and any(charge.owner == owner for charge in attempt.charges)
        for job in state.active[reservation.pool]
        for attempt in state.jobs[job].attempts[-1:]
    )
