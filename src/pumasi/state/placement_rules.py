"""The placement rules as a question with an answer: which rule keeps this work from this pool."""

from collections.abc import Iterable

from pumasi.model.calendar import day_name, day_of
from pumasi.model.fleet import Place, PlacementRule, Work
from pumasi.model.ids import PoolId, queue_owner
from pumasi.model.jobs import JobSpec
from pumasi.state.fleet_state import FleetState


def rules_in_force(state: FleetState, now_ms: int) -> tuple[PlacementRule, ...]:
    """The rules that hold at a moment."""
    if not state.policy.rules:
        return ()
    today = day_name(day_of(now_ms))
    return tuple(rule for rule in state.policy.rules if rule.is_in_force(today))


def rules_about(state: FleetState, spec: JobSpec, now_ms: int) -> tuple[PlacementRule, ...]:
    """The rules that hold at a moment and are about this work."""
    return tuple(rule for rule in rules_in_force(state, now_ms) if _is_about(state, rule.work, spec))


def broken_rule(state: FleetState, spec: JobSpec, pool: PoolId, rules: Iterable[PlacementRule]) -> PlacementRule | None:
    """The first of the rules, all of them about this work, that keeps it from the pool; None if none does."""
    for rule in rules:
        if rule.only_at is not None and not _is_there(state, rule.only_at, spec, pool):
            return rule
        if rule.not_at is not None and _is_there(state, rule.not_at, spec, pool):
            return rule
    return None


def _is_about(state: FleetState, work: Work, spec: JobSpec) -> bool:
    owner = queue_owner(spec.queue)
    return (
        (not work.data_classes or spec.data_class in work.data_classes)
        and (not work.owners or owner in work.owners)
        and (not work.owner_kinds or state.owners[owner].declared.kind in work.owner_kinds)
        and (not work.queues or any(f"{spec.queue}/".startswith(f"{queue}/") for queue in work.queues))
    )


def _is_there(state: FleetState, place: Place, spec: JobSpec, pool: PoolId) -> bool:
    declared = state.pools[pool].declared
    site = state.sites[declared.site].declared
    is_home = bool(declared.entitlements.get(queue_owner(spec.queue)))
    return (
        (not place.pools or pool in place.pools)
        and (not place.sites or site.id in place.sites)
        and (not place.regions or site.region in place.regions)
        and (not place.operators or site.operator in place.operators)
        and (not place.operator_kinds or state.owners[site.operator].declared.kind in place.operator_kinds)
        and place.home in {None, is_home}
    )
