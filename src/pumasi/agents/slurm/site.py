"""What an agent must know of a site's Slurm: one file, `slurm.yaml`, in the site's directory. `agent init` proposes it.

Pools are ours and nodes are the site's: the table here says which is which, so that neither side has to rename a thing.
"""

import re
from pathlib import Path

from msgspec import Struct

from pumasi.agents.slurm.hostlist import expand
from pumasi.model.fleet import MAX_GPUS_PER_NODE, SHARD
from pumasi.model.ids import PoolId
from pumasi.plans import yaml_tree
from pumasi.plans.problems import Problems, quoted
from pumasi.plans.section import Section

FILE_NAME = "slurm.yaml"
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")


class SiteProblem(Exception):
    """The file cannot be used; the message names every mistake with its line."""


class SlurmPool(Struct, frozen=True, kw_only=True):
    """Where a pool's work goes. `nodes`: the site's names, node 1 of the pool first. Empty or 0: not asked for.

    `gres_type`: the GPUs' type in Slurm's Gres (`gpu:<type>`). Where the site cut its GPUs into MIG slices, those are
    what it calls GPUs, and what `gpus_per_node` counts; or its shards, if `gres_type` is SHARD. `cpus_per_node`,
    `memory_mib_per_node`: what a job on a part of a node gets its share of.
    """

    id: PoolId
    partition: str
    nodes: tuple[str, ...]
    gpus_per_node: int
    gres_type: str = ""
    account: str = ""
    qos: str = ""
    cpus_per_node: int = 0
    memory_mib_per_node: int = 0

    @property
    def gres(self) -> str:
        """What is asked of Slurm, before how many."""
        if self.gres_type == SHARD:
            return SHARD
        return f"gpu:{self.gres_type}" if self.gres_type else "gpu"


class SlurmSite(Struct, frozen=True, kw_only=True):
    """A site's Slurm. `commands`: where its programs are. `python`: a Python >= 3.9 on every node.

    `shared_directory`: the agent's own, seen by all nodes under the same path; the site's directory if it is empty.
    `kill_wait_seconds`: Slurm's KillWait. `queue_seconds`: a run that Slurm has not started by then is given back.
    """

    pools: dict[PoolId, SlurmPool]
    slurm_conf: str = ""
    commands: str = "/usr/bin"
    python: str = "/usr/bin/python3"
    shared_directory: str = ""
    kill_wait_seconds: int = 30
    queue_seconds: int = 600
    accounting: bool = False


def read_site(path: Path) -> SlurmSite:
    """Read the file.

    :raises SiteProblem: if it cannot be used.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SiteProblem(f"{path}: {error.strerror}") from error
    problems = Problems(path.name)
    tree = yaml_tree.parse_yaml(data, problems)
    if tree is not None and not isinstance(tree, yaml_tree.Mapping):
        problems.add(1, 1, "", "a site is keys with values, such as pools:")
    if isinstance(tree, yaml_tree.Mapping):
        site = _site(Section(tree, "", problems))
        if not problems.count:
            return site
    raise SiteProblem("\n".join(str(problem) for problem in problems.listed()))


def _site(section: Section) -> SlurmSite:
    pools = {name: _pool(name, each) for name, each in section.sections("pools")}
    site = SlurmSite(
        pools=pools,
        slurm_conf=_path(section, "slurm_conf", ""),
        commands=_path(section, "commands", "/usr/bin"),
        python=_path(section, "python", "/usr/bin/python3"),
        shared_directory=_path(section, "shared_directory", ""),
        kill_wait_seconds=section.integer("kill_wait_seconds", 30, minimum=1, maximum=3600),
        queue_seconds=section.integer("queue_seconds", 600, minimum=1),
        accounting=section.text("accounting", "no") in ("yes", "true"),
    )
    if not pools:
        section.complain("pools", "name at least one pool that this Slurm serves")
    _complain_of_shared_nodes(section, pools)
    section.finish()
    return site


def _pool(name: PoolId, section: Section) -> SlurmPool:
    pool = SlurmPool(
        id=name,
        partition=_word(section, "partition", None),
        nodes=_nodes(section),
        gpus_per_node=section.integer("gpus_per_node", minimum=1, maximum=MAX_GPUS_PER_NODE),
        gres_type=_word(section, "gres_type", ""),
        account=_word(section, "account", ""),
        qos=_word(section, "qos", ""),
        cpus_per_node=section.integer("cpus_per_node", 0),
        memory_mib_per_node=section.integer("memory_mib_per_node", 0),
    )
    section.finish()
    return pool


def _nodes(section: Section) -> tuple[str, ...]:
    text = section.text("nodes")
    try:
        names = expand(text)
    except ValueError as error:
        section.complain("nodes", str(error))
        return ()
    wrong = [name for name in names if not _HOST.fullmatch(name)]
    if wrong or len(set(names)) != len(names):
        section.complain("nodes", f"{quoted(wrong[0])} is no node's name" if wrong else "a node stands twice")
    return tuple(names)


def _word(section: Section, key: str, default: str | None) -> str:
    """A name that Slurm takes and that no shell, list or option can mistake for anything else."""
    word = section.text(key, default)
    if word and not _WORD.fullmatch(word):
        section.complain(key, f"{quoted(word)} is no name of Slurm's: letters, digits, _ . and -")
    return word


def _path(section: Section, key: str, default: str) -> str:
    path = section.text(key, default)
    if path and not path.startswith("/"):
        section.complain(key, f"{quoted(path)} is no absolute path")
    return path


def _complain_of_shared_nodes(section: Section, pools: dict[PoolId, SlurmPool]) -> None:
    owner: dict[str, PoolId] = {}
    for pool in pools.values():
        for node in pool.nodes:
            if owner.setdefault(node, pool.id) != pool.id:
                section.complain("pools", f"node {node} is in {owner[node]} and in {pool.id}; a node is in one pool")
                return
