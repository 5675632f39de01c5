"""A log in memory, for tests. It keeps bytes, as the others do, so that nothing it returns is shared."""

from collections.abc import Iterator, Sequence
from typing import Any

from pumasi.adapters.records import decode_fact, decode_job, encode_facts, encode_jobs, matches
from pumasi.events.facts import Event
from pumasi.model.ids import JobId
from pumasi.ports.event_log import JobFilter, LogBroken, Snapshot
from pumasi.state.records import Job


class MemoryLog:
    """Implements `JobStore`. Gone with the process."""

    def __init__(self) -> None:
        self._facts: list[Any] = []
        self._ended: dict[JobId, Any] = {}
        self._snapshot: Snapshot | None = None
        self._broken = ""

    def last_seq(self) -> int:
        """The number of the last fact; 0 if there is none."""
        self._refuse_if_broken()
        return len(self._facts)

    def append(self, events: Sequence[Event], ended: Sequence[Job] = ()) -> int:
        """Add facts and the records of jobs they ended; all or nothing, and after nothing the log takes no more."""
        self._refuse_if_broken()
        try:
            facts, records = self._kept_facts(events), self._kept_jobs(ended)
            archived = {job.id: record for job, record in zip(ended, records, strict=True)}
            if len(archived) < len(ended) or any(job in self._ended for job in archived):
                raise LogBroken(f"a job ended twice among {sorted(archived)}")
        except LogBroken as error:
            self._broken = str(error)
            raise
        self._facts.extend(facts)
        self._ended.update(archived)
        return len(self._facts)

    def read(self, after_seq: int, limit: int | None = None) -> Iterator[tuple[int, Event]]:
        """Facts after `after_seq` that are there now, in order, with their numbers."""
        self._refuse_if_broken()
        last = len(self._facts) if limit is None else min(len(self._facts), after_seq + limit)
        for seq in range(after_seq + 1, last + 1):
            yield seq, self._fact(seq, self._facts[seq - 1])

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the one before."""
        self._refuse_if_broken()
        if snapshot.seq > len(self._facts):
            raise ValueError(f"a snapshot of {snapshot.seq} facts; the log has {len(self._facts)}")
        self._snapshot = Snapshot(snapshot.seq, dict(snapshot.parts))

    def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot."""
        self._refuse_if_broken()
        return self._snapshot

    def close(self) -> None:
        """Refuse all later calls."""
        self._broken = self._broken or "it is closed"

    def get(self, job: JobId) -> Job | None:
        """The record of an ended job."""
        self._refuse_if_broken()
        record = self._ended.get(job)
        return None if record is None else self._job(record)

    def page(self, wanted: JobFilter, before: JobId | None, limit: int) -> list[Job]:
        """At most `limit` records, newest number first, below `before`."""
        self._refuse_if_broken()
        page: list[Job] = []
        for number in sorted(self._ended, reverse=True):
            if len(page) >= limit:
                break
            if before is None or number < before:
                job = self._job(self._ended[number])
                page += [job] if matches(wanted, job) else []
        return page

    def count(self) -> int:
        """How many jobs have ended."""
        self._refuse_if_broken()
        return len(self._ended)

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _kept_facts(self, events: Sequence[Event]) -> Sequence[Any]:
        return encode_facts(events)

    def _fact(self, seq: int, kept: Any) -> Event:
        return decode_fact(seq, kept)

    def _kept_jobs(self, ended: Sequence[Job]) -> Sequence[Any]:
        return encode_jobs(ended)

    def _job(self, kept: Any) -> Job:
        return decode_job(kept)

    def _refuse_if_broken(self) -> None:
        if self._broken:
            raise LogBroken(f"the log in memory takes no more calls: {self._broken}")
