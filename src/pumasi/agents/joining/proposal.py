"""From what a cluster has to three files to edit: the engine's table, the site's policy, and its part of the plan."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from pumasi.agents.joining.inventory import Gpus, Inventory, gpus_of
from pumasi.agents.slurm.hostlist import compress, expand
from pumasi.agents.slurm.readers import SlurmNode
from pumasi.model.fleet import GpuModel, MigProfile, is_slice
from pumasi.model.ids import OwnerId, PoolId, SiteId

_LONGEST_HOURS = 168
_NO_NAME = re.compile(r"[^a-z0-9]+")


class ProposedPool(Struct, frozen=True, kw_only=True):
    """Nodes alike in GPUs, partitions and size. `model`: of the catalogue, None if the type tells nothing.

    `cut`: the MIG profile that the type names, if it does; the GPUs are slices then.
    """

    id: PoolId
    partition: str
    other_partitions: tuple[str, ...]
    nodes: tuple[str, ...]
    gpus: Gpus
    model: str | None
    cut: MigProfile | None
    cpus_per_node: int
    memory_mib_per_node: int
    nodes_per_rack: int

    @property
    def gpu_count(self) -> int:
        """GPUs of all its nodes."""
        return len(self.nodes) * self.gpus.count


class Proposal(Struct, frozen=True, kw_only=True):
    """What a site would bring, and what of it stays outside: names of nodes, each with the reason."""

    site: SiteId
    owner: OwnerId
    pools: tuple[ProposedPool, ...]
    left_out: tuple[tuple[str, str], ...]


class _Kind(NamedTuple):
    """What nodes of one pool have in common."""

    partitions: tuple[str, ...]
    gpus: Gpus
    cpus: int
    memory_mib: int


def propose(inventory: Inventory, site: SiteId, owner: OwnerId, models: Sequence[GpuModel]) -> Proposal:
    """The pools a site could bring; neighbours in the topology stay neighbours."""
    kinds: dict[_Kind, list[str]] = {}
    left_out = []
    for node in _in_order(inventory):
        problem = _unfit(node)
        if problem:
            left_out.append((node.name, problem))
        else:
            kind = _Kind(node.partitions, gpus_of(node.gres)[0], node.cpus, node.memory_mib)
            kinds.setdefault(kind, []).append(node.name)
    names = _pool_names(site, [kind.gpus.type for kind in kinds])
    pools = (
        _pool(name, kind, nodes, inventory, models) for name, (kind, nodes) in zip(names, kinds.items(), strict=True)
    )
    return Proposal(site=site, owner=owner, pools=tuple(pools), left_out=tuple(left_out))


def _in_order(inventory: Inventory) -> list[SlurmNode]:
    by_rack = {name: place for place, name in enumerate(name for rack in inventory.racks for name in rack)}
    return sorted(inventory.nodes, key=lambda node: by_rack.get(node.name, len(by_rack)))


def _unfit(node: SlurmNode) -> str:
    if not gpus_of(node.gres):
        return "no GPUs"
    if len(gpus_of(node.gres)) > 1:
        return "GPUs of two types; a pool has one"
    return "" if node.partitions else "in no partition"


def _pool(
    name: PoolId, kind: _Kind, nodes: list[str], inventory: Inventory, models: Sequence[GpuModel]
) -> ProposedPool:
    default = inventory.default_partition
    partition = default if default in kind.partitions else kind.partitions[0]
    model, cut = _model(kind.gpus, models)
    return ProposedPool(
        id=name,
        partition=partition,
        other_partitions=tuple(each for each in kind.partitions if each != partition),
        nodes=tuple(nodes),
        gpus=kind.gpus,
        model=model,
        cut=cut,
        cpus_per_node=kind.cpus,
        memory_mib_per_node=kind.memory_mib,
        nodes_per_rack=_nodes_per_rack(nodes, inventory),
    )


def _nodes_per_rack(nodes: list[str], inventory: Inventory) -> int:
    """Nodes of a leaf switch; 0 if there are none, or they differ by more than the last one being short."""
    sizes = [len(set(rack) & set(nodes)) for rack in inventory.racks]
    sizes = [size for size in sizes if size]
    if sum(sizes) != len(nodes) or len(set(sizes[:-1])) > 1:
        return 0
    return sizes[0] if sizes and sizes[-1] <= sizes[0] else 0


def _pool_names(site: SiteId, types: Iterable[str]) -> list[PoolId]:
    names: list[PoolId] = []
    for word in types:
        name = f"{site}-{_NO_NAME.sub('-', word.lower()).strip('-') or 'gpu'}"[:60].rstrip("-")
        number = sum(each == name or each.startswith(f"{name}-n") for each in names)
        names.append(f"{name}-n{number + 1}" if number else name)
    return names


def _model(gpus: Gpus, models: Sequence[GpuModel]) -> tuple[str | None, MigProfile | None]:
    """The catalogue's model that the site's type tells, never one with fewer GPUs per node, and how it is cut.

    A type such as `b200_1g.23gb` names both; `1g.23gb` alone tells the model too if only one is cut into such.
    """
    kind = gpus.type.lower().removeprefix("nvidia").strip("_-")
    gpu_type, _, name = kind.rpartition("_")
    if not is_slice(name):
        return _named([model for model in models if model.gpus_per_node >= gpus.count], kind), None
    cuts = {
        model.id: (model, cut) for model in models if (cut := model.profile(name)) and _has_so_many(model, cut, gpus)
    }
    fitting = [model for model, _ in cuts.values()]
    found = _named(fitting, gpu_type) if gpu_type else (fitting[0].id if len(fitting) == 1 else None)
    return found, cuts[found][1] if found else MigProfile(name, 1)


def _has_so_many(model: GpuModel, cut: MigProfile, gpus: Gpus) -> bool:
    whole, rest = divmod(gpus.count, cut.per_gpu)
    return not rest and whole <= model.gpus_per_node


def _named(models: Iterable[GpuModel], kind: str) -> str | None:
    """The model whose name has the site's word in it."""
    word = _NO_NAME.sub("", kind)
    if not word:
        return None
    parts = [(model, model.id.split("-")) for model in models]
    whole = [model.id for model, words in parts if word in words or word == "".join(words)]
    begins = [model.id for model, words in parts if any(part in words for part in re.findall(r"[a-z]+[0-9]+", word))]
    return next(iter(whole + begins), None)


# --- the files -------------------------------------------------------------------------------------------------------


def engine_file(proposal: Proposal, inventory: Inventory, slurm_conf: str, commands: str, shared: str = "") -> str:
    """`slurm.yaml`: where the agent finds what it is asked for. `slurm_conf`, `shared`: "" if there is none to name."""
    lines = [
        f"# Which nodes of this {inventory.version} are which pool of the fleet. The fleet never sees these names.",
        "# The order of the nodes counts: the first is node 1 of the pool. Add new ones at the end.",
        *([f"slurm_conf: {slurm_conf}"] if slurm_conf else []),
        f"commands: {commands}",
        *([f"shared_directory: {shared} # seen by all nodes under this path"] if shared else []),
        f"kill_wait_seconds: {inventory.kill_wait_seconds} # as Slurm's KillWait",
        f"accounting: {'yes' if inventory.has_accounting else 'no'} # whether slurmdbd keeps what has ended",
        "pools:",
    ]
    for pool in proposal.pools:
        others = f" # they are in {', '.join(pool.other_partitions)} too" if pool.other_partitions else ""
        lines += [
            f"  {pool.id}:",
            f"    partition: {pool.partition}{others}",
            f"    nodes: '{_hostlist(pool.nodes)}'",
            f"    gpus_per_node: {pool.gpus.count}" + (" # slices, as this Slurm counts them" if pool.cut else ""),
            *([f"    gres_type: {pool.gpus.type}"] if pool.gpus.type else []),
            f"    cpus_per_node: {pool.cpus_per_node}",
            f"    memory_mib_per_node: {pool.memory_mib_per_node}",
            "    # account: research # what Slurm books it on; without it, the default account of the agent's user",
        ]
    return "\n".join(lines) + "\n"


def _hostlist(nodes: tuple[str, ...]) -> str:
    """In short if that keeps their order, which the racks gave them."""
    short = compress(nodes)
    return short if tuple(expand(short)) == nodes else ",".join(nodes)


def policy_file(proposal: Proposal, lend: bool) -> str:
    """`policy.yaml`: what this site lets the control plane ask."""
    gpus = sum(pool.gpu_count for pool in proposal.pools)
    partitions = ", ".join(dict.fromkeys(pool.partition for pool in proposal.pools))
    return f"""\
# What this site lets the control plane ask. The agent obeys this file before any order, and nobody but you can change
# it. What is not listed is refused, with the line that says so. Restart the agent after a change.
partitions: [{partitions}]
accounts: [] # accounts that slurm.yaml may name
users: [all] # the fleet's users, by name
queues: [{"all" if lend else proposal.owner}] # whose work may come: owners or queues; all: whoever the plan lends to
data_classes: [open] # add a class only if this site is cleared for it
gpus_at_most: {gpus} # of all runs together
gpus_per_job_at_most: {gpus}
hours_at_most: {_LONGEST_HOURS} # of a job's time limit
"""


def plan_file(proposal: Proposal, today: str, models: Sequence[GpuModel]) -> str:
    """The site's part of the fleet's plan, for whoever keeps it. `today`: ISO date."""
    lines = [
        "# This site's part of the fleet's plan: check it, then give it to the operator of the fleet, who adds it.",
        "sites:",
        f"  {proposal.site}:",
        f"    operator: {proposal.owner}",
        "    engine: slurm",
        "    clearances: [] # data classes beyond open that this site is cleared for",
        "pools:",
    ]
    for pool in proposal.pools:
        known = ", ".join(model.id for model in models)
        lines += [
            f"  {pool.id}:",
            f"    site: {proposal.site}",
            f"    model: {pool.model}" if pool.model else f"    model: '' # one of {known}, or one you add to the plan",
            f"    owner: {proposal.owner}",
            f"    nodes: {len(pool.nodes)}",
            *_gpus_per_node(pool),
            *([f"    nodes_per_rack: {pool.nodes_per_rack}"] if pool.nodes_per_rack else []),
            f"    cpus_per_node: {pool.cpus_per_node}",
            f"    memory_mib_per_node: {pool.memory_mib_per_node}",
            f"    entitlements: {{{proposal.owner}: {pool.gpu_count}}} # who is due how many; it must add up to all",
            f"    stages: {{in_service: {today}}}",
            f"    basis: {{assumption: read from the cluster on {today}}}",
        ]
    return "\n".join(lines) + "\n"


def _gpus_per_node(pool: ProposedPool) -> list[str]:
    """The plan counts whole ones, and says how they are cut."""
    if pool.cut is None:
        return [f"    gpus_per_node: {pool.gpus.count}"]
    unsure = "" if pool.model else " # set it to how many whole ones they are"
    return [f"    slice: {pool.cut.name}", f"    gpus_per_node: {pool.gpus.count // pool.cut.per_gpu}{unsure}"]
