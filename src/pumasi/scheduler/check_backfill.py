"""The judge's rules about what is promised: it can be kept, and nothing that is started delays it."""

from collections.abc import Iterator

from msgspec import Struct

from pumasi.events.facts import AttemptPlaced, StartPlanned
from pumasi.model.ids import JobId, OwnerId, QueueId, queue_owner
from pumasi.model.jobs import Span
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job, PlannedStart


class _Promise(Struct, frozen=True):
    """GPUs, and `gpus` of an owner's entitlement ("" for nobody's), in a span of time. `job`: 0 for a reservation."""

    what: str
    owner: OwnerId
    gpus: int
    spans: tuple[Span, ...]
    start_ms: int
    end_ms: int
    job: JobId = 0


def planned_well(state: FleetState, event: StartPlanned) -> Iterator[str]:
    """By time limits, all the GPUs are free at the planned start, and the owner's entitlement carries it."""
    job = state.jobs[event.job]
    start = _planned(state, PlannedStart(job.id, event.pool, event.spans, event.at_ms, event.start_ms))
    others = _promises(state, job.spec.queue, event.pool)
    for node, gpu in _gpus(event.spans):
        holder = state.occupancy[event.pool].holder(node, gpu)
        if holder and end_ms(state.jobs[holder]) > event.start_ms:
            yield f"job {event.job} is to start on node {node}, where job {holder} may still run"
        if any(_meet(other, start) and (node, gpu) in set(_gpus(other.spans)) for other in others):
            yield f"job {event.job} is to start on node {node}, which is promised already"
    for other in (start, *[other for other in others if other.owner == job.owner]):
        before = _left_at(state, event.pool, other, others)
        if _left_at(state, event.pool, other, [*others, start]) < min(0, before):
            yield f"job {event.job} is to start at {event.start_ms}, and {other.what} has too few GPUs"


def _meet(one: _Promise, other: _Promise) -> bool:
    return one.start_ms < other.end_ms and other.start_ms < one.end_ms


def delays(state: FleetState, event: AttemptPlaced, claimed_due_ms: int | None) -> Iterator[str]:
    """What a placement does to reservations, to the planned starts of its own owner and, if it borrows, of everyone.

    What was claimed starts when it can, whatever a fault has left of the entitlement that planned starts count on, and
    although it is late, where that takes it into the time of a reservation. `claimed_due_ms`: when it was due.
    """
    job = state.jobs[event.job]
    from_ms = event.at_ms if claimed_due_ms is None else min(event.at_ms, claimed_due_ms)
    until_ms = from_ms + job.spec.time_limit_seconds * 1000
    promises = [each for each in _promises(state, job.spec.queue, event.pool) if each.job != job.id]
    for promise in _binding(state, job, event, promises):
        if promise.start_ms >= until_ms or (claimed_due_ms is not None and promise.job):
            continue
        if set(_gpus(promise.spans)) & set(_gpus(event.spans)):
            yield f"job {job.id} may still hold GPUs when {promise.what} is to have them"
        taken = sum(charge.gpus for charge in event.charges if charge.owner == promise.owner)
        if taken > max(0, _left_at(state, event.pool, promise, promises)):
            yield f"job {job.id} takes the entitlement that {promise.what} is to have"


def _binding(state: FleetState, job: Job, event: AttemptPlaced, promises: list[_Promise]) -> list[_Promise]:
    """A job that starts as planned is bound by what was to start before it, any other by all."""
    is_loan = any(charge.owner != queue_owner(event.queue) for charge in event.charges)
    binding = [each for each in promises if is_loan or not each.job or each.owner == job.owner]
    mine = state.planned.get(job.id)
    if mine is None or (mine.pool, mine.spans) != (event.pool, event.spans):
        return binding
    return [each for each in binding if not each.job or (each.start_ms, each.job) < (mine.start_ms, mine.job)]


def _promises(state: FleetState, queue: QueueId, pool: str) -> list[_Promise]:
    """The planned starts in a pool, and the reservations that are not for a queue; what is handed over is a job."""
    promises = [_planned(state, start) for start in state.planned.values() if start.pool == pool]
    for record in state.advance_reservations.values():
        made = record.declared
        if made.pool == pool and not record.job and not made.admits(queue):
            free = [gpu for gpu in _gpus(made.spans) if _is_free_at(state, pool, gpu, made.start_ms)]
            what = f"reservation {made.id}"
            promises.append(_Promise(what, made.owner, len(free), made.spans, made.start_ms, made.end_ms))
    return promises


def _planned(state: FleetState, start: PlannedStart) -> _Promise:
    job = state.jobs[start.job]
    until_ms = start.start_ms + job.spec.time_limit_seconds * 1000
    return _Promise(f"job {job.id}", job.owner, job.spec.gpus, start.spans, start.start_ms, until_ms, job.id)


def _is_free_at(state: FleetState, pool: str, gpu: tuple[int, int], at_ms: int) -> bool:
    holder = state.occupancy[pool].holder(*gpu)
    return not holder or end_ms(state.jobs[holder]) <= at_ms


def may_be_held_back(state: FleetState, job: Job, pool: str, now_ms: int) -> bool:
    """True if there is a planned start or a reservation in the pool that the job could delay."""
    until_ms = now_ms + job.spec.time_limit_seconds * 1000
    promises = _promises(state, job.spec.queue, pool)
    return any(promise.start_ms < until_ms and promise.job != job.id for promise in promises)


def _left_at(state: FleetState, pool: str, promise: _Promise, promises: list[_Promise]) -> int:
    """GPUs of its owner's entitlement that nobody needs when it comes, if all promises are kept."""
    owner = promise.owner
    account = state.books[pool].get(owner)
    live = [state.jobs[job] for job in state.active[pool] if end_ms(state.jobs[job]) <= promise.start_ms]
    back = sum(charge.gpus for job in live for charge in job.attempts[-1].charges if charge.owner == owner)
    meanwhile = [each for each in promises if each.owner == owner and each.start_ms <= promise.start_ms < each.end_ms]
    return (account.idle if account else 0) + back - sum(each.gpus for each in meanwhile)


def end_ms(job: Job) -> int:
    """When a live job ends at the latest."""
    attempt = job.attempts[-1]
    limit_ms = (attempt.started_ms or attempt.placed_ms) + job.spec.time_limit_seconds * 1000
    return min(limit_ms, attempt.stop.kill_at_ms) if attempt.stop else limit_ms


def _gpus(spans: tuple[Span, ...]) -> Iterator[tuple[int, int]]:
    for span in spans:
        for node in range(span.first, span.first + span.nodes):
            for gpu in range(span.gpu_mask.bit_length()):
                if span.gpu_mask >> gpu & 1:
                    yield node, gpu
