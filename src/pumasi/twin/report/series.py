"""Levels over time in even intervals: how many GPU-milliseconds a level of GPUs makes in each."""


class Level:
    """A number of GPUs that changes at moments and is added up per interval of `bucket_ms`. Moments never go back."""

    __slots__ = ("_bucket_ms", "_from_ms", "_since_ms", "_until_ms", "gpus", "totals")

    def __init__(self, from_ms: int, until_ms: int, bucket_ms: int) -> None:
        self._from_ms = from_ms
        self._until_ms = until_ms
        self._bucket_ms = bucket_ms
        self._since_ms = from_ms
        self.gpus = 0
        self.totals = [0] * max(1, -(-(until_ms - from_ms) // bucket_ms))

    def add(self, gpus: int, at_ms: int) -> None:
        """The level rises (or, negative, falls) by so many GPUs at a moment."""
        self.settle(at_ms)
        self.gpus += gpus

    def settle(self, until_ms: int) -> None:
        """Add up what the present level makes until a moment; what lies outside the intervals is left out."""
        begins, self._since_ms = self._since_ms, max(self._since_ms, until_ms)
        until_ms = min(until_ms, self._until_ms)
        if not self.gpus:
            return
        while begins < until_ms:
            index = (begins - self._from_ms) // self._bucket_ms
            ends = min(until_ms, self._from_ms + (index + 1) * self._bucket_ms)
            self.totals[index] += self.gpus * (ends - begins)
            begins = ends
