"""How the site's nodes are, as Slurm says, in the pools' own numbers."""

import re
import time
from collections.abc import Iterable, Sequence

from pumasi.agents.slurm.commands import SlurmAway, SlurmCommands
from pumasi.agents.slurm.readers import SlurmNode
from pumasi.agents.slurm.site import SlurmPool, SlurmSite
from pumasi.agents.slurm.states import node_state
from pumasi.agents.slurm.tracked import Patience
from pumasi.events.facts import NodeState
from pumasi.model.fleet import SHARD
from pumasi.protocol.messages import NodeHealth, NodeReport

_REASON_CHARACTERS = 200
_TOLD_AGAIN_SECONDS = 60.0
_COST_SHARE = 20  # a look that takes t seconds is not repeated for this many t
_GRES = re.compile(r"(gpu|shard)(?::([^:,(]*[A-Za-z][^:,(]*))?(?::([0-9]+))?(?:\([^)]*\))?(?:,|$)")

Ail = tuple[NodeState, str]


class Health:
    """Looks at the nodes now and then."""

    def __init__(self, site: SlurmSite, commands: SlurmCommands, patience: Patience) -> None:
        self._site = site
        self._commands = commands
        self._patience = patience
        self._look_at = 0.0
        self._tell_again_at = 0.0
        self._told: NodeHealth | None = None

    def look(self, now: float, away_since: float | None) -> NodeHealth | None:
        """What there is to tell; None if nothing. `away_since`: since when Slurm does not answer, if it does not."""
        if away_since is not None:
            long = now - away_since >= self._patience.away
            return self._news(self._away(), now) if long else None
        if now < self._look_at:
            return None
        began = time.monotonic()
        try:
            nodes = {node.name: node for node in self._commands.nodes()}
        except SlurmAway:
            return None
        self._look_at = now + max(self._patience.nodes, _COST_SHARE * (time.monotonic() - began))
        return self._news(health_of(self._site.pools.values(), nodes), now)

    def _news(self, health: NodeHealth, now: float) -> NodeHealth | None:
        """Told when it changes, and again now and then: what the control plane did not take at once it takes later."""
        if health == self._told and now < self._tell_again_at:
            return None
        self._told, self._tell_again_at = health, now + _TOLD_AGAIN_SECONDS
        return health

    def _away(self) -> NodeHealth:
        pools = self._site.pools.values()
        return NodeHealth(
            pools=tuple(self._site.pools),
            ailing=tuple(
                NodeReport(
                    pool=pool.id,
                    first=0,
                    nodes=len(pool.nodes),
                    state=NodeState.DRAINED,
                    reason="the site's Slurm does not answer",
                )
                for pool in pools
            ),
        )


def health_of(pools: Iterable[SlurmPool], nodes: dict[str, SlurmNode]) -> NodeHealth:
    """The health of the nodes of `pools`, given all nodes of the cluster by name."""
    pools = list(pools)
    ailing = [
        report for pool in pools for report in _ailing(pool, [_ail(pool, nodes.get(name)) for name in pool.nodes])
    ]
    return NodeHealth(pools=tuple(pool.id for pool in pools), ailing=tuple(ailing))


def _ailing(pool: SlurmPool, ails: Sequence[Ail | None]) -> Iterable[NodeReport]:
    first = 0
    for index, ail in enumerate(ails):
        if index + 1 < len(ails) and ails[index + 1] == ail:
            continue
        if ail is not None:
            yield NodeReport(pool=pool.id, first=first, nodes=index + 1 - first, state=ail[0], reason=ail[1])
        first = index + 1


def _ail(pool: SlurmPool, node: SlurmNode | None) -> Ail | None:
    if node is None:
        return NodeState.DOWN, "the site's Slurm has no such node"
    state, word = node_state(node.states)
    if state is not NodeState.UP:
        reason = f"{word.lower()}: {node.reason}" if node.reason else word.lower()
        return state, " ".join(reason.split())[:_REASON_CHARACTERS]
    gpus = gpu_count(node.gres, pool.gres_type)
    if gpus < pool.gpus_per_node:
        return NodeState.DRAINED, f"{gpus} of {pool.gpus_per_node} GPUs"
    return None


def gpu_count(gres: str, gres_type: str) -> int:
    """GPUs in a node's Gres such as `gpu:b200:8(S:0-1),nvme:2`; of one type, if it is not empty; shards of SHARD."""
    name, kind = ("shard", "") if gres_type == SHARD else ("gpu", gres_type)
    found = [match for match in _GRES.finditer(gres) if match[1] == name]
    return sum(int(match[3] or 1) for match in found if not kind or (match[2] or "") == kind)
