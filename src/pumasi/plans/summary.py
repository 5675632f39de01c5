"""A plan in figures: GPUs by owner, site, model and stage on a day. Every GPU is in exactly one stage."""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum

from msgspec import Struct

from pumasi.model.fleet import FleetPlan, Pool, Stage, stage_of, whole_gpus
from pumasi.model.ids import GpuModelId, OwnerId, SiteId


class By(StrEnum):
    """What GPUs are grouped by."""

    OWNER = "owner"
    SITE = "site"
    MODEL = "model"
    STAGE = "stage"


class Group(Struct, frozen=True, kw_only=True):
    """The pools of one owner, site, model or stage. `gpus_entitled`: what an owner is due anywhere (owners only)."""

    id: str
    title: str
    gpus: int
    gpus_by_stage: dict[Stage, int]
    gpus_entitled: int | None
    pools: int
    nodes: int
    kilowatts: int  # IT power of the pools, by the planning figure of their GPU models


class Summary(Struct, frozen=True, kw_only=True):
    """The totals of a plan on day `as_of` (ISO). Owners that contribute nothing are only among the entitled."""

    gpus_total: int
    gpus_by_owner: dict[OwnerId, int]
    gpus_by_stage: dict[Stage, int]
    gpus_by_site: dict[SiteId, int]
    gpus_by_model: dict[GpuModelId, int]
    gpus_entitled_by_owner: dict[OwnerId, int]
    name: str
    as_of: str


def summarize(plan: FleetPlan, as_of: str) -> Summary:
    """The totals of `plan` on the day `as_of` (ISO)."""
    by_stage = _count(plan.pools, lambda pool: stage_of(pool, as_of))
    entitled = entitled_by_owner(plan)
    return Summary(
        gpus_total=sum(pool.whole_gpus for pool in plan.pools),
        gpus_by_owner=_count(plan.pools, lambda pool: pool.owner),
        gpus_by_stage={stage: by_stage.get(stage, 0) for stage in Stage},
        gpus_by_site=_count(plan.pools, lambda pool: pool.site),
        gpus_by_model=_count(plan.pools, lambda pool: pool.model),
        gpus_entitled_by_owner={owner.id: entitled[owner.id] for owner in plan.owners if entitled[owner.id]},
        name=plan.name,
        as_of=as_of,
    )


def entitled_by_owner(plan: FleetPlan) -> Counter[OwnerId]:
    """GPUs each owner is due, in all pools."""
    parts: Counter[OwnerId] = Counter()
    for pool in plan.pools:
        parts.update({owner: pool.parts(gpus) for owner, gpus in pool.entitlements.items()})
    return Counter(dict(zip(parts, whole_gpus(parts.values()), strict=True)))


def groups(plan: FleetPlan, by: By, as_of: str) -> list[Group]:
    """The pools of `plan` grouped, in the order of the file; groups without GPUs are there if somebody is due some."""
    entitled = entitled_by_owner(plan) if by is By.OWNER else None
    made = [_group(plan, key, title, _members(plan, by, key, as_of), as_of, entitled) for key, title in _keys(plan, by)]
    return [group for group in made if group.gpus or group.gpus_entitled or by is By.STAGE]


def _keys(plan: FleetPlan, by: By) -> list[tuple[str, str]]:
    if by is By.STAGE:
        return [(stage.value, stage.value.replace("_", " ")) for stage in Stage]
    if by is By.OWNER:
        return [(owner.id, owner.title) for owner in plan.owners]
    if by is By.SITE:
        return [(site.id, site.title) for site in plan.sites]
    return [(model.id, model.title) for model in plan.gpu_models]


def _members(plan: FleetPlan, by: By, key: str, as_of: str) -> list[Pool]:
    if by is By.STAGE:
        return [pool for pool in plan.pools if stage_of(pool, as_of) == key]
    return [pool for pool in plan.pools if getattr(pool, by.value) == key]


def _group(
    plan: FleetPlan, key: str, title: str, pools: list[Pool], as_of: str, entitled: Counter[OwnerId] | None
) -> Group:
    watts = {model.id: model.planning_watts for model in plan.gpu_models}
    by_stage = _count(pools, lambda pool: stage_of(pool, as_of))
    return Group(
        id=key,
        title=title,
        gpus=sum(pool.whole_gpus for pool in pools),
        gpus_by_stage={stage: by_stage.get(stage, 0) for stage in Stage},
        gpus_entitled=None if entitled is None else entitled[key],
        pools=len(pools),
        nodes=sum(pool.nodes for pool in pools),
        kilowatts=-(-sum(pool.whole_gpus * watts[pool.model] for pool in pools) // 1000),
    )


def _count(pools: Iterable[Pool], key: Callable[[Pool], str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for pool in pools:
        counts[key(pool)] += pool.whole_gpus
    return dict(counts)
