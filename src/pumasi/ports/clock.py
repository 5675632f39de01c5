"""Time."""

from typing import Protocol


class Clock(Protocol):
    """The fleet's clock. It may run faster than the wall's (time compression) or be simulated; it never runs back."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...
