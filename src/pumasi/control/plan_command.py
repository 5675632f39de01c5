"""Applying a plan: what differs from the running state becomes facts; what contradicts it is refused, all at once."""

from collections.abc import Iterable, Iterator

from pumasi.control.commands import ApplyPlan
from pumasi.control.decisions import Answer, Decision
from pumasi.control.refusals import FieldProblem, Refusal, RefusalKind
from pumasi.events import facts
from pumasi.events.facts import Event
from pumasi.model.fleet import MAX_GPUS_PER_NODE, FleetPlan, Pool, Stage, stage_of
from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import Span
from pumasi.state.fleet_state import FleetState


def apply_plan(state: FleetState, command: ApplyPlan, now_ms: int) -> Answer:
    """The facts that make the fleet what the plan says. The result names each declared thing that is new or changed."""
    problems = list(contradictions(state, command.plan, command.as_of))
    if problems:
        return Refusal(
            kind=RefusalKind.CONFLICT,
            code="plan-contradicts-state",
            detail=f"the plan contradicts the running fleet in {len(problems)} points: {problems[0].problem}",
            errors=tuple(problems),
        )
    changes = tuple(_changes(state, command, now_ms))
    result = [_title(event) for event in changes]
    if command.dry_run or not changes:
        return Decision((), result)
    head = facts.PlanApplied(at_ms=now_ms, by=command.by, name=command.plan.name)
    return Decision((head, *changes), result)


def _title(event: Event) -> str:
    match event:
        case facts.PolicyDeclared():
            return "policy"
        case facts.GpuModelDeclared():
            return f"gpu-model {event.model.id}"
        case facts.OwnerDeclared():
            return f"owner {event.owner.id}"
        case facts.SiteDeclared():
            return f"site {event.site.id}"
        case facts.PoolDeclared():
            return f"pool {event.pool.id}"
        case facts.QueueDeclared():
            return f"queue {event.queue.id}"
        case _:
            return type(event).__name__


def _changes(state: FleetState, command: ApplyPlan, now_ms: int) -> Iterator[Event]:
    plan, by = command.plan, command.by
    if plan.policy != state.policy:
        yield facts.PolicyDeclared(at_ms=now_ms, by=by, policy=plan.policy)
    for model in plan.gpu_models:
        if state.gpu_models.get(model.id) != model:
            yield facts.GpuModelDeclared(at_ms=now_ms, by=by, model=model)
    for owner in plan.owners:
        if owner.id not in state.owners or state.owners[owner.id].declared != owner:
            yield facts.OwnerDeclared(at_ms=now_ms, by=by, owner=owner)
    for site in plan.sites:
        if site.id not in state.sites or state.sites[site.id].declared != site:
            yield facts.SiteDeclared(at_ms=now_ms, by=by, site=site)
    for pool in plan.pools:
        stage = stage_of(pool, command.as_of)
        known = state.pools.get(pool.id)
        if known is None or (known.declared, known.stage) != (pool, stage):
            yield facts.PoolDeclared(at_ms=now_ms, by=by, pool=pool, stage=stage)
    for queue in plan.queues:
        if queue.id not in state.queues or state.queues[queue.id].declared != queue:
            yield facts.QueueDeclared(at_ms=now_ms, by=by, queue=queue)


def contradictions(state: FleetState, plan: FleetPlan, as_of: str) -> Iterator[FieldProblem]:
    """Everything in the plan that the running fleet cannot become."""
    yield from _missing("owners", state.owners, [owner.id for owner in plan.owners])
    yield from _missing("sites", state.sites, [site.id for site in plan.sites])
    yield from _missing("pools", state.pools, [pool.id for pool in plan.pools])
    yield from _missing("queues", state.queues, [queue.id for queue in plan.queues])
    for pool in plan.pools:
        yield from _impossible(pool)
        if pool.id in state.pools:
            yield from _pool_contradictions(state, pool, stage_of(pool, as_of))


def _missing(kind: str, known: Iterable[str], planned: list[str]) -> Iterator[FieldProblem]:
    for name in known:
        if name not in planned:
            yield FieldProblem(f"{kind}.{name}", f"the running fleet has {name}; the plan must keep it")


def _impossible(pool: Pool) -> Iterator[FieldProblem]:
    """What no reader of plan files lets through, but a caller of the API may send."""
    path = f"pools.{pool.id}"
    if not 1 <= pool.gpus_per_node <= MAX_GPUS_PER_NODE or pool.nodes < 1:
        yield FieldProblem(path, f"a pool has 1 or more nodes of 1 to {MAX_GPUS_PER_NODE} GPUs")
    if pool.nodes_per_rack < 1 or pool.racks_per_block < 1:
        yield FieldProblem(path, "racks and blocks hold 1 or more")
    entitled = sum(pool.entitlements.values())
    if entitled != pool.gpus or min(pool.entitlements.values(), default=0) < 0:
        yield FieldProblem(f"{path}.entitlements", f"they add up to {entitled}, the pool has {pool.gpus} GPUs")


def _pool_contradictions(state: FleetState, pool: Pool, stage: Stage) -> Iterator[FieldProblem]:
    now, path = state.pools[pool.id].declared, f"pools.{pool.id}"
    for name in ("site", "model", "owner", "gpus_per_node", "slice", "slices_per_gpu"):
        if getattr(now, name) != getattr(pool, name):
            was, wanted = getattr(now, name) or "none", getattr(pool, name) or "none"
            yield FieldProblem(f"{path}.{name}", f"it is {was} and cannot become {wanted}")
    if pool.nodes < now.nodes:
        yield FieldProblem(f"{path}.nodes", f"the pool has {now.nodes} nodes and cannot shrink to {pool.nodes}")
    yield from _less_beside_gpus(state, pool)
    in_service = state.pools[pool.id].stage is Stage.IN_SERVICE
    if in_service and stage is not Stage.IN_SERVICE and state.active[pool.id]:
        jobs = len(state.active[pool.id])
        yield FieldProblem(f"{path}.stages", f"{jobs} jobs run there: drain the pool before it leaves service")
    for owner, account in state.books[pool.id].items():
        charged = account.home + account.lent + account.promised
        if charged and owner not in pool.entitlements:
            yield FieldProblem(f"{path}.entitlements.{owner}", f"{charged} GPUs are in use on this entitlement")
    for owner, gpus in _reserved_gpus(state, pool.id).items():
        if gpus > pool.entitlements.get(owner, 0):
            yield FieldProblem(f"{path}.entitlements.{owner}", f"{gpus} GPUs of it are reserved in advance")


def _less_beside_gpus(state: FleetState, pool: Pool) -> Iterator[FieldProblem]:
    """Nodes do not come to have less than jobs that asked for CPUs or memory may hold of them."""
    asking = [job for job in state.active[pool.id] if any(map(_asks, state.jobs[job].attempts[-1].spans))]
    for name in ("cpus_per_node", "memory_mib_per_node") if asking else ():
        was, wanted = getattr(state.pools[pool.id].declared, name), getattr(pool, name)
        if wanted and (wanted < was or not was):
            detail = f"it is {was} and cannot become {wanted} while jobs hold what they asked for: {asking[0]} is one"
            yield FieldProblem(f"pools.{pool.id}.{name}", detail)


def _asks(span: Span) -> bool:
    return bool(span.cpus or span.memory_mib)


def _reserved_gpus(state: FleetState, pool: PoolId) -> dict[OwnerId, int]:
    """The most GPUs of each owner's entitlement that are reserved in advance for one time."""
    made = [record.declared for record in state.advance_reservations.values() if record.declared.pool == pool]
    most: dict[OwnerId, int] = {}
    for one in made:
        beside = [each for each in made if each.owner == one.owner and each.start_ms <= one.start_ms < each.end_ms]
        most[one.owner] = max(sum(each.gpus for each in beside), most.get(one.owner, 0))
    most.pop("", None)  # maintenance counts on nobody's
    return most
