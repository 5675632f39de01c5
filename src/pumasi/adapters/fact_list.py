"""A log in memory that keeps facts and records themselves, for the twin: it encodes nothing that nobody reads.

Facts and the records of ended jobs do not change, so nothing is lost by sharing them; what of them could not be written
to a disk goes unnoticed.
"""

from collections.abc import Sequence
from typing import Any

from pumasi.adapters.memory_log import MemoryLog
from pumasi.adapters.records import refuse_live
from pumasi.events.facts import Event
from pumasi.state.records import Job


class FactList(MemoryLog):
    """Implements `JobStore`. Gone with the process."""

    def append(self, events: Sequence[Event], ended: Sequence[Job] = ()) -> int:
        """Add facts and the records of jobs they ended; all or nothing, and after nothing the log takes no more."""
        if ended or self._broken:
            return super().append(events, ended)
        self._facts.extend(events)
        return len(self._facts)

    def _kept_facts(self, events: Sequence[Event]) -> Sequence[Any]:
        return events

    def _kept_jobs(self, ended: Sequence[Job]) -> Sequence[Any]:
        refuse_live(ended)
        return ended

    def _job(self, kept: Any) -> Job:
        job: Job = kept
        return job

    def _fact(self, seq: int, kept: Any) -> Event:  # noqa: ARG002 - the others need the number
        event: Event = kept
        return event
