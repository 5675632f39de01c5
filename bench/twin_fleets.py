"""Fleets and workloads of the twin's benchmarks: the Philly trace on its own cluster, a million jobs on the fleet."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pumasi.model.fleet import (
    CpuArch,
    FleetPlan,
    GpuModel,
    LendingContract,
    Owner,
    OwnerKind,
    Pool,
    Queue,
    QueueOrder,
    Site,
    Stage,
)
from pumasi.model.jobs import JobSpec
from pumasi.twin.jobs import TwinJob
from pumasi.twin.workloads.philly import read_philly

PHILLY = Path(os.environ.get("PUMASI_TRACES", "../shared/traces")) / "philly/philly_jobs.csv"
NODES = 128
GPUS_PER_NODE = 8
LENDS_ALL = LendingContract(lendable_percent=100)
FLAT_OWNER = "philly"
DAY_MS = 86_400_000
JOBS_PER_DAY = 59_000  # nine tenths of 260,000 GPUs are asked for

Rows = list[tuple[int, int, int, str]]  # submitted (ms), duration (whole seconds), GPUs, virtual cluster


def philly_rows() -> Rows:
    """The whole trace, in order of submission; ends the process with a line if it is not there."""
    if not PHILLY.exists():
        sys.exit(f"bench: there is no {PHILLY}; PUMASI_TRACES names another folder (docs/guides/twin.md, Workloads)")
    return [(job.submitted_ms, max(1, job.duration_ms // 1000), job.gpus, job.group) for job in read_philly(PHILLY)]


def philly_plan(
    entitlements: dict[str, int], gpus_per_node: int, order: QueueOrder = QueueOrder.BEST_EFFORT
) -> FleetPlan:
    """One pool of as many GPUs as the owners are entitled to; everyone lends everything."""
    model = GpuModel(
        id="p100", title="P100", gpus_per_node=gpus_per_node, nvlink_nodes=1, memory_gib=16, cpu_arch=CpuArch.X86_64,
        gpu_watts=250, planning_watts=400,
    )  # fmt: skip
    first = next(iter(entitlements))
    pool = Pool(
        id="philly", site="philly", model=model.id, owner=first, nodes=sum(entitlements.values()) // gpus_per_node,
        gpus_per_node=gpus_per_node, nodes_per_rack=32, racks_per_block=4, entitlements=entitlements,
        stages={Stage.IN_SERVICE: "2017-01-01"},
    )  # fmt: skip
    return FleetPlan(
        name="philly",
        gpu_models=(model,),
        owners=tuple(Owner(id=name, title=name, kind=OwnerKind.COMMERCIAL, lending=LENDS_ALL) for name in entitlements),
        sites=(Site(id="philly", title="Philly", operator=first),),
        pools=(pool,),
        queues=tuple(Queue(id=name, order=order) for name in entitlements),
    )


def by_virtual_cluster(rows: Rows) -> dict[str, int]:
    """The virtual clusters as owners: entitled to whole GPUs in proportion to the GPU time they used."""
    used: dict[str, int] = {}
    for _, seconds, gpus, group in rows:
        used[f"vc-{group}"] = used.get(f"vc-{group}", 0) + seconds * gpus
    total, all_gpus = sum(used.values()), NODES * GPUS_PER_NODE
    shares = {name: all_gpus * mine // total for name, mine in sorted(used.items())}
    largest = max(shares, key=lambda name: shares[name])
    shares[largest] += all_gpus - sum(shares.values())
    return shares


def philly_jobs(rows: Rows, queue: str | None) -> list[TwinJob]:
    """The trace's jobs, in the queue of their virtual cluster, or all in one. Limits are the durations."""
    return [
        TwinJob(
            submit_ms=submitted_ms,
            runtime_ms=seconds * 1000,
            spec=JobSpec(
                name="philly", queue=queue or f"vc-{group}", script="train", gpus=gpus, time_limit_seconds=seconds
            ),
        )
        for submitted_ms, seconds, gpus, group in rows
    ]


def write_swf(rows: Rows, path: Path) -> None:
    """The trace in the Standard Workload Format, for AccaSim. Times count from a second before the first job."""
    begin_ms = rows[0][0] - 1000
    lines = [
        f"{number} {(at_ms - begin_ms) // 1000} -1 {seconds} {gpus} -1 1 {gpus} {seconds} 1 1 1 1 1 1 -1 -1 -1"
        for number, (at_ms, seconds, gpus, _) in enumerate(rows, 1)
    ]
    path.write_text("\n".join(["; UnixStartTime: 0", *lines, ""]), encoding="utf-8")


def leaf_queues(plan: FleetPlan) -> list[str]:
    """The queues without children."""
    parents = {queue.id.rpartition("/")[0] for queue in plan.queues}
    return [queue.id for queue in plan.queues if queue.id not in parents]


def fleet_jobs(plan: FleetPlan, rows: Rows, count: int, begin_ms: int) -> Iterator[TwinJob]:
    """`count` jobs in the order of the trace, evenly spread over all queues and over time: JOBS_PER_DAY.

    Durations are Philly's; each GPU of the trace is a node's worth here, so that gangs reach 1,024 GPUs.
    """
    leaves = leaf_queues(plan)
    specs: dict[tuple[int, int], JobSpec] = {}
    for number in range(count):
        _, seconds, gpus, _ = rows[number % len(rows)]
        key = (number % len(rows), number % len(leaves))
        spec = specs.get(key)
        if spec is None:
            spec = specs[key] = JobSpec(
                name="philly", queue=leaves[number % len(leaves)], script="train", gpus=gpus * GPUS_PER_NODE,
                time_limit_seconds=seconds + seconds // 5 + 600,
            )  # fmt: skip
        yield TwinJob(submit_ms=begin_ms + number * DAY_MS // JOBS_PER_DAY, spec=spec, runtime_ms=seconds * 1000)


def mean_wait_seconds(waits_ms: Sequence[int]) -> float:
    """The mean of waits."""
    return sum(waits_ms) / len(waits_ms) / 1000
