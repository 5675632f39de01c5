"""Fleets and work for the benchmark of the scheduler: the Korean plan whole, sizes resampled from the Philly trace.

The sizes keep the trace's counts (82,247 jobs) and get a tail of gangs up to 2,048 GPUs, as published for newer
clusters (Acme, NSDI'24). Of the gangs of 12 to 64 GPUs, six in ten must sit within one rack; larger ones ask for one
block and take what there is.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from pumasi.control.commands import ApplyPlan
from pumasi.control.plane import ControlPlane
from pumasi.control.refusals import Refusal
from pumasi.events import facts
from pumasi.events.facts import AttemptEnded, AttemptPlaced, JobSubmitted, StopOrdered
from pumasi.model.fleet import LendingContract, Queue
from pumasi.model.ids import JobId
from pumasi.model.jobs import JobSpec, JobState, Level, Outcome, Topology
from pumasi.plans.locate import find_plan
from pumasi.plans.reader import load_plan
from pumasi.scheduler.plan import Plan, plan
from pumasi.scheduler.planner import Planner
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.testing.builders import fleet_facts, owner, pool, state_of

NOW_MS = 1_924_000_000_000  # in 2030, when the last of the announced GPUs are in service
AS_OF = "2030-12-31"
FLEET_GPUS = 260_000
PROJECTS = 1_000  # below the queues of each of the five
FIVE = ("public", "samsung", "sk", "hyundai", "naver")

PHILLY = {1: 76_627, 2: 1_818, 4: 1_870, 8: 1_643, 12: 7, 16: 199, 24: 7, 32: 67, 64: 6, 128: 3}
TAIL = {256: 60, 512: 30, 1024: 12, 2048: 4}
SIZES = PHILLY | TAIL
PREFERRED_BLOCK = Topology(level=Level.BLOCK)
REQUIRED_RACK = Topology(level=Level.RACK, required=True)
ANYWHERE = Topology()


class Clock:
    """A clock that stands."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return NOW_MS


def korea() -> FleetState:
    """The whole Korean fleet, empty: 260,000 GPUs in 34 pools, every site connected, a thousand projects an owner."""
    fleet = load_plan(find_plan("korea"))
    plane = ControlPlane(Clock())
    answer = plane.execute(ApplyPlan(by="bench", plan=fleet, as_of=AS_OF))
    assert not isinstance(answer, Refusal), answer
    state = plane.state
    for site in fleet.sites:
        apply(state, facts.SiteEnrolled(at_ms=NOW_MS, site=site.id, public_key="key", generation=1))
    for name in FIVE:
        leaves = [queue for queue in leaf_queues(state) if queue.partition("/")[0] == name]
        for number in range(PROJECTS):
            project = Queue(id=f"{leaves[number % len(leaves)]}/p{number}", weight=1 + number % 3)
            apply(state, facts.QueueDeclared(at_ms=NOW_MS, queue=project))
    return state


def leaf_queues(state: FleetState) -> list[str]:
    """The queues without children, in the order they were declared."""
    return [name for name, record in state.queues.items() if not record.children]


def jobs(queues: list[str], count: int, seed: int) -> Iterator[JobSpec]:
    """Jobs of all queues, sizes as in the trace with its tail."""
    stream = random.Random(seed)
    sizes = stream.choices(list(SIZES), list(SIZES.values()), k=count)
    for number, gpus in enumerate(sizes):
        yield JobSpec(
            name=f"job-{number}", queue=stream.choice(queues), script="srun train\n", gpus=gpus,
            time_limit_seconds=3600 * stream.randint(1, 48), topology=_topology(gpus, stream),
            checkpoint_seconds=stream.choice((0, 600, 3600)),
        )  # fmt: skip


def _topology(gpus: int, stream: random.Random) -> Topology:
    if gpus > 64:
        return PREFERRED_BLOCK
    return REQUIRED_RACK if gpus > 8 and stream.random() < 0.6 else ANYWHERE


def submit(state: FleetState, specs: Iterable[JobSpec], now_ms: int = NOW_MS) -> None:
    """Make jobs wait."""
    for spec in specs:
        apply(state, JobSubmitted(at_ms=now_ms, by="bench", job=state.next_job, spec=spec))


def fold(state: FleetState, made: Plan) -> int:
    """Carry out a plan, and start what it places; returns how many jobs that were."""
    placed = [event for event in made.events if isinstance(event, AttemptPlaced)]
    for event in made.events:
        apply(state, event)
    for event in placed:
        apply(state, facts.AttemptStarted(at_ms=event.at_ms, job=event.job, attempt=event.attempt))
    return len(placed)


def crowded(waiting: int) -> FleetState:
    """The Korean fleet filled until nothing that waits can start, and so many jobs waiting."""
    state, seed = korea(), 1
    queues, planner = leaf_queues(state), Planner(state)
    while state.waiting_jobs < waiting:
        submit(state, jobs(queues, 40_000, seed))
        settle(state, planner)
        seed += 1
    thin_out(state, waiting)
    settle(state, planner)
    return state


def thin_out(state: FleetState, waiting: int) -> None:
    """Cancel waiting jobs, whichever they are, until so many are left."""
    lines = [job for queue in state.queues.values() for _, job in queue.waiting]
    lines = [job for job in lines if job not in state.reservations and job not in state.planned]
    random.Random(waiting).shuffle(lines)
    for job in lines[: state.waiting_jobs - waiting]:
        apply(state, facts.JobCancelled(at_ms=NOW_MS, job=job))


def settle(state: FleetState, planner: Planner) -> None:
    """Cycle after cycle, until nothing more changes."""
    while (made := plan(state, NOW_MS, planner)).events:
        carry_out(state, made)


def carry_out(state: FleetState, made: Plan) -> None:
    """Fold a plan; who is told to stop stops at once and waits again."""
    fold(state, made)
    for event in made.events:
        if isinstance(event, StopOrdered):
            apply(state, ended(state, event.job, Outcome.RECLAIMED, JobState.WAITING))


def ended(state: FleetState, job: JobId, outcome: Outcome, becomes: JobState) -> AttemptEnded:
    """The end of a job's attempt."""
    number = len(state.jobs[job].attempts)
    return AttemptEnded(at_ms=NOW_MS, job=job, attempt=number, outcome=outcome, job_state=becomes)


# --- a reclaim of a fifth of the fleet -------------------------------------------------------------------------------

LENDER, BORROWER = "naver", "hyundai"
CLAIMED_GPUS = 52_000
BORROWED_SIZES = (4, 8, 8, 8, 16, 16, 32)
BATCHES, BATCH_MS = 24, 23 * 60_000  # the ages of what runs, past whole hours and checkpoints
ASKED_MS = NOW_MS + BATCHES * BATCH_MS


def lent_out() -> FleetState:
    """The Korean fleet, a lender's pools lent to the last GPU over some hours to jobs of another owner."""
    state = korea()
    declared = state.owners[LENDER].declared
    lends_all = msgspec.structs.replace(declared, lending=LendingContract(lendable_percent=100, notice_seconds=60))
    apply(state, facts.OwnerDeclared(at_ms=NOW_MS, owner=lends_all))
    pools = tuple(pool for pool, books in state.books.items() if LENDER in books)
    planner, stream = Planner(state), random.Random(5)
    for batch in range(BATCHES):
        at_ms = NOW_MS + batch * BATCH_MS
        gpus = sum(state.occupancy[pool].free.free_gpus for pool in pools)
        share = gpus // (BATCHES - batch) if batch < BATCHES - 1 else 2 * gpus
        submit(state, _borrowers(pools, share, stream), at_ms)
        fold(state, plan(state, at_ms, planner))
    for job in [job for queue in state.queues.values() for _, job in queue.waiting]:
        apply(state, facts.JobCancelled(at_ms=ASKED_MS, job=job))
    return state


def _borrowers(pools: tuple[str, ...], gpus: int, stream: random.Random) -> Iterator[JobSpec]:
    while gpus > 0:
        size = stream.choice(BORROWED_SIZES)
        gpus -= size
        yield JobSpec(
            name="borrower", queue=BORROWER, script="srun train\n", gpus=size, pools=pools,
            time_limit_seconds=48 * 3600, checkpoint_seconds=stream.choice((0, 600, 3600)),
        )  # fmt: skip


def claims() -> Iterator[JobSpec]:
    """The lender's own work: half of it gangs of a whole rack of 18 nodes, half jobs of eight GPUs."""
    in_racks = CLAIMED_GPUS // 2 // 72
    for _ in range(in_racks):
        yield gang(LENDER, 72, gpus_per_node=4, topology=REQUIRED_RACK)
    for _ in range((CLAIMED_GPUS - in_racks * 72) // 8):
        yield gang(LENDER, 8)


def lost_gpu_milliseconds(state: FleetState, job: JobId) -> int:
    """Work that is lost if a borrower is stopped: since its last checkpoint, or since it started."""
    record = state.jobs[job]
    ran_ms, period_ms = ASKED_MS - record.attempts[-1].started_ms, record.spec.checkpoint_seconds * 1000
    return record.spec.gpus * (ran_ms % period_ms if period_ms else ran_ms)


# --- plain fleets ----------------------------------------------------------------------------------------------------


def plain_fleet(gpus: int) -> FleetState:
    """Five pools of HGX nodes, one an owner's home, a fifth of each another owner's; a thousand projects an owner."""
    each, halls = gpus // 5 // 40 * 40, []
    for place, name in enumerate(FIVE):
        shares = {name: each * 4 // 5, FIVE[place - 1]: each // 5}
        halls.append(pool(f"hall-{name}", shares, nodes_per_rack=9, racks_per_block=32))
    queues = [Queue(id=name) for name in FIVE]
    queues += [Queue(id=f"{name}/p{number}", weight=1 + number % 3) for name in FIVE for number in range(PROJECTS)]
    return state_of(fleet_facts([owner(name, 100) for name in FIVE], halls, queues))


def one_pool(gpus: int) -> FleetState:
    """One pool of one owner, with the racks and blocks that Slurm's tree has."""
    hall = pool("hall", {"public": gpus}, nodes_per_rack=9, racks_per_block=32)
    return state_of(fleet_facts([owner("public")], [hall]))


SMALL_POOL_GPUS = 8_000


def held_for_a_gang(jobs_behind: int) -> FleetState:
    """Half of a pool is in use, all of it is promised to a gang after that, and so many jobs would take too long."""
    state = one_pool(SMALL_POOL_GPUS)
    planner = Planner(state)
    for gpus in (SMALL_POOL_GPUS // 2, SMALL_POOL_GPUS):
        submit(state, [gang("public", gpus)])
        settle(state, planner)
    longer = (2 * 3600 + number for number in range(jobs_behind, 0, -1))
    submit(state, (msgspec.structs.replace(gang("public", 8), time_limit_seconds=seconds) for seconds in longer))
    return state


def gang(queue: str, gpus: int, **fields: Any) -> JobSpec:
    """A job of an hour."""
    return JobSpec(name="gang", queue=queue, script="srun train\n", gpus=gpus, time_limit_seconds=3600, **fields)


def some_jobs(queues: list[str], count: int, sizes: tuple[int, ...], **fields: Any) -> Iterator[JobSpec]:
    """Jobs of all queues in turn, of these sizes."""
    stream = random.Random(count)
    return (gang(queues[number % len(queues)], stream.choice(sizes), **fields) for number in range(count))


def jobs_of_some_node(state: FleetState, stream: random.Random) -> list[JobId]:
    """The jobs on a node that have all their GPUs there."""
    while True:
        name = stream.choice(list(state.pools))
        node = stream.randrange(state.pools[name].declared.nodes)
        found = state.occupancy[name].jobs_on(node)
        spans = [span for job in found for span in state.jobs[job].attempts[-1].spans]
        if found and all((span.first, span.nodes) == (node, 1) for span in spans):
            return found
