"""Reservations made in advance, as callers see them."""

from msgspec import Struct

from pumasi.control.views.times import rfc3339
from pumasi.events.facts import AdvanceReservationState
from pumasi.model.hostlist import compress
from pumasi.model.ids import JobId
from pumasi.model.reservations import ReservationPurpose
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import AdvanceRecord


class ReservationRow(Struct, frozen=True, kw_only=True):
    """Nodes reserved for a span of time, and for what. `job`: the job that stands for them while they are handed over.

    `owner`: whose entitlement it counts on; null for maintenance. `queue` and `reason` are empty for who may not read
    the queue.
    """

    id: str
    purpose: ReservationPurpose
    state: AdvanceReservationState
    start_at: str
    end_at: str
    duration_seconds: int
    pool: str
    site: str
    nodes: int
    gpus: int
    node_list: str
    owner: str | None
    queue: str
    job: JobId | None
    reason: str


def reservation_row(state: FleetState, record: AdvanceRecord, *, shows_queue: bool) -> ReservationRow:
    """A reservation as it stands."""
    made = record.declared
    return ReservationRow(
        id=made.id,
        purpose=made.purpose,
        state=record.state,
        start_at=rfc3339(made.start_ms),
        end_at=rfc3339(made.end_ms),
        duration_seconds=(made.end_ms - made.start_ms) // 1000,
        pool=made.pool,
        site=state.pools[made.pool].declared.site,
        nodes=sum(span.nodes for span in made.spans),
        gpus=made.gpus,
        node_list=compress(made.pool, made.spans),
        owner=made.owner or None,
        queue=made.queue if shows_queue else "",
        job=record.job or None,
        reason=made.reason if shows_queue else "",
    )
