"""What a job finds around it: environment variables, and the names of its output files. Pure but for its arguments.

The command of a job runs once, with all its nodes in its environment, as the first task of `srun` would: the fleet
may be larger than the machine.
"""

import re
from typing import NamedTuple

from pumasi.model.fleet import SHARD
from pumasi.model.hostlist import compress, node_name, node_names
from pumasi.model.jobs import span_gpus
from pumasi.protocol.messages import StartOrder

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_ARRAY_TASK = "4294967294"  # what Slurm puts for %a in a job that is no array task
_PATTERN = re.compile(r"%(\d{0,2})([%jJAaxuNn])")


class Place(NamedTuple):
    """Where a run runs. `account`, `home`: of the Unix user; `directory`: the run's own, without trailing slash.

    `slices`: the names CUDA has for the slices of the machine, in the order of their numbers; none if nobody knows.
    """

    site: str
    tag: str
    account: str
    home: str
    directory: str
    working_directory: str
    slices: tuple[str, ...] = ()


def job_environment(order: StartOrder, place: Place) -> dict[str, str]:
    """The whole environment of a job: a clean base, then what the job brings, then what only we can say."""
    base = {
        "PATH": SYSTEM_PATH,
        "HOME": place.home,
        "USER": place.account,
        "LOGNAME": place.account,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
    }
    return base | order.environment | _ours(order, place) | _slurm(order, place)


def _ours(order: StartOrder, place: Place) -> dict[str, str]:
    return {
        "PWD": place.working_directory,
        "PUMASI_JOB_ID": str(order.run.job),
        "PUMASI_JOB_NAME": order.name,
        "PUMASI_ATTEMPT": str(order.run.attempt),
        "PUMASI_RUN_TAG": place.tag,
        "PUMASI_RUN_DIRECTORY": place.directory,
        "PUMASI_USER": order.user,
        "PUMASI_QUEUE": order.queue,
        "PUMASI_SITE": place.site,
        "PUMASI_POOL": order.pool,
        "PUMASI_NODELIST": compress(order.pool, order.spans),
        "PUMASI_NODE_FILE": f"{place.directory}/nodes",
        "PUMASI_NODE_COUNT": str(node_count(order)),
        "PUMASI_GPUS": str(span_gpus(order.spans)),
        "PUMASI_GPUS_PER_NODE": _gpus_per_node(order),
        "PUMASI_SLICE": order.slice,
        "PUMASI_TIME_LIMIT_SECONDS": str(order.time_limit_seconds),
    }


def _slurm(order: StartOrder, place: Place) -> dict[str, str]:
    nodes = str(node_count(order))
    names = compress(order.pool, order.spans)
    gpus = first_node_gpus(order)
    numbers = ",".join(str(gpu) for gpu in dict.fromkeys(gpu // _shards_per_gpu(order) for gpu in gpus))
    return {
        "SLURM_JOB_ID": str(order.run.job),
        "SLURM_JOBID": str(order.run.job),
        "SLURM_JOB_NAME": order.name,
        "SLURM_JOB_USER": order.user,
        "SLURM_JOB_ACCOUNT": order.queue,
        "SLURM_JOB_PARTITION": order.pool,
        "SLURM_CLUSTER_NAME": place.site,
        "SLURM_JOB_NODELIST": names,
        "SLURM_NODELIST": names,
        "SLURMD_NODENAME": first_node(order),
        "SLURM_NNODES": nodes,
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_NTASKS": nodes,
        "SLURM_NPROCS": nodes,
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_TASKS_PER_NODE": "1" if nodes == "1" else f"1(x{nodes})",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_GPUS": str(span_gpus(order.spans)),
        "SLURM_GPUS_PER_NODE": _gpus_per_node(order),
        "SLURM_GPUS_ON_NODE": str(len(gpus)),
        "SLURM_JOB_GPUS": numbers,
        "CUDA_VISIBLE_DEVICES": ",".join(place.slices[gpu] for gpu in gpus) if place.slices else numbers,
        "SLURM_SUBMIT_DIR": order.working_directory or place.working_directory,
        "SLURM_RESTART_COUNT": str(order.run.attempt - 1),
    }


def output_name(pattern: str, order: StartOrder) -> str:
    """A file name with Slurm's patterns filled in: %j %A %a %x %u %N and %%; `%4j` pads with zeros."""
    values = {
        "%": "%",
        "j": str(order.run.job),
        "J": str(order.run.job),
        "A": order.environment.get("SLURM_ARRAY_JOB_ID", str(order.run.job)),
        "a": order.environment.get("SLURM_ARRAY_TASK_ID", _NO_ARRAY_TASK),
        "x": order.name,
        "u": order.user,
        "N": first_node(order),
        "n": "0",
    }

    def filled(match: re.Match[str]) -> str:
        width, letter = match.groups()
        # What is filled in is one part of a path, never a way to another directory.
        value = values[letter].replace("/", "_")
        return value.zfill(int(width)) if width and value.isdigit() else value

    return _PATTERN.sub(filled, pattern)


def node_count(order: StartOrder) -> int:
    """Nodes of the run."""
    return sum(span.nodes for span in order.spans)


def first_node(order: StartOrder) -> str:
    """The node on which the job's first task would run."""
    return node_name(order.pool, order.spans[0].first)


def _shards_per_gpu(order: StartOrder) -> int:
    """Shards have no names of their own: who has some is shown their GPU."""
    return order.slices_per_gpu if order.slice == SHARD else 1


def first_node_gpus(order: StartOrder) -> list[int]:
    """Indices of the run's GPUs on its first node."""
    mask = order.spans[0].gpu_mask
    return [gpu for gpu in range(mask.bit_length()) if mask >> gpu & 1]


def node_file(order: StartOrder) -> str:
    """All nodes of the run, one a line."""
    return "".join(f"{name}\n" for name in node_names(order.pool, order.spans))


def _gpus_per_node(order: StartOrder) -> str:
    counts = {span.gpu_mask.bit_count() for span in order.spans}
    return str(counts.pop()) if len(counts) == 1 else str(max(counts))
