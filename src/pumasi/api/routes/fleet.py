"""The fleet: totals, sites, pools, nodes, queues, allocations and shares; draining; applying a plan."""

from collections.abc import Iterator
from typing import TypeVar

from msgspec import Struct

from pumasi.api.bodies import AllocationsQuery, NodesQuery, PageQuery, PlanQuery, PowerBody, ReasonBody
from pumasi.api.call import Call
from pumasi.api.finding import parse_node
from pumasi.api.paging import Page, after, page
from pumasi.api.problems import Problem, unknown
from pumasi.api.routing import BodySize, Reach, Table
from pumasi.control.access import Action, Resource, site_scope
from pumasi.control.commands import ApplyPlan, SetNodeState, SetPowerCap
from pumasi.control.plan_checks import plan_problems
from pumasi.control.views.fleet import (
    NODE_STATES,
    FleetRow,
    NodeRow,
    PoolRow,
    SharesRow,
    SiteRow,
    fleet_row,
    node_row,
    nodes,
    pool_row,
    shares_row,
    site_row,
)
from pumasi.control.views.jobs import AllocationRow, allocation_row
from pumasi.control.views.queues import QueueRow, queue_row
from pumasi.control.views.rules import RulesRow, rules_row
from pumasi.control.views.times import parse_moment
from pumasi.events.facts import NodeState
from pumasi.model.calendar import day_name, day_of
from pumasi.model.fleet import FleetPlan
from pumasi.state.records import Job

TABLE = Table("fleet")

T = TypeVar("T")


class PlanApplied(Struct, frozen=True):
    """What a plan changed, or would change: each declared thing that is new or different."""

    plan: str
    as_of: str
    dry_run: bool
    changes: tuple[str, ...]


@TABLE.route("GET", "/v1/fleet", Action.FLEET_READ, Reach.COMMON, answer=FleetRow)
async def fleet(call: Call) -> FleetRow:
    """Show the fleet at a glance."""
    return fleet_row(call.state)


@TABLE.route(
    "PUT",
    "/v1/fleet/plan",
    Action.PLAN_APPLY,
    Reach.FLEET,
    query=PlanQuery,
    body=FleetPlan,
    body_size=BodySize.PLAN,
    answer=PlanApplied,
)
async def apply_plan(call: Call) -> PlanApplied:
    """Make the fleet what a plan says."""
    plan: FleetPlan = call.body
    as_of = call.query.as_of or day_name(day_of(call.service.plane.now_ms()))
    if parse_moment(as_of) is None:
        raise Problem(422, "query-invalid", "as_of: there is no such day")
    problems = list(plan_problems(plan))
    if problems:
        raise Problem(422, "plan-invalid", f"{problems[0].path}: {problems[0].problem}", problems)
    command = ApplyPlan(by=call.principal.id, plan=plan, as_of=as_of, dry_run=call.query.dry_run)
    changes: list[str] = await call.do(command)
    return PlanApplied(plan.name, as_of, call.query.dry_run, tuple(changes))


@TABLE.route("GET", "/v1/sites", Action.FLEET_READ, Reach.COMMON, query=PageQuery, answer=Page[SiteRow])
async def sites(call: Call) -> Page[SiteRow]:
    """List sites."""
    return page(_names(call, call.state.sites), call.query.limit, str, lambda site: site_row(call.state, site))


@TABLE.route("GET", "/v1/sites/{site}", Action.FLEET_READ, Reach.COMMON, answer=SiteRow)
async def site(call: Call) -> SiteRow:
    """Show a site."""
    return site_row(call.state, _known(call, "site", call.state.sites))


@TABLE.route("PUT", "/v1/sites/{site}/power", Action.SITE_POWER, Reach.HALL, body=PowerBody, answer=SiteRow)
async def power(call: Call) -> SiteRow:
    """Cap the power of a site."""
    name, body = call.path["site"], call.body
    await call.do(
        SetPowerCap(by=call.principal.id, site=name, kilowatts=body.kilowatts, notice_seconds=body.notice_seconds)
    )
    return site_row(call.state, name)


@TABLE.route("GET", "/v1/pools", Action.FLEET_READ, Reach.COMMON, query=PageQuery, answer=Page[PoolRow])
async def pools(call: Call) -> Page[PoolRow]:
    """List pools with their owners' books and node states."""
    return page(_names(call, call.state.pools), call.query.limit, str, lambda pool: pool_row(call.state, pool))


@TABLE.route("GET", "/v1/pools/{pool}", Action.FLEET_READ, Reach.COMMON, answer=PoolRow)
async def pool(call: Call) -> PoolRow:
    """Show a pool."""
    return pool_row(call.state, _known(call, "pool", call.state.pools))


@TABLE.route("GET", "/v1/nodes", Action.FLEET_READ, Reach.COMMON, query=NodesQuery, answer=Page[NodeRow])
async def list_nodes(call: Call) -> Page[NodeRow]:
    """List nodes."""
    query: NodesQuery = call.query
    if query.pool and query.pool not in call.state.pools:
        raise unknown("pool", query.pool)
    strange = set(query.state) - set(NODE_STATES)
    if strange:
        raise Problem(422, "query-invalid", f"state: it is one of {', '.join(NODE_STATES)}")
    start = after(query.cursor, tuple[str, int]) or ("", -1)
    found = nodes(call.state, [query.pool] if query.pool else call.state.pools, frozenset(query.state), start)
    return page(found, query.limit, tuple, lambda node: node_row(call.state, *node))


@TABLE.route("GET", "/v1/nodes/{node}", Action.FLEET_READ, Reach.NODE, answer=NodeRow)
async def node(call: Call) -> NodeRow:
    """Show a node."""
    return node_row(call.state, *parse_node(call))


@TABLE.route("POST", "/v1/nodes/{node}/drain", Action.NODE_DRAIN, Reach.NODE, body=ReasonBody, answer=NodeRow)
async def drain(call: Call) -> NodeRow:
    """Let a node finish its work and take no more."""
    return await _set_node(call, NodeState.DRAINED, call.body.reason)


@TABLE.route("POST", "/v1/nodes/{node}/resume", Action.NODE_DRAIN, Reach.NODE, answer=NodeRow)
async def resume(call: Call) -> NodeRow:
    """Put a node back to work."""
    return await _set_node(call, NodeState.UP, "")


async def _set_node(call: Call, state: NodeState, reason: str) -> NodeRow:
    pool_id, index = parse_node(call)
    await call.do(SetNodeState(by=call.principal.id, pool=pool_id, nodes=(index,), state=state, reason=reason))
    return node_row(call.state, pool_id, index)


@TABLE.route("GET", "/v1/queues", Action.QUEUE_READ, Reach.ROWS, query=PageQuery, answer=Page[QueueRow])
async def queues(call: Call) -> Page[QueueRow]:
    """List queues."""
    shares = call.service.plane.shares
    readable = (name for name in _names(call, call.state.queues) if call.may(Action.QUEUE_READ, Resource((name,))))
    return page(readable, call.query.limit, str, lambda queue: queue_row(call.state, shares, queue))


@TABLE.route("GET", "/v1/queues/{queue:path}", Action.QUEUE_READ, Reach.QUEUE, answer=QueueRow)
async def queue(call: Call) -> QueueRow:
    """Show a queue."""
    return queue_row(call.state, call.service.plane.shares, call.path["queue"])


@TABLE.route("GET", "/v1/allocations", Action.JOB_READ, Reach.ROWS, query=AllocationsQuery, answer=Page[AllocationRow])
async def allocations(call: Call) -> Page[AllocationRow]:
    """List live allocations: of queues one may read, on entitlements and at sites one answers for."""
    found = sorted(_allocated(call), key=lambda job: job.id)
    return page(found, call.query.limit, lambda job: job.id, lambda job: allocation_row(call.state, job))


def _allocated(call: Call) -> Iterator[Job]:
    query: AllocationsQuery = call.query
    start = after(query.cursor, int) or 0
    for pool_id, active in call.state.active.items():
        if query.pool and pool_id != query.pool:
            continue
        for number in active:
            job = call.state.jobs[number]
            owners = {job.owner, *(charge.owner for charge in job.attempts[-1].charges)}
            if number > start and (not query.owner or query.owner in owners) and _may_see(call, job, owners):
                yield job


def _may_see(call: Call, job: Job, owners: set[str]) -> bool:
    at_site = site_scope(call.state.pools[job.attempts[-1].pool].declared.site)
    return call.may(Action.JOB_READ, Resource((job.spec.queue, at_site, *owners), user=job.by))


@TABLE.route("GET", "/v1/rules", Action.FLEET_READ, Reach.COMMON, answer=RulesRow)
async def rules(call: Call) -> RulesRow:
    """List the placement rules: which work may run where, and since when."""
    return rules_row(call.state, call.service.plane.now_ms())


@TABLE.route("GET", "/v1/shares", Action.FLEET_READ, Reach.COMMON, answer=SharesRow)
async def shares(call: Call) -> SharesRow:
    """Show what each owner is due, uses, lends and borrows, and every loan."""
    return shares_row(call.state)


def _names(call: Call, known: dict[str, T]) -> Iterator[str]:
    """The names of a list in order, after the cursor."""
    start = after(call.query.cursor, str) or ""
    return (name for name in sorted(known) if name > start)


def _known(call: Call, what: str, known: dict[str, T]) -> str:
    name = call.path[what]
    if name not in known:
        raise unknown(what, name)
    return name
