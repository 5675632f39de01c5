"""A clock that stands still until it is told otherwise."""


class ManualClock:
    """Time in the hands of the test."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self._now_ms

    def advance(self, milliseconds: int) -> int:
        """Let time pass; the new time.

        :raises ValueError: if it would run back.
        """
        if milliseconds < 0:
            raise ValueError(f"a clock never runs back: {milliseconds} ms")
        self._now_ms += milliseconds
        return self._now_ms
