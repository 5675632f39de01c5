"""Backfill with planned starts: a job that must wait is promised exact GPUs from a moment on.

The moment goes by the time limits of what runs and by the starts planned before. Until then the GPUs are for whatever
is gone by that moment: nothing that its own owner starts there, and nothing that is lent, may hold them longer, nor the
entitlement the start counts on. The job starts on them as soon as they are free, or elsewhere sooner. A start is
planned anew if a fault, a claim or lateness breaks it. Home work of other owners goes around it where it can, but their
entitlement is theirs.
"""

from collections.abc import Container
from heapq import heapify, heappop, heappush

import numpy as np

from pumasi.events.facts import NodeState
from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import Charge, Span, overlap
from pumasi.model.reservations import AdvanceReservation
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.outlook import NEVER_MS, Outlook, map_at, shape_ms
from pumasi.scheduler.placement import find, is_still_asked, rest_of, takes_more
from pumasi.scheduler.quotas import NO_LIMIT
from pumasi.scheduler.shapes import Fit
from pumasi.state.records import Job, PlannedStart

Hold = PlannedStart | AdvanceReservation

LATE_MS = 300_000  # engines may take so long to start or end a run before a planned start counts as broken


# --- going around planned starts -------------------------------------------------------------------------------------


def find_around(board: Board, job: Job, fit: Fit, *, is_home: bool) -> tuple[Span, ...] | None:
    """Where the job sits best without delaying a planned start or reaching into a reservation; None if nowhere.

    Home work may sit where another owner's start is planned, if it fits nowhere else. Notes who is held back.
    """
    promised = promised_nodes(board, fit)
    if not (promised or board.has_holds(fit.pool)):
        return find(board.free(fit.pool), fit.need, board.mix(fit))
    spans = _find_inside(board, job, fit) or find(board.free(fit.pool), fit.need, board.mix(fit))
    in_the_way = [] if spans is None else _in_the_way(board, job, fit.pool, board.now_ms)
    if spans is None or not (promised or in_the_way):
        return spans
    found = _find_beside(board, fit, spans, [*promised, *[hold.spans for hold in in_the_way]])
    if found is None and is_home:
        binding = [hold.spans for hold in in_the_way if _is_binding(board, hold, job)]
        found = _find_beside(board, fit, spans, [*promised, *binding])
    if found is None:
        board.hold_back(job, fit.pool)
    return found


def _find_inside(board: Board, job: Job, fit: Fit) -> tuple[Span, ...] | None:
    """Where the job sits on GPUs that are reserved for its queue now; None if none are, or have room."""
    for award in board.admitting(job.spec.queue, fit.pool):
        free = board.shadow(fit.pool, (rest_of(board.free(fit.pool), award.spans),))
        found = find(free, fit.need, board.mix(fit))
        if found is not None:
            return found
    return None


def _in_the_way(board: Board, job: Job, pool: PoolId, from_ms: int) -> list[Hold]:
    """Others' planned starts in a pool and reservations that come before the job, running from then on, is over."""
    until_ms = from_ms + job.spec.time_limit_seconds * 1000
    return [
        hold
        for hold in _holds(board, job, pool)
        if hold.start_ms < until_ms and not (isinstance(hold, PlannedStart) and hold.job == job.id)
    ]


def _holds(board: Board, job: Job, pool: PoolId) -> list[Hold]:
    """All that is promised in a pool to others than the job's queue, and the planned starts of that as well."""
    return [*board.planned_in(pool), *board.barring(job.spec.queue, NEVER_MS, pool)]


def promised_nodes(board: Board, fit: Fit) -> list[tuple[Span, ...]]:
    """The nodes where anything is promised, whole, if the job takes more than the share of its GPUs.

    What is promised are GPUs with their share of the rest, and what leaves them may have less than that.
    """
    need = fit.need
    if not (need.cpus or need.memory_mib) or not takes_more(free := board.free(fit.pool), need):
        return []
    promised = [start.spans for start in board.planned_in(fit.pool)]
    promised += [held.spans for held in board.reserved.values() if held.pool == fit.pool]
    return [tuple([Span(span.first, span.nodes, free.full_mask) for span in spans]) for spans in promised]


def _find_beside(
    board: Board, fit: Fit, spans: tuple[Span, ...], held: list[tuple[Span, ...]]
) -> tuple[Span, ...] | None:
    """These spans if nothing of them is held, or else others of which nothing is."""
    if not any(overlap(each, spans) for each in held):
        return spans
    return find(board.shadow(fit.pool, tuple(held)), fit.need, board.mix(fit))


def leaves_holds(board: Board, job: Job, pool: PoolId, spans: tuple[Span, ...], from_ms: int) -> bool:
    """True if a job that runs there from then on at home leaves every planned start and reservation what it needs.

    Planned starts on the GPUs themselves may give way, reservations do not.
    """
    if unpromised(board, job, pool, job.owner, from_ms) < job.spec.gpus:
        return False
    return not any(
        isinstance(hold, AdvanceReservation) and overlap(hold.spans, spans)
        for hold in _in_the_way(board, job, pool, from_ms)
    )


def unpromised(board: Board, job: Job, pool: PoolId, owner: OwnerId, from_ms: int) -> int:
    """GPUs of an owner's entitlement that the job may hold from then on and leave what is promised on it."""
    if not board.has_holds(pool):
        return NO_LIMIT
    binding = [hold for hold in _in_the_way(board, job, pool, from_ms) if _owner(board, hold) == owner]
    return min((_left_by(board, job, hold) for hold in binding), default=NO_LIMIT)


def unpromised_by_moment(board: Board, pool: PoolId, owner: OwnerId) -> list[tuple[int, int]]:
    """When each thing comes that is promised on an owner's entitlement in a pool, and how many GPUs it leaves."""
    if not board.has_holds(pool):
        return []
    holds: list[Hold] = [*board.planned_in(pool), *board.barring("", NEVER_MS, pool)]
    return [(hold.start_ms, _left(board, hold, holds)) for hold in holds if _owner(board, hold) == owner]


def _left_by(board: Board, job: Job, hold: Hold) -> int:
    """What a hold of others leaves that the job may have."""
    holds = _holds(board, job, hold.pool)
    return _left(board, hold, [each for each in holds if not isinstance(each, PlannedStart) or each.job != job.id])


def _left(board: Board, hold: Hold, holds: list[Hold]) -> int:
    """GPUs of the entitlement that nobody needs when a hold comes, by time limits and by what others are to get."""
    owner, at_ms = _owner(board, hold), hold.start_ms
    left = board.account(owner, hold.pool).idle + board.outlook(hold.pool).returned_gpus(owner, at_ms)
    for other in holds:
        if _owner(board, other) == owner and other.start_ms <= at_ms < _end_ms(board, other):
            left -= _needed_gpus(board, other)
    return left


def _is_binding(board: Board, hold: Hold, job: Job) -> bool:
    """True if even home work must leave it alone: a reservation, or a start planned for the same owner."""
    return isinstance(hold, AdvanceReservation) or _owner(board, hold) == job.owner


def _owner(board: Board, hold: Hold) -> OwnerId:
    return hold.owner if isinstance(hold, AdvanceReservation) else board.state.jobs[hold.job].owner


def _end_ms(board: Board, hold: Hold) -> int:
    if isinstance(hold, AdvanceReservation):
        return hold.end_ms
    return hold.start_ms + board.state.jobs[hold.job].spec.time_limit_seconds * 1000


def _needed_gpus(board: Board, hold: Hold) -> int:
    """What it needs of the entitlement: of an award, what its queue will not use already when it comes."""
    if isinstance(hold, PlannedStart):
        return board.state.jobs[hold.job].spec.gpus
    ends_ms = board.outlook(hold.pool).gpu_ends_ms
    return sum(int((ends_ms[span.first : span.first + span.nodes] <= hold.start_ms).sum()) for span in hold.spans)


# --- planning a start ------------------------------------------------------------------------------------------------


def plan_start(board: Board, job: Job, demand: Demand) -> None:
    """Promise a job that found no room its start at home, in the pool where it comes first, if there is a slot left.

    A job of one GPU needs no promise: nothing is smaller. Jobs that need the same get theirs one after the other.
    """
    if job.spec.gpus < 2 or board.has_planned(demand.key):
        return
    start = _earliest(board, job, [fit for fit in demand.home_fits if _may_plan_in(board, job, fit)])
    if start is not None:
        board.plan_start(start)
        _look_when_late(board, start)


def _may_plan_in(board: Board, job: Job, fit: Fit) -> bool:
    pool = fit.pool
    is_open = (
        has_slot(board, job.owner, pool) and board.is_connected(pool) and not takes_more(board.free(pool), fit.need)
    )
    return is_open and not board.is_queue_bound(job, pool) and board.home_most(job, pool) >= job.spec.gpus


def may_plan_start(board: Board, demand: Demand) -> bool:
    """False only if no job of the demand can be promised a start in this cycle."""
    owner, gpus = demand.owner, demand.spec.gpus
    return (
        gpus > 1
        and not board.has_planned(demand.key)
        and any(
            board.account(owner, fit.pool).due >= gpus and has_slot(board, owner, fit.pool) for fit in demand.home_fits
        )
    )


def has_slot(board: Board, owner: OwnerId, pool: PoolId) -> bool:
    """True if one more start may be planned for the owner in the pool."""
    planned = sum(_owner(board, start) == owner for start in board.planned_in(pool))
    return planned < board.state.policy.planned_starts


def _earliest(board: Board, job: Job, fits: list[Fit]) -> PlannedStart | None:
    """The first moment at which the gang has its shape and its owner's entitlement carries it, and where.

    The pools are searched best first: close looks only where, by the entitlement alone, no other may come sooner.
    """
    ahead: list[tuple[int, int, Fit, Outlook | None]] = []  # from when at the earliest; by what, once that is sure
    for fit in fits:
        missing = job.spec.gpus - board.account(job.owner, fit.pool).idle
        returned_ms = board.outlook(fit.pool).entitled_ms(job.owner, missing)
        ahead.append((max(returned_ms, board.now_ms), fit.position, fit, None))
    heapify(ahead)
    while ahead and ahead[0][0] < NEVER_MS:
        start_ms, position, fit, outlook = heappop(ahead)
        free = board.free(fit.pool)
        if outlook is None:
            outlook, idle = _when_all_is_kept(board, job, fit.pool)
            carried_ms = outlook.entitled_ms(job.owner, job.spec.gpus - idle)
            shaped_ms = shape_ms(outlook.gpu_ends_ms, fit.need, free)
            heappush(ahead, (max(start_ms, carried_ms, shaped_ms), position, fit, outlook))
        elif (spans := find(map_at(outlook.gpu_ends_ms, start_ms, free), fit.need)) is not None:
            return PlannedStart(job.id, fit.pool, spans, board.now_ms, start_ms)
    return None


def _when_all_is_kept(board: Board, job: Job, pool: PoolId) -> tuple[Outlook, int]:
    """What comes free for a job in a pool beside all that is promised there, and what its owner then has idle now."""
    outlook, idle = board.outlook(pool).branch(), board.account(job.owner, pool).idle
    holds = sorted(_holds(board, job, pool), key=lambda hold: _end_ms(board, hold))  # the last end of each GPU counts
    for number, hold in enumerate(holds, 1):
        charge = Charge(_owner(board, hold), _needed_gpus(board, hold))
        outlook.enter(-number, _end_ms(board, hold), hold.spans, (charge,) if charge.owner else ())
        idle -= charge.gpus if charge.owner == job.owner else 0
    for reservation in board.reserved.values():
        if reservation.pool == pool:
            outlook.close(reservation.spans)
    for node, state in board.state.occupancy[pool].node_states.items():
        if state is not NodeState.UP:
            outlook.close((Span(node, 1, board.free(pool).full_mask),))
    outlook.gpu_ends_ms = np.maximum(outlook.gpu_ends_ms, board.outlook(pool).gpu_ends_ms)  # who is in may stay on
    if board.free(pool).tight:
        outlook.keep_rest(board.free(pool))
    return outlook, idle


# --- keeping it ------------------------------------------------------------------------------------------------------


def settle_planned(board: Board, pools: Container[PoolId]) -> None:
    """At the start of a cycle: start what can start, give up what something has broken; the rest stays as it is.

    Only in these `pools`, those where something has changed, can a start have become possible or been broken, unless
    it is late.
    """
    for start in sorted(board.planned.values(), key=_when):
        is_late = board.now_ms > start.start_ms + LATE_MS
        if start.pool in pools and _may_start(board, start):
            _start(board, start)
        elif is_late or (start.pool in pools and not _is_sound(board, start)):
            board.give_up_start(start)
        else:
            _look_when_late(board, start)


def start_planned(board: Board, pools: Container[PoolId]) -> None:
    """Within a cycle: start what can start in these pools now that others planned there are gone."""
    for start in sorted(board.planned.values(), key=_when):
        if start.pool in pools and _may_start(board, start):
            _start(board, start)


def _start(board: Board, start: PlannedStart) -> None:
    job = board.state.jobs[start.job]
    board.place(job, start.pool, start.spans, (Charge(job.owner, job.spec.gpus),))


def _look_when_late(board: Board, start: PlannedStart) -> None:
    board.look_again_ms = min(board.look_again_ms, start.start_ms + LATE_MS + 1)


def _when(start: PlannedStart) -> tuple[int, int]:
    return start.start_ms, start.job


def _is_sound(board: Board, start: PlannedStart) -> bool:
    """True if its nodes and its owner's entitlement still stand, and nobody has reserved its GPUs."""
    job, occupancy = board.state.jobs[start.job], board.state.occupancy[start.pool]
    if not board.is_connected(start.pool) or board.account(job.owner, start.pool).due < job.spec.gpus:
        return False
    if not board.state.policy.planned_starts or not _is_still_asked(board, start):
        return False
    end_ms = _end_ms(board, start)
    if any(
        hold.end_ms > start.start_ms and overlap(hold.spans, start.spans)
        for hold in board.barring(job.spec.queue, end_ms, start.pool)
    ):
        return False
    return not any(
        occupancy.node_state(node) is not NodeState.UP or occupancy.reserved[node] & span.gpu_mask
        for span in start.spans
        for node in range(span.first, span.first + span.nodes)
    )


def _is_still_asked(board: Board, start: PlannedStart) -> bool:
    """True if its pool may still be its job's home, and the job takes there what it was promised."""
    job = board.state.jobs[start.job]
    needs = [fit.need for fit in board.rules.demand_of(job.owner, job.spec).home_fits if fit.pool == start.pool]
    return bool(needs) and is_still_asked(board.free(start.pool), start.spans, needs[0])


def _may_start(board: Board, start: PlannedStart) -> bool:
    """True if its GPUs and the entitlement are there now, and no start that is planned for sooner is delayed."""
    job, pool = board.state.jobs[start.job], start.pool
    if not all(map(board.free(pool).free_in, start.spans)) or not board.takes(pool, job.spec.gpus):
        return False
    if not _is_still_asked(board, start):
        return False
    account, is_strict = board.account(job.owner, pool), job.spec.queue in board.rules.strict
    if min(account.idle, board.home_room(job, pool)) < job.spec.gpus or job.id in board.reserved:
        return False
    if is_strict and board.state.queues[job.spec.queue].waiting[0][1] != job.id:
        return False
    sooner = [
        hold
        for hold in _in_the_way(board, job, pool, board.now_ms)
        if isinstance(hold, AdvanceReservation) or _when(hold) < _when(start)
    ]
    return not any(overlap(hold.spans, start.spans) for hold in sooner) and all(
        _left_by(board, job, hold) >= job.spec.gpus for hold in sooner if _owner(board, hold) == job.owner
    )
