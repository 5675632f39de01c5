"""Reader for the openb files of Alibaba's GPU cluster trace of 2023 (`cluster-trace-gpu-v2023`): nodes and pods.

The group of a pod is its quality class (`LS`, `BE`, ...). A pod list without times has its pods one second apart, each
an hour long, for the sake of their sizes alone.
"""

import csv
from collections import Counter
from pathlib import Path

from msgspec import Struct

from pumasi.model.fleet import CpuArch, FleetPlan, GpuModel, Owner, OwnerKind, Pool, Queue, Quota, Site, Stage
from pumasi.twin.workloads.trace import WHOLE_GPU_MILLI, TraceJob, TraceProblem, read_rows

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
OWNER = "openb"
CLASSES = {"LS": "latency-sensitive", "Guaranteed": "guaranteed", "Burstable": "burstable", "BE": "best-effort"}
UNTIMED_GROUP = "untimed"
UNTIMED_GAP_MS = 1000
UNTIMED_DURATION_MS = 3_600_000


class NodeKind(Struct, frozen=True, order=True):
    """Nodes that are alike."""

    model: str
    gpus: int
    cpu_milli: int
    memory_mib: int


def read_openb_nodes(path: Path) -> dict[NodeKind, int]:
    """How many nodes of each kind the file lists, by kind.

    :raises TraceProblem: if the file cannot be read or a line is not a node.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if tuple(rows.fieldnames or ()) != NODE_COLUMNS:
                raise TraceProblem(f"{path}:1: the columns are {rows.fieldnames}, expected {', '.join(NODE_COLUMNS)}")
            return dict(sorted(Counter(_kind(path, rows.line_num, row) for row in rows).items()))
    except OSError as error:
        raise TraceProblem(f"{path}: {error.strerror}") from error


def _kind(path: Path, line: int, row: dict[str, str]) -> NodeKind:
    try:
        return NodeKind(row["model"], int(row["gpu"]), int(row["cpu_milli"]), int(row["memory_mib"]))
    except (TypeError, ValueError) as error:
        raise TraceProblem(f"{path}:{line}: {error}") from error


def openb_plan(kinds: dict[NodeKind, int]) -> FleetPlan:
    """The cluster as a fleet: one owner, one site, a pool for each kind of node, a queue for each quality class.

    What the trace does not say of a GPU model (memory, watts) is 0: nothing here asks for it.
    """
    pools = tuple(_pool(kind, nodes) for kind, nodes in kinds.items() if kind.gpus)
    models = {pool.model: _model(pool) for pool in pools}
    quotas = {pool.id: Quota(nominal=pool.gpus) for pool in pools}
    queues = [Queue(id=OWNER, quotas=quotas), *(Queue(id=f"{OWNER}/{name}") for name in CLASSES.values())]
    return FleetPlan(
        name="openb",
        gpu_models=tuple(models.values()),
        owners=(Owner(id=OWNER, title="The cluster", kind=OwnerKind.COMMERCIAL),),
        sites=(Site(id="cluster", title="The cluster", operator=OWNER),),
        pools=pools,
        queues=tuple(queues),
    )


def _pool(kind: NodeKind, nodes: int) -> Pool:
    name = f"{kind.model.lower()}-{kind.gpus}-{kind.cpu_milli // 1000}-{kind.memory_mib // 1024}"
    return Pool(
        id=name,
        site="cluster",
        model=kind.model.lower(),
        owner=OWNER,
        nodes=nodes,
        gpus_per_node=kind.gpus,
        nodes_per_rack=8,
        racks_per_block=16,
        entitlements={OWNER: nodes * kind.gpus},
        stages={Stage.IN_SERVICE: "1970-01-01"},
        cpus_per_node=kind.cpu_milli // 1000,
        memory_mib_per_node=kind.memory_mib,
    )


def _model(pool: Pool) -> GpuModel:
    return GpuModel(
        id=pool.model,
        title=pool.model.upper(),
        gpus_per_node=pool.gpus_per_node,
        nvlink_nodes=1,
        memory_gib=0,
        cpu_arch=CpuArch.X86_64,
        gpu_watts=0,
        planning_watts=0,
    )


def read_openb_pods(path: Path) -> list[TraceJob]:
    """All pods of the file, in order of submission. Pods without a GPU have `gpus` 0.

    :raises TraceProblem: if the file cannot be read or a line is not a pod.
    """
    return read_rows(path, POD_COLUMNS, _pod)


def _pod(row: dict[str, str]) -> TraceJob:
    begins_ms, duration_ms = _times(row)
    return TraceJob(
        submitted_ms=begins_ms,
        duration_ms=duration_ms,
        gpus=int(row["num_gpu"]),
        group=row.get("qos") or UNTIMED_GROUP,
        gpu_milli=int(row["gpu_milli"]) or WHOLE_GPU_MILLI,
        cpu_milli=int(row["cpu_milli"]),
        memory_mib=int(row["memory_mib"]),
    )


def _times(row: dict[str, str]) -> tuple[int, int]:
    if "creation_time" not in row:
        return int(row["name"].rpartition("-")[2]) * UNTIMED_GAP_MS, UNTIMED_DURATION_MS
    begins_ms = int(row["creation_time"]) * 1000
    scheduled_ms = int(row["scheduled_time"]) * 1000 if row["scheduled_time"] else begins_ms
    return begins_ms, max(0, int(row["deletion_time"]) * 1000 - scheduled_ms)
