"""What a Slurm cluster has, as far as a proposal needs it: nodes with GPUs, partitions, racks, and a few settings."""

import re

from msgspec import Struct

from pumasi.agents.slurm.commands import SlurmAway, SlurmCommands
from pumasi.agents.slurm.hostlist import expand
from pumasi.agents.slurm.readers import SlurmNode
from pumasi.agents.slurm.runner import CommandTimedOut, Runner

_ASK_SECONDS = 10.0
_GPU = re.compile(r"gpu(?::([A-Za-z0-9_.\-]*[A-Za-z][A-Za-z0-9_.\-]*))?:([0-9]{1,3})(?:\(.*\))?")
_SETTING = re.compile(r"^(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_LEAF = re.compile(r"SwitchName=\S+ Level=0 .*?Nodes=(\S+)")
_SECONDS = re.compile(r"([0-9]{1,6}) sec")


class Gpus(Struct, frozen=True):
    """GPUs of a node as its Gres says: the site's word for their type ("" if it has none) and how many."""

    type: str
    count: int


class Inventory(Struct, frozen=True, kw_only=True):
    """A cluster. `racks`: nodes of each leaf switch, where the topology is configured. `default`: its partition."""

    version: str
    nodes: tuple[SlurmNode, ...]
    default_partition: str = ""
    racks: tuple[tuple[str, ...], ...] = ()
    settings: dict[str, str] = {}

    @property
    def kill_wait_seconds(self) -> int:
        """Slurm's time between the signals at a job's end."""
        match = _SECONDS.fullmatch(self.settings.get("KillWait", ""))
        return int(match[1]) if match else 30

    @property
    def has_accounting(self) -> bool:
        """Whether slurmdbd keeps what has ended."""
        return self.settings.get("AccountingStorageType", "").endswith("slurmdbd")


def take_inventory(runner: Runner, user: int) -> Inventory:
    """Look at the cluster; nothing is changed.

    :raises SlurmAway: if it does not answer; the message says what it said.
    """
    _ping(runner)
    nodes = SlurmCommands(runner, user).nodes()
    return Inventory(
        version=_ask(runner, "sinfo", "--version"),
        nodes=tuple(nodes),
        default_partition=_default(_ask(runner, "sinfo", "--noheader", "--format=%P")),
        racks=_racks(_ask(runner, "scontrol", "show", "topology")),
        settings=dict(_SETTING.findall(_ask(runner, "scontrol", "show", "config"))),
    )


def gpus_of(gres: str) -> list[Gpus]:
    """The GPUs in a Gres such as `gpu:b200:8(S:0-1),shard:16`; nodes with GPUs of two types have two entries."""
    without_sockets = re.sub(r"\([^)]*\)", "", gres)
    matches = (_GPU.fullmatch(each.strip()) for each in without_sockets.split(","))
    return [Gpus(match[1] or "", int(match[2])) for match in matches if match and int(match[2])]


def _ping(runner: Runner) -> None:
    """Where slurmctld is down, every other command hangs for 9 seconds, and some say nothing of it even then."""
    try:
        answer = runner.run("scontrol", ["ping"], _ASK_SECONDS)
    except (CommandTimedOut, OSError) as error:
        raise SlurmAway(str(error)) from error
    if answer.code or " UP" not in answer.output:
        raise SlurmAway(" ".join((answer.output + answer.errors).split()) or "slurmctld is down")


def _ask(runner: Runner, name: str, *arguments: str) -> str:
    try:
        answer = runner.run(name, list(arguments), _ASK_SECONDS)
    except (CommandTimedOut, OSError) as error:
        raise SlurmAway(str(error)) from error
    # A cluster without topology says so with an exit code; that is an answer too.
    return answer.output.strip() if answer.code == 0 else ""


def _default(partitions: str) -> str:
    """sinfo puts a star behind the default."""
    return next((name.rstrip("*") for name in partitions.split() if name.endswith("*")), "")


def _racks(topology: str) -> tuple[tuple[str, ...], ...]:
    try:
        return tuple(tuple(expand(nodes)) for nodes in _LEAF.findall(topology))
    except ValueError:
        return ()
