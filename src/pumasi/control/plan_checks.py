"""What makes a fleet plan contradict itself, whatever the running fleet: for plans that come through the API.

The reader of plan files says the same with lines and hints; here only the finished plan is at hand.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from pumasi.control.refusals import FieldProblem
from pumasi.model.calendar import is_day
from pumasi.model.fleet import (
    MAX_GPUS_PER_NODE,
    SHARDS_PER_GPU,
    SLICES_PER_GPU_MAX,
    FleetPlan,
    LendingContract,
    Place,
    PlacementRule,
    Policy,
    Pool,
    Queue,
    is_slice,
)
from pumasi.model.ids import PoolId, is_name, is_queue_path, queue_owner, queue_parent

GPUS_LIMIT = 10_000_000
NODES_LIMIT = 1_000_000
CPUS_LIMIT = 100_000
MEMORY_MIB_LIMIT = 1_000_000_000
SECONDS_LIMIT = 366 * 24 * 3600
EVICTED_PERCENT_LIMIT = 1_000_000


def plan_problems(plan: FleetPlan) -> Iterator[FieldProblem]:
    """Everything that is wrong with the plan by itself."""
    yield from _name_problems(plan)
    yield from _policy_problems(plan.policy)
    for model in plan.gpu_models:
        if not (1 <= model.gpus_per_node <= MAX_GPUS_PER_NODE and 1 <= model.nvlink_nodes <= NODES_LIMIT):
            yield FieldProblem(f"gpu_models.{model.id}", "GPUs per node and nodes of an NVLink domain are 1 or more")
        for profile in model.mig_profiles:
            if not is_slice(profile.name) or not 1 <= profile.per_gpu <= SLICES_PER_GPU_MAX:
                where = f"gpu_models.{model.id}.mig_profiles"
                yield FieldProblem(where, f"a profile looks like 1g.23gb, 1 to {SLICES_PER_GPU_MAX} of them on a GPU")
    for rule in plan.policy.rules:
        yield from _rule_problems(plan, rule)
    for pool in plan.pools:
        yield from _pool_problems(plan, pool)
    for owner in plan.owners:
        yield from _lending_problems(plan, f"owners.{owner.id}.lending", owner.lending)
    for site in plan.sites:
        yield from _unknown(f"sites.{site.id}.operator", (site.operator,), (owner.id for owner in plan.owners))
    yield from _queue_problems(plan)


def _name_problems(plan: FleetPlan) -> Iterator[FieldProblem]:
    for kind in ("gpu_models", "owners", "sites", "pools", "queues"):
        names = [each.id for each in getattr(plan, kind)]
        good = is_queue_path if kind == "queues" else is_name
        for name, times in Counter(names).items():
            if not good(name):
                yield FieldProblem(kind, f"{name[:60]!a} is not a name this fleet can use")
            if times > 1:
                yield FieldProblem(f"{kind}.{name}", f"it is declared {times} times")


def _policy_problems(policy: Policy) -> Iterator[FieldProblem]:
    for name in ("usage_half_life_seconds", "link_silent_seconds", "run_silent_seconds", "default_time_limit_seconds"):
        if not 1 <= getattr(policy, name) <= SECONDS_LIMIT:
            yield FieldProblem(f"policy.{name}", "it is 1 second to a year")
    limits = {
        "requeue_limit": NODES_LIMIT,
        "preemption_limit": NODES_LIMIT,
        "fast_failure_seconds": 3600,
        "quarantine_percent_max": 100,
    }
    for name, limit in limits.items():
        if not 0 <= getattr(policy, name) <= limit:
            yield FieldProblem(f"policy.{name}", f"it is 0 to {limit}")


def _rule_problems(plan: FleetPlan, rule: PlacementRule) -> Iterator[FieldProblem]:
    path, owners = f"policy.rules.{rule.id[:60]}", [owner.id for owner in plan.owners]
    if not is_name(rule.id) or [each.id for each in plan.policy.rules].count(rule.id) > 1:
        yield FieldProblem(path, "a rule has a name of its own")
    yield from _unknown(f"{path}.work.owners", rule.work.owners, owners)
    yield from _unknown(f"{path}.work.queues", rule.work.queues, (queue.id for queue in plan.queues))
    if (rule.only_at is None) == (rule.not_at is None):
        yield FieldProblem(path, "a rule says where with one of only_at and not_at")
    if Place() in {rule.only_at, rule.not_at}:
        yield FieldProblem(path, "it names no place")
    for place in (rule.only_at, rule.not_at):
        if place is not None:
            yield from _unknown(f"{path}.pools", place.pools, (pool.id for pool in plan.pools))
            yield from _unknown(f"{path}.sites", place.sites, (site.id for site in plan.sites))
            yield from _unknown(f"{path}.operators", place.operators, owners)
    for day in (rule.from_day, rule.until_day):
        if day and not is_day(day):
            yield FieldProblem(path, f"{day[:60]!a} is no day; days look like 2027-12-31")
    if rule.until_day and rule.until_day <= rule.from_day:
        yield FieldProblem(path, "it ends on a later day than it begins")


def _pool_problems(plan: FleetPlan, pool: Pool) -> Iterator[FieldProblem]:
    path, owners = f"pools.{pool.id}", [owner.id for owner in plan.owners]
    yield from _unknown(f"{path}.site", (pool.site,), (site.id for site in plan.sites))
    yield from _unknown(f"{path}.model", (pool.model,), (model.id for model in plan.gpu_models))
    yield from _unknown(f"{path}.owner", (pool.owner,), owners)
    yield from _unknown(f"{path}.entitlements", pool.entitlements, owners)
    yield from _slice_problems(plan, path, pool)
    sizes = (pool.nodes, pool.gpus_per_node, pool.nodes_per_rack, pool.racks_per_block)
    if not all(1 <= size <= NODES_LIMIT for size in sizes):
        yield FieldProblem(path, f"nodes, GPUs per node, racks and blocks are 1 to {NODES_LIMIT}")
    if not (0 <= pool.cpus_per_node <= CPUS_LIMIT and 0 <= pool.memory_mib_per_node <= MEMORY_MIB_LIMIT):
        limits = f"up to {CPUS_LIMIT} CPUs and {MEMORY_MIB_LIMIT} MiB of memory; 0: they are not counted"
        yield FieldProblem(path, f"a node has {limits}")
    if not all(0 <= gpus <= GPUS_LIMIT for gpus in pool.entitlements.values()):
        yield FieldProblem(f"{path}.entitlements", "an entitlement is 0 GPUs or more")
    elif sum(pool.entitlements.values()) != pool.gpus:
        entitled = sum(pool.entitlements.values())
        yield FieldProblem(f"{path}.entitlements", f"they add up to {entitled}, the pool has {pool.gpus} GPUs")


def _slice_problems(plan: FleetPlan, path: str, pool: Pool) -> Iterator[FieldProblem]:
    """A pool is cut as its model can be, and its nodes have whole GPUs."""
    profiles = [model.profile(pool.slice) for model in plan.gpu_models if model.id == pool.model]
    known = next((profile for profile in profiles if profile is not None), None)
    if pool.is_shared:
        yield from _shard_problems(plan, path, pool)
        return
    if pool.slice and known is None:
        yield FieldProblem(f"{path}.slice", f"GPUs of {pool.model} cannot be cut into {pool.slice[:60]!a}")
    elif pool.slices_per_gpu != (known.per_gpu if known else 1) or pool.gpus_per_node % pool.slices_per_gpu:
        cut = f"{known.per_gpu} slices of {known.name} a GPU" if known else "whole GPUs"
        yield FieldProblem(f"{path}.slices_per_gpu", f"its nodes have {cut}, and GPUs per node counts them")


def _shard_problems(plan: FleetPlan, path: str, pool: Pool) -> Iterator[FieldProblem]:
    """A shard is a part that a GPU divides by, the same in all pools."""
    if pool.slices_per_gpu not in SHARDS_PER_GPU or pool.gpus_per_node % pool.slices_per_gpu:
        counts = ", ".join(map(str, SHARDS_PER_GPU))
        yield FieldProblem(
            f"{path}.slices_per_gpu", f"shards of a GPU are one of {counts}, and GPUs per node counts them"
        )
    if len({other.slices_per_gpu for other in plan.pools if other.is_shared}) > 1:
        yield FieldProblem(f"{path}.slices_per_gpu", "a GPU has the same number of shards in all shared pools")


def _lending_problems(plan: FleetPlan, path: str, lending: LendingContract) -> Iterator[FieldProblem]:
    seconds = (lending.notice_seconds, lending.protected_seconds, lending.teardown_seconds)
    if not all(0 <= each <= SECONDS_LIMIT for each in seconds):
        yield FieldProblem(path, "times are 0 seconds to a year")
    if not 0 <= lending.lendable_percent <= 100:
        yield FieldProblem(f"{path}.lendable_percent", "it is 0 to 100")
    if lending.evicted_percent_max and not 100 <= lending.evicted_percent_max <= EVICTED_PERCENT_LIMIT:
        yield FieldProblem(f"{path}.evicted_percent_max", f"it is 0 (no bound), or 100 to {EVICTED_PERCENT_LIMIT}")
    if min(lending.lending_limits.values(), default=0) < 0:
        yield FieldProblem(f"{path}.lending_limits", "a limit is 0 GPUs or more")
    for window in lending.windows:
        if not (0 <= window.from_minute < window.to_minute <= 24 * 60 and set(window.days) <= set(range(7))):
            yield FieldProblem(f"{path}.windows", "days are 0 to 6, and a window ends after it begins, by minute 1440")
    yield from _unknown(f"{path}.lending_limits", lending.lending_limits, (pool.id for pool in plan.pools))
    yield from _unknown(f"{path}.refuses_owners", lending.refuses_owners, (owner.id for owner in plan.owners))


def _queue_problems(plan: FleetPlan) -> Iterator[FieldProblem]:
    """A queue has a parent that comes before it; the quotas of children fit into their parent's."""
    pools, owners = {pool.id for pool in plan.pools}, {owner.id for owner in plan.owners}
    seen: dict[str, Queue] = {}
    children: dict[str, list[Queue]] = {}
    for queue in plan.queues:
        path, parent = f"queues.{queue.id}", queue_parent(queue.id)
        yield from _unknown(path, (queue_owner(queue.id),), owners)
        yield from _unknown(f"{path}.quotas", queue.quotas, pools)
        yield from _quota_problems(path, queue)
        if parent is not None and parent not in seen:
            yield FieldProblem(path, f"its parent {parent} is not declared before it")
        seen[queue.id] = queue
        children.setdefault(parent or "", []).append(queue)
    for name in owners - set(seen):
        yield FieldProblem(f"owners.{name}", f"it has no root queue {name}")
    for name, below in children.items():
        if name in seen:
            yield from _sum_problems(seen[name], below)


def _quota_problems(path: str, queue: Queue) -> Iterator[FieldProblem]:
    if not 0 <= queue.weight <= NODES_LIMIT:
        yield FieldProblem(f"{path}.weight", f"it is 0 to {NODES_LIMIT}")
    for pool, quota in queue.quotas.items():
        limits = (quota.nominal, quota.borrowing_limit or 0, quota.lending_limit or 0)
        if not all(0 <= each <= GPUS_LIMIT for each in limits):
            yield FieldProblem(f"{path}.quotas.{pool}", "quotas and limits are 0 GPUs or more")


def _sum_problems(parent: Queue, children: list[Queue]) -> Iterator[FieldProblem]:
    sums: Counter[PoolId] = Counter()
    for child in children:
        sums.update({pool: quota.nominal for pool, quota in child.quotas.items()})
    for pool, gpus in sums.items():
        quota = parent.quotas.get(pool)
        nominal = quota.nominal if quota else 0
        if gpus > nominal:
            detail = f"the queues below have {gpus} GPUs of {pool} in all, it has {nominal}"
            yield FieldProblem(f"queues.{parent.id}.quotas.{pool}", detail)


def _unknown(path: str, names: Iterable[str], known: Iterable[str]) -> Iterator[FieldProblem]:
    all_known = set(known)
    for name in names:
        if name not in all_known:
            yield FieldProblem(path, f"{name[:60]!a} is not declared in this plan")
