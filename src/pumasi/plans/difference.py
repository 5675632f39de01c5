"""What changes from one plan to another, part by part, and what that does to the totals."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from pumasi.model.fleet import FleetPlan
from pumasi.plans.summary import Summary, summarize


class ChangeKind(StrEnum):
    """What happened to a part."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class FieldChange(Struct, frozen=True, kw_only=True):
    """A field of a part, dotted; None where it does not exist."""

    field: str
    before: Any
    after: Any


class Change(Struct, frozen=True, kw_only=True):
    """A part (`pool`, `owner`, ...) that was added, removed or changed. `fields`: what changed in it."""

    kind: ChangeKind
    part: str
    id: str
    gpus_before: int = 0
    gpus_after: int = 0
    fields: tuple[FieldChange, ...] = ()


class TotalChange(Struct, frozen=True, kw_only=True):
    """A total before and after; `key` is empty for the sum of all."""

    total: str
    key: str
    before: int
    after: int


class Difference(Struct, frozen=True, kw_only=True):
    """All changes, pools first, and the totals that move."""

    changes: tuple[Change, ...]
    totals: tuple[TotalChange, ...]


_PARTS = {"pool": "pools", "site": "sites", "owner": "owners", "queue": "queues", "gpu model": "gpu_models"}
_TOTALS = ("gpus_by_owner", "gpus_entitled_by_owner", "gpus_by_site", "gpus_by_model", "gpus_by_stage")


def compare(before: FleetPlan, after: FleetPlan, as_of: str) -> Difference:
    """What changes from `before` to `after`; stages are those of the day `as_of` (ISO)."""
    changes = [change for part in _PARTS for change in _compare_parts(part, before, after)]
    if policy := tuple(_fields(msgspec.to_builtins(before.policy), msgspec.to_builtins(after.policy))):
        changes.append(Change(kind=ChangeKind.CHANGED, part="policy", id=after.name, fields=policy))
    totals = _compare_totals(summarize(before, as_of), summarize(after, as_of))
    return Difference(changes=tuple(changes), totals=tuple(totals))


def _compare_parts(part: str, before: FleetPlan, after: FleetPlan) -> Iterator[Change]:
    old, new = _by_id(before, part), _by_id(after, part)
    for name in [*old, *(name for name in new if name not in old)]:
        change = _compare_part(part, name, old.get(name), new.get(name))
        if change is not None:
            yield change


def _by_id(plan: FleetPlan, part: str) -> dict[str, Any]:
    return {item.id: item for item in getattr(plan, _PARTS[part])}


def _compare_part(part: str, name: str, old: Any, new: Any) -> Change | None:
    if old == new:
        return None
    gpus_before, gpus_after = getattr(old, "whole_gpus", 0), getattr(new, "whole_gpus", 0)
    if old is None or new is None:
        kind = ChangeKind.ADDED if old is None else ChangeKind.REMOVED
        return Change(kind=kind, part=part, id=name, gpus_before=gpus_before, gpus_after=gpus_after)
    fields = tuple(_fields(msgspec.to_builtins(old), msgspec.to_builtins(new)))
    return Change(
        kind=ChangeKind.CHANGED,
        part=part,
        id=name,
        gpus_before=gpus_before,
        gpus_after=gpus_after,
        fields=fields,
    )


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FieldChange]:
    flat_old, flat_new = dict(_flatten(old, "")), dict(_flatten(new, ""))
    for field in [*flat_old, *(field for field in flat_new if field not in flat_old)]:
        before, after = flat_old.get(field), flat_new.get(field)
        if before != after:
            yield FieldChange(field=field, before=before, after=after)


def _flatten(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _compare_totals(before: Summary, after: Summary) -> Iterator[TotalChange]:
    if before.gpus_total != after.gpus_total:
        yield TotalChange(total="gpus_total", key="", before=before.gpus_total, after=after.gpus_total)
    for total in _TOTALS:
        old, new = getattr(before, total), getattr(after, total)
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key, 0) != new.get(key, 0):
                yield TotalChange(total=total, key=str(key), before=old.get(key, 0), after=new.get(key, 0))
