"""From an order to what Slurm is asked for: exact nodes, GPUs, a time limit. Nothing of a user's gets in."""

import math
import shlex
from pathlib import Path

from pumasi.agents.environment import first_node_gpus, node_count
from pumasi.agents.slurm.commands import Submission
from pumasi.agents.slurm.hostlist import compress
from pumasi.agents.slurm.site import SlurmPool
from pumasi.protocol.messages import StartOrder

_MOST_ARGUMENT_BYTES = 100_000  # the kernel takes 128 KiB in one argument


class CannotAsk(Exception):
    """Slurm cannot be asked for what the order wants; the message says why."""


def submission_of(order: StartOrder, pool: SlurmPool, *, tag: str, mark: str, log: str, seconds: float) -> Submission:
    """What Slurm is told. `seconds`: the longest the run may take; Slurm's own limit is a net below ours.

    :raises CannotAsk: if Slurm has no way to say it.
    """
    gpus = _gpus_on_each_node(order)
    whole = gpus == pool.gpus_per_node
    nodelist = compress(_node_names(order, pool))
    if len(nodelist) > _MOST_ARGUMENT_BYTES:
        raise CannotAsk("the list of its nodes is too long for a command")
    return Submission(
        tag=tag,
        mark=mark,
        partition=pool.partition,
        nodelist=nodelist,
        nodes=node_count(order),
        minutes=math.ceil(seconds / 60) + 1,
        log=log,
        gres=f"{pool.gres}:{gpus}",
        exclusive=whole,
        cpus=0 if whole else order.spans[0].cpus or pool.cpus_per_node * gpus // pool.gpus_per_node,
        memory_mib=0 if whole else order.spans[0].memory_mib or pool.memory_mib_per_node * gpus // pool.gpus_per_node,
        account=pool.account,
        qos=pool.qos,
    )


def _gpus_on_each_node(order: StartOrder) -> int:
    counts = {span.gpu_mask.bit_count() for span in order.spans}
    if len(counts) != 1 or not first_node_gpus(order):
        raise CannotAsk("Slurm gives a job the same number of GPUs on each of its nodes")
    return counts.pop()


def _node_names(order: StartOrder, pool: SlurmPool) -> list[str]:
    last = max(span.first + span.nodes for span in order.spans)
    if last > len(pool.nodes):
        raise CannotAsk(
            f"the site's table has {len(pool.nodes)} nodes of pool {pool.id}, and the order names node {last}"
        )
    return [name for span in order.spans for name in pool.nodes[span.first : span.first + span.nodes]]


# As a module the supervisor is compiled once for all jobs, which takes a sixth off its start.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.exit(__import__(sys.argv.pop(1)).main())"


def batch_script(python: str, supervisor: Path, directory: Path) -> str:
    """The job's script: our supervisor and nothing else. The empty command ends what Slurm reads as directives."""
    program = ["-c", _PROGRAM, str(supervisor.parent), supervisor.stem]
    words = shlex.join([python, "-I", "-S", "-X", "utf8", *program, str(directory)])
    return f"#!/bin/sh\n:\nexec {words}\n"
