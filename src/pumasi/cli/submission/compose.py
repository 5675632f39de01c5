"""From a draft to the jobs the API takes, once the fleet's names and clock are known."""

from datetime import datetime
from typing import Any, NamedTuple

from pumasi.cli.submission.catalogue import Catalogue
from pumasi.cli.submission.draft import Draft
from pumasi.cli.submission.options import OptionProblem
from pumasi.cli.times import BEGIN_FORMS, parse_begin

_TASKS = (
    "{option} is not supported: the script is started once and told of one task per node; leave it out "
    "(or --ignore it) and let the launcher in the script (srun -n, torchrun, mpirun) start more"
)


class Fleet(NamedTuple):
    """What of the fleet a draft is read against. `array_id`: a number unique to this submission."""

    catalogue: Catalogue
    now: datetime
    array_id: int


def compose(draft: Draft, fleet: Fleet) -> list[dict[str, Any]]:
    """The bodies of the jobs: one, or one for each index of the array.

    :raises OptionProblem: if the draft is incomplete or contradicts itself.
    """
    gpus, per_node = gang(draft)
    body: dict[str, Any] = {"name": draft.name, "queue": draft.queue, "script": draft.script, "gpus": gpus}
    if per_node:
        body["gpus_per_node"] = per_node
    if draft.time_limit_seconds:
        body["time_limit_seconds"] = draft.time_limit_seconds
    body |= draft.fields | _memory_of_cpus(draft) | _placement(draft, fleet.catalogue)
    if draft.topology:
        body["topology"] = draft.topology
    if draft.begin:
        body["begin_at_ms"] = _begin(draft.begin, fleet.now)
    if draft.held:
        body["held"] = True
    _check_tasks(draft, gpus, per_node)
    if not draft.array:
        return [body | ({"environment": draft.environment} if draft.environment else {})]
    tasks = (_array_task(draft.array, index, fleet.array_id) for index in draft.array)
    return [body | {"environment": draft.environment | task} for task in tasks]


def gang(draft: Draft) -> tuple[int, int]:
    """GPUs in all, and on each node (0: as each pool sees fit).

    :raises OptionProblem: if nothing or contradicting things are asked for.
    """
    nodes, per_node, gpus = draft.nodes, draft.gpus_per_node, draft.gpus
    if not per_node and not gpus:
        raise OptionProblem("it asks for no GPU; say --gpus=N, or --nodes=N --gpus-per-node=N")
    if nodes and per_node and gpus and nodes * per_node != gpus:
        raise OptionProblem(f"{nodes} nodes with {per_node} GPUs each are {nodes * per_node} GPUs, not {gpus}")
    if per_node and gpus and gpus % per_node:
        raise OptionProblem(f"{gpus} GPUs cannot be had as {per_node} on each node")
    if nodes and gpus and not per_node and gpus % nodes:
        raise OptionProblem(f"{gpus} GPUs cannot be shared evenly by {nodes} nodes")
    if per_node:
        return gpus or per_node * (nodes or 1), per_node
    return gpus, gpus // nodes if nodes else 0


def _check_tasks(draft: Draft, gpus: int, per_node: int) -> None:
    """Pumasi starts the script once and tells it of one task per node; more tasks are the launcher's business."""
    nodes = gpus // per_node if per_node else 1
    if draft.tasks_per_node > 1:
        raise OptionProblem(_TASKS.format(option=f"--ntasks-per-node={draft.tasks_per_node}"))
    if draft.tasks and draft.tasks not in {1, nodes}:
        raise OptionProblem(_TASKS.format(option=f"--ntasks={draft.tasks}"))


def _memory_of_cpus(draft: Draft) -> dict[str, Any]:
    """What --mem-per-cpu comes to, for the CPUs asked for; one on each node, if none are."""
    if not draft.cpu_memory_mib:
        return {}
    for cpus, memory in (("cpus_per_gpu", "host_memory_mib_per_gpu"), ("cpus_per_node", "host_memory_mib_per_node")):
        if isinstance(asked := draft.fields.get(cpus), int):
            return {memory: draft.cpu_memory_mib * asked}
    return {"host_memory_mib_per_node": draft.cpu_memory_mib}


def _placement(draft: Draft, catalogue: Catalogue) -> dict[str, Any]:
    pools, sites = catalogue.places(draft.places)
    catalogue.places(draft.prefers)  # a wish for what is not there is a slip
    placement: dict[str, Any] = {"pools": [*draft.pools, *pools], "sites": [*draft.sites, *sites]}
    placement["prefers"] = list(draft.prefers)
    models = set().union(*(catalogue.models_of(kind) for kind in draft.gpu_types))
    if draft.constraint:
        constrained, architecture = catalogue.constraint(draft.constraint)
        models = _both(models, constrained)
        placement["cpu_arch"] = architecture
    placement["gpu_models"] = sorted(models)
    return {name: value for name, value in placement.items() if value}


def _both(first: set[str], second: set[str]) -> set[str]:
    if first and second and not first & second:
        raise OptionProblem(f"GPU type and --constraint exclude each other: {sorted(first)} and {sorted(second)}")
    return first & second if first and second else first or second


def _begin(text: str, now: datetime) -> int:
    begin_at_ms = parse_begin(text, now)
    if begin_at_ms is None:
        raise OptionProblem(f"--begin: {text!r} is no time; write {BEGIN_FORMS}")
    return begin_at_ms


def _array_task(array: tuple[int, ...], index: int, array_id: int) -> dict[str, str]:
    task = {
        "SLURM_ARRAY_JOB_ID": array_id,
        "SLURM_ARRAY_TASK_ID": index,
        "SLURM_ARRAY_TASK_COUNT": len(array),
        "SLURM_ARRAY_TASK_MIN": min(array),
        "SLURM_ARRAY_TASK_MAX": max(array),
        "SLURM_ARRAY_TASK_STEP": array[1] - array[0] if len(array) > 1 else 1,
    }
    return {name: str(value) for name, value in task.items()}
