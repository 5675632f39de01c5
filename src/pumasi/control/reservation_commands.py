"""Reservations made in advance: operators make and delete them."""

from pumasi.control.commands import DeleteReservation, MakeReservation
from pumasi.control.decisions import Answer, Decision
from pumasi.control.refusals import Refusal, RefusalKind, not_found
from pumasi.control.reservation_times import end
from pumasi.events.facts import AdvanceReservationMade
from pumasi.model.hostlist import node_name
from pumasi.model.ids import queue_owner
from pumasi.model.jobs import Span
from pumasi.model.reservations import AdvanceReservation, ReservationPurpose
from pumasi.scheduler.advance import Window, free_nodes, these_nodes
from pumasi.state.fleet_state import FleetState


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
        queue=command.queue if command.purpose is ReservationPurpose.AWARD else "",
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
    return Decision(tuple(end(state, record, now_ms, command.by)))
