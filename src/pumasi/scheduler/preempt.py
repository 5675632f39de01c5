"""Preemption inside an owner, where a queue asks for it: waiting work stops running work of lower priority in it.

It comes last in a cycle, for what found no room at home nor on loan. The victims are home work of the same owner, in
the queue that asks for it or below, each of strictly lower priority: the lowest first, then who loses least work, no
more than shape and entitlement need. They get the notice and the protected time of their own owner's contract; what
they leave is reserved, as for a reclaim. Nothing is taken from other owners. A job that has made room as often as the
policy's `preemption_limit` says does so no more: however much goes before it, it comes to an end.
"""

from collections.abc import Iterator
from heapq import merge

from msgspec import Struct

from pumasi.events.facts import NodeState
from pumasi.model.ids import PoolId, QueueId, is_within
from pumasi.model.jobs import Span, StopCause
from pumasi.scheduler.backfill import leaves_holds
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.loans import kill_at_by_contract_ms, lost_gpu_milliseconds
from pumasi.scheduler.placement import asking, find, short, takes_more
from pumasi.scheduler.power import spare_gpus
from pumasi.scheduler.shapes import Fit, Need
from pumasi.state.freemap import FreeMap, indices
from pumasi.state.records import Job

LOOKS_MAX = 64  # different needs that one queue may ask for in a cycle


class _Room(Struct, frozen=True):
    """One way to make room: who stops, and where the claimant will sit. `lost`: their GPU-milliseconds of work."""

    pool: PoolId
    spans: tuple[Span, ...]
    victims: tuple[Job, ...]
    lost: int


def preempt_pass(board: Board) -> None:
    """Make room for waiting work in the queues that preempt."""
    for queue in board.rules.preempting:
        refused: dict[tuple[Demand, QueueId], Job] = {}
        for job in _waiting(board, queue):
            demand = board.rules.demand_of(job.owner, job.spec)
            key = (demand, job.spec.queue)
            if key not in refused and not _preempt(board, queue, job, demand):
                refused[key] = job
                if len(refused) >= LOOKS_MAX:
                    break
        if refused:
            _look_again(board, next(iter(refused.values())))


def _look_again(board: Board, first: Job) -> None:
    """What was placed in this very cycle can be no victim in it, and in the next it can."""
    placed = (board.state.jobs[job] for job in board.placed)
    if any(job.owner == first.owner and job.spec.priority < first.spec.priority for job in placed):
        board.look_again_ms = board.now_ms


def _waiting(board: Board, queue: QueueId) -> Iterator[Job]:
    """The waiting jobs of a queue and those below it that were not placed, the highest priority first."""
    for _, job_id in merge(*_lines(board, queue)):
        job = board.state.jobs[job_id]
        if job_id not in board.placed and job_id not in board.reserved and job.spec.begin_at_ms <= board.now_ms:
            yield job


def _lines(board: Board, queue: QueueId) -> Iterator[list[tuple[int, int]]]:
    record = board.state.queues[queue]
    if record.waiting:
        yield record.waiting
    for child in record.children:
        yield from _lines(board, child)


def _preempt(board: Board, scope: QueueId, job: Job, demand: Demand) -> bool:
    due_ms = board.now_ms + board.state.owners[job.owner].declared.lending.reclaim_window_seconds * 1000
    rooms = [
        room
        for fit in demand.home_fits
        if (room := _room(board, scope, job, fit)) is not None
        and leaves_holds(board, job, room.pool, room.spans, due_ms)
    ]
    if not rooms:
        return False
    best = min(rooms, key=lambda room: room.lost)
    for victim in best.victims:
        kill_at_ms = kill_at_by_contract_ms(board, victim.attempts[-1], job.owner)
        board.stop(victim, kill_at_ms, job.id, StopCause.PREEMPT)
    board.reserve(job, best.pool, best.spans, due_ms)
    return True


# --- who must go -----------------------------------------------------------------------------------------------------


def _room(board: Board, scope: QueueId, job: Job, fit: Fit) -> _Room | None:
    free = board.free(fit.pool)
    may_claim = board.is_connected(fit.pool) and not takes_more(free, fit.need)
    candidates = _candidates(board, scope, job, fit.pool) if may_claim else []
    branch = free.branch()
    chosen = _enough(board, job, fit, candidates, branch)
    victims = _pruned(board, job, fit, chosen, branch)
    spans = _find(free, branch, fit.need)
    if not victims or spans is None:
        return None
    return _Room(fit.pool, spans, tuple(victims), sum(lost_gpu_milliseconds(board, victim) for victim in victims))


def _candidates(board: Board, scope: QueueId, job: Job, pool: PoolId) -> list[Job]:
    """Who may be stopped for the job, the first to go first."""
    stopping, anchor = board.tenants(pool).stopping, _anchor(board, job.spec.queue, pool)
    limit = board.state.policy.preemption_limit
    found = []
    for other_id in board.state.active[pool]:
        other = board.state.jobs[other_id]
        queue = other.spec.queue
        lesser = other.spec.priority < job.spec.priority and other_id not in stopping and _is_home(board, other)
        if lesser and is_within(queue, scope) and other.preemptions < limit and _anchor(board, queue, pool) == anchor:
            found.append(other)
    return sorted(found, key=lambda other: (other.spec.priority, lost_gpu_milliseconds(board, other), other.id))


def _anchor(board: Board, queue: QueueId, pool: PoolId) -> QueueId:
    """The nearest queue, from this one upwards, that has a quota in the pool, or the root.

    Work makes room for other work under the same quota; whether it does elsewhere depends on what the quotas lend.
    """
    queues = board.state.queues
    while pool not in queues[queue].declared.quotas and (parent := queues[queue].parent) is not None:
        queue = parent
    return queue


def _is_home(board: Board, job: Job) -> bool:
    return all(charge.owner == job.owner for charge in board.tenants(job.attempts[-1].pool).charges(job))


def _missing(board: Board, job: Job, pool: PoolId) -> int:
    """GPUs that must come free, beside those that do already, before entitlement, quotas and power carry the job."""
    ending = board.ending_home(job.owner, pool)
    room = board.home_room(job, pool) + (ending if board.quotas(job.owner, pool) is None else _ending(board, job, pool))
    return job.spec.gpus - min(room, board.account(job.owner, pool).idle + ending, spare_gpus(board, pool))


def _ending(board: Board, job: Job, pool: PoolId) -> int:
    """GPUs of home work under the same quota as the job that come free already."""
    anchor, jobs = _anchor(board, job.spec.queue, pool), board.state.jobs
    own = [jobs[other] for other in board.tenants(pool).stopping if jobs[other].owner == job.owner]
    same = [other for other in own if _anchor(board, other.spec.queue, pool) == anchor and _is_home(board, other)]
    return sum(other.spec.gpus for other in same)


def _enough(board: Board, job: Job, fit: Fit, candidates: list[Job], branch: FreeMap) -> list[Job]:
    """The first of them whose end makes room; none if even all together make none. The branch gets their GPUs."""
    missing = _missing(board, job, fit.pool)
    for number, victim in enumerate(candidates, 1):
        _move(branch, board, victim, leaves=True)
        missing -= victim.spec.gpus
        is_worth_a_look = missing <= 0 and (number & (number - 1) == 0 or number == len(candidates))
        if is_worth_a_look and _find(board.free(fit.pool), branch, fit.need) is not None:
            return candidates[:number]
    return []


def _pruned(board: Board, job: Job, fit: Fit, chosen: list[Job], branch: FreeMap) -> list[Job]:
    """Those that the job does not do without, asked from the last to go; the branch keeps only their GPUs."""
    missing = _missing(board, job, fit.pool) - sum(victim.spec.gpus for victim in chosen)
    kept = []
    for victim in reversed(chosen):
        _move(branch, board, victim, leaves=False)
        if missing + victim.spec.gpus > 0 or _find(board.free(fit.pool), branch, fit.need) is None:
            _move(branch, board, victim, leaves=True)
            kept.append(victim)
        else:
            missing += victim.spec.gpus
    return kept[::-1]


def _find(now: FreeMap, then: FreeMap, need: Need) -> tuple[Span, ...] | None:
    """Where the job sits once some have left, what is free `then`.

    Where one who stays takes more than the share of its GPUs only what is free `now` counts: what leaves may have less.
    """
    if not then.tight:
        return find(then, need)
    sure, needed = then.branch(), need.with_share
    lacking = short(now, needed, then.tight)
    sure.take_free(
        Span(node, 1, now.full_mask if lacking >> node & 1 else now.full_mask & ~now.masks[node])
        for node in indices(then.tight)
    )
    spans = find(sure, needed)
    return None if spans is None else asking(spans, need)


def _move(branch: FreeMap, board: Board, victim: Job, *, leaves: bool) -> None:
    """Give to a map, or take from it, what a victim leaves to others: on sound nodes, and held by nobody."""
    step = branch.give if leaves else branch.take
    attempt = victim.attempts[-1]
    tenants, states = board.tenants(attempt.pool), board.state.occupancy[attempt.pool].node_states
    for span in attempt.spans:
        for node in range(span.first, span.first + span.nodes):
            mask = span.gpu_mask & ~tenants.held.get(node, 0)
            if mask and states.get(node, NodeState.UP) is NodeState.UP:
                step(Span(node, 1, mask))
                branch.note(Span(node, 1, span.gpu_mask, span.cpus, span.memory_mib), -1 if leaves else 1)
