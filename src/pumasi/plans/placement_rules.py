"""Placement rules as the plan file writes them: which work may run where, from one day to another."""

from collections.abc import Collection, Iterable
from enum import Enum

from msgspec import Struct

from pumasi.model.fleet import OwnerKind, Place, PlacementRule, Work
from pumasi.plans.section import Section


class RuleDraft(Struct):
    """A rule and its place in the file."""

    rule: PlacementRule
    section: Section


class _Home(Enum):
    YES = "yes"
    NO = "no"
    EITHER = "either"


_HOME = {_Home.YES: True, _Home.NO: False, _Home.EITHER: None}


def read_rules(root: Section) -> list[RuleDraft]:
    """The section `placement_rules`."""
    return [_rule(name, section) for name, section in root.sections("placement_rules")]


def _rule(name: str, section: Section) -> RuleDraft:
    rule = PlacementRule(
        id=name,
        title=section.text("title"),
        work=_work(section.section("work")),
        only_at=_place(section.section("only_at")) if section.has("only_at") else None,
        not_at=_place(section.section("not_at")) if section.has("not_at") else None,
        from_day=section.date("from") if section.has("from") else "",
        until_day=section.date("until") if section.has("until") else "",
    )
    section.finish()
    if section.clean():
        _check_rule(rule, section)
    return RuleDraft(rule, section)


def _check_rule(rule: PlacementRule, section: Section) -> None:
    if (rule.only_at is None) == (rule.not_at is None):
        section.complain("", "says where with one of only_at and not_at")
    if Place() in {rule.only_at, rule.not_at}:
        section.complain("", "names no place: say pools, sites, regions, operators, operator_kinds or home")
    if rule.until_day and rule.until_day <= rule.from_day:
        section.complain("until", f"is {rule.until_day}, not after from ({rule.from_day})")


def _work(section: Section) -> Work:
    work = Work(
        data_classes=section.words("data_classes"),
        owners=section.words("owners"),
        owner_kinds=_kinds(section, "owner_kinds"),
        queues=section.words("queues"),
    )
    section.finish()
    return work


def _place(section: Section) -> Place:
    place = Place(
        pools=section.words("pools"),
        sites=section.words("sites"),
        regions=section.words("regions"),
        operators=section.words("operators"),
        operator_kinds=_kinds(section, "operator_kinds"),
        home=_HOME[section.choice("home", _Home, _Home.EITHER)],
    )
    section.finish()
    return place


def _kinds(section: Section, key: str) -> tuple[OwnerKind, ...]:
    known = [kind.value for kind in OwnerKind]
    words = section.words(key)
    section.refer(key, words, known, "kind of owner")
    return tuple(OwnerKind(word) for word in words if word in known)


class Names(Struct):
    """The names of a plan that rules may speak of; no `queues` if mistakes keep them from being known."""

    data_classes: Collection[str]
    owners: Collection[str]
    sites: Collection[str]
    regions: Collection[str]
    pools: Collection[str]
    queues: Collection[str]


def check_rules(drafts: Iterable[RuleDraft], names: Names) -> None:
    """Note every name that the plan does not have."""
    for draft in drafts:
        work, section = draft.rule.work, draft.section.section("work")
        section.refer("data_classes", work.data_classes, names.data_classes, "data class")
        section.refer("owners", work.owners, names.owners, "owner")
        if names.queues:
            section.refer("queues", work.queues, names.queues, "queue")
        for key, place in (("only_at", draft.rule.only_at), ("not_at", draft.rule.not_at)):
            if place is not None:
                _check_place(draft.section.section(key), place, names)


def _check_place(section: Section, place: Place, names: Names) -> None:
    section.refer("pools", place.pools, names.pools, "pool")
    section.refer("sites", place.sites, names.sites, "site")
    section.refer("regions", place.regions, names.regions, "region")
    section.refer("operators", place.operators, names.owners, "owner")
