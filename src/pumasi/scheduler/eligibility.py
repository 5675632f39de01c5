"""Which pools may ever run a job: one small check per rule, the first that fails gives the verdict."""

from collections.abc import Callable, Iterable, Iterator

from pumasi.model.fleet import SHARD, PlacementRule, Pool, Stage
from pumasi.model.ids import OwnerId, PoolId, QueueId, queue_owner
from pumasi.model.jobs import OPEN_DATA, JobSpec, Level, gpus_on_each_node
from pumasi.scheduler.preference import ranked
from pumasi.scheduler.reasons import ReasonCode, Verdict
from pumasi.scheduler.shapes import Fit, Need
from pumasi.state.fleet_state import FleetState
from pumasi.state.lending import LendingRule, lending_limit, refusal
from pumasi.state.placement_rules import broken_rule, rules_about

Finding = tuple[ReasonCode, str]


def never_admissible(state: FleetState, spec: JobSpec, now_ms: int) -> list[Verdict]:
    """Why no pool can ever run this job as the fleet and its rules stand: a verdict per pool; empty if one can."""
    verdicts, rules = [], rules_about(state, spec, now_ms)
    for pool in state.pools:
        verdict = verdict_on(state, spec, pool, rules) or queue_verdict(state, spec, pool)
        if verdict is None:
            return []
        verdicts.append(verdict)
    return verdicts or [Verdict(ReasonCode.NO_POOL, "", "the fleet has no pools")]


def eligible(state: FleetState, spec: JobSpec, now_ms: int) -> tuple[tuple[Fit, ...], tuple[Verdict, ...]]:
    """The pools that may run the job, in the fleet's order, and the verdicts on the others."""
    fits, verdicts, rules = [], [], rules_about(state, spec, now_ms)
    for position, pool in enumerate(state.pools):
        verdict = verdict_on(state, spec, pool, rules)
        if verdict is None:
            fits.append(Fit(pool, need_in(state.pools[pool].declared, spec), position))
        else:
            verdicts.append(verdict)
    return ranked(state, spec, fits), tuple(verdicts)


def need_in(pool: Pool, spec: JobSpec) -> Need:
    """What the job needs in a pool whose nodes can hold it evenly."""
    each = gpus_on_each_node(spec.gpus, spec.gpus_per_node, pool.gpus_per_node)
    topology, segment = spec.topology, max(1, spec.segment_nodes)
    nodes, (cpus, memory_mib) = spec.gpus // each, _beside(pool, spec, each)
    return Need(nodes, each, topology.level, topology.required, segment, topology.spread, cpus, memory_mib)


def _beside(pool: Pool, spec: JobSpec, each: int) -> tuple[int, int]:
    """CPUs and MiB that the job takes on each node; 0 for the share of its GPUs there. Whole nodes it has whole."""
    shares = _shares(pool, each)
    if each == pool.gpus_per_node:
        return 0, 0
    cpus, memory_mib = (
        0 if asked == share else asked for asked, share in zip(_asked_beside(spec, each), shares, strict=True)
    )
    return cpus if pool.cpus_per_node else 0, memory_mib if pool.memory_mib_per_node else 0


def _asked_beside(spec: JobSpec, each: int) -> tuple[int, int]:
    """CPUs and MiB that the job asks for on each node, beside so many GPUs; 0 if it says nothing of them."""
    cpus = max(spec.cpus_per_node, spec.cpus_per_gpu * each)
    return cpus, max(spec.host_memory_mib_per_node, spec.host_memory_mib_per_gpu * each)


def _shares(pool: Pool, gpus: int) -> tuple[int, int]:
    """Whole CPUs and MiB that come with so many GPUs of a node."""
    return pool.cpus_per_node * gpus // pool.gpus_per_node, pool.memory_mib_per_node * gpus // pool.gpus_per_node


def verdict_on(state: FleetState, spec: JobSpec, pool: PoolId, rules: Iterable[PlacementRule]) -> Verdict | None:
    """Why the pool can never run the job, or None if it can. `rules`: those that hold and are about such work."""
    record = state.pools[pool]
    if record.stage is not Stage.IN_SERVICE:
        return Verdict(ReasonCode.NOT_IN_SERVICE, pool, f"it is {record.stage.replace('_', ' ')}, not in service")
    for check in _CHECKS:
        finding = check(state, spec, record.declared)
        if finding is not None:
            return Verdict(finding[0], pool, finding[1])
    rule = broken_rule(state, spec, pool, rules)
    if rule is None:
        return None
    return Verdict(ReasonCode.PLACEMENT_RULE, pool, f"rule {rule.id} of policy {state.policy.version}: {rule.title}")


# --- what the pool is ------------------------------------------------------------------------------------------------


def _asked(_: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    if spec.pools and pool.id not in spec.pools:
        return ReasonCode.OTHER_POOL_ASKED, f"the job asks for pool {' or '.join(spec.pools)}"
    if spec.sites and pool.site not in spec.sites:
        return ReasonCode.OTHER_POOL_ASKED, f"it stands in {pool.site}, the job asks for {' or '.join(spec.sites)}"
    return None


def _site_refusal(_: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    if pool.id in spec.refused_by:
        return ReasonCode.SITE_REFUSES, f"site {pool.site} has refused the job; the attempt there says why"
    return None


def _hardware(state: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    model = state.gpu_models[pool.model]
    if spec.gpu_models and pool.model not in spec.gpu_models:
        return ReasonCode.GPU_MODEL, f"it has {pool.model}, the job asks for {' or '.join(spec.gpu_models)}"
    if spec.slice != pool.slice:
        return ReasonCode.SLICE, f"its GPUs are {_cut(pool)}, the job asks for {_slices(spec)}"
    profile = model.profile(pool.slice) if pool.slice else None
    memory_gib = profile.memory_gib if profile else model.memory_gib
    if spec.memory_gib_per_gpu > memory_gib:
        what = "slices" if profile else "GPUs"
        return (
            ReasonCode.GPU_MEMORY,
            f"its {what} have {memory_gib} GiB each, the job asks for {spec.memory_gib_per_gpu}",
        )
    if spec.cpu_arch is not None and spec.cpu_arch is not model.cpu_arch:
        return ReasonCode.CPU_ARCHITECTURE, f"its CPUs are {model.cpu_arch}, the job asks for {spec.cpu_arch}"
    return None


def _cut(pool: Pool) -> str:
    if pool.is_shared:
        return f"shared, {pool.slices_per_gpu} shards each"
    return f"cut into slices of {pool.slice}" if pool.slice else "not cut"


def _slices(spec: JobSpec) -> str:
    return {"": "whole GPUs", SHARD: "shards"}.get(spec.slice, spec.slice)


def _clearance(state: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    clearances = state.sites[pool.site].declared.clearances
    if spec.data_class != OPEN_DATA and spec.data_class not in clearances:
        return ReasonCode.DATA_CLASS, f"site {pool.site} is not cleared for {spec.data_class} data"
    return None


# --- what the gang is ------------------------------------------------------------------------------------------------


def _shape(_: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    each = gpus_on_each_node(spec.gpus, spec.gpus_per_node, pool.gpus_per_node)
    if not each:
        asked = f"{spec.gpus} GPUs at {spec.gpus_per_node} a node"
        return ReasonCode.GANG_SHAPE, f"nodes of {pool.gpus_per_node} GPUs cannot hold {asked} evenly"
    if pool.is_shared and each > pool.slices_per_gpu:
        detail = (
            f"shards of a node come from one of its GPUs, which have {pool.slices_per_gpu}; the job asks for {each}"
        )
        return ReasonCode.SLICE, detail
    nodes = spec.gpus // each
    if nodes > pool.nodes:
        return ReasonCode.GANG_TOO_LARGE, f"the gang takes {nodes} nodes, the pool has {pool.nodes}"
    return None


def _host(_: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    """CPUs and memory of a node come with its GPUs in proportion; only who owns a pool alone may take more there.

    A pool that declares none is not judged.
    """
    each = need_in(pool, spec).each
    is_alone = [owner for owner, gpus in pool.entitlements.items() if gpus] == [queue_owner(spec.queue)]
    kinds = (
        (ReasonCode.CPUS, "CPUs", pool.cpus_per_node),
        (ReasonCode.HOST_MEMORY, "MiB of memory", pool.memory_mib_per_node),
    )
    for (code, what, per_node), asked, share in zip(kinds, _asked_beside(spec, each), _shares(pool, each), strict=True):
        if per_node and asked > per_node:
            return code, f"its nodes have {per_node:,} {what}, the job asks for {asked:,}"
        if per_node and asked > share and not is_alone:
            come = f"{each} GPUs of a node come with {share:,} {what} there, the job asks for {asked:,}"
            return code, f"{come}; more than that is for an owner that is entitled to the pool alone"
    return None


def _topology(_: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    if not spec.topology.required or spec.topology.level is Level.POOL:
        return None
    nodes = need_in(pool, spec).nodes
    held = pool.nodes_per_rack * (pool.racks_per_block if spec.topology.level is Level.BLOCK else 1)
    if nodes > held:
        level = spec.topology.level
        detail = f"a {level} there has {held} nodes, the gang takes {nodes} in one {level}"
        return ReasonCode.TOPOLOGY_TOO_NARROW, detail
    return None


def _segment(state: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    segment = spec.segment_nodes
    if segment <= 1:
        return None
    domain = min(state.gpu_models[pool.model].nvlink_nodes, pool.nodes_per_rack)
    if segment > domain:
        return ReasonCode.SEGMENT, f"an NVLink domain there has {domain} nodes, the job's segments {segment}"
    need = need_in(pool, spec)
    if need.nodes % segment:
        return ReasonCode.SEGMENT, f"{need.nodes} nodes cannot be divided into segments of {segment}"
    if not _segments_fit(need, pool):
        return ReasonCode.SEGMENT, f"no {need.widest} there has room for {need.nodes // segment} segments of {segment}"
    return None


def _segments_fit(need: Need, pool: Pool) -> bool:
    whole_racks, rest = divmod(pool.nodes, pool.nodes_per_rack)
    in_rack = pool.nodes_per_rack // need.segment
    racks = {Level.RACK: 1, Level.BLOCK: pool.racks_per_block, Level.POOL: whole_racks}[need.widest]
    segments = min(racks, whole_racks) * in_rack
    if need.widest is Level.POOL or whole_racks < racks:
        segments += rest // need.segment
    return segments >= need.nodes // need.segment


# --- whose GPUs they are ---------------------------------------------------------------------------------------------


def _home(_: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    owner = queue_owner(spec.queue)
    if spec.stays_home and not pool.entitlements.get(owner):
        return ReasonCode.STAYS_HOME, f"the job stays home, and {owner} is entitled to nothing there"
    return None


def _entitlement(state: FleetState, spec: JobSpec, pool: Pool) -> Finding | None:
    owner = queue_owner(spec.queue)
    entitled = pool.entitlements.get(owner, 0)
    if spec.gpus <= entitled:
        return None
    if spec.stays_home or not spec.may_borrow:
        borrow = "stays home" if spec.stays_home else "may not borrow"
        detail = f"{owner} is entitled to {entitled} GPUs there, the job asks for {spec.gpus} and {borrow}"
        return ReasonCode.ENTITLEMENT_TOO_SMALL, detail
    return _lent_at_most(state, owner, spec.gpus - entitled, pool)


def _lent_at_most(state: FleetState, borrower: OwnerId, gpus: int, pool: Pool) -> Finding | None:
    """Why the lenders of a pool would never lend that many GPUs, or None if they might."""
    lent = 0
    refusals: dict[OwnerId, LendingRule] = {}
    for lender in pool.entitlements:
        if lender == borrower:
            continue
        rule = refusal(state.owners[lender].declared.lending, state.owners[borrower].declared)
        if rule is None:
            lent += lending_limit(state, lender, pool.id)
        else:
            refusals[lender] = rule
    if lent >= gpus:
        return None
    if lent or not refusals:
        return ReasonCode.LENDING_LIMIT, f"its owners lend {borrower} at most {lent} GPUs there, {gpus} are needed"
    return _refused(state, borrower, refusals)


def _refused(state: FleetState, borrower: OwnerId, refusals: dict[OwnerId, LendingRule]) -> Finding:
    lender, rule = next(iter(refusals.items()))
    if rule is LendingRule.OWNER:
        return ReasonCode.LENDER_REFUSES_OWNER, f"the lending contract of {lender} refuses {borrower}"
    kind = state.owners[borrower].declared.kind
    return ReasonCode.LENDER_REFUSES_KIND, f"the lending contract of {lender} refuses {kind} owners"


_CHECKS: tuple[Callable[[FleetState, JobSpec, Pool], Finding | None], ...] = (
    _asked, _site_refusal, _hardware, _clearance, _shape, _host, _topology, _segment, _home, _entitlement,
)  # fmt: skip


# --- what the queue may use ------------------------------------------------------------------------------------------


def queue_verdict(state: FleetState, spec: JobSpec, pool: PoolId) -> Verdict | None:
    """Why a queue's borrowing limit never lets the job run in a pool, or None if none is too low."""
    for queue in _path(state, spec.queue):
        quota = state.queues[queue].declared.quotas.get(pool)
        if quota is None or quota.borrowing_limit is None or state.queues[queue].parent is None:
            continue
        most = _nominal(state, queue, pool) + quota.borrowing_limit
        if spec.gpus > most:
            detail = f"queue {queue} may use at most {most} GPUs there, the job asks for {spec.gpus}"
            return Verdict(ReasonCode.QUEUE_LIMIT_TOO_SMALL, pool, detail)
    return None


def _path(state: FleetState, queue: QueueId | None) -> Iterator[QueueId]:
    while queue is not None:
        yield queue
        queue = state.queues[queue].parent


def _nominal(state: FleetState, queue: QueueId, pool: PoolId) -> int:
    """The nominal quota of a queue and of all below it."""
    record = state.queues[queue]
    quota = record.declared.quotas.get(pool)
    return (quota.nominal if quota else 0) + sum(_nominal(state, child, pool) for child in record.children)
