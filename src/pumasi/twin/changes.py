"""What-ifs of a fleet: a late site, a new pool, less power at a site, reserved nodes; one line each in a file."""

from datetime import date
from typing import TypeAlias

from msgspec import Struct, structs

from pumasi.model.fleet import FleetPlan, Pool, Queue, Site, Stage
from pumasi.model.ids import PoolId, QueueId, SiteId, queue_owner
from pumasi.model.reservations import ReservationId, ReservationPurpose


class Delay(Struct, frozen=True):
    """Everything at a site that is not in service before the scenario starts comes so many months later."""

    site: SiteId
    months: int


class AddedPool(Struct, frozen=True):
    """A new pool of so many GPUs, in all else like another one, and the power it needs; in service from a day on."""

    pool: PoolId
    like: PoolId
    gpus: int
    in_service: str


class PowerCut(Struct, frozen=True):
    """A site gets so many kilowatts of IT power from a day on, for good or until a day (ISO; "": for good).

    The plan stays as it is: its operator caps the site while the scenario runs, with so much notice.
    """

    site: SiteId
    kilowatts: int
    from_day: str
    until_day: str = ""
    notice_seconds: int = 1800


class Reserve(Struct, frozen=True):
    """Whole nodes of a pool are reserved for so many hours from a day on, as somebody asks on the day `announced`.

    `queue`: whom an award is for; "" under maintenance.
    """

    name: ReservationId
    purpose: ReservationPurpose
    pool: PoolId
    nodes: int
    from_day: str
    hours: int
    announced: str
    queue: QueueId = ""


Change: TypeAlias = Delay | AddedPool | PowerCut | Reserve


class ChangeRefused(Exception):
    """A change does not fit the plan; the message says why."""


def with_change(plan: FleetPlan, change: Change, start: str) -> FleetPlan:
    """The plan with a change, for a scenario that starts on a day (ISO).

    :raises ChangeRefused: if the plan has no such site or pool, or the numbers do not fit.
    """
    match change:
        case Delay():
            return _delayed(plan, change, start)
        case AddedPool():
            return _added(plan, change)
        case PowerCut():
            _check_site(plan, change.site)
            return plan
        case Reserve():
            _pool(plan, change.pool)
            if change.queue and all(queue.id != change.queue for queue in plan.queues):
                raise ChangeRefused(f"the plan has no queue {change.queue}")
            return plan


def _check_site(plan: FleetPlan, site: SiteId) -> None:
    if all(known.id != site for known in plan.sites):
        raise ChangeRefused(f"the plan has no site {site}")


def _delayed(plan: FleetPlan, change: Delay, start: str) -> FleetPlan:
    _check_site(plan, change.site)
    pools = [
        structs.replace(pool, stages={stage: _later(day, change, start) for stage, day in pool.stages.items()})
        if pool.site == change.site
        else pool
        for pool in plan.pools
    ]
    return structs.replace(plan, pools=tuple(pools))


def _later(day: str, change: Delay, start: str) -> str:
    return day if day <= start else add_months(day, change.months)


def add_months(day: str, months: int) -> str:
    """The same day of a later month, or its last day if it has none such; ISO dates."""
    then = date.fromisoformat(day)
    years, month = divmod(then.month - 1 + months, 12)
    for number in range(then.day, 27, -1):
        try:
            return date(then.year + years, month + 1, number).isoformat()
        except ValueError:
            continue
    return date(then.year + years, month + 1, then.day).isoformat()


def _pool(plan: FleetPlan, name: PoolId) -> Pool:
    found = [pool for pool in plan.pools if pool.id == name]
    if not found:
        raise ChangeRefused(f"the plan has no pool {name}")
    return found[0]


def _added(plan: FleetPlan, change: AddedPool) -> FleetPlan:
    like = _pool(plan, change.like)
    if any(pool.id == change.pool for pool in plan.pools):
        raise ChangeRefused(f"the plan has a pool {change.pool} already")
    each = like.gpus_per_node // like.slices_per_gpu
    nodes, rest = divmod(change.gpus, each)
    if rest or not nodes:
        raise ChangeRefused(f"{change.gpus} GPUs are no whole nodes of {each}")
    stages = {stage: min(day, change.in_service) for stage, day in like.stages.items()}
    stages[Stage.IN_SERVICE] = change.in_service
    pool = structs.replace(_resized(like, nodes), id=change.pool, stages=stages)
    queues = tuple(_with_quota(queue, like, pool) for queue in plan.queues)
    sites = tuple(_powered(plan, site, pool) for site in plan.sites)
    return structs.replace(plan, sites=sites, pools=(*plan.pools, pool), queues=queues)


def _powered(plan: FleetPlan, site: Site, pool: Pool) -> Site:
    """The site with the power a new pool needs, if that is its site and its power is capped."""
    if site.id != pool.site or not site.power_cap_kilowatts:
        return site
    watts = next(model.planning_watts for model in plan.gpu_models if model.id == pool.model)
    return structs.replace(site, power_cap_kilowatts=site.power_cap_kilowatts - (-pool.whole_gpus * watts // 1000))


def _resized(pool: Pool, nodes: int) -> Pool:
    """The pool with another number of nodes, its entitlements in proportion."""
    gpus, whole = nodes * pool.gpus_per_node, pool.gpus
    due = {owner: entitled * gpus // whole for owner, entitled in pool.entitlements.items()}
    by_remainder = sorted(due, key=lambda owner: (-(pool.entitlements[owner] * gpus % whole), owner))
    for owner in by_remainder[: gpus - sum(due.values())]:
        due[owner] += 1
    return structs.replace(pool, nodes=nodes, entitlements=due)


def _with_quota(queue: Queue, old: Pool, new: Pool) -> Queue:
    """The queue with a quota in the new pool, in proportion to that in the old one; a root has all its owner is due."""
    quota = queue.quotas.get(old.id)
    if quota is None:
        return queue
    due, was = new.entitlements.get(queue_owner(queue.id), 0), old.entitlements.get(queue_owner(queue.id), 0)
    sized = {
        name: amount * due // was if was else 0
        for name in ("nominal", "borrowing_limit", "lending_limit")
        if (amount := getattr(quota, name)) is not None
    }
    return structs.replace(queue, quotas=queue.quotas | {new.id: structs.replace(quota, **sized)})
