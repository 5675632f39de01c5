"""A second fold over the log: every allocation is posted from the queue that used it to the owner whose GPUs they were.

Each posting is one transfer, so debits and credits are equal by construction; days are Korean calendar days. Amounts
are exact integers: the sum over the ledger is the integral of the allocations.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, field

from pumasi.events.facts import (
    AllocationRecharged,
    AttemptEnded,
    AttemptPlaced,
    Event,
    ReservationEnded,
    ReservationMade,
    StopOrdered,
)
from pumasi.ledger.reclaims import Reclaims
from pumasi.model.calendar import day_begins_ms, day_of
from pumasi.model.ids import JobId, OwnerId, PoolId, QueueId, queue_owner
from pumasi.model.jobs import Charge


class TransferKey(Struct, frozen=True, order=True, gc=False):
    """What transfers are summed by. `day`: Korean days since 1970-01-01. `debit` used, `credit` was due the GPUs."""

    day: int
    pool: PoolId
    debit: QueueId
    credit: OwnerId

    @property
    def is_home(self) -> bool:
        """True if the owner's own queue used its GPUs."""
        return queue_owner(self.debit) == self.credit


class OpenAllocation(Struct, frozen=True, gc=False):
    """A live allocation: not yet posted since `since_ms`. Immutable, so that branches of a ledger share it."""

    queue: QueueId
    pool: PoolId
    charges: tuple[Charge, ...]
    since_ms: int


class Ledger(Struct):
    """All postings so far, and the allocations that are still running."""

    seq: int = 0
    posted: dict[TransferKey, int] = field(default_factory=dict)
    running: dict[JobId, OpenAllocation] = field(default_factory=dict)
    reclaims: Reclaims = field(default_factory=Reclaims)

    def apply(self, event: Event) -> None:
        """Fold one fact of the log."""
        self.seq += 1
        enter = _ENTERED.get(type(event))
        if enter is not None:
            enter(self, event)

    def _placed(self, event: AttemptPlaced) -> None:
        self.running[event.job] = OpenAllocation(event.queue, event.pool, event.charges, event.at_ms)

    def _ended(self, event: AttemptEnded) -> None:
        self._post(self.running.pop(event.job), event.at_ms)

    def _recharged(self, event: AllocationRecharged) -> None:
        allocation = self.running[event.job]
        self._post(allocation, event.at_ms)
        since_ms = max(allocation.since_ms, event.at_ms)
        self.running[event.job] = OpenAllocation(allocation.queue, allocation.pool, event.charges, since_ms)

    def _of_reclaim(self, event: StopOrdered | ReservationMade | ReservationEnded) -> None:
        self.reclaims.apply(event, self._gpus(event))

    def _gpus(self, event: Event) -> int:
        if not isinstance(event, StopOrdered):
            return 0
        return sum(charge.gpus for charge in self.running[event.job].charges)

    def _post(self, allocation: OpenAllocation, until_ms: int) -> None:
        posted = self.posted
        for key, gpu_milliseconds in transfers(allocation, until_ms):
            posted[key] = posted.get(key, 0) + gpu_milliseconds

    def branch(self) -> "Ledger":
        """A ledger that starts as this one and goes its own way."""
        return Ledger(self.seq, dict(self.posted), dict(self.running), self.reclaims.branch())

    def statement(self, until_ms: int) -> dict[TransferKey, int]:
        """All transfers up to a moment, those of running allocations included; GPU-milliseconds by key, sorted."""
        totals = Counter(self.posted)
        for allocation in self.running.values():
            for key, gpu_milliseconds in transfers(allocation, until_ms):
                totals[key] += gpu_milliseconds
        return dict(sorted(totals.items()))


_ENTERED: dict[type, Callable[[Ledger, Any], None]] = {
    AttemptPlaced: Ledger._placed,
    AttemptEnded: Ledger._ended,
    AllocationRecharged: Ledger._recharged,
    StopOrdered: Ledger._of_reclaim,
    ReservationMade: Ledger._of_reclaim,
    ReservationEnded: Ledger._of_reclaim,
}


def transfers(allocation: OpenAllocation, until_ms: int) -> Iterator[tuple[TransferKey, int]]:
    """What an allocation owes since it was last posted, cut at Korean midnights and split by charge."""
    from_ms = allocation.since_ms
    while from_ms < until_ms:
        day = day_of(from_ms)
        end_ms = min(until_ms, day_begins_ms(day + 1))
        for charge in allocation.charges:
            key = TransferKey(day, allocation.pool, allocation.queue, charge.owner)
            yield key, (end_ms - from_ms) * charge.gpus
        from_ms = end_ms


Image = tuple[int, list[tuple[TransferKey, int]], dict[JobId, OpenAllocation], Reclaims]

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Image] = msgspec.msgpack.Decoder(Image)


def save(ledger: Ledger) -> bytes:
    """The ledger as bytes that `load` reads."""
    return _encoder.encode((ledger.seq, list(ledger.posted.items()), ledger.running, ledger.reclaims))


def load(body: bytes) -> Ledger:
    """The ledger `save` saved.

    :raises msgspec.MsgspecError: if the bytes are not a ledger of this version; fold the log instead.
    """
    seq, posted, running, reclaims = _decoder.decode(body)
    return Ledger(seq, dict(posted), running, reclaims)
