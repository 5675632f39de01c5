"""Reservations made in advance: list, show, make and delete them."""

from pumasi.api.bodies import PageQuery, ReservationBody
from pumasi.api.call import Call
from pumasi.api.paging import Page, after, page
from pumasi.api.problems import unknown
from pumasi.api.routing import Reach, Table
from pumasi.control.access import COMMON, Action, Resource, site_scope
from pumasi.control.commands import DeleteReservation, MakeReservation
from pumasi.control.views.reservations import ReservationRow, reservation_row
from pumasi.model.hostlist import expand
from pumasi.model.ids import PoolId, QueueId, queue_owner
from pumasi.state.records import AdvanceRecord

TABLE = Table("reservations")


@TABLE.route("GET", "/v1/reservations", Action.FLEET_READ, Reach.COMMON, query=PageQuery, answer=Page[ReservationRow])
async def reservations(call: Call) -> Page[ReservationRow]:
    """List the reservations that have not ended."""
    known, start = call.state.advance_reservations, after(call.query.cursor, str) or ""
    names = (name for name in sorted(known) if name > start)
    return page(names, call.query.limit, str, lambda name: _row(call, known[name]))


@TABLE.route("GET", "/v1/reservations/{reservation}", Action.FLEET_READ, Reach.COMMON, answer=ReservationRow)
async def reservation(call: Call) -> ReservationRow:
    """Show a reservation."""
    return _row(call, _record(call, call.path["reservation"]))


@TABLE.route(
    "POST",
    "/v1/reservations",
    Action.NODE_RESERVE,
    Reach.ROWS,
    body=ReservationBody,
    answer=ReservationRow,
    status=201,
)
async def reserve(call: Call) -> ReservationRow:
    """Reserve whole nodes for a span of time."""
    body: ReservationBody = call.body
    if body.pool not in call.state.pools:
        raise unknown("pool", body.pool)
    _require(call, body.pool, body.queue)
    await call.do(
        MakeReservation(
            by=call.principal.id,
            name=body.name,
            purpose=body.purpose,
            pool=body.pool,
            duration_seconds=body.duration_seconds,
            start_ms=body.start_at_ms,
            nodes=body.nodes,
            gpus=body.gpus,
            node_indices=_indices(body),
            queue=body.queue,
            ignore_running=body.ignore_running,
            reason=body.reason,
        )
    )
    return _row(call, _record(call, body.name))


@TABLE.route("DELETE", "/v1/reservations/{reservation}", Action.NODE_RESERVE, Reach.ROWS, status=204)
async def delete(call: Call) -> None:
    """Cancel a reservation, or end it now."""
    made = _record(call, call.path["reservation"]).declared
    _require(call, made.pool, made.queue)
    await call.do(DeleteReservation(by=call.principal.id, name=made.id))


def _require(call: Call, pool: PoolId, queue: QueueId) -> None:
    """For a queue it takes a say over its owner's entitlement; maintenance is a matter of the site.

    :raises Problem: 403 if the caller has none; 404 if it may not know of the queue.
    """
    if not queue:
        site = call.state.sites[call.state.pools[pool].declared.site].declared
        call.require(Action.NODE_RESERVE, Resource((site_scope(site.id), site.operator)))
        return
    if queue not in call.state.queues or not call.may(Action.QUEUE_READ, Resource((queue,))):
        raise unknown("queue", queue)
    call.require(Action.QUEUE_RESERVE, Resource((queue_owner(queue),)))


def _indices(body: ReservationBody) -> tuple[int, ...]:
    """The nodes listed.

    :raises Problem: 404 if they are no nodes of the pool.
    """
    nodes = expand(body.node_list)
    if body.node_list and {pool for pool, _ in nodes} != {body.pool}:
        raise unknown("node", body.node_list)
    return tuple(index for _, index in nodes)


def _record(call: Call, name: str) -> AdvanceRecord:
    record = call.state.advance_reservations.get(name)
    if record is None:
        raise unknown("reservation", name)
    return record


def _row(call: Call, record: AdvanceRecord) -> ReservationRow:
    queue = record.declared.queue
    about = Resource((queue,)) if queue else COMMON
    return reservation_row(call.state, record, shows_queue=call.may(Action.QUEUE_READ, about))
