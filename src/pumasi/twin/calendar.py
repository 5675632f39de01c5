"""Moments at which the rules change by themselves: lending windows open and close, and a cycle must see it."""

from pumasi.model.fleet import CalendarWindow
from pumasi.state.lending import DAY_MINUTES, KOREA_OFFSET_MINUTES
from pumasi.twin.kernel import Rank
from pumasi.twin.world import World

MINUTE_MS = 60_000


class Calendar:
    """Wakes the control plane at the edges of every lending window."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self) -> None:
        """Look at today's edges, and again every midnight."""
        self._look(None)

    def _look(self, _: None) -> None:
        """Put the edges of one Korean day on the calendar, from now on."""
        kernel = self._world.kernel
        now_ms = kernel.time_ms
        minute_of_day = (now_ms // MINUTE_MS + KOREA_OFFSET_MINUTES) % DAY_MINUTES
        midnight_ms = (now_ms // MINUTE_MS - minute_of_day) * MINUTE_MS
        for minute in sorted(self._edges()):
            if midnight_ms + minute * MINUTE_MS > now_ms:
                kernel.at(midnight_ms + minute * MINUTE_MS, Rank.CYCLE, self._world.touch)
        kernel.at(midnight_ms + DAY_MINUTES * MINUTE_MS, Rank.CYCLE, self._look)
        self._world.touch()

    def _edges(self) -> set[int]:
        owners = self._world.plane.state.owners.values()
        windows: list[CalendarWindow] = [window for owner in owners for window in owner.declared.lending.windows]
        return {edge for window in windows for edge in (window.from_minute, window.to_minute)}
