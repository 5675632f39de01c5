"""Rules to compare: a policy file says what of a plan's contracts and policy is otherwise; the code stays the same."""

from msgspec import Struct, structs

from pumasi.model.fleet import BorrowOrder, FleetPlan, LendingContract, Owner, OwnerKind, Policy, Pool, Queue, Quota
from pumasi.model.ids import OwnerId, QueueId
from pumasi.plans.summary import entitled_by_owner

ONE_OWNER = "fleet"


class Rules(Struct, frozen=True, kw_only=True):
    """What to change of a plan; the default changes nothing.

    `lending`: the contract of every owner, None: its own. `owners`: contracts of single owners, which go before it.
    `usage_half_life_seconds`: how long past use weighs, 0: as planned. `borrow_order`: who borrows first, None: as
    planned. `planned_starts`: waiting jobs in each pool whose start is planned, None: as planned. `one_owner`:
    everything belongs to one owner and nobody is guaranteed anything.
    """

    name: str
    title: str = ""
    lending: LendingContract | None = None
    owners: dict[OwnerId, LendingContract] = {}
    usage_half_life_seconds: int = 0
    borrow_order: BorrowOrder | None = None
    planned_starts: int | None = None
    one_owner: bool = False


def with_rules(plan: FleetPlan, rules: Rules) -> FleetPlan:
    """The plan under other rules."""
    owners = tuple(structs.replace(owner, lending=_contract(owner, rules)) for owner in plan.owners)
    policy = structs.replace(
        plan.policy,
        version=rules.name,
        usage_half_life_seconds=rules.usage_half_life_seconds or plan.policy.usage_half_life_seconds,
        borrow_order=rules.borrow_order or plan.policy.borrow_order,
        planned_starts=plan.policy.planned_starts if rules.planned_starts is None else rules.planned_starts,
    )
    changed = structs.replace(plan, owners=owners, policy=policy)
    return _merged(changed, policy) if rules.one_owner else changed


def queue_under(queue: QueueId, rules: Rules) -> QueueId:
    """Where a queue of the plan is under the rules."""
    return f"{ONE_OWNER}/{queue}" if rules.one_owner else queue


def owner_of(queue: QueueId) -> OwnerId:
    """Whose queue it is in the plan, whatever the rules made of it."""
    first, _, rest = queue.partition("/")
    return rest.partition("/")[0] if first == ONE_OWNER and rest else first


def _contract(owner: Owner, rules: Rules) -> LendingContract:
    return rules.owners.get(owner.id, owner.lending if rules.lending is None else rules.lending)


def _merged(plan: FleetPlan, policy: Policy) -> FleetPlan:
    """Every owner becomes a queue without quotas, weighed by the GPUs it is due."""
    owner = Owner(id=ONE_OWNER, title="The whole fleet", kind=OwnerKind.PUBLIC)
    pools = tuple(_owned(pool) for pool in plan.pools)
    quotas = {pool.id: Quota(nominal=pool.gpus) for pool in pools}
    due = entitled_by_owner(plan)
    queues = tuple(
        structs.replace(queue, id=f"{ONE_OWNER}/{queue.id}", quotas={}, weight=due.get(queue.id) or queue.weight)
        for queue in plan.queues
    )
    return FleetPlan(
        name=plan.name,
        gpu_models=plan.gpu_models,
        owners=(owner,),
        sites=tuple(structs.replace(site, operator=ONE_OWNER) for site in plan.sites),
        pools=pools,
        queues=(Queue(id=ONE_OWNER, title=owner.title, quotas=quotas), *queues),
        policy=policy,
    )


def _owned(pool: Pool) -> Pool:
    return structs.replace(pool, owner=ONE_OWNER, entitlements={ONE_OWNER: pool.gpus})
