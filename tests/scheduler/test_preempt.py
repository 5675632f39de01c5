"""Preemption inside an owner: who may stop whom, that nobody is stopped for nothing, and that it comes to an end."""

from collections import Counter
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pumasi.events.facts import AttemptEnded, ReservationMade, StopOrdered
from pumasi.model.fleet import Policy, Preemption, Queue, Quota
from pumasi.model.jobs import JobState, Level, Outcome, StopCause, Topology
from pumasi.scheduler.check import lint
from pumasi.scheduler.plan import Plan, plan
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness

FACTORY = Queue(id="ant/factory", preemption=Preemption.LOWER_PRIORITY)


def harness(*queues: Queue, gpus: int = 32, policy: Policy | None = None, **contract: Any) -> Harness:
    """Ant owns a pool, and lends to bee; nodes have 8 GPUs, racks 4 nodes."""
    owners = [owner("ant", 100, **({"notice_seconds": 60} | contract)), owner("bee")]
    queues = queues or (FACTORY, Queue(id="ant/lab"))
    return Harness(fleet_facts(owners, [pool("p", {"ant": gpus})], queues, policy=policy))


def stopped(made: Plan) -> list[int]:
    """Who is told to stop, in order."""
    return [fact.job for fact in made.events if isinstance(fact, StopOrdered)]


def filled(fleet: Harness, *priorities: int, queue: str = "ant/factory") -> list[int]:
    """A node for each priority."""
    jobs = [fleet.submit(queue, 8, priority=priority) for priority in priorities]
    fleet.tick()
    return jobs


def test_the_lowest_priority_goes_then_the_least_work_lost() -> None:
    fleet = harness()
    filled(fleet, 3, 1)
    fleet.wait(60)
    _, young = filled(fleet, 2, 1)
    fleet.submit("ant/factory", 8, priority=5)
    assert stopped(fleet.tick()) == [young]


def test_without_the_wish_of_the_queue_nobody_is_stopped() -> None:
    fleet = harness(Queue(id="ant/factory"), Queue(id="ant/lab"))
    filled(fleet, 0, 0, 0, 0)
    fleet.submit("ant/factory", 8, priority=5)
    assert stopped(fleet.tick()) == []


def test_equal_priority_and_other_queues_are_safe() -> None:
    fleet = harness()
    filled(fleet, 5, 5)
    filled(fleet, 0, 0, queue="ant/lab")
    fleet.submit("ant/factory", 8, priority=5)
    assert stopped(fleet.tick()) == []


def test_a_root_queue_can_ask_for_the_whole_owner() -> None:
    fleet = harness(Queue(id="ant", preemption=Preemption.LOWER_PRIORITY), Queue(id="ant/factory"), Queue(id="ant/lab"))
    victims = filled(fleet, 0, 0, 0, 0, queue="ant/lab")
    fleet.submit("ant/factory", 32, priority=1)
    assert stopped(fleet.tick()) == victims


def test_what_is_free_or_lent_goes_first() -> None:
    fleet = harness()
    filled(fleet, 0, 0)
    lent = fleet.submit("bee", 8)
    fleet.tick()
    fleet.submit("ant/factory", 8, priority=1)
    assert stopped(fleet.tick()) == []
    fleet.submit("ant/factory", 8, priority=1)
    assert stopped(fleet.tick()) == [lent]


def test_nobody_is_stopped_that_the_shape_does_without() -> None:
    """Rack 1 holds jobs of priority 0 and 2, rack 2 two of priority 1 and two free nodes: that one is cleared."""
    fleet = harness(gpus=64)
    for priority in (0, 2, 0, 2, 1, 1):
        filled(fleet, priority)
    fleet.submit("ant/factory", 32, priority=5, topology=Topology(level=Level.RACK, required=True))
    assert stopped(fleet.tick()) == [5, 6]


def test_the_claimant_gets_what_the_victim_leaves_and_is_no_reclaim() -> None:
    fleet = harness()
    (victim, *_) = filled(fleet, 0, 1, 1, 1)
    claimant = fleet.submit("ant/factory", 8, priority=5)
    made = fleet.tick()
    (stop,) = [fact for fact in made.events if isinstance(fact, StopOrdered)]
    assert (stop.cause, stop.claimant, stop.kill_at_ms - fleet.now_ms) == (StopCause.PREEMPT, claimant, 60_000)
    assert stopped(fleet.tick()) == []
    fleet.wait(60)
    fleet.tick()
    assert fleet.state.jobs[claimant].attempts[-1].spans == fleet.state.jobs[victim].attempts[0].spans
    assert fleet.state.jobs[victim].state is JobState.WAITING
    reclaims = fleet.ledger.reclaims
    assert (reclaims.open, reclaims.settled, reclaims.preempting) == ({}, [], {})


def test_the_owners_contract_gives_its_own_work_the_time_it_gives_to_others() -> None:
    fleet = harness(protected_seconds=600)
    filled(fleet, 0, 0, 0, 0)
    fleet.submit("ant/factory", 8, priority=5)
    (stop,) = [fact for fact in fleet.tick().events if isinstance(fact, StopOrdered)]
    assert stop.kill_at_ms - fleet.now_ms == 600_000


def test_under_quotas_a_queue_makes_room_for_itself_alone() -> None:
    root = Queue(id="ant", preemption=Preemption.LOWER_PRIORITY)
    factory = Queue(id="ant/factory", quotas={"p": Quota(nominal=16, borrowing_limit=0)})
    fleet = harness(root, factory, Queue(id="ant/lab"))
    (own, *_) = filled(fleet, 1, 1)
    filled(fleet, 0, 0, queue="ant/lab")
    fleet.submit("ant/factory", 8, priority=5)
    assert stopped(fleet.tick()) == [own]


def test_queues_without_a_quota_of_their_own_are_under_the_one_above() -> None:
    root = Queue(id="ant", preemption=Preemption.LOWER_PRIORITY, quotas={"p": Quota(nominal=32)})
    fleet = harness(root, Queue(id="ant/factory"), Queue(id="ant/lab"))
    victim, *_ = filled(fleet, 0, 1, 1, 1, queue="ant/lab")
    fleet.submit("ant/factory", 8, priority=5)
    assert stopped(fleet.tick()) == [victim]


def test_two_claims_at_once_stop_two_and_not_more() -> None:
    """Also under a quota, where what the first claim was promised is still in use by its victim."""
    root = Queue(id="ant", preemption=Preemption.LOWER_PRIORITY, quotas={"p": Quota(nominal=32)})
    for fleet in (harness(root, Queue(id="ant/factory")), harness()):
        victims = filled(fleet, 0, 0, 0, 0)
        fleet.submit("ant/factory", 8, priority=5)
        assert stopped(fleet.tick()) == victims[:1]
        fleet.submit("ant/factory", 8, priority=4)
        assert stopped(fleet.tick()) == victims[1:2]


def test_who_has_made_room_often_enough_is_left_alone() -> None:
    """Also by the judge: the job that made room twice for whatever came runs to its end."""
    fleet = harness(gpus=8, policy=Policy(preemption_limit=2))
    (victim,) = filled(fleet, 0)
    for _ in range(2):
        claimant = fleet.submit("ant/factory", 8, priority=1)
        assert stopped(fleet.tick()) == [victim]
        fleet.wait(60)
        fleet.tick()
        fleet.end(claimant)
        fleet.tick()
    fleet.submit("ant/factory", 8, priority=1)
    assert stopped(fleet.tick()) == []
    good = plan(fleet.state, fleet.now_ms)
    stop = StopOrdered(
        at_ms=fleet.now_ms, job=victim, attempt=3, cause=StopCause.PREEMPT, kill_at_ms=fleet.now_ms + 60_000,
        claimant=claimant + 1,
    )  # fmt: skip
    findings = lint(fleet.state, Plan((stop,), good.reasons), fleet.now_ms)
    assert any("preempted again after 2 times" in finding for finding in findings)


def test_the_judge_finds_the_wrong_victim() -> None:
    fleet = harness()
    important, *_ = filled(fleet, 9, 0, 0)
    (other,) = filled(fleet, 0, queue="ant/lab")
    fleet.submit("ant/factory", 8, priority=5)
    good = plan(fleet.state, fleet.now_ms)
    assert lint(fleet.state, good, fleet.now_ms) == []
    (stop,) = [fact for fact in good.events if isinstance(fact, StopOrdered)]
    (kept,) = [fact for fact in good.events if isinstance(fact, ReservationMade)]
    for wrong, said in ((important, "does not go before it"), (other, "no queue of both asks for that")):
        findings = lint(fleet.state, Plan((replace(stop, job=wrong), kept), good.reasons), fleet.now_ms)
        assert any(said in finding for finding in findings)


works = st.tuples(
    st.sampled_from(("ant", "ant/factory", "ant/factory/line", "ant/lab")),
    st.sampled_from((2, 4, 8, 8, 16)),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(works, min_size=1, max_size=6), min_size=1, max_size=6), whole=st.booleans())
def test_it_comes_to_an_end(batches: list[list[tuple[str, int, int]]], *, whole: bool) -> None:
    """After the last arrival the victims of each moment are few, and then nobody is stopped any more."""
    wish = Preemption.LOWER_PRIORITY
    queues = [Queue(id="ant/factory", preemption=wish), Queue(id="ant/factory/line"), Queue(id="ant/lab")]
    fleet = harness(*([Queue(id="ant", preemption=wish)] if whole else []), *queues)
    count = 0
    for batch in batches:
        for queue, gpus, priority in batch:
            fleet.submit(queue, gpus, priority=priority, time_limit_seconds=36_000)
            count += 1
        fleet.tick()
        fleet.wait(20)
    stops = 0
    for _ in range(count + 2):
        fleet.wait(60)
        stops += len(stopped(fleet.tick()))
    event(f"{min(stops, 3)} stops after the last arrival")
    fleet.wait(60)
    assert stopped(fleet.tick()) == []
    assert not fleet.state.reservations


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(works, min_size=1, max_size=6), min_size=4, max_size=12),
    limit=st.integers(0, 3),
    lends=st.booleans(),
)
def test_nobody_is_preempted_more_often_than_the_policy_says(
    batches: list[list[tuple[str, int, int]]], limit: int, *, lends: bool
) -> None:
    """However much of higher priority arrives; what an owner takes back from its borrowers is not counted."""
    root = Queue(id="ant", preemption=Preemption.LOWER_PRIORITY)
    queues = (root, Queue(id="ant/factory"), Queue(id="ant/factory/line"), Queue(id="ant/lab"))
    fleet = harness(*queues, policy=Policy(preemption_limit=limit))
    for batch in batches:
        for queue, gpus, priority in batch:
            fleet.submit(queue, gpus, priority=priority, time_limit_seconds=600)
        if lends:
            fleet.submit("bee", 8)
        fleet.tick()
        fleet.wait(70)
    ends = Counter(
        fact.job for fact in fleet.log if isinstance(fact, AttemptEnded) and fact.outcome is Outcome.PREEMPTED
    )
    event(f"at most {max(ends.values(), default=0)} times, {limit} allowed")
    assert max(ends.values(), default=0) <= limit
