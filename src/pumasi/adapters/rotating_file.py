"""A file of lines that never grows beyond a size: when it is full it becomes the file before, and a new one begins."""

import contextlib
from pathlib import Path
from typing import IO


class RotatingFile:
    """What a logger writes lines to. `path`.1 is the file before; what was there until then is forgotten.

    A line that cannot be written, because the disk is full, is lost: a log of what happens must not stop what happens.
    """

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._file = self._open()

    def write(self, text: str) -> int:
        """Write whole lines; returns their length in characters."""
        line = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            if self._file.tell() and self._file.tell() + len(line) > self._bytes_max:
                self._rotate()
            self._file.write(line)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        old, self._file = self._file, self._open()
        old.close()

    def _open(self) -> IO[bytes]:
        self._path.touch(mode=0o600)  # it is its owner's alone, wherever it lies
        opened = self._path.open("ab", buffering=0)
        opened.seek(0, 2)
        return opened
