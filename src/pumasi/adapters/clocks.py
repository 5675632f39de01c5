"""Clocks: the wall's, and one that runs faster. Neither ever runs back, whichever thread asks."""

import threading
import time

_NANOSECONDS_PER_MILLISECOND = 1_000_000


class SystemClock:
    """The wall clock, held still while the wall's is set back.

    :param not_before_ms: where the log ended; a machine that restarts with its clock behind goes on from there.
    """

    def __init__(self, not_before_ms: int = 0) -> None:
        self._last_ms = not_before_ms
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Unix milliseconds."""
        with self._lock:
            self._last_ms = max(self._last_ms, time.time_ns() // _NANOSECONDS_PER_MILLISECOND)
            return self._last_ms


class ScaledClock:
    """A clock that starts at `origin_ms` and runs `rate` times as fast as time passes.

    It counts from the monotonic clock, so setting the wall's does not move it.
    """

    def __init__(self, rate: int, origin_ms: int) -> None:
        if rate < 1:
            raise ValueError(f"a clock must run forward: its rate is {rate}, at least 1 is needed")
        self.rate = rate
        self._origin_ms = origin_ms
        self._started_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """Unix milliseconds of the scaled time."""
        passed_ns = time.monotonic_ns() - self._started_ns
        return self._origin_ms + passed_ns * self.rate // _NANOSECONDS_PER_MILLISECOND
