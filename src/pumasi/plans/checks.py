"""What must hold between the parts of a plan: references, entitlements, racks, lending, power."""

from collections.abc import Iterable, Mapping

from pumasi.model.fleet import Pool, Stage
from pumasi.model.ids import OwnerId, PoolId, QueueId
from pumasi.model.jobs import OPEN_DATA
from pumasi.plans.drafts import Declared, Draft, PowerStep, SiteDraft
from pumasi.plans.placement_rules import Names
from pumasi.plans.problems import quoted, suggestion
from pumasi.plans.queues import QueueDraft
from pumasi.plans.section import Section


def check_parts(draft: Draft) -> None:
    """Note every contradiction between owners, sites and pools."""
    for pool in draft.pools.values():
        _check_pool(pool, draft)
    _check_shards([pool for pool in draft.pools.values() if pool.value.is_shared])
    for site in draft.sites.values():
        _check_site(site, draft)
    for owner in draft.owners:
        _check_owner(owner, draft)


def names_of(draft: Draft, queues: Iterable[QueueId]) -> Names:
    """The names rules may speak of."""
    sites = [declared.value.site for declared in draft.sites.values()]
    return Names(
        data_classes=(OPEN_DATA, *draft.data_classes),
        owners=tuple(draft.owners),
        sites=tuple(draft.sites),
        regions=tuple(site.region for site in sites),
        pools=tuple(draft.pools),
        queues=tuple(queues),
    )


def check_queues(trees: Mapping[OwnerId, QueueDraft], draft: Draft) -> None:
    """Note queue trees without an owner, entitled owners without a tree, and unknown industries."""
    for name, tree in trees.items():
        if name not in draft.owners:
            message = (
                f"there is no owner {quoted(name)}{suggestion(name, draft.owners)}; a root queue has its owner's id"
            )
            tree.section.complain("", message)
        _check_industry(tree, draft.industries)
    for name, owner in draft.owners.items():
        if name not in trees and entitlements_of(name, draft):
            message = f"is due GPUs but has no root queue to use them; add 'queues: {{{name}: {{}}}}'"
            owner.section.complain("", message)


def entitlements_of(owner: OwnerId, draft: Draft) -> dict[PoolId, int]:
    """What the owner is due of each pool."""
    pools = ((name, pool.value.entitlements.get(owner, 0)) for name, pool in draft.pools.items())
    return {name: gpus for name, gpus in pools if gpus}


def _check_pool(declared: Declared[Pool], draft: Draft) -> None:
    pool, section = declared.value, declared.section
    section.refer("site", (pool.site,), draft.sites, "site")
    section.refer("owner", (pool.owner,), draft.owners, "owner")
    section.refer("entitlements", pool.entitlements, draft.owners, "owner")
    if declared.sound:
        _check_entitlements(pool, section)
        _check_racks(pool, section, draft)


def _check_shards(shared: list[Declared[Pool]]) -> None:
    """A shard is the same part of a GPU wherever a job finds it."""
    for declared in shared[1:]:
        first = shared[0].value
        if declared.sound and declared.value.slices_per_gpu != first.slices_per_gpu:
            message = f"is {declared.value.slices_per_gpu}; {first.id} has {first.slices_per_gpu}, as all must"
            declared.section.complain("shards_per_gpu", message)


def _check_entitlements(pool: Pool, section: Section) -> None:
    due = sum(pool.entitlements.values())
    if due != pool.gpus:
        what = "shards" if pool.is_shared else f"slices of {pool.slice}" if pool.slice else "GPUs"
        size = f"the pool has {pool.gpus:,} {what} ({pool.nodes:,} nodes x {pool.gpus_per_node})"
        section.complain("entitlements", f"sum is {due:,}, {size}")


def _check_racks(pool: Pool, section: Section, draft: Draft) -> None:
    domain = draft.models[pool.model].model.nvlink_nodes
    if domain == 1:
        return
    if pool.nodes_per_rack != domain:
        message = f"is {pool.nodes_per_rack}; a rack of {pool.model} is one NVLink domain of {domain} nodes"
        section.complain("nodes_per_rack", message)
    elif pool.nodes % domain:
        below = pool.nodes // domain * domain
        nearest = f"{below:,} or {below + domain:,}" if below else f"{domain:,}"
        section.complain("nodes", f"is {pool.nodes:,}; whole racks of {domain} nodes make {nearest}")


def _check_site(declared: Declared[SiteDraft], draft: Draft) -> None:
    site, section = declared.value.site, declared.section
    section.refer("operator", (site.operator,), draft.owners, "owner")
    section.refer("clearances", site.clearances, draft.data_classes, "data class")
    pools = [pool.value for pool in draft.pools.values() if pool.sound and pool.value.site == site.id]
    if declared.sound and declared.value.power_steps:
        _check_power(declared.value.power_steps, pools, section, draft)


def _check_power(steps: tuple[PowerStep, ...], pools: list[Pool], section: Section, draft: Draft) -> None:
    """The first day on which the pools in service need more than the cap then in force is a mistake."""
    days = {step.date for step in steps} | {pool.stages.get(Stage.IN_SERVICE, "") for pool in pools}
    for day in sorted(days):
        in_force = [step.kilowatts for step in steps if step.date <= day]
        running = [pool for pool in pools if "" != pool.stages.get(Stage.IN_SERVICE, "") <= day]
        watts = sum(pool.whole_gpus * draft.models[pool.model].model.planning_watts for pool in running)
        need = -(-watts // 1000)  # a kilowatt begun is a kilowatt needed
        if in_force and need > in_force[-1]:
            names = ", ".join(pool.id for pool in running)
            message = f"is {in_force[-1]:,} kW on {day}, but the pools then in service need {need:,} kW ({names})"
            section.complain("power_cap_kilowatts", message)
            return


def _check_owner(owner: OwnerId, draft: Draft) -> None:
    contract, section = draft.owners[owner].value.lending, _lending_section(draft.owners[owner].section)
    section.refer("refuses_owners", contract.refuses_owners, draft.owners, "owner")
    if owner in contract.refuses_owners:
        section.complain("refuses_owners", f"{owner} cannot refuse itself")
    section.refer("lending_limits", contract.lending_limits, draft.pools, "pool")
    for pool, limit in contract.lending_limits.items():
        if pool in draft.pools and draft.pools[pool].sound:
            _check_lending_limit(section, owner, draft.pools[pool].value, limit)


def _lending_section(owner: Section) -> Section:
    return owner.section("lending")


def _check_lending_limit(section: Section, owner: OwnerId, pool: Pool, limit: int) -> None:
    due = pool.entitlements.get(owner, 0)
    if due == 0:
        section.complain("lending_limits", f"{owner} is due no GPUs of {pool.id}; only what one is due can be lent")
    elif limit > due:
        section.complain("lending_limits", f"is {limit:,} for {pool.id}, but {owner} is due only {due:,} GPUs of it")


def _check_industry(tree: QueueDraft, industries: Mapping[str, str]) -> None:
    tree.section.refer("industry", (tree.queue.industry,), industries, "industry")
    for child in tree.children:
        _check_industry(child, industries)
