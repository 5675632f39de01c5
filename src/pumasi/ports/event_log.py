"""The log of facts, and the archive of jobs that have ended. One conformance suite: `pumasi.testing.event_log`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from pumasi.events.facts import Event
from pumasi.model.ids import JobId, QueueId
from pumasi.model.jobs import JobState
from pumasi.state.records import Job


class LogBroken(Exception):
    """The log could not be written or is damaged. Whoever sees this stops; what was acknowledged is on disk."""


class Snapshot(NamedTuple):
    """A saved state: all facts up to and including `seq` are in it. `parts` by name, such as `state` and `ledger`."""

    seq: int
    parts: dict[str, bytes]


class EventLog(Protocol):
    """An append-only log with gapless sequence numbers from 1."""

    def last_seq(self) -> int:
        """The number of the last fact; 0 if there is none."""
        ...

    def append(self, events: Sequence[Event], ended: Sequence[Job] = ()) -> int:
        """Add facts and the records of jobs they ended, in one transaction, durable on return.

        :returns: the new last sequence number.
        :raises LogBroken: if it cannot be made durable; nothing was added then, or it will be found on restart.
        """
        ...

    def read(self, after_seq: int, limit: int | None = None) -> Iterator[tuple[int, Event]]:
        """Facts after `after_seq`, in order, with their numbers."""
        ...

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, durable on return; older ones may be dropped."""
        ...

    def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class JobFilter(NamedTuple):
    """Which ended jobs are wanted. Empty or None: no restriction. `queues`: these and all below them."""

    queues: tuple[QueueId, ...] = ()
    states: tuple[JobState, ...] = ()
    by: str = ""
    ended_from_ms: int | None = None
    ended_until_ms: int | None = None


class JobArchive(Protocol):
    """Jobs that have ended. It is written by `EventLog.append` in the transaction of the fact that ended them."""

    def get(self, job: JobId) -> Job | None:
        """The record of an ended job."""
        ...

    def page(self, wanted: JobFilter, before: JobId | None, limit: int) -> list[Job]:
        """At most `limit` records, newest number first, below `before`."""
        ...

    def count(self) -> int:
        """How many there are."""
        ...


class JobStore(EventLog, JobArchive, Protocol):
    """Log and archive in one place, as every adapter gives them."""
