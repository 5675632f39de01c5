"""How full a cluster of shared nodes gets: Alibaba's openb, nodes with CPUs and memory, jobs of parts of a GPU up to 8.

Pods come one by one in random order, drawn again until they ask for 1.3 times the GPUs there are. Each is placed where
it fits, none is refused that does and none moves. Where is decided by the planner's own score (`scheduler.packing`),
which learns, here as there, from what runs. The nodes are given to it as they are, not through a pool: a pool counts
GPUs and slices, and pods ask for hundredths of one; and here one choice is made among nodes of fifteen kinds.
"""

import os
import random
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.measure import Figures, amend, median
from pumasi.scheduler.packing import Ask, Mix, Rooms, best_place
from pumasi.twin.workloads.openb import read_openb_nodes, read_openb_pods

OPENB = Path(os.environ.get("PUMASI_TRACES", "../shared/traces")) / "openb"
LISTS = ("default", "gpushare100", "multigpu20")
SEEDS = range(42, 52)
DEMAND_PERCENT = 130
PARTS = 100  # of a GPU: pods ask for tens of thousandths
CYCLE_PODS = 100  # as many are placed by what ran before them


def read_rooms() -> Rooms:
    """The cluster, empty. CPUs are counted in thousandths."""
    kinds = [
        kind for kind, nodes in read_openb_nodes(OPENB / "openb_node_list_gpu_node.csv").items() for _ in range(nodes)
    ]
    most = max(kind.gpus for kind in kinds)
    return Rooms(
        np.array([[PARTS] * kind.gpus + [0] * (most - kind.gpus) for kind in kinds], np.int64),
        np.array([kind.cpu_milli for kind in kinds], np.int64),
        np.array([kind.memory_mib for kind in kinds], np.int64),
    )


def read_asks(name: str) -> list[Ask]:
    """What the pods of a list ask for."""
    return [
        Ask(pod.gpus, pod.gpu_milli * PARTS // 1000 if pod.gpus else 0, pod.cpu_milli, pod.memory_mib)
        for pod in read_openb_pods(OPENB / f"openb_pod_list_{name}.csv")
    ]


def arrivals(asks: list[Ask], parts_wanted: int, seed: int) -> list[Ask]:
    """All of them once, and more drawn from them until they ask for so many parts; in random order."""
    chance, found = random.Random(seed), list(asks)
    asked = sum(ask.gpus * ask.parts for ask in asks)
    while asked < parts_wanted:
        found.append(chance.choice(asks))
        asked += found[-1].gpus * found[-1].parts
    chance.shuffle(found)
    while asked > parts_wanted:
        ask = found.pop()
        asked -= ask.gpus * ask.parts
    return found


def fill(rooms: Rooms, asks: Iterable[Ask]) -> int:
    """Place what fits, in order; returns the parts of GPUs given."""
    running: dict[Ask, int] = {}
    mix, given = Mix((), PARTS, rooms), 0
    for number, ask in enumerate(asks):
        if number % CYCLE_PODS == 0:
            mix = Mix(running.items(), PARTS, rooms)
        found = best_place(rooms, ask, mix)
        if found is not None:
            node, gpus = found
            rooms.parts[node, list(gpus)] -= ask.parts
            rooms.cpus[node] -= ask.cpus
            rooms.memory[node] -= ask.memory
            running[ask] = running.get(ask, 0) + 1
            given += ask.gpus * ask.parts
    return given


NOTES = {
    **{
        f"openb_{name}_percent": f"of openb's GPUs allocated, pods of {name}: mean of {len(SEEDS)} seeds"
        for name in LISTS
    },
    **{f"openb_{name}_deviation": "between the seeds, in points" for name in LISTS},
    "openb_pods_per_second": "placed or found no room, by CPU time: median of all runs",
}


def measure() -> Figures:
    """All figures: every list with every seed."""
    figures, rates = Figures(), []
    for name in LISTS:
        asks, percents = read_asks(name), []
        for seed in SEEDS:
            rooms = read_rooms()
            there_are = int(rooms.parts.sum())
            pods = arrivals(asks, there_are * DEMAND_PERCENT // 100, seed)
            began = time.process_time()
            percents.append(100 * fill(rooms, pods) / there_are)
            rates.append(len(pods) / (time.process_time() - began))
            print(f"openb: {name}, seed {seed}: {percents[-1]:.3f} % allocated, {rates[-1]:,.0f} pods/s", flush=True)
        figures[f"openb_{name}_percent"] = float(np.mean(percents))
        figures[f"openb_{name}_deviation"] = float(np.std(percents, ddof=1))
    return {**figures, "openb_pods_per_second": median(rates)}


if __name__ == "__main__":
    amend("quality", measure(), NOTES)
