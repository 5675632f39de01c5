"""The placement rules as callers see them."""

from msgspec import Struct

from pumasi.model.fleet import Place, PlacementRule, Work
from pumasi.state.fleet_state import FleetState
from pumasi.state.placement_rules import rules_in_force


class RuleRow(Struct, frozen=True, kw_only=True):
    """A rule: such `work` may run `only_at` such places, or `not_at` them. Days are Korean; an open end is null."""

    id: str
    title: str
    in_force: bool
    from_day: str | None
    until_day: str | None
    work: Work
    only_at: Place | None
    not_at: Place | None


class RulesRow(Struct, frozen=True, kw_only=True):
    """All placement rules of the fleet, of one version of its policy."""

    policy: str
    rules: tuple[RuleRow, ...]


def rules_row(state: FleetState, now_ms: int) -> RulesRow:
    """Every rule, with whether it holds at this moment."""
    in_force = rules_in_force(state, now_ms)
    rows = tuple(_row(rule, rule in in_force) for rule in state.policy.rules)
    return RulesRow(policy=state.policy.version, rules=rows)


def _row(rule: PlacementRule, in_force: bool) -> RuleRow:
    return RuleRow(
        id=rule.id,
        title=rule.title,
        in_force=in_force,
        from_day=rule.from_day or None,
        until_day=rule.until_day or None,
        work=rule.work,
        only_at=rule.only_at,
        not_at=rule.not_at,
    )
