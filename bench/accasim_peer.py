"""Run AccaSim on a workload; in an environment of its own: `python bench/accasim_peer.py WORKLOAD.swf NODES fifo|easy`.

Prints one JSON object: jobs, wall and CPU seconds, and the mean wait in seconds. AccaSim 1.1.3 was written for older
Pythons; the names it misses are put back before it is imported.
"""

import collections
import collections.abc
import contextlib
import json
import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

for missing in ("Mapping", "MutableMapping", "Sequence", "Iterable"):
    setattr(collections, missing, getattr(collections.abc, missing))


def main() -> None:
    """Simulate and print the figures."""
    workload, nodes, policy = Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with contextlib.redirect_stdout(sys.stderr):
            wall, cpu = simulate(workload, nodes, policy, folder)
        waits = read_waits(next(Path(folder).rglob("sched-*")))
    figures = {
        "jobs": len(waits),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "mean_wait_seconds": sum(waits) / len(waits),
    }
    json.dump(figures, sys.stdout)


def simulate(workload: Path, nodes: int, policy: str, folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of one simulation on nodes of 8 cores."""
    from accasim.base.allocator_class import FirstFit  # type: ignore[import-not-found]
    from accasim.base.scheduler_class import EASYBackfilling, FirstInFirstOut  # type: ignore[import-not-found]
    from accasim.base.simulator_class import Simulator  # type: ignore[import-not-found]

    config = Path(folder) / "system.json"
    system = {"groups": {"g0": {"core": 8, "mem": 1_048_576}}, "resources": {"g0": nodes}, "start_time": 0}
    config.write_text(json.dumps(system), encoding="utf-8")
    dispatcher = {"fifo": FirstInFirstOut, "easy": EASYBackfilling}[policy](FirstFit())
    simulator = Simulator(
        str(workload), str(config), dispatcher, scheduling_output=True, statistics_output=False, show_statistics=False,
        RESULTS_FOLDER_PATH=folder,
    )  # fmt: skip
    wall, cpu = time.perf_counter(), time.process_time()
    simulator.start_simulation()
    return time.perf_counter() - wall, time.process_time() - cpu


def read_waits(path: Path) -> list[float]:
    """Seconds each job waited, from the plan AccaSim writes: `job;user;queued__nodes__started;ended;...`."""
    waits = []
    for line in path.read_text(encoding="utf-8").splitlines():
        head, _, tail = line.split("__")
        queued, started = head.rpartition(";")[2], tail.partition(";")[0]
        waits.append((datetime.fromisoformat(started) - datetime.fromisoformat(queued)).total_seconds())
    return waits


if __name__ == "__main__":
    main()
