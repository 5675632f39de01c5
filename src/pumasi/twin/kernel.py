"""The event kernel: simulated time, and what happens at each instant in an order that never depends on chance.

Events are ordered by time, then by rank, then by the order in which they were put in.
"""

from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any

Action = Callable[[Any], None]


class Rank(IntEnum):
    """What goes first among the events of one instant."""

    FAULT = 0
    END = 1  # runs end before new work comes, so that what is freed now can be given now
    MESSAGE = 2
    ARRIVAL = 3
    USER = 4
    CYCLE = 5


class Kernel:
    """A heap of events and the time, `time_ms` (read only). It is a `pumasi.ports.clock.Clock`."""

    __slots__ = ("_heap", "_number", "time_ms")

    def __init__(self, start_ms: int) -> None:
        self.time_ms = start_ms
        self._heap: list[tuple[int, int, int, Action, Any]] = []
        self._number = 0

    def now_ms(self) -> int:
        """Unix milliseconds of simulated time."""
        return self.time_ms

    def at(self, at_ms: int, rank: Rank, action: Action, argument: Any = None) -> None:
        """Have `action(argument)` called at a moment.

        :raises ValueError: if the moment has passed.
        """
        if at_ms < self.time_ms:
            raise ValueError(f"{at_ms} has passed, it is {self.time_ms}")
        self._number += 1
        heappush(self._heap, (at_ms, rank, self._number, action, argument))

    def next_ms(self) -> int | None:
        """When something happens next; None if nothing does."""
        return self._heap[0][0] if self._heap else None

    def run_instant(self) -> None:
        """Move to the next event's time and carry out everything due at it, what is put in for it meanwhile included.

        :raises IndexError: if nothing is to happen.
        """
        heap = self._heap
        self.time_ms = now_ms = heap[0][0]
        while heap and heap[0][0] == now_ms:
            entry = heappop(heap)
            entry[3](entry[4])
