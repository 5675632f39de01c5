"""Which pools a job is tried in first: where its user wishes, then by the policy, then where it crowds out least."""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from pumasi.model.fleet import Pool, PoolOrder
from pumasi.model.ids import OwnerId, queue_owner
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.shapes import Fit, Need
from pumasi.state.fleet_state import FleetState


def ranked(state: FleetState, spec: JobSpec, fits: Iterable[Fit]) -> tuple[Fit, ...]:
    """The same fits in the same order, each with its rank; pools that nothing tells apart have the same."""
    keys = {fit: _key(state, spec, state.pools[fit.pool].declared, fit.need) for fit in fits}
    rank = {key: place for place, key in enumerate(sorted(set(keys.values())))}
    return tuple(replace(fit, rank=rank[key]) for fit, key in keys.items())


def _key(state: FleetState, spec: JobSpec, pool: Pool, need: Need) -> tuple[int, ...]:
    owner = queue_owner(spec.queue)
    wishes = [place for place, name in enumerate(spec.prefers) if name in {pool.id, pool.site}]
    wished = wishes[0] if wishes else len(spec.prefers)
    by_policy = (_KEYS[criterion](state, owner, pool) for criterion in state.policy.pool_order)
    return wished, *by_policy, _crowded_out(pool, need)


def _crowded_out(pool: Pool, need: Need) -> int:
    """Parts of GPUs of a node that are left without the CPUs or the memory they come with."""
    asked = ((need.cpus, pool.cpus_per_node), (need.memory_mib, pool.memory_mib_per_node))
    taken = [pool.parts(mine * pool.gpus_per_node) // all_of_it for mine, all_of_it in asked if mine]
    return max(0, *taken, pool.parts(need.each)) - pool.parts(need.each)


def _not_home(_: FleetState, owner: OwnerId, pool: Pool) -> int:
    return not pool.entitlements.get(owner)


def _not_own_site(state: FleetState, owner: OwnerId, pool: Pool) -> int:
    return state.sites[pool.site].declared.operator != owner


def _watts(state: FleetState, _: OwnerId, pool: Pool) -> int:
    return pool.parts(1) * state.gpu_models[pool.model].planning_watts  # a slice draws its part


_KEYS: dict[PoolOrder, Callable[[FleetState, OwnerId, Pool], int]] = {
    PoolOrder.HOME: _not_home,
    PoolOrder.SITE: _not_own_site,
    PoolOrder.POWER: _watts,
}
