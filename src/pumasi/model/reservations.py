"""Reservations made in advance: whole nodes of a pool for a span of time."""

from enum import StrEnum

from msgspec import Struct

from pumasi.model.ids import OwnerId, PoolId, QueueId, is_within, queue_owner
from pumasi.model.jobs import Span, span_gpus

ReservationId = str


class ReservationPurpose(StrEnum):
    """What a reservation is for. Nothing else may run on its GPUs meanwhile.

    Under MAINTENANCE nothing runs at all; an AWARD is for the jobs of a queue; a HAND_OVER gives whole servers to a
    queue for uses of its own, without an engine of ours, counted as used for all of the time.
    """

    MAINTENANCE = "maintenance"
    AWARD = "award"
    HAND_OVER = "hand_over"


class AdvanceReservation(Struct, frozen=True, kw_only=True):
    """GPUs of a pool from `start_ms` until `end_ms`. `queue`: whom they are for; "" under maintenance."""

    id: ReservationId
    purpose: ReservationPurpose
    pool: PoolId
    spans: tuple[Span, ...]
    start_ms: int
    end_ms: int
    queue: QueueId = ""
    reason: str = ""

    @property
    def owner(self) -> OwnerId:
        """Whose entitlement it counts on; "" for nobody's."""
        return queue_owner(self.queue) if self.queue else ""

    @property
    def gpus(self) -> int:
        """How many GPUs it holds."""
        return span_gpus(self.spans)

    def admits(self, queue: QueueId) -> bool:
        """True if jobs of a queue may run on its GPUs: those of the queue it is awarded to, and of queues below it."""
        return self.purpose is ReservationPurpose.AWARD and is_within(queue, self.queue)
