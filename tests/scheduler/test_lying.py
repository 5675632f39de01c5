"""Claiming more than one needs does not help: neither an owner that borrows, nor a queue within its owner.

In every period each claimant submits jobs of one node; what it does not need it wastes. What counts is what it can use.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from pumasi.events.facts import AttemptEnded, Event, JobCancelled, JobSubmitted
from pumasi.model.fleet import Policy, Queue
from pumasi.model.ids import QueueId
from pumasi.model.jobs import JobState, Outcome
from pumasi.scheduler.plan import plan
from pumasi.scheduler.planner import Planner
from pumasi.state.fold import apply
from pumasi.testing.builders import HOUR_SECONDS, START_MS, fleet_facts, owner, pool, spec, state_of

PERIOD_MS = HOUR_SECONDS * 1000
PERIODS = 6
NODE_GPUS = 8

Demand = list[list[int]]  # nodes wanted, by period and claimant


def received(fleet: list[Event], queues: list[QueueId], claims: Demand) -> Demand:
    """Nodes each claimant is given in each period."""
    state = state_of(fleet)
    planner, found = Planner(state), []
    for period, wanted in enumerate(claims):
        now_ms = START_MS + period * PERIOD_MS
        for queue, nodes in zip(queues, wanted, strict=True):
            for _ in range(nodes):
                job = JobSubmitted(at_ms=now_ms, job=state.next_job, by="user", spec=spec(queue, NODE_GPUS))
                apply(state, job)
        for event in plan(state, now_ms, planner).events:
            apply(state, event)
        found.append([state.queues[queue].gpus_in_use // NODE_GPUS for queue in queues])
        for job_id, record in list(state.jobs.items()):
            apply(state, over(job_id, now_ms + PERIOD_MS, runs=record.state is JobState.ACTIVE))
    return found


def over(job: int, at_ms: int, *, runs: bool) -> Event:
    """At the end of a period a job that ran is done, and one that did not is withdrawn."""
    if not runs:
        return JobCancelled(at_ms=at_ms, job=job)
    return AttemptEnded(at_ms=at_ms, job=job, attempt=1, outcome=Outcome.COMPLETED, job_state=JobState.SUCCEEDED)


def useful(given_nodes: Demand, needed: Demand) -> int:
    """Nodes the first claimant could use, over all periods."""
    return sum(min(nodes[0], need[0]) for nodes, need in zip(given_nodes, needed, strict=True))


def demands(claimants: int) -> st.SearchStrategy[Demand]:
    """What everyone needs in each period."""
    return st.lists(
        st.lists(st.integers(0, 6), min_size=claimants, max_size=claimants), min_size=PERIODS, max_size=PERIODS
    )


lies = st.lists(st.sampled_from((0, 0, 1, 3, 6)), min_size=PERIODS, max_size=PERIODS)


def exaggerated(needed: Demand, more: list[int]) -> Demand:
    """What is claimed if the first claimant asks for more than it needs."""
    return [[need[0] + lie, *need[1:]] for need, lie in zip(needed, more, strict=True)]


@settings(max_examples=150, deadline=None)
@given(needed=demands(4), more=lies)
def test_an_owner_that_asks_for_more_than_it_needs_gets_no_more_of_use(needed: Demand, more: list[int]) -> None:
    names = ["ant", "bee", "cat", "dog"]
    fleet = fleet_facts(
        [owner(name, lends=100) for name in names],
        [pool("hall", dict.fromkeys(names, 2 * NODE_GPUS))],
        policy=Policy(usage_half_life_seconds=HOUR_SECONDS),
    )
    truth = useful(received(fleet, list(names), needed), needed)
    assert useful(received(fleet, list(names), exaggerated(needed, more)), needed) <= truth


@settings(max_examples=150, deadline=None)
@given(needed=demands(3), more=lies, weights=st.tuples(*[st.integers(1, 3)] * 3))
def test_a_queue_that_asks_for_more_than_it_needs_gets_no_more_of_use(
    needed: Demand, more: list[int], weights: tuple[int, ...]
) -> None:
    names = ["ant/x", "ant/y", "ant/z"]
    queues = [Queue(id=name, weight=weight) for name, weight in zip(names, weights, strict=True)]
    policy = Policy(usage_half_life_seconds=24 * HOUR_SECONDS)
    fleet = fleet_facts([owner("ant")], [pool("hall", {"ant": 6 * NODE_GPUS})], queues, policy=policy)
    truth = useful(received(fleet, list(names), needed), needed)
    assert useful(received(fleet, list(names), exaggerated(needed, more)), needed) <= truth
