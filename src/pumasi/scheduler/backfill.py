"""Backfill with planned starts: a job that must wait is promised exact GPUs from a moment on.

The moment goes by the time limits of what runs and by the starts planned before. Until then the GPUs are for whatever
is gone by that moment: nothing that its own owner starts there, and nothing that is lent, may hold them longer, nor the
entitlement the start counts on. The job starts on them as soon as they are free, or elsewhere sooner. A start is
planned anew if a fault, a claim or lateness breaks it. Home work of other owners goes around it where it can, but their
entitlement is theirs.
"""

from collections.abc import Container

from pumasi.events.facts import NodeState
from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import Charge, Span, overlap
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.outlook import NEVER_MS, map_at, shape_ms
from pumasi.scheduler.placement import find
from pumasi.scheduler.quotas import NO_LIMIT
from pumasi.scheduler.shapes import Fit
from pumasi.state.records import Job, PlannedStart

LATE_MS = 300_000  # engines may take so long to start or end a run before a planned start counts as broken


# --- going around planned starts -------------------------------------------------------------------------------------


def find_around(board: Board, job: Job, fit: Fit, *, is_home: bool) -> tuple[Span, ...] | None:
    """Where the job sits best without delaying a planned start; None if it fits nowhere so. Notes who is held back.

    Home work may sit where another owner's start is planned, if it fits nowhere else.
    """
    spans = find(board.free(fit.pool), fit.need)
    in_the_way = [] if spans is None else _in_the_way(board, job, fit.pool, board.now_ms)
    if spans is None or not in_the_way:
        return spans
    found = _find_beside(board, fit, spans, in_the_way)
    if found is None and is_home:
        own = [start for start in in_the_way if _owner(board, start) == job.owner]
        found = _find_beside(board, fit, spans, own)
    if found is None:
        board.held_back[job.id] = None
    return found


def _find_beside(
    board: Board, fit: Fit, spans: tuple[Span, ...], starts: list[PlannedStart]
) -> tuple[Span, ...] | None:
    """These spans if they leave the planned starts alone, or else others that do."""
    if not any(overlap(start.spans, spans) for start in starts):
        return spans
    return find(board.shadow(fit.pool, starts), fit.need)


def unpromised(board: Board, job: Job, pool: PoolId, owner: OwnerId, from_ms: int) -> int:
    """GPUs of an owner's entitlement that the job may hold from then on without delaying a start planned on it."""
    binding = [start for start in _in_the_way(board, job, pool, from_ms) if _owner(board, start) == owner]
    return min((_left(board, start) for start in binding), default=NO_LIMIT)


def _in_the_way(board: Board, job: Job, pool: PoolId, from_ms: int) -> list[PlannedStart]:
    """The planned starts of others that come while the job may still run."""
    until_ms = from_ms + job.spec.time_limit_seconds * 1000
    return [start for start in board.planned_in(pool) if start.start_ms < until_ms and start.job != job.id]


def _owner(board: Board, start: PlannedStart) -> OwnerId:
    return board.state.jobs[start.job].owner


def _left(board: Board, start: PlannedStart) -> int:
    """GPUs of its owner's entitlement that nobody needs at a planned start, by time limits and planned starts."""
    owner, pool, jobs = _owner(board, start), start.pool, board.state.jobs
    left = board.account(owner, pool).idle + board.outlook(pool).returned_gpus(owner, start.start_ms)
    for other in board.planned_in(pool):
        if jobs[other.job].owner == owner and other.start_ms <= start.start_ms < _end_ms(board, other):
            left -= jobs[other.job].spec.gpus
    return left


def _end_ms(board: Board, start: PlannedStart) -> int:
    return start.start_ms + board.state.jobs[start.job].spec.time_limit_seconds * 1000


# --- planning a start ------------------------------------------------------------------------------------------------


def plan_start(board: Board, job: Job, demand: Demand) -> None:
    """Promise a job that found no room its start at home, in the pool where it comes first, if there is a slot left.

    A job of one GPU needs no promise: nothing is smaller.
    """
    if job.spec.gpus < 2 or job.id in board.planned:
        return
    options = []
    for fit in demand.home_fits:
        if (
            has_slot(board, job.owner, fit.pool)
            and board.is_connected(fit.pool)
            and not board.is_queue_bound(job, fit.pool)
        ):
            start = _earliest(board, job, fit)
            if start is not None:
                options.append((start.start_ms, fit.position, start))
    if options:
        board.plan_start(min(options, key=lambda option: option[:2])[2])
        _look_when_late(board, board.planned[job.id])


def has_slot(board: Board, owner: OwnerId, pool: PoolId) -> bool:
    """True if one more start may be planned for the owner in the pool."""
    planned = sum(_owner(board, start) == owner for start in board.planned_in(pool))
    return planned < board.state.policy.planned_starts


def _earliest(board: Board, job: Job, fit: Fit) -> PlannedStart | None:
    """The first moment at which the gang has its shape and its owner's entitlement carries it, and where."""
    pool, gpus, free = fit.pool, job.spec.gpus, board.free(fit.pool)
    if board.home_most(job, pool) < gpus:
        return None
    outlook, idle = board.outlook(pool).branch(), board.account(job.owner, pool).idle
    for start in board.planned_in(pool):
        other = board.state.jobs[start.job]
        outlook.enter(start.job, _end_ms(board, start), start.spans, (Charge(other.owner, other.spec.gpus),))
        idle -= other.spec.gpus if other.owner == job.owner else 0
    for reservation in board.reserved.values():
        if reservation.pool == pool:
            outlook.close(reservation.spans)
    for node, state in board.state.occupancy[pool].node_states.items():
        if state is not NodeState.UP:
            outlook.close((Span(node, 1, free.full_mask),))
    moment_ms = max(outlook.entitled_ms(job.owner, gpus - idle), shape_ms(outlook.gpu_ends_ms, fit.need, free))
    if moment_ms >= NEVER_MS:
        return None
    start_ms = max(moment_ms, board.now_ms)
    spans = find(map_at(outlook.gpu_ends_ms, start_ms, free), fit.need)
    return None if spans is None else PlannedStart(job.id, pool, spans, board.now_ms, start_ms)


# --- keeping it ------------------------------------------------------------------------------------------------------


def settle_planned(board: Board, pools: Container[PoolId]) -> None:
    """At the start of a cycle: start what can start, give up what something has broken; the rest stays as it is.

    Only in these `pools`, those where something has changed, can a start have become possible or been broken, unless
    it is late.
    """
    for start in sorted(board.planned.values(), key=_when):
        is_late = board.now_ms > start.start_ms + LATE_MS
        if start.pool in pools and _may_start(board, start):
            job = board.state.jobs[start.job]
            board.place(job, start.pool, start.spans, (Charge(job.owner, job.spec.gpus),))
        elif is_late or (start.pool in pools and not _is_sound(board, start)):
            board.give_up_start(start)
        else:
            _look_when_late(board, start)


def _look_when_late(board: Board, start: PlannedStart) -> None:
    board.look_again_ms = min(board.look_again_ms, start.start_ms + LATE_MS + 1)


def _when(start: PlannedStart) -> tuple[int, int]:
    return start.start_ms, start.job


def _is_sound(board: Board, start: PlannedStart) -> bool:
    """True if its nodes and its owner's entitlement still stand, and nobody has reserved its GPUs."""
    job, occupancy = board.state.jobs[start.job], board.state.occupancy[start.pool]
    if not board.is_connected(start.pool) or board.account(job.owner, start.pool).due < job.spec.gpus:
        return False
    demand = board.rules.demand_of(job.owner, job.spec)
    if not board.state.policy.planned_starts or start.pool not in [fit.pool for fit in demand.home_fits]:
        return False
    return not any(
        occupancy.node_state(node) is not NodeState.UP or occupancy.reserved[node] & span.gpu_mask
        for span in start.spans
        for node in range(span.first, span.first + span.nodes)
    )


def _may_start(board: Board, start: PlannedStart) -> bool:
    """True if its GPUs and the entitlement are there now, and no start that is planned for sooner is delayed."""
    job, pool = board.state.jobs[start.job], start.pool
    if not all(map(board.free(pool).free_in, start.spans)) or not board.takes(pool, job.spec.gpus):
        return False
    account, is_strict = board.account(job.owner, pool), job.spec.queue in board.rules.strict
    if min(account.idle, board.home_room(job, pool)) < job.spec.gpus or job.id in board.reserved:
        return False
    if is_strict and board.state.queues[job.spec.queue].waiting[0][1] != job.id:
        return False
    sooner = [other for other in _in_the_way(board, job, pool, board.now_ms) if _when(other) < _when(start)]
    return not any(overlap(other.spans, start.spans) for other in sooner) and all(
        _left(board, other) >= job.spec.gpus for other in sooner if _owner(board, other) == job.owner
    )
