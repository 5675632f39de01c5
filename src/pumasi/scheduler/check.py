"""A judge of plans that shares no code with the planner but the model: is this plan allowed on that state?

It replays the plan fact by fact on a copy of the state and looks at every step with the rules of the contract, the slow
and obvious way. Each finding is one sentence; a good plan has none.
"""

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct, field

from pumasi.events.facts import (
    AllocationRecharged,
    AttemptPlaced,
    Event,
    LinkState,
    NodeState,
    ReservationEnded,
    ReservationMade,
    ReservationState,
    StartPlanned,
    StopOrdered,
)
from pumasi.model.fleet import SHARD, GpuModel, Pool, QueueOrder, Stage
from pumasi.model.ids import queue_owner
from pumasi.model.jobs import Charge, JobSpec, JobState, Level, Span, StopCause, gpus_on_each_node, span_gpus
from pumasi.scheduler.check_backfill import delays, may_be_held_back, planned_well
from pumasi.scheduler.check_power import beyond_power, power_left, stopped_for_power, usable
from pumasi.scheduler.check_preempt import ending_home, is_preempted, needless, preempted
from pumasi.scheduler.check_rest import (
    enough,
    may_ask,
    placed_with_rest,
    promised_nodes,
    promised_with_rest,
    takes_more,
)
from pumasi.scheduler.plan import Plan
from pumasi.state import snapshot
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.state.invariants import over_lent, violations
from pumasi.state.lending import lending_limit, refusal_now
from pumasi.state.machines import IllegalTransition
from pumasi.state.placement_rules import broken_rule, rules_about
from pumasi.state.records import Job, PlannedStart

Gpu = tuple[str, int, int]  # pool, node, GPU


_JUDGES = {StopCause.POWER: stopped_for_power, StopCause.PREEMPT: preempted}


class _Seen(Struct):
    """What the plan has said so far: GPUs reserved, when reservations started were due, and victims by claimant.

    `borrower`: the first job that borrows, and `planned`: the starts that were planned then.
    """

    claimed: dict[Gpu, int] = field(default_factory=dict)
    fulfilled: dict[int, int] = field(default_factory=dict)
    victims: dict[int, list[int]] = field(default_factory=dict)
    borrower: int = 0
    planned: dict[int, PlannedStart] = field(default_factory=dict)


def lint(state: FleetState, plan: Plan, now_ms: int) -> list[str]:
    """Everything wrong with a plan for the state it was made from, in words."""
    copy = snapshot.load(snapshot.save(state))
    findings = list(_dated(plan, now_ms))
    seen = _Seen()
    for event in plan.events:
        if isinstance(event, AttemptPlaced):
            findings += _home_first(copy, event, seen)
        findings += _step(copy, event, seen)
        try:
            apply(copy, event)
        except (IllegalTransition, AssertionError, KeyError) as error:
            return [*findings, f"{event} cannot follow: {error!r}"]
    findings += violations(copy)
    findings += over_lent(copy)
    findings += beyond_power(copy)
    findings += _needed_stops(plan)
    findings += _answered(copy, plan)
    findings += idle_for_waiting(copy, now_ms, may_borrow=True)
    return findings


def _dated(plan: Plan, now_ms: int) -> Iterator[str]:
    for event in plan.events:
        if (event.at_ms, event.by) != (now_ms, "scheduler"):
            yield f"{event} is not the scheduler's at {now_ms}"


def _step(copy: FleetState, event: Event, seen: _Seen) -> Iterator[str]:
    """What is wrong with one fact, given the state after those before it."""
    match event:
        case ReservationEnded(state=ReservationState.FULFILLED):
            seen.fulfilled[event.job] = copy.reservations[event.job].due_ms
            yield from _fulfilled(copy, event)
        case AttemptPlaced():
            yield from _placed(copy, event)
            yield from placed_with_rest(copy, event)
            yield from delays(copy, event, seen.fulfilled.get(event.job))
            if event.job not in seen.fulfilled:
                yield from _charged(copy, copy.jobs[event.job], event.pool, event.charges, (), event.at_ms)
        case StartPlanned():
            yield from sit(copy, copy.jobs[event.job].spec, event.pool, event.spans, event.at_ms)
            yield from planned_well(copy, event)
            yield from promised_with_rest(copy, event, event.start_ms)
        case ReservationMade():
            yield from _reserved(copy, event, seen)
            yield from promised_with_rest(copy, event, event.due_ms)
        case StopOrdered():
            seen.victims.setdefault(event.claimant, []).append(event.job)
            yield from _JUDGES.get(event.cause, _stopped)(copy, event)
        case AllocationRecharged():
            job = copy.jobs[event.job]
            yield from _charged(copy, job, job.attempts[-1].pool, event.charges, job.attempts[-1].charges, event.at_ms)


# --- a gang on its spans ---------------------------------------------------------------------------------------------


def _fulfilled(state: FleetState, event: ReservationEnded) -> Iterator[str]:
    """The entitlement that carries what was reserved is truly there, lent to nobody."""
    reservation = state.reservations[event.job]
    account = state.books[reservation.pool][state.jobs[event.job].owner]
    if account.due - account.home - account.lent < span_gpus(reservation.spans):
        yield f"job {event.job} starts on its reservation, and its owner's account is {account}"


def _placed(state: FleetState, event: AttemptPlaced) -> Iterator[str]:
    job = state.jobs[event.job]
    yield from sit(state, job.spec, event.pool, event.spans, event.at_ms)
    if event.queue != job.spec.queue:
        yield f"job {job.id} of {job.spec.queue} is placed for {event.queue}"
    for span in event.spans:
        if not state.occupancy[event.pool].free.free_in(span):
            yield f"job {job.id} is placed on {span}, not all of it free"
    if state.occupancy[event.pool].used_gpus + job.spec.gpus > usable(state, event.pool):
        yield f"job {job.id} is placed in {event.pool} beyond its power"
    if job.spec.begin_at_ms > event.at_ms:
        yield f"job {job.id} is placed before its begin time"


def sit(state: FleetState, spec: JobSpec, pool: str, spans: tuple[Span, ...], at_ms: int) -> Iterator[str]:
    """What is wrong with these spans for this job at a moment, whoever holds them then."""
    declared = state.pools[pool].declared
    each = gpus_on_each_node(spec.gpus, spec.gpus_per_node, declared.gpus_per_node)
    if span_gpus(spans) != spec.gpus or any(span.gpu_mask.bit_count() != each for span in spans):
        yield f"{spec.name} asks {spec.gpus} GPUs at {each} a node and gets {spans}"
    if any(_for_one(declared, span.gpu_mask) != each for span in spans):
        yield f"{spec.name} gets shards of several GPUs of a node: {spans}"
    nodes = [node for span in spans for node in range(span.first, span.first + span.nodes)]
    if len(dict.fromkeys(nodes)) != len(nodes):
        yield f"{spec.name} gets a node twice: {spans}"
    for node in nodes:
        if not 0 <= node < declared.nodes or state.occupancy[pool].node_state(node) is not NodeState.UP:
            yield f"{spec.name} gets node {node} of {pool}, which is not up"
    racks = Counter(node // declared.nodes_per_rack for node in nodes)
    yield from _together(spec, declared.racks_per_block, racks)
    yield from _suits(state, spec, pool, at_ms)


def _together(spec: JobSpec, racks_per_block: int, racks: Counter[int]) -> Iterator[str]:
    blocks = Counter(rack // racks_per_block for rack in racks)
    if spec.topology.required and spec.topology.level is Level.RACK and len(racks) > 1:
        yield f"{spec.name} must sit in one rack and gets {sorted(racks)}"
    if spec.topology.required and spec.topology.level is Level.BLOCK and len(blocks) > 1:
        yield f"{spec.name} must sit in one block and gets {sorted(blocks)}"
    if spec.segment_nodes > 1 and any(count % spec.segment_nodes for count in racks.values()):
        yield f"{spec.name} has segments of {spec.segment_nodes} nodes and gets racks {dict(racks)}"


def _suits(state: FleetState, spec: JobSpec, pool: str, at_ms: int) -> Iterator[str]:
    """The pool is one the job may run in: hardware, data class, rules, the user's wishes, its site's link."""
    record = state.pools[pool]
    model, site = state.gpu_models[record.declared.model], state.sites[record.declared.site]
    suits = (
        record.stage is Stage.IN_SERVICE
        and site.link is LinkState.CONNECTED
        and (not spec.gpu_models or model.id in spec.gpu_models)
        and spec.slice == record.declared.slice
        and spec.memory_gib_per_gpu <= _memory_gib(model, record.declared.slice)
        and spec.cpu_arch in {None, model.cpu_arch}
        and may_ask(record.declared, spec)
        and (not spec.pools or pool in spec.pools)
        and pool not in spec.refused_by
        and (not spec.sites or record.declared.site in spec.sites)
        and (spec.data_class == "open" or spec.data_class in site.declared.clearances)
        and spec.segment_nodes <= max(1, min(model.nvlink_nodes, record.declared.nodes_per_rack))
    )
    if not suits or broken_rule(state, spec, pool, rules_about(state, spec, at_ms)) is not None:
        yield f"{spec.name} may not run in {pool}"


def _memory_gib(model: GpuModel, cut: str) -> int:
    whole = {"": model.memory_gib, SHARD: model.memory_gib}
    return {**whole, **{profile.name: profile.memory_gib for profile in model.mig_profiles}}[cut]


# --- whose GPUs ------------------------------------------------------------------------------------------------------


def _charged(
    state: FleetState, job: Job, pool: str, charges: tuple[Charge, ...], before: tuple[Charge, ...], now_ms: int
) -> Iterator[str]:
    """The charges add up, and whatever grows in them is idle at the owner it counts on, and allowed by its rules."""
    owners = [charge.owner for charge in charges]
    if sum(charge.gpus for charge in charges) != job.spec.gpus or any(charge.gpus <= 0 for charge in charges):
        yield f"job {job.id} has {job.spec.gpus} GPUs and is charged {charges}"
    if len(owners) != len(dict.fromkeys(owners)):
        yield f"job {job.id} is charged twice to one owner: {charges}"
    had = {charge.owner: charge.gpus for charge in before}
    for charge in charges:
        more = charge.gpus - had.get(charge.owner, 0)
        if more > 0:
            yield from _may_charge(state, job, pool, charge.owner, more, now_ms)


def _may_charge(state: FleetState, job: Job, pool: str, owner: str, gpus: int, now_ms: int) -> Iterator[str]:
    account = state.books[pool].get(owner)
    if account is None or account.idle < gpus:
        yield f"job {job.id} counts {gpus} GPUs on {owner}, whose account in {pool} is {account}"
        return
    if owner == job.owner:
        return
    borrower, contract = state.owners[job.owner].declared, state.owners[owner].declared.lending
    rule = refusal_now(contract, borrower, now_ms)
    if rule is not None:
        yield f"{owner} lends {job.owner} {gpus} GPUs against its rule about {rule}"
    if account.lent + gpus > lending_limit(state, owner, pool):
        yield f"{owner} lends {account.lent + gpus} GPUs in {pool}, more than its limit"
    if job.spec.stays_home or not job.spec.may_borrow:
        yield f"job {job.id} must not borrow and borrows {gpus} GPUs of {owner}"


# --- reclaim ---------------------------------------------------------------------------------------------------------


def _stopped(state: FleetState, event: StopOrdered) -> Iterator[str]:
    victim = state.jobs[event.job]
    attempt = victim.attempts[-1]
    lenders = [charge.owner for charge in attempt.charges if charge.owner != victim.owner]
    account = state.books[attempt.pool].get(victim.owner)
    if event.cause is not StopCause.RECLAIM or attempt.stop is not None:
        yield f"{event}: the scheduler only reclaims, and asks once"
    if not lenders and (account is None or account.home <= account.due or not event.claimant):
        yield f"job {victim.id} is stopped at home, where {victim.owner} is within its entitlement"
    if event.claimant and state.jobs[event.claimant].owner == victim.owner:
        yield f"job {victim.id} is stopped for a job of its own owner"
    contracts = lenders or ([state.jobs[event.claimant].owner] if event.claimant else [])
    began_ms = attempt.started_ms or attempt.placed_ms
    for lender in contracts:
        contract = state.owners[lender].declared.lending
        if event.kill_at_ms < max(
            event.at_ms + contract.notice_seconds * 1000, began_ms + contract.protected_seconds * 1000
        ):
            yield f"job {victim.id} gets less time than {lender}'s contract gives it"


def _reserved(state: FleetState, event: ReservationMade, seen: _Seen) -> Iterator[str]:
    """Reserved GPUs are free or coming free in time, held by nobody else, and within the owner's entitlement."""
    job = state.jobs[event.job]
    yield from sit(state, job.spec, event.pool, event.spans, event.at_ms)
    account, ending = state.books[event.pool][job.owner], ending_home(state, job.owner, event.pool)
    if account.due - account.home - account.promised + ending < job.spec.gpus:
        yield f"job {job.id} reserves {job.spec.gpus} GPUs beyond {job.owner}'s account {account}"
    if event.charges != (Charge(job.owner, job.spec.gpus),) or event.asked_ms != job.waiting_since_ms:
        yield f"{event} is not on its owner's account since it waits"
    window_ms = state.owners[job.owner].declared.lending.reclaim_window_seconds * 1000
    if event.due_ms != event.at_ms + window_ms:
        yield f"{event} is not due at the end of the reclaim window"
    yield from _bounded(state, event, seen.victims.get(event.job, []))
    for gpu in _gpus(event.pool, event.spans):
        if seen.claimed.setdefault(gpu, job.id) != job.id or _is_held(state, gpu):
            yield f"GPU {gpu} is reserved twice"
        yield from _comes_free(state, gpu, event.due_ms)
    yield from _needed(state, event, seen.victims.get(event.job, []))


def _bounded(state: FleetState, event: ReservationMade, victims: list[int]) -> Iterator[str]:
    """What is stopped for a claim stays within what its owner's contract allows."""
    job = state.jobs[event.job]
    percent = state.owners[job.owner].declared.lending.evicted_percent_max
    evicted = sum(state.jobs[victim].spec.gpus for victim in victims if not is_preempted(state.jobs[victim]))
    if percent and evicted * 100 > job.spec.gpus * percent:
        yield f"{evicted} GPUs are evicted for job {job.id}, which asks {job.spec.gpus}; {job.owner} allows {percent} %"


def _needed(state: FleetState, event: ReservationMade, victims: list[int]) -> Iterator[str]:
    """Nobody is stopped for nothing: each victim sits on reserved GPUs, or without its end too much would stay lent."""
    owner, account = state.jobs[event.job].owner, state.books[event.pool][state.jobs[event.job].owner]
    room = account.due - account.home - account.promised - span_gpus(event.spans)
    active = [state.jobs[job] for job in state.active[event.pool] if state.jobs[job].owner != owner]
    lent = sum(_lent_by(owner, job) for job in active if job.attempts[-1].stop is None)
    holders = {state.occupancy[pool].holder(node, gpu): None for pool, node, gpu in _gpus(event.pool, event.spans)}
    within = [victim for victim in victims if is_preempted(state.jobs[victim])]
    yield from needless(state, event, within, holders)
    for victim in victims:
        if victim in within:
            continue
        if victim not in holders and lent + _lent_by(owner, state.jobs[victim]) <= room:
            yield f"job {victim} is stopped for job {event.job} and need not be"


def _lent_by(lender: str, job: Job) -> int:
    return sum(charge.gpus for charge in job.attempts[-1].charges if charge.owner == lender)


def _comes_free(state: FleetState, gpu: Gpu, due_ms: int) -> Iterator[str]:
    holder = state.occupancy[gpu[0]].holder(gpu[1], gpu[2])
    if holder:
        stop = state.jobs[holder].attempts[-1].stop
        if stop is None or stop.kill_at_ms > due_ms:
            yield f"GPU {gpu} is reserved, and job {holder} on it does not end in time"


def _gpus(pool: str, spans: tuple[Span, ...]) -> Iterator[Gpu]:
    for span in spans:
        for node in range(span.first, span.first + span.nodes):
            for gpu in range(span.gpu_mask.bit_length()):
                if span.gpu_mask >> gpu & 1:
                    yield pool, node, gpu


def _is_held(state: FleetState, gpu: Gpu) -> bool:
    return bool(state.occupancy[gpu[0]].reserved[gpu[1]] >> gpu[2] & 1)


def _home_first(state: FleetState, event: AttemptPlaced, seen: _Seen) -> Iterator[str]:
    """Home work goes before borrowed work, but what a planned start held back until its job borrowed."""
    if not _is_home(event):
        if not seen.borrower:
            seen.borrower, seen.planned = event.job, dict(state.planned)
            yield from idle_for_waiting(state, event.at_ms, may_borrow=False)
        return
    gone = [start for job, start in seen.planned.items() if job not in state.planned and start.pool == event.pool]
    if seen.borrower and all(state.jobs[start.job].owner != queue_owner(event.queue) for start in gone):
        yield f"job {event.job} is placed at home after job {seen.borrower} borrowed"


def _needed_stops(plan: Plan) -> Iterator[str]:
    """Whoever is stopped for a claimant sees it reserve."""
    reserving = {event.job: None for event in plan.events if isinstance(event, ReservationMade)}
    for event in plan.events:
        if isinstance(event, StopOrdered) and event.claimant and event.claimant not in reserving:
            yield f"job {event.job} is stopped for job {event.claimant}, which reserves nothing"


# --- the rest --------------------------------------------------------------------------------------------------------


def _answered(after: FleetState, plan: Plan) -> Iterator[str]:
    """Every waiting job has reasons, nothing else has; reservations belong to waiting jobs."""
    waiting = sorted(job.id for job in after.jobs.values() if job.state is JobState.WAITING)
    if waiting != sorted(plan.reasons):
        yield f"jobs {waiting} wait, reasons are given for {sorted(plan.reasons)}"
    for job, reasons in plan.reasons.items():
        if not reasons.reasons or not all(reason.detail for reason in reasons.reasons):
            yield f"job {job} has no reasons: {reasons}"


def _is_home(event: AttemptPlaced) -> bool:
    return all(charge.owner == queue_owner(event.queue) for charge in event.charges)


def idle_for_waiting(state: FleetState, now_ms: int, *, may_borrow: bool) -> Iterator[str]:
    """Waiting jobs that could start on free GPUs: at home or, with `may_borrow`, on loan.

    The counts of each rack decide, so this finds exactly the gangs that fit. Owners with quotas are left out.
    """
    with_quotas = _with_quotas(state)
    for job in state.jobs.values():
        waits = job.state is JobState.WAITING and job.id not in state.reservations
        if not waits or job.spec.begin_at_ms > now_ms or job.owner in with_quotas or not _has_turn(state, job, now_ms):
            continue
        for pool in state.pools:
            if may_be_held_back(state, job, pool, now_ms):
                continue
            if _could_start(state, job, pool, now_ms, may_borrow=may_borrow):
                yield f"job {job.id} waits and could start in {pool}"


def _has_turn(state: FleetState, job: Job, now_ms: int) -> bool:
    """True unless the job's queue keeps strict order and one that could have a turn stands before it."""
    queue = state.queues[job.spec.queue]
    ahead = [state.jobs[number] for order, number in queue.waiting if (order, number) < job.order]
    is_blocked = any(other.id not in state.reservations and other.spec.begin_at_ms <= now_ms for other in ahead)
    return queue.declared.order is QueueOrder.BEST_EFFORT or not is_blocked


def _with_quotas(state: FleetState) -> dict[str, None]:
    return {queue_owner(name): None for name, record in state.queues.items() if record.declared.quotas}


def _could_start(state: FleetState, job: Job, pool: str, now_ms: int, *, may_borrow: bool) -> bool:
    account = state.books[pool].get(job.owner)
    reach = max(0, account.idle) if account else 0
    if may_borrow and job.spec.may_borrow and not job.spec.stays_home:
        reach += _lendable(state, job, pool, now_ms)
    reach = min(reach, power_left(state, pool))
    return reach >= job.spec.gpus and not list(_suits(state, job.spec, pool, now_ms)) and fits(state, job.spec, pool)


def _lendable(state: FleetState, job: Job, pool: str, now_ms: int) -> int:
    borrower, total, with_quotas = state.owners[job.owner].declared, 0, _with_quotas(state)
    for owner, account in state.books[pool].items():
        contract = state.owners[owner].declared.lending
        if owner == job.owner or owner in with_quotas:
            continue
        if refusal_now(contract, borrower, now_ms) is None:
            total += max(0, min(account.idle, lending_limit(state, owner, pool) - account.lent))
    return total


def _for_one(pool: Pool, mask: int) -> int:
    """The most GPUs that one job can have of those: in a shared pool the shards of one GPU, or the whole node."""
    shards = f"{mask:0{pool.gpus_per_node}b}"
    if not pool.is_shared or "0" not in shards:
        return mask.bit_count()
    return max(shards[at : at + pool.slices_per_gpu].count("1") for at in range(0, len(shards), pool.slices_per_gpu))


def fits(state: FleetState, spec: JobSpec, pool: str) -> bool:
    """True if the gang has a place among the free GPUs of a pool, found node by node."""
    declared, masks = state.pools[pool].declared, state.occupancy[pool].free.masks
    each = gpus_on_each_node(spec.gpus, spec.gpus_per_node, declared.gpus_per_node)
    if not each or (declared.is_shared and each > declared.slices_per_gpu):
        return False
    segment = max(1, spec.segment_nodes)
    groups, rest = divmod(spec.gpus // each, segment)
    has_enough, kept = enough(state, spec, pool), promised_nodes(state, pool) if takes_more(declared, spec) else ()
    roomy = [node for node, mask in enumerate(masks) if _for_one(declared, mask) >= each and node in has_enough]
    racks = Counter(node // declared.nodes_per_rack for node in roomy if node not in kept)
    level = spec.topology.level if spec.topology.required else Level.POOL
    width = {Level.RACK: 1, Level.BLOCK: declared.racks_per_block, Level.POOL: len(masks)}[level]
    domains: Counter[int] = Counter()
    for rack, nodes in racks.items():
        domains[rack // width] += nodes // segment
    return not rest and any(room >= groups for room in domains.values())
