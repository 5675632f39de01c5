"""Reservations made in advance, when their time comes: they begin and end."""

from collections.abc import Iterator

from pumasi.control.mailboxes import BY_RESERVATION
from pumasi.events.facts import (
    AdvanceReservationBegan,
    AdvanceReservationEnded,
    AdvanceReservationState,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    Event,
    JobSubmitted,
    NodeChanged,
    NodeState,
)
from pumasi.model.jobs import OUTCOME_OF_STOP, PRIORITY_MAX, Charge, JobSpec, JobState, Outcome, StopCause
from pumasi.model.reservations import AdvanceReservation, ReservationPurpose
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import AdvanceRecord

_SCRIPT = "# These GPUs are handed over: no engine runs anything on them.\n"


def in_turn(state: FleetState) -> list[AdvanceRecord]:
    """All reservations, those that may begin last: their nodes may still be held by one that ends."""
    return sorted(state.advance_reservations.values(), key=lambda each: each.state is AdvanceReservationState.SCHEDULED)


def due(state: FleetState, record: AdvanceRecord, now_ms: int) -> tuple[Event, ...]:
    """What follows for a reservation now: it begins or ends, or nothing."""
    declared = record.declared
    by = BY_RESERVATION + declared.id
    is_lost = bool(record.job) and record.job not in state.jobs
    if now_ms >= declared.end_ms or is_lost or _is_stopped(state, record, now_ms):
        return tuple(end(state, record, now_ms, by))
    if record.state is AdvanceReservationState.SCHEDULED and now_ms >= declared.start_ms:
        return tuple(_begin(state, declared, now_ms, by))
    return ()


def _begin(state: FleetState, declared: AdvanceReservation, now_ms: int, by: str) -> Iterator[Event]:
    if declared.purpose is ReservationPurpose.HAND_OVER:
        if _may_be_handed_over(state, declared):
            yield from _hand_over(state, declared, now_ms, by)
        return
    yield AdvanceReservationBegan(at_ms=now_ms, by=by, reservation=declared.id)
    if declared.purpose is ReservationPurpose.MAINTENANCE:
        drained, occupancy = NodeState.DRAINED, state.occupancy[declared.pool]
        for node in _nodes(declared):
            if occupancy.node_state(node) is NodeState.UP:
                yield NodeChanged(at_ms=now_ms, by=by, pool=declared.pool, node=node, state=drained, reason=by)


def _may_be_handed_over(state: FleetState, declared: AdvanceReservation) -> bool:
    """True if its GPUs are free and its owner's entitlement carries them; if not, it begins late."""
    account = state.books[declared.pool].get(declared.owner)
    is_free = all(map(state.occupancy[declared.pool].free.free_in, declared.spans))
    return is_free and account is not None and account.idle >= declared.gpus


def _hand_over(state: FleetState, declared: AdvanceReservation, now_ms: int, by: str) -> Iterator[Event]:
    """A job of its own stands for the GPUs, so that they are counted and charged like all others."""
    job = state.next_job
    spec = JobSpec(
        name=declared.id,
        queue=declared.queue,
        script=_SCRIPT,
        gpus=declared.gpus,
        slice=state.pools[declared.pool].declared.slice,
        pools=(declared.pool,),
        time_limit_seconds=-(-(declared.end_ms - now_ms) // 1000),
        priority=PRIORITY_MAX,  # no work of its owner makes it give way
        stays_home=True,
        requeue=False,
    )
    charges = (Charge(declared.owner, declared.gpus),)
    yield AdvanceReservationBegan(at_ms=now_ms, by=by, reservation=declared.id, job=job)
    yield JobSubmitted(at_ms=now_ms, by=by, job=job, spec=spec)
    yield AttemptPlaced(
        at_ms=now_ms,
        by=by,
        job=job,
        attempt=1,
        queue=declared.queue,
        pool=declared.pool,
        spans=declared.spans,
        charges=charges,
    )
    yield AttemptStarted(at_ms=now_ms, by=by, job=job, attempt=1)


def _is_stopped(state: FleetState, record: AdvanceRecord, now_ms: int) -> bool:
    """True once its notice is over; who cancels the job gives the servers back and needs none."""
    stop = state.jobs[record.job].attempts[-1].stop if record.job in state.jobs else None
    return stop is not None and (stop.cause is StopCause.CANCEL or now_ms >= stop.kill_at_ms)


def end(state: FleetState, record: AdvanceRecord, now_ms: int, by: str) -> Iterator[Event]:
    """What it held is for all again: the job that stood for it ends, the nodes it drained take work.

    One that has not begun holds nothing yet, and is cancelled.
    """
    declared, job = record.declared, state.jobs.get(record.job)
    if job is not None and job.live is not None:
        stop = job.live.stop
        outcome = OUTCOME_OF_STOP[stop.cause] if stop else Outcome.COMPLETED
        becomes = JobState.CANCELLED if stop else JobState.SUCCEEDED
        yield AttemptEnded(at_ms=now_ms, by=by, job=job.id, attempt=job.live.number, outcome=outcome, job_state=becomes)
    for node in _nodes(declared):
        if state.node_reasons.get((declared.pool, node)) == BY_RESERVATION + declared.id:
            yield NodeChanged(at_ms=now_ms, by=by, pool=declared.pool, node=node, state=NodeState.UP)
    has_begun = record.state is not AdvanceReservationState.SCHEDULED
    becomes_now = AdvanceReservationState.ENDED if has_begun else AdvanceReservationState.CANCELLED
    yield AdvanceReservationEnded(at_ms=now_ms, by=by, reservation=declared.id, state=becomes_now)


def _nodes(declared: AdvanceReservation) -> Iterator[int]:
    for span in declared.spans:
        yield from range(span.first, span.first + span.nodes)
