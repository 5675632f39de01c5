"""Reasons say what would start a job: in random fleets, doing what they say starts it.

What blocks a job can be several things, and the answer names the nearest. So the advice is followed step by step, and
the job must start after a few. All other waiting jobs are cancelled, for what is given back could else be theirs.
"""

import re
from collections.abc import Iterable

from hypothesis import assume, event, given
from hypothesis import strategies as st

from pumasi.events.facts import Event, NodeState, SiteConnected
from pumasi.model.ids import JobId, PoolId
from pumasi.model.jobs import JobState, Level
from pumasi.scheduler.reasons import Reason, ReasonCode
from pumasi.state.records import Job
from pumasi.testing.harness import Harness
from tests.scheduler.fleets import Step, fleets, jobs, play, steps, submit
from tests.scheduler.test_properties import plays

STEPS_MAX = 6
SAME_JOBS_MAX = 300

_C = ReasonCode
UNCHANGING = {_C.ENTITLEMENT_TOO_SMALL, _C.LENDER_REFUSES_OWNER, _C.LENDER_REFUSES_KIND, _C.LENDING_LIMIT}


@plays
@given(fleet=fleets(), story=st.lists(steps(), min_size=3, max_size=25), last=jobs())
def test_doing_what_would_start_a_job_starts_it(fleet: list[Event], story: list[Step], last: Step) -> None:
    harness = Harness(fleet)
    for step in story:
        play(harness, step)
    alone(harness)
    job = first_to_wait(harness, last)
    told: list[Reason] = []
    while not has_started(harness, job):
        reason = harness.plan.reasons[job].first
        assume(reason.code not in UNCHANGING and reason.would_start != "a change of the fleet or of its rules")
        told.append(reason)
        assert len(told) <= STEPS_MAX, told
        do(harness, harness.state.jobs[job], reason)
        alone(harness, job)
        harness.tick()
    event(" then ".join(reason.code for reason in told))


def first_to_wait(harness: Harness, last: Step) -> JobId:
    """The same job is submitted over and over, until one does not start."""
    for _ in range(SAME_JOBS_MAX):
        job = submit(harness, last[2], last[3])
        harness.tick()
        if not has_started(harness, job):
            return job
    raise AssertionError("no fleet here has so much room")


def alone(harness: Harness, job: JobId = 0) -> None:
    """Cancel every other job that waits."""
    for other in list(harness.state.jobs.values()):
        if other.state is JobState.WAITING and other.id != job:
            harness.cancel(other.id)


def has_started(harness: Harness, job: JobId) -> bool:
    """True if the job runs, or has GPUs reserved that come free."""
    return harness.state.jobs[job].state is JobState.ACTIVE or job in harness.state.reservations


def do(harness: Harness, job: Job, reason: Reason) -> None:
    """Make happen what the reason says would start the job."""
    numbers = [int(number) for number in re.findall(r"\b\d+\b", reason.would_start)]
    match reason.code:
        case _C.ENTITLEMENT_USED | _C.LENT_OUT:
            give_back(harness, numbers[0], (each for each in on(harness, reason.pool) if uses(each, job.owner)))
        case _C.QUEUE_LIMIT:
            give_back(harness, numbers[0], (each for each in on(harness, reason.pool) if each.owner == job.owner))
        case _C.NOTHING_TO_BORROW | _C.TOO_FEW_FREE:
            give_back(harness, numbers[0], on(harness, reason.pool))
        case _C.NO_SHAPE | _C.TOO_FEW_CPUS | _C.TOO_LITTLE_MEMORY:
            free_nodes(harness, job, reason.pool)
        case _C.POWER_CAP:
            harness.set_power(harness.state.pools[reason.pool].declared.site, 0)
        case _C.SITE_NOT_CONNECTED:
            site = harness.state.pools[reason.pool].declared.site
            harness.record(SiteConnected(at_ms=harness.now_ms, site=site))
        case _C.RESERVED:
            harness.wait(4600)
        case _C.OUTSIDE_LENDING_WINDOW:
            harness.wait(12 * 3600)


def on(harness: Harness, pool: PoolId) -> list[Job]:
    """The running jobs of a pool."""
    return [harness.state.jobs[job] for job in harness.state.active[pool]]


def uses(job: Job, owner: str) -> bool:
    """True if a running job counts on the owner's entitlement."""
    return any(charge.owner == owner for charge in job.attempts[-1].charges)


def give_back(harness: Harness, gpus: int, jobs: Iterable[Job]) -> None:
    """End jobs until so many GPUs are given back."""
    for job in jobs:
        if gpus > 0:
            gpus -= job.spec.gpus
            harness.end(job.id)


def free_nodes(harness: Harness, job: Job, pool: PoolId) -> None:
    """Clear the place that has most room: a rack, a block or the pool, as the job needs it."""
    declared, topology = harness.state.pools[pool].declared, job.spec.topology
    level = topology.level if topology.required else Level.POOL
    width = {Level.RACK: 1, Level.BLOCK: declared.racks_per_block, Level.POOL: declared.nodes}[level]
    width *= declared.nodes_per_rack
    masks = harness.state.occupancy[pool].free.masks
    places = [range(first, min(first + width, declared.nodes)) for first in range(0, declared.nodes, width)]
    place = max(places, key=lambda nodes: (len(nodes), sum(masks[node].bit_count() for node in nodes)))
    for node in place:
        for other in harness.state.occupancy[pool].jobs_on(node):
            harness.end(other)
        harness.set_node(pool, node, NodeState.UP)
