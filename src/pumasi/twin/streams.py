"""Named streams of chance: each part of the world draws from its own, so that a change in one leaves the others be."""

from hashlib import sha256
from random import Random


def stream(seed: int, *names: str) -> Random:
    """A stream that depends on the seed and its name alone; the same in every process and on every machine."""
    text = "\n".join((str(seed), *names))
    return Random(int.from_bytes(sha256(text.encode()).digest(), "big"))  # noqa: S311 - chance, not secrecy
