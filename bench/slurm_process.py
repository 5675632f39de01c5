"""What the benchmarks on Slurm share: waiting, and weighing a process."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pumasi.client.client import Client

PATIENCE_SECONDS = 600.0
WATCH_SECONDS = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


def weigh(pid: int) -> tuple[float, float]:
    """Resident memory (MiB) and CPU (percent of one core, over a while) of a process and the commands it calls."""
    before = _cpu_seconds(pid)
    time.sleep(WATCH_SECONDS)
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return resident / 1024, (_cpu_seconds(pid) - before) / WATCH_SECONDS * 100


def _cpu_seconds(pid: int) -> float:
    """Its own, and that of the commands it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def until(holds: Callable[[], object], problem: str, pause_seconds: float = 0.1) -> None:
    """Wait until something holds; the benchmark ends with `problem` if it never does."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > give_up_at:
            sys.exit(f"bench: {problem}")
        time.sleep(pause_seconds)


def running(client: Client) -> int:
    """How many jobs run."""
    return sum(row["display_state"] == "running" for row in client.jobs(state=["active"]))
