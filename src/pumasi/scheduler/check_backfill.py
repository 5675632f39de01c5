"""The judge's rules about planned starts: each can be kept, and nothing that is started delays one."""

from collections.abc import Iterator

from pumasi.events.facts import AttemptPlaced, StartPlanned
from pumasi.model.ids import queue_owner
from pumasi.model.jobs import Span
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job, PlannedStart


def planned_well(state: FleetState, event: StartPlanned) -> Iterator[str]:
    """By time limits, all the GPUs are free at the planned start, and the owner's entitlement carries it."""
    job = state.jobs[event.job]
    start = PlannedStart(job.id, event.pool, event.spans, event.at_ms, event.start_ms)
    others = _planned(state, event.pool)
    for node, gpu in _gpus(event.spans):
        holder = state.occupancy[event.pool].holder(node, gpu)
        if holder and _end_ms(state.jobs[holder]) > event.start_ms:
            yield f"job {event.job} is to start on node {node}, where job {holder} may still run"
        if any(_meet(state, other, start) and (node, gpu) in set(_gpus(other.spans)) for other in others):
            yield f"job {event.job} is to start on node {node}, which is promised already"
    for other in (start, *others):
        if state.jobs[other.job].owner == job.owner and _left_at(state, other, [*others, start]) < 0:
            yield f"job {event.job} is to start at {event.start_ms}, and job {other.job} then has too few GPUs"


def _meet(state: FleetState, one: PlannedStart, other: PlannedStart) -> bool:
    return one.start_ms < _last_ms(state, other) and other.start_ms < _last_ms(state, one)


def delays(state: FleetState, event: AttemptPlaced) -> Iterator[str]:
    """What a placement does to the planned starts of its own owner and, if it borrows, of everyone."""
    job = state.jobs[event.job]
    until_ms = event.at_ms + job.spec.time_limit_seconds * 1000
    for start in _binding(state, job, event):
        if start.start_ms >= until_ms:
            continue
        if set(_gpus(start.spans)) & set(_gpus(event.spans)):
            yield f"job {job.id} may hold GPUs that job {start.job} is to start on before it is gone"
        owner = state.jobs[start.job].owner
        taken = sum(charge.gpus for charge in event.charges if charge.owner == owner)
        if taken > max(0, _left_at(state, start, _planned(state, event.pool))):
            yield f"job {job.id} takes the entitlement that job {start.job} is to start on"


def _binding(state: FleetState, job: Job, event: AttemptPlaced) -> list[PlannedStart]:
    """A job that starts as planned is bound by what was to start before it, any other by all."""
    is_loan = any(charge.owner != queue_owner(event.queue) for charge in event.charges)
    starts = [start for start in _planned(state, event.pool) if is_loan or state.jobs[start.job].owner == job.owner]
    mine = state.planned.get(job.id)
    if mine is None or (mine.pool, mine.spans) != (event.pool, event.spans):
        return [start for start in starts if start.job != job.id]
    return [start for start in starts if (start.start_ms, start.job) < (mine.start_ms, mine.job)]


def _planned(state: FleetState, pool: str) -> list[PlannedStart]:
    return [start for start in state.planned.values() if start.pool == pool]


def may_be_held_back(state: FleetState, job: Job, pool: str, now_ms: int) -> bool:
    """True if there is a planned start in the pool that the job could delay."""
    until_ms = now_ms + job.spec.time_limit_seconds * 1000
    return any(
        start.pool == pool and start.job != job.id and start.start_ms < until_ms for start in state.planned.values()
    )


def _left_at(state: FleetState, start: PlannedStart, planned: list[PlannedStart]) -> int:
    """GPUs of its owner's entitlement that nobody needs at a planned start, if all that is planned is kept."""
    owner, pool = state.jobs[start.job].owner, start.pool
    account = state.books[pool].get(owner)
    live = [state.jobs[job] for job in state.active[pool] if _end_ms(state.jobs[job]) <= start.start_ms]
    back = sum(charge.gpus for job in live for charge in job.attempts[-1].charges if charge.owner == owner)
    needed = sum(
        state.jobs[other.job].spec.gpus
        for other in planned
        if state.jobs[other.job].owner == owner and other.start_ms <= start.start_ms < _last_ms(state, other)
    )
    return (account.idle if account else 0) + back - needed


def _last_ms(state: FleetState, start: PlannedStart) -> int:
    return start.start_ms + state.jobs[start.job].spec.time_limit_seconds * 1000


def _end_ms(job: Job) -> int:
    attempt = job.attempts[-1]
    limit_ms = (attempt.started_ms or attempt.placed_ms) + job.spec.time_limit_seconds * 1000
    return min(limit_ms, attempt.stop.kill_at_ms) if attempt.stop else limit_ms


def _gpus(spans: tuple[Span, ...]) -> Iterator[tuple[int, int]]:
    for span in spans:
        for node in range(span.first, span.first + span.nodes):
            for gpu in range(span.gpu_mask.bit_length()):
                if span.gpu_mask >> gpu & 1:
                    yield node, gpu
