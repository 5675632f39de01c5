"""Reservations made in advance: made and deleted by operators, begun and ended when their time comes."""

from collections.abc import Iterator

from pumasi.control.commands import DeleteReservation, MakeReservation
from pumasi.control.decisions import Answer, Decision
from pumasi.control.mailboxes import BY_RESERVATION
from pumasi.control.refusals import Refusal, RefusalKind, not_found
from pumasi.events.facts import (
    AdvanceReservationBegan,
    AdvanceReservationEnded,
    AdvanceReservationMade,
    AdvanceReservationState,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    Event,
    JobSubmitted,
    NodeChanged,
    NodeState,
)
from pumasi.model.hostlist import node_name
from pumasi.model.ids import queue_owner
from pumasi.model.jobs import OUTCOME_OF_STOP, PRIORITY_MAX, Charge, JobSpec, JobState, Outcome, Span
from pumasi.model.reservations import AdvanceReservation, ReservationPurpose
from pumasi.scheduler.advance import Window, free_nodes, these_nodes
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import AdvanceRecord

_SCRIPT = "# These GPUs are handed over: no engine runs anything on them.\n"


def make(state: FleetState, command: MakeReservation, now_ms: int) -> Answer:
    """Reserve nodes that are free by then; refused with the reason if they are not."""
    fault = _fault(state, command, now_ms)
    if fault is not None:
        return fault
    start_ms = command.start_ms or now_ms
    window = Window(
        pool=command.pool,
        start_ms=start_ms,
        end_ms=start_ms + command.duration_seconds * 1000,
        owner=queue_owner(command.queue),
        ignores_running=command.ignore_running,
    )
    spans = _nodes_for(state, command, window)
    if isinstance(spans, str):
        return Refusal(kind=RefusalKind.CONFLICT, code="reservation-no-room", detail=spans)
    made = AdvanceReservation(
        id=command.name,
        purpose=command.purpose,
        pool=command.pool,
        spans=spans,
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        queue=command.queue,
        reason=command.reason,
    )
    return Decision((AdvanceReservationMade(at_ms=now_ms, by=command.by, reservation=made),))


def _nodes_for(state: FleetState, command: MakeReservation, window: Window) -> tuple[Span, ...] | str:
    if command.node_indices:
        return these_nodes(state, window, command.node_indices)
    return free_nodes(state, window, command.nodes or command.gpus // state.pools[command.pool].declared.gpus_per_node)


def _fault(state: FleetState, command: MakeReservation, now_ms: int) -> Refusal | None:
    if command.pool not in state.pools:
        return not_found("pool", command.pool)
    if command.queue and command.queue not in state.queues:
        return not_found("queue", command.queue)
    if command.name in state.advance_reservations:
        detail = f"there is a reservation {command.name} already"
        return Refusal(kind=RefusalKind.CONFLICT, code="reservation-exists", detail=detail)
    declared = state.pools[command.pool].declared
    strange = next((node for node in command.node_indices if not 0 <= node < declared.nodes), None)
    if strange is not None:
        return not_found("node", node_name(command.pool, strange))
    if bool(command.nodes) + bool(command.gpus) + bool(command.node_indices) != 1:
        return _invalid("say one of: how many nodes, how many GPUs, or which nodes")
    if command.gpus % declared.gpus_per_node:
        return _invalid(
            f"whole nodes are reserved, and those of {command.pool} have {declared.gpus_per_node} GPUs each"
        )
    return _misuse(command, now_ms)


def _misuse(command: MakeReservation, now_ms: int) -> Refusal | None:
    is_maintenance = command.purpose is ReservationPurpose.MAINTENANCE
    if is_maintenance == bool(command.queue):
        return _invalid("an award or a hand-over is for a queue, maintenance for none")
    if command.ignore_running and not (is_maintenance and command.node_indices):
        return _invalid("running jobs are ignored only for the maintenance of nodes that are named")
    if command.start_ms and command.start_ms < now_ms:
        return _invalid("it begins now or later")
    return None


def _invalid(detail: str) -> Refusal:
    return Refusal(kind=RefusalKind.INVALID, code="reservation-invalid", detail=detail)


def delete(state: FleetState, command: DeleteReservation, now_ms: int) -> Answer:
    """End a reservation now, or cancel one that has not begun."""
    record = state.advance_reservations.get(command.name)
    if record is None:
        return not_found("reservation", command.name)
    if record.state is AdvanceReservationState.SCHEDULED:
        return Decision((_ended(record, AdvanceReservationState.CANCELLED, now_ms, command.by),))
    return Decision(tuple(_end(state, record, now_ms, command.by)))


# --- when its time comes ---------------------------------------------------------------------------------------------


def in_turn(state: FleetState) -> list[AdvanceRecord]:
    """All reservations, those that may begin last: their nodes may still be held by one that ends."""
    return sorted(state.advance_reservations.values(), key=lambda each: each.state is AdvanceReservationState.SCHEDULED)


def due(state: FleetState, record: AdvanceRecord, now_ms: int) -> tuple[Event, ...]:
    """What follows for a reservation now: it begins or ends, or nothing."""
    declared = record.declared
    by = BY_RESERVATION + declared.id
    if record.state is AdvanceReservationState.SCHEDULED:
        if now_ms >= declared.end_ms:
            return (_ended(record, AdvanceReservationState.CANCELLED, now_ms, by),)
        return tuple(_begin(state, declared, now_ms, by)) if now_ms >= declared.start_ms else ()
    is_lost = bool(record.job) and record.job not in state.jobs
    if now_ms >= declared.end_ms or is_lost or _is_stopped(state, record, now_ms):
        return tuple(_end(state, record, now_ms, by))
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
    stop = state.jobs[record.job].attempts[-1].stop if record.job in state.jobs else None
    return stop is not None and now_ms >= stop.kill_at_ms


def _end(state: FleetState, record: AdvanceRecord, now_ms: int, by: str) -> Iterator[Event]:
    """What it held is for all again: the job that stood for it ends, the nodes it drained take work."""
    declared, job = record.declared, state.jobs.get(record.job)
    if job is not None and job.live is not None:
        stop = job.live.stop
        outcome = OUTCOME_OF_STOP[stop.cause] if stop else Outcome.COMPLETED
        becomes = JobState.CANCELLED if stop else JobState.SUCCEEDED
        yield AttemptEnded(at_ms=now_ms, by=by, job=job.id, attempt=job.live.number, outcome=outcome, job_state=becomes)
    for node in _nodes(declared):
        if state.node_reasons.get((declared.pool, node)) == BY_RESERVATION + declared.id:
            yield NodeChanged(at_ms=now_ms, by=by, pool=declared.pool, node=node, state=NodeState.UP)
    yield _ended(record, AdvanceReservationState.ENDED, now_ms, by)


def _ended(record: AdvanceRecord, state: AdvanceReservationState, now_ms: int, by: str) -> AdvanceReservationEnded:
    return AdvanceReservationEnded(at_ms=now_ms, by=by, reservation=record.declared.id, state=state)


def _nodes(declared: AdvanceReservation) -> Iterator[int]:
    for span in declared.spans:
        yield from range(span.first, span.first + span.nodes)
