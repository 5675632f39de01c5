"""Looking at the processes of this machine by /proc. Whatever has gone by the time of the look is not there."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def all_pids() -> Iterator[int]:
    """Every process."""
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def environment_of(pid: int) -> bytes:
    """The environment it was started with, NUL after each variable; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "environ").read_bytes()
    return b""


def is_step_daemon(pid: int) -> bool:
    """Whether it is one of Slurm's slurmstepd."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text().strip() == "slurmstepd"
    return False


def has_open(pid: int, file: Path) -> bool:
    """Whether it keeps a file open."""
    with contextlib.suppress(OSError):
        return any(os.readlink(link) == str(file) for link in (_PROC / str(pid) / "fd").iterdir())
    return False


def with_descendants(pids: Iterable[int]) -> set[int]:
    """These processes, their children, and theirs."""
    parents = {pid: _parent(pid) for pid in all_pids()}
    found = set(pids)
    size = -1
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
