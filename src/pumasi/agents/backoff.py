"""How long to wait before the next try."""

import random

_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 15.0


class Backoff:
    """Waits that double up to a bound, each cut at random: the agents of a fleet must not come back all at once."""

    def __init__(self) -> None:
        self._next_seconds = _FIRST_SECONDS

    def failed(self) -> float:
        """Seconds to wait after one more failure."""
        bound = self._next_seconds
        self._next_seconds = min(_LONGEST_SECONDS, 2 * bound)
        return random.uniform(bound / 2, bound)  # noqa: S311  (nothing secret about it)

    def succeeded(self) -> None:
        """Start over."""
        self._next_seconds = _FIRST_SECONDS
