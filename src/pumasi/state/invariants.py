"""What must hold of every state. Checked after every step in tests and in the twin, sampled live.

Each check recomputes from the jobs what the incremental counters claim, and yields one sentence per violation.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter

from pumasi.events.facts import AdvanceReservationState, NodeState
from pumasi.model.ids import QueueId, queue_parent
from pumasi.model.jobs import JobState, Span, gpus_on_each_node, overlap
from pumasi.state.accounts import Accounts, post, promise
from pumasi.state.backlog import Backlog, shape_key
from pumasi.state.fleet_state import FleetState
from pumasi.state.freemap import FreeMap
from pumasi.state.lending import lending_limit
from pumasi.state.records import Account, AdvanceRecord, Job


def violations(state: FleetState) -> list[str]:
    """Every violated invariant of the state, in words; empty when all hold."""
    checks = (_gpus_once, _rest_once, _gangs, _charges, _books, _capacity, _queues, _waiting, _guests, _free_maps)
    return [finding for check in checks for finding in check(state)]


def _active_jobs(state: FleetState) -> list[Job]:
    return [job for job in state.jobs.values() if job.state is JobState.ACTIVE]


def _gpus_once(state: FleetState) -> Iterator[str]:
    """D1: no GPU in two live allocations, and the holder of each is the job that has it."""
    seen: set[tuple[str, int, int]] = set()
    for job in _active_jobs(state):
        attempt = job.attempts[-1]
        occupancy = state.occupancy[attempt.pool]
        for node, gpu in _gpus_of(job):
            key = (attempt.pool, node, gpu)
            if key in seen:
                yield f"GPU {key} is in two live allocations"
            seen.add(key)
            if occupancy.holder(node, gpu) != job.id:
                yield f"GPU {key} of job {job.id} is held by {occupancy.holder(node, gpu)}"
    for pool, occupancy in state.occupancy.items():
        expected = sum(1 for key in seen if key[0] == pool)
        if occupancy.used_gpus != expected:
            yield f"pool {pool}: {occupancy.used_gpus} GPUs counted in use, {expected} are"


def _gpus_of(job: Job) -> Iterator[tuple[int, int]]:
    for span in job.attempts[-1].spans:
        for node in range(span.first, span.first + span.nodes):
            for gpu in range(span.gpu_mask.bit_length()):
                if span.gpu_mask >> gpu & 1:
                    yield node, gpu


def _rest_once(state: FleetState) -> Iterator[str]:
    """No node gives more CPUs or memory than it has, and the free map notes who takes more or less than its share."""
    for pool, record in state.pools.items():
        declared, beyond = record.declared, state.occupancy[pool].free.beyond.items()
        cpus = {node: extra.cpu_parts for node, extra in beyond if extra.cpu_parts}
        memory = {node: extra.memory_parts for node, extra in beyond if extra.memory_parts}
        yield from _given_once(state, pool, declared.cpus_per_node, attrgetter("cpus"), cpus)
        yield from _given_once(state, pool, declared.memory_mib_per_node, attrgetter("memory_mib"), memory)


def _given_once(
    state: FleetState, pool: str, per_node: int, asked_of: Callable[[Span], int], noted: dict[int, int]
) -> Iterator[str]:
    """The same of one of the two. `noted`: parts by node, as many to one as a node has GPUs."""
    each = state.pools[pool].declared.gpus_per_node
    given: Counter[int] = Counter()
    beyond: Counter[int] = Counter()
    for span in (span for job in state.active[pool] if per_node for span in state.jobs[job].attempts[-1].spans):
        share = span.gpu_mask.bit_count() * per_node
        parts = asked_of(span) * each or share
        given.update(dict.fromkeys(range(span.first, span.first + span.nodes), parts))
        beyond.update(dict.fromkeys(range(span.first, span.first + span.nodes), parts - share))
    for node, parts in given.items():
        if parts > per_node * each:
            yield f"pool {pool}: node {node} gives {parts} of {per_node * each} parts of its CPUs or memory"
    if {node: parts for node, parts in beyond.items() if parts} != noted:
        yield f"pool {pool}: {noted} is noted beyond the share of GPUs, by the jobs it is {beyond}"


def _gangs(state: FleetState) -> Iterator[str]:
    """D4: a gang is complete, with the same number of GPUs on each node."""
    for job in _active_jobs(state):
        attempt = job.attempts[-1]
        each = gpus_on_each_node(
            job.spec.gpus, job.spec.gpus_per_node, state.pools[attempt.pool].declared.gpus_per_node
        )
        if attempt.gpus != job.spec.gpus or any(span.gpu_mask.bit_count() != each for span in attempt.spans):
            yield f"job {job.id} asked {job.spec.gpus} GPUs, {each} a node, and has {attempt.spans}"


def _charges(state: FleetState) -> Iterator[str]:
    """Every GPU of an allocation counts on exactly one entitlement."""
    for job in _active_jobs(state):
        attempt = job.attempts[-1]
        if sum(charge.gpus for charge in attempt.charges) != attempt.gpus:
            yield f"job {job.id}: {attempt.gpus} GPUs, charged {attempt.charges}"


def _books(state: FleetState) -> Iterator[str]:
    """The books of every pool equal the sum of its live charges and reservations."""
    for pool, books in state.books.items():
        expected: Accounts = {
            owner: Account(entitled=account.entitled, due=account.due) for owner, account in books.items()
        }
        for job in state.active[pool]:
            record = state.jobs[job]
            post(expected, record.owner, record.attempts[-1].charges, 1)
        for reservation in state.reservations.values():
            if reservation.pool == pool:
                promise(expected, reservation.charges, 1)
        if expected != books:
            yield f"pool {pool}: books {books}, by the jobs {expected}"


def _capacity(state: FleetState) -> Iterator[str]:
    """Home and borrowed use fit the healthy GPUs, and what is due adds up to those that power lets run."""
    for pool, occupancy in state.occupancy.items():
        books = state.books[pool].values()
        used = sum(account.home + account.lent for account in books)
        if used != occupancy.used_gpus or used > occupancy.capacity_gpus:
            yield f"pool {pool}: {used} GPUs charged, {occupancy.used_gpus} used, {occupancy.capacity_gpus} healthy"
        due = sum(account.due for account in books)
        if due != state.usable_gpus(pool):
            yield f"pool {pool}: {due} GPUs due, {state.usable_gpus(pool)} healthy and powered"


def _queues(state: FleetState) -> Iterator[str]:
    """A queue's use is the sum of the live allocations in it and below it."""
    expected: dict[str, Counter[str]] = {queue: Counter() for queue in state.queues}
    for job in _active_jobs(state):
        name: str | None = job.spec.queue
        while name is not None:
            expected[name][job.attempts[-1].pool] += job.attempts[-1].gpus
            name = state.queues[name].parent
    for queue, record in state.queues.items():
        parts = sum(state.pools[pool].declared.parts(gpus) for pool, gpus in expected[queue].items())
        if record.in_use != dict(expected[queue]) or record.parts_in_use != parts:
            yield f"queue {queue}: {record.in_use} in use, by the jobs {dict(expected[queue])}"


def _waiting(state: FleetState) -> Iterator[str]:
    """The waiting lists hold exactly the waiting jobs, in order; reservations belong to waiting jobs."""
    expected: dict[str, list[tuple[int, int]]] = {queue: [] for queue in state.queues}
    for job in state.jobs.values():
        if job.is_terminal:
            yield f"job {job.id} is {job.state} and still in the state"
        if job.state is JobState.WAITING:
            expected[job.spec.queue].append(job.order)
    for queue, record in state.queues.items():
        if record.waiting != sorted(expected[queue]):
            yield f"queue {queue}: its waiting list does not hold its waiting jobs in order"
    waiting = sum(len(record.waiting) for record in state.queues.values())
    if waiting != state.waiting_jobs:
        yield f"{waiting} jobs wait, {state.waiting_jobs} are counted"
    yield from _backlogs(state)
    yield from _advance_reservations(state)
    for job_id in state.planned:
        if job_id not in state.jobs or state.jobs[job_id].state is not JobState.WAITING:
            yield f"a start is planned for job {job_id}, which is not waiting"
    for job_id in state.reservations:
        if job_id not in state.jobs or state.jobs[job_id].state is not JobState.WAITING:
            yield f"reservation for job {job_id}, which is not waiting"


def _advance_reservations(state: FleetState) -> Iterator[str]:
    """No GPU is reserved twice for one time, and none is used by whom it is not reserved for."""
    records = list(state.advance_reservations.values())
    for place, record in enumerate(records):
        one = record.declared
        if record.job and (record.job not in state.jobs or state.jobs[record.job].live is None):
            yield f"reservation {one.id} is handed over, and its job {record.job} holds nothing"
        if record.state is AdvanceReservationState.ACTIVE:
            yield from _intruders(state, record)
        for other in (each.declared for each in records[:place] if each.declared.pool == one.pool):
            if one.start_ms < other.end_ms and other.start_ms < one.end_ms and overlap(one.spans, other.spans):
                yield f"reservations {one.id} and {other.id} hold the same GPUs"


def _intruders(state: FleetState, record: AdvanceRecord) -> Iterator[str]:
    """Who holds GPUs of a reservation that has begun, is not whom it is for, and was placed since."""
    made = record.declared
    for number in state.active[made.pool]:
        job = state.jobs[number]
        attempt = job.attempts[-1]
        is_meant = number == record.job or made.admits(job.spec.queue) or attempt.placed_ms <= made.start_ms
        if not is_meant and overlap(attempt.spans, made.spans):
            yield f"job {number} was placed on GPUs of reservation {made.id}"


def _backlogs(state: FleetState) -> Iterator[str]:
    """The waiting jobs by need are the waiting jobs by queue."""
    by_queue: dict[str, list[tuple[int, int]]] = {queue: [] for queue in state.queues}
    for key, backlog in state.backlogs.by_need.items():
        for queue, line in backlog.lines.items():
            by_queue[queue] += line
            if not line or any(job in state.jobs and shape_key(state.jobs[job].spec) != key[1] for _, job in line):
                yield f"queue {queue}: {line} do not all need {key}"
            if not _leads_to(backlog, queue):
                yield f"queue {queue}: its owner's queues do not lead to it for {key}"
        if backlog.jobs != sum(map(len, backlog.lines.values())):
            yield f"{backlog.jobs} jobs are counted for {key}"
    for queue, record in state.queues.items():
        if record.waiting != sorted(by_queue[queue]):
            yield f"queue {queue}: its waiting jobs by need are {sorted(by_queue[queue])}"


def _leads_to(backlog: Backlog, queue: QueueId) -> bool:
    """True if whoever goes down from the owner's queue, by what is noted to be below, comes to this one."""
    parent = queue_parent(queue)
    return parent is None or (queue in backlog.below.get(parent, {}) and _leads_to(backlog, parent))


def _guests(state: FleetState) -> Iterator[str]:
    """The guests of a pool are its live jobs that borrow or stop."""
    for pool, jobs in state.active.items():
        live = [state.jobs[job] for job in jobs]
        expected = {
            job.id: None
            for job in live
            if job.attempts[-1].stop or any(charge.owner != job.owner for charge in job.attempts[-1].charges)
        }
        if expected != state.guests[pool]:
            yield f"pool {pool}: guests are {list(expected)}, noted are {list(state.guests[pool])}"


def _free_maps(state: FleetState) -> Iterator[str]:
    """The free map of every pool agrees with its occupancy, mask by mask and count by count."""
    for pool, occupancy in state.occupancy.items():
        free = occupancy.free
        for node, mask in enumerate(free.masks):
            is_open = occupancy.in_service and occupancy.node_state(node) is NodeState.UP
            expected = free.full_mask & ~occupancy.used[node] & ~occupancy.reserved[node] if is_open else 0
            if mask != expected:
                yield f"pool {pool}: node {node} has GPUs {mask:b} free by the map, {expected:b} by its use"
        counted = sum(free.by_free[count].bit_count() * count for count in range(1, free.gpus_per_node + 1))
        masked, together = (sum(map(each, free.masks)) for each in (int.bit_count, free.together))
        if counted != together or masked != free.free_gpus:
            yield f"pool {pool}: {free.free_gpus} free GPUs, {masked} by masks; {counted} by files, not {together}"
        yield from _rack_counts(pool, free)


def _rack_counts(pool: str, free: FreeMap) -> Iterator[str]:
    """Racks and blocks count the wholly free nodes that stand in them, and racks are filed by that count."""
    whole = Counter(node // free.nodes_per_rack for node, mask in enumerate(free.masks) if mask == free.full_mask)
    blocks: Counter[int] = Counter()
    for rack, count in enumerate(free.rack_whole):
        blocks[rack // free.racks_per_block] += whole[rack]
        if count != whole[rack] or not free.racks_by_whole[count] >> rack & 1:
            yield f"pool {pool}: rack {rack} counts {count} wholly free nodes, {whole[rack]} are"
    if any(count != blocks[block] for block, count in enumerate(free.block_whole)):
        yield f"pool {pool}: blocks count {list(free.block_whole)} wholly free nodes, {dict(blocks)} are"


def over_lent(state: FleetState) -> list[str]:
    """Lending limits exceeded by loans that nobody has been told to end: none after a cycle."""
    lent: Counter[tuple[str, str]] = Counter()
    for job in _active_jobs(state):
        attempt = job.attempts[-1]
        if attempt.stop is None:
            loans = [charge for charge in attempt.charges if charge.owner != job.owner]
            lent.update({(attempt.pool, charge.owner): charge.gpus for charge in loans})
    return [
        f"pool {pool}: {owner} lends {gpus} GPUs, limit {limit}"
        for (pool, owner), gpus in lent.items()
        if gpus > (limit := lending_limit(state, owner, pool))
    ]
