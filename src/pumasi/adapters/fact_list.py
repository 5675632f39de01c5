"""A log in memory that keeps the facts themselves, for the twin: it encodes nothing that nobody reads.

Facts do not change, so nothing is lost by sharing them; what of them could not be written to a disk goes unnoticed.
"""

from collections.abc import Sequence
from typing import Any

from pumasi.adapters.memory_log import MemoryLog
from pumasi.events.facts import Event
from pumasi.state.records import Job


class FactList(MemoryLog):
    """Implements `JobStore`. Gone with the process."""

    def append(self, events: Sequence[Event], ended: Sequence[Job] = ()) -> int:
        """Add facts and the records of jobs they ended; all or nothing, and after nothing the log takes no more."""
        if ended:
            return super().append(events, ended)
        self._refuse_if_broken()
        self._facts.extend(events)
        return len(self._facts)

    def _kept_facts(self, events: Sequence[Event]) -> Sequence[Any]:
        return events

    def _fact(self, seq: int, kept: Any) -> Event:  # noqa: ARG002 - the others need the number
        event: Event = kept
        return event
