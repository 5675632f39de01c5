"""What a site says of its nodes, held against what is known of them.

A node that our own operator took out, or that is in quarantine, stays out, whatever the site says; one that the site
took out comes back when the site says so. Who it was stands in the reason: those of a site, and of quarantine, begin
with words that nobody else may use.
"""

from collections.abc import Iterator

from pumasi.control.quarantine import QUARANTINED
from pumasi.events.facts import NodeChanged, NodeState
from pumasi.model.ids import PoolId, SiteId
from pumasi.protocol.messages import NodeHealth, NodeReport
from pumasi.state.fleet_state import FleetState

SITE_SAYS = "the site says: "
OTHERS_WORDS = (SITE_SAYS, QUARANTINED)


def set_by_site(state: FleetState, pool: PoolId, node: int) -> bool:
    """True if the node is out of work because its site said so."""
    return state.node_reasons.get((pool, node), "").startswith(SITE_SAYS)


def set_by_operator(state: FleetState, pool: PoolId, node: int) -> bool:
    """True if the node is out of work, and not because its site said so or because it is in quarantine."""
    reason = state.node_reasons.get((pool, node))
    return reason is not None and not reason.startswith(OTHERS_WORDS)


def as_operators_words(reason: str) -> str:
    """An operator's reason; it cannot pass for anybody else's."""
    while reason.startswith(OTHERS_WORDS):
        for words in OTHERS_WORDS:
            reason = reason.removeprefix(words)
    return reason


def health_facts(state: FleetState, site: SiteId, health: NodeHealth, now_ms: int) -> Iterator[NodeChanged]:
    """The facts in a report; what it says of other sites' pools or of nodes that do not exist is passed over."""
    own = [pool for pool in dict.fromkeys(health.pools) if _is_of(state, site, pool)]
    for pool in own:
        ails = _ails(health, pool, state.pools[pool].declared.nodes)
        known = state.occupancy[pool].node_states
        for node in sorted(ails.keys() | {node for node in known if set_by_site(state, pool, node)}):
            changed = _changed(state, pool, node, ails.get(node))
            if changed is not None:
                target, reason = changed
                yield NodeChanged(at_ms=now_ms, by=f"site:{site}", pool=pool, node=node, state=target, reason=reason)


def _is_of(state: FleetState, site: SiteId, pool: PoolId) -> bool:
    record = state.pools.get(pool)
    return record is not None and record.declared.site == site


def _ails(health: NodeHealth, pool: PoolId, nodes: int) -> dict[int, NodeReport]:
    found: dict[int, NodeReport] = {}
    for report in health.ailing:
        if report.pool == pool and report.state is not NodeState.UP:
            for node in range(max(0, report.first), min(nodes, report.first + report.nodes)):
                found[node] = report
    return found


def _changed(state: FleetState, pool: PoolId, node: int, report: NodeReport | None) -> tuple[NodeState, str] | None:
    occupancy = state.occupancy[pool]
    known = occupancy.node_state(node)
    if known is not NodeState.UP and not set_by_site(state, pool, node):
        return None
    if report is None:
        return None if known is NodeState.UP else (NodeState.UP, "")
    # Jobs on a node that is down end when the site has proof that they did: until then they hold their GPUs.
    target = NodeState.DRAINED if occupancy.jobs_on(node) else report.state
    return None if known is target else (target, SITE_SAYS + report.reason)
