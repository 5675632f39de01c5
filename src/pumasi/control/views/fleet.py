"""The fleet as callers see it: totals, sites, pools with their books, and nodes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from pumasi.control.quarantine import is_suspect, suspicion
from pumasi.control.views.times import moment
from pumasi.events.facts import NodeState
from pumasi.model.fleet import Owner, OwnerKind, Stage, gpus_of, whole_gpus
from pumasi.model.hostlist import node_name
from pumasi.model.ids import JobId, OwnerId, PoolId, SiteId
from pumasi.state.fleet_state import FleetState
from pumasi.state.occupancy import Occupancy
from pumasi.state.records import Account

NODE_STATES = ("idle", "mix", "alloc", "drain", "drng", "down", "planned")


class BookRow(Struct, frozen=True):
    """An owner's books in a pool (in slices, if it is cut), or summed over pools in GPUs, rounded up."""

    owner: str
    entitled: int
    due: int
    home: int
    lent: int
    promised: int
    borrowed: int
    idle: int


class FleetRow(Struct, frozen=True, kw_only=True):
    """The fleet at a glance. `gpus_in_service` = in use + free + reserved + down.

    Of GPUs that are cut, what their slices come to, rounded so that this holds.
    """

    plan: str
    seq: int
    gpus_total: int
    gpus_by_owner: dict[str, int]
    gpus_by_stage: dict[str, int]
    gpus_by_model: dict[str, int]
    gpus_in_service: int
    gpus_in_use: int
    gpus_lent: int
    gpus_free: int
    gpus_reserved: int
    gpus_down: int
    sites: int
    sites_connected: int
    pools: int
    nodes: int
    queues: int
    jobs_waiting: int
    jobs_held: int
    jobs_active: int
    jobs_submitted: int


class SiteRow(Struct, frozen=True, kw_only=True):
    """A site and the link to its agent. `since_at`: since when the link is as it is.

    `power_cap_kilowatts`: as the plan says; `power_limit_kilowatts`: the lower of that and what its operator set (0: no
    cap); `power_planned_kilowatts`: of the GPUs in use, by the planning figures of their models, rounded up.
    """

    id: str
    title: str
    operator: str
    region: str
    engine: str
    power_cap_kilowatts: int
    power_limit_kilowatts: int
    power_planned_kilowatts: int
    clearances: tuple[str, ...]
    link: str
    since_at: str | None
    generation: int
    pools: tuple[str, ...]
    gpus: int
    gpus_in_use: int
    gpus_free: int


class PoolRow(Struct, frozen=True, kw_only=True):
    """A pool: what it is, what of it is in use, and whose it is.

    If it is cut, `slice` is the MIG profile, and its GPUs, here and in its books and nodes, are slices of that kind,
    `slices_per_gpu` of which make a GPU.
    """

    id: str
    site: str
    model: str
    owner: str
    stage: str
    stages: dict[str, str]
    link: str
    nodes: int
    gpus_per_node: int
    nodes_per_rack: int
    racks_per_block: int
    cpus_per_node: int
    memory_mib_per_node: int
    cpu_arch: str
    slice: str
    slices_per_gpu: int
    gpus: int
    gpus_in_use: int
    gpus_free: int
    gpus_reserved: int
    gpus_down: int
    node_states: dict[str, int]
    books: tuple[BookRow, ...]
    jobs_active: int


class NodeRow(Struct, frozen=True, kw_only=True):
    """A node. `rack` and `block` count from 1 within the pool, as the node's name does. `slice`: as its pool's.

    `cpus_free`, `memory_mib_free`: what comes with its free GPUs; 0 where its pool counts none.
    """

    name: str
    pool: str
    site: str
    model: str
    slice: str
    slices_per_gpu: int
    state: str
    reason: str
    rack: int
    block: int
    gpus: int
    gpus_in_use: int
    gpus_free: int
    gpus_reserved: int
    cpus_free: int
    memory_mib_free: int
    jobs: tuple[int, ...]


class OwnerShareRow(Struct, frozen=True, kw_only=True):
    """What an owner is due, uses, lends and borrows, in all and pool by pool. Credit is earned by lending."""

    owner: str
    title: str
    kind: str
    total: BookRow
    pools: dict[str, BookRow]
    credit_gpu_milliseconds: int
    reclaim_window_seconds: int
    lendable_percent: int


class LoanRow(Struct, frozen=True):
    """GPUs of a pool that one owner's jobs use on another's entitlement at this moment."""

    lender: str
    borrower: str
    pool: str
    gpus: int


class SharesRow(Struct, frozen=True):
    """Per owner and pool: the books; and every loan."""

    owners: tuple[OwnerShareRow, ...]
    loans: tuple[LoanRow, ...]


def fleet_row(state: FleetState) -> FleetRow:
    """The fleet at a glance."""
    in_service = [pool for pool, record in state.pools.items() if record.stage is Stage.IN_SERVICE]
    waiting = sum(len(record.waiting) for record in state.queues.values())
    active = sum(len(jobs) for jobs in state.active.values())
    used, reserved, down, free = _uses(state, in_service)
    return FleetRow(
        plan=state.plan_name,
        seq=state.seq,
        gpus_total=sum(record.declared.whole_gpus for record in state.pools.values()),
        gpus_by_owner=_gpus_by(state, "owner", state.owners),
        gpus_by_stage=_gpus_by(state, "stage", Stage),
        gpus_by_model=_gpus_by(state, "model", ()),
        gpus_in_service=sum(state.pools[pool].declared.whole_gpus for pool in in_service),
        gpus_in_use=used,
        gpus_lent=_lent_gpus(state),
        gpus_free=free,
        gpus_reserved=reserved,
        gpus_down=down,
        sites=len(state.sites),
        sites_connected=sum(record.link == "connected" for record in state.sites.values()),
        pools=len(state.pools),
        nodes=sum(record.declared.nodes for record in state.pools.values()),
        queues=len(state.queues),
        jobs_waiting=waiting,
        jobs_held=len(state.jobs) - waiting - active,
        jobs_active=active,
        jobs_submitted=state.next_job - 1,
    )


def site_row(state: FleetState, site: SiteId) -> SiteRow:
    """One site."""
    record = state.sites[site]
    pools = [pool for pool, each in state.pools.items() if each.declared.site == site]
    used, _, _, free = _uses(state, pools)
    return SiteRow(
        id=site,
        title=record.declared.title,
        operator=record.declared.operator,
        region=record.declared.region,
        engine=record.declared.engine,
        power_cap_kilowatts=record.declared.power_cap_kilowatts,
        power_limit_kilowatts=record.power_limit_kilowatts,
        power_planned_kilowatts=-(-sum(_watts_in_use(state, pool) for pool in pools) // 1000),
        clearances=record.declared.clearances,
        link=record.link,
        since_at=moment(record.since_ms),
        generation=record.generation,
        pools=tuple(pools),
        gpus=sum(state.pools[pool].declared.whole_gpus for pool in pools),
        gpus_in_use=used,
        gpus_free=free,
    )


def _watts_in_use(state: FleetState, pool: PoolId) -> int:
    """A slice draws its part of the GPU's power; rounded up."""
    declared = state.pools[pool].declared
    watts = state.occupancy[pool].used_gpus * state.gpu_models[declared.model].planning_watts
    return -(-watts // declared.slices_per_gpu)


def pool_row(state: FleetState, pool: PoolId) -> PoolRow:
    """One pool."""
    record, occupancy = state.pools[pool], state.occupancy[pool]
    declared = record.declared
    down, reserved = _down_gpus(occupancy, record.stage), _reserved_gpus(state, pool)
    return PoolRow(
        id=pool,
        site=declared.site,
        model=declared.model,
        owner=declared.owner,
        stage=record.stage,
        stages={stage.value: day for stage, day in declared.stages.items()},
        link=state.sites[declared.site].link,
        nodes=declared.nodes,
        gpus_per_node=declared.gpus_per_node,
        nodes_per_rack=declared.nodes_per_rack,
        racks_per_block=declared.racks_per_block,
        cpus_per_node=declared.cpus_per_node,
        memory_mib_per_node=declared.memory_mib_per_node,
        cpu_arch=state.gpu_models[declared.model].cpu_arch,
        slice=declared.slice,
        slices_per_gpu=declared.slices_per_gpu,
        gpus=declared.gpus,
        gpus_in_use=occupancy.used_gpus,
        gpus_free=occupancy.free.free_gpus,
        gpus_reserved=reserved,
        gpus_down=down,
        node_states=node_states(occupancy, record.stage),
        books=tuple(_book(owner, account) for owner, account in state.books[pool].items()),
        jobs_active=len(state.active[pool]),
    )


def node_states(occupancy: Occupancy, stage: Stage) -> dict[str, int]:
    """How many nodes are in each of `NODE_STATES`; counted from whole arrays, as a pool may have thousands."""
    counts = dict.fromkeys(NODE_STATES, 0)
    nodes = len(occupancy.used)
    if stage is not Stage.IN_SERVICE:
        return {**counts, "planned": nodes}
    counts["idle"] = occupancy.used.count(0)
    counts["alloc"] = occupancy.used.count(occupancy.free.full_mask)
    counts["mix"] = nodes - counts["idle"] - counts["alloc"]
    for node in occupancy.node_states:
        counts[_busy_word(occupancy, node)] -= 1
        counts[node_state_word(occupancy, node, stage)] += 1
    return counts


def node_state_word(occupancy: Occupancy, node: int, stage: Stage) -> str:
    """The node's state in the words Slurm's users know; `planned` for a pool that is not in service yet."""
    if stage is not Stage.IN_SERVICE:
        return "planned"
    match occupancy.node_state(node):
        case NodeState.DOWN:
            return "down"
        case NodeState.DRAINED:
            return "drng" if occupancy.used[node] else "drain"
    return _busy_word(occupancy, node)


def _busy_word(occupancy: Occupancy, node: int) -> str:
    used = occupancy.used[node]
    if not used:
        return "idle"
    return "alloc" if used == occupancy.free.full_mask else "mix"


def node_row(state: FleetState, pool: PoolId, node: int) -> NodeRow:
    """One node."""
    record, occupancy = state.pools[pool], state.occupancy[pool]
    declared = record.declared
    rack = node // declared.nodes_per_rack
    cpus_free, memory_mib_free = occupancy.free.left_on(node)
    return NodeRow(
        name=node_name(pool, node),
        pool=pool,
        site=declared.site,
        model=declared.model,
        slice=declared.slice,
        slices_per_gpu=declared.slices_per_gpu,
        state=node_state_word(occupancy, node, record.stage),
        reason=_node_reason(state, (pool, node)),
        rack=rack + 1,
        block=rack // declared.racks_per_block + 1,
        gpus=declared.gpus_per_node,
        gpus_in_use=occupancy.used[node].bit_count(),
        gpus_free=occupancy.free.masks[node].bit_count(),
        gpus_reserved=occupancy.reserved[node].bit_count(),
        cpus_free=cpus_free,
        memory_mib_free=memory_mib_free,
        jobs=tuple(occupancy.jobs_on(node)),
    )


def _node_reason(state: FleetState, node: tuple[PoolId, int]) -> str:
    """Why it takes no work, or what speaks against it although it does."""
    if node in state.strikes and is_suspect(state, node):
        return f"suspect: {suspicion(state, node)}"
    return state.node_reasons.get(node, "")


def nodes(
    state: FleetState, pools: Iterable[PoolId], words: frozenset[str], after: tuple[str, int]
) -> Iterator[tuple[PoolId, int]]:
    """Nodes of `pools` in order after `after` (pool, node), whose state is one of `words` (empty: any)."""
    for pool in sorted(pools):
        if pool < after[0]:
            continue
        stage, occupancy = state.pools[pool].stage, state.occupancy[pool]
        first = after[1] + 1 if pool == after[0] else 0
        for node in range(first, len(occupancy.used)):
            if not words or node_state_word(occupancy, node, stage) in words:
                yield pool, node


def shares_row(state: FleetState, loans: Iterable[LoanRow] | None = None) -> SharesRow:
    """The books of every owner and every loan."""
    owners = tuple(_owner_share(state, owner) for owner in state.owners)
    return SharesRow(owners, tuple(current_loans(state) if loans is None else loans))


def current_loans(state: FleetState) -> list[LoanRow]:
    """Who uses whose GPUs where at this moment, in order of lender, borrower and pool."""
    gpus: Counter[tuple[OwnerId, OwnerId, PoolId]] = Counter()
    for pool, jobs in state.active.items():
        for job in jobs:
            _count_loans(state, pool, job, gpus)
    return [LoanRow(*key, amount) for key, amount in sorted(gpus.items())]


def _count_loans(state: FleetState, pool: PoolId, job: JobId, gpus: Counter[tuple[OwnerId, OwnerId, PoolId]]) -> None:
    record = state.jobs[job]
    for charge in record.attempts[-1].charges:
        if charge.owner != record.owner:
            gpus[charge.owner, record.owner, pool] += charge.gpus


def _owner_share(state: FleetState, owner: OwnerId) -> OwnerShareRow:
    record = state.owners[owner]
    declared: Owner = record.declared
    accounts = {pool: books[owner] for pool, books in state.books.items() if owner in books}
    return OwnerShareRow(
        owner=owner,
        title=declared.title,
        kind=OwnerKind(declared.kind),
        total=_total_book(state, owner, accounts),
        pools={pool: _book(owner, account) for pool, account in accounts.items()},
        credit_gpu_milliseconds=record.credit_gpu_milliseconds,
        reclaim_window_seconds=declared.lending.reclaim_window_seconds,
        lendable_percent=declared.lending.lendable_percent,
    )


def _book(owner: OwnerId, account: Account) -> BookRow:
    return BookRow(
        owner,
        account.entitled,
        account.due,
        account.home,
        account.lent,
        account.promised,
        account.borrowed,
        account.idle,
    )


def _total_book(state: FleetState, owner: OwnerId, accounts: Mapping[PoolId, Account]) -> BookRow:
    """The books of all pools in GPUs; what is due is still what of it is home, lent, promised and idle."""
    parts: Counter[str] = Counter()
    for pool, account in accounts.items():
        declared = state.pools[pool].declared
        parts.update({name: declared.parts(getattr(account, name)) for name in BookRow.__struct_fields__[1:]})
    home, lent, promised, idle = whole_gpus(parts[name] for name in ("home", "lent", "promised", "idle"))
    entitled, borrowed = gpus_of(parts["entitled"]), gpus_of(parts["borrowed"])
    return BookRow(owner, entitled, home + lent + promised + idle, home, lent, promised, borrowed, idle)


def _gpus_by(state: FleetState, what: str, known: Iterable[str]) -> dict[str, int]:
    """GPUs by owner, stage or model; every known key is there, also with 0."""
    gpus = {str(key): 0 for key in known}
    for record in state.pools.values():
        key = str(record.stage if what == "stage" else getattr(record.declared, what))
        gpus[key] = gpus.get(key, 0) + record.declared.whole_gpus
    return gpus


def _uses(state: FleetState, pools: Iterable[PoolId]) -> list[int]:
    """GPUs in use, reserved, down and free in these pools: all of those in service."""
    parts = [0, 0, 0, 0]
    for pool in pools:
        record, occupancy = state.pools[pool], state.occupancy[pool]
        free, down = occupancy.free.free_gpus, _down_gpus(occupancy, record.stage)
        for use, gpus in enumerate((occupancy.used_gpus, _reserved_gpus(state, pool), down, free)):
            parts[use] += record.declared.parts(gpus)
    return whole_gpus(parts)


def _lent_gpus(state: FleetState) -> int:
    lent = ((pool, account.lent) for pool, books in state.books.items() for account in books.values())
    return gpus_of(sum(state.pools[pool].declared.parts(gpus) for pool, gpus in lent))


def _down_gpus(occupancy: Occupancy, stage: Stage) -> int:
    """GPUs of nodes that take no work and that no job uses (any more)."""
    if stage is not Stage.IN_SERVICE:
        return 0
    each = occupancy.free.gpus_per_node
    return sum(each - occupancy.used[node].bit_count() for node in occupancy.node_states)


def _reserved_gpus(state: FleetState, pool: PoolId) -> int:
    """GPUs that are held for a job and that nobody uses."""
    if state.pools[pool].stage is not Stage.IN_SERVICE:
        return 0
    occupancy = state.occupancy[pool]
    gone = occupancy.used_gpus + occupancy.free.free_gpus + _down_gpus(occupancy, Stage.IN_SERVICE)
    return state.pools[pool].declared.gpus - gone
