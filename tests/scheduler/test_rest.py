"""CPUs and memory beside GPUs: counted exactly where jobs ask for other than their share, and never short of a promise.

The harness lints every plan and checks every state: no node gives more than it has.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pumasi.events.codec import decode, encode
from pumasi.events.facts import AttemptPlaced, Event, PoolDeclared, ReservationMade, StartPlanned, StopOrdered
from pumasi.model.fleet import Policy, Preemption, Queue, Stage
from pumasi.model.jobs import JobState, Span, Topology
from pumasi.scheduler.check import lint
from pumasi.scheduler.eligibility import eligible, need_in
from pumasi.scheduler.plan import Plan, plan
from pumasi.scheduler.reasons import ReasonCode
from pumasi.testing.builders import START_MS, fleet_facts, owner, pool, spec, state_of
from pumasi.testing.harness import Harness
from tests.scheduler.fleets import Step, fleets, jobs, owners, play, steps

CPUS, MEMORY_MIB = 64, 1000  # of a node of eight GPUs


def hall(nodes: int = 2, *, starts: int = 0, preempts: bool = False, shared: bool = False) -> Harness:
    """A pool of ant's, which lends all of it; or half of it bee's."""
    entitlements = {"ant": 8 * nodes} if not shared else {"ant": 4 * nodes, "bee": 4 * nodes}
    queue = Queue(id="ant", preemption=Preemption.LOWER_PRIORITY if preempts else Preemption.NEVER)
    return Harness(
        fleet_facts(
            [owner("ant", 100, notice_seconds=60, teardown_seconds=30), owner("bee", 100)],
            [pool("hall", entitlements, cpus=CPUS, memory_mib=MEMORY_MIB)],
            [queue],
            policy=Policy(planned_starts=starts),
        )
    )


def placed(harness: Harness, job: int) -> tuple[Span, ...]:
    """What a job holds; nothing if it waits."""
    attempts = harness.state.jobs[job].attempts
    return attempts[-1].spans if attempts and attempts[-1].outcome is None else ()


def test_what_is_held_for_claims_on_a_tight_node_is_their_share_however_little_they_ask_for() -> None:
    """Power lets 13 GPUs run and bee has eight, so that ant's jobs claim; beside the greedy one 14 CPUs are left."""
    harness = hall()
    loan = harness.submit("bee", 8)
    greedy = harness.submit("ant", 1, cpus_per_node=46)
    harness.submit("ant", 4, cpus_per_node=4)
    harness.tick()
    assert {span.first for job in (loan, greedy) for span in placed(harness, job)} == {0, 1}
    harness.set_power("hall-site", 23)
    harness.tick()
    claims = [harness.submit("ant", 1, cpus_per_node=asked) for asked in (0, 1, 1)]
    harness.tick()
    assert sorted(harness.state.reservations) == claims
    where = [harness.state.reservations[job].spans[0].first == placed(harness, greedy)[0].first for job in claims]
    assert where == [True, False, False], "14 CPUs are one share of eight, and six"
    harness.wait(60)
    harness.tick()
    assert [placed(harness, job)[0].cpus for job in claims] == [0, 1, 1]


@pytest.mark.parametrize("starts", [0, 1])
def test_a_promise_is_let_go_when_its_pool_comes_to_count_what_its_job_asks_for(starts: int) -> None:
    """The loan's GPUs are promised, by a reservation or, within ant's own work, by a planned start."""
    harness = hall(1, starts=starts)
    counting = harness.state.pools["hall"].declared
    harness.record(PoolDeclared(at_ms=START_MS, pool=replace(counting, cpus_per_node=0), stage=Stage.IN_SERVICE))
    harness.submit("ant" if starts else "bee", 8, time_limit_seconds=60)
    harness.tick()
    greedy = harness.submit("ant", 2, cpus_per_node=40)
    harness.tick()
    promises = harness.state.planned if starts else harness.state.reservations
    assert promises[greedy].spans == (Span(0, 1, 0b11),)
    harness.record(PoolDeclared(at_ms=START_MS, pool=counting, stage=Stage.IN_SERVICE))
    harness.wait(60)
    harness.tick()
    assert placed(harness, greedy) == (Span(0, 1, 0b11, 40),)


def test_a_job_holds_what_it_asks_for_and_its_share_of_the_rest() -> None:
    harness = hall()
    silent, frugal = harness.submit("ant", 2), harness.submit("ant", 2, cpus_per_gpu=1)
    greedy = harness.submit("ant", 2, cpus_per_node=20, host_memory_mib_per_gpu=200)
    whole, just = harness.submit("ant", 8, cpus_per_node=2), harness.submit("ant", 2, cpus_per_gpu=8)
    harness.tick()
    assert placed(harness, silent) == (Span(0, 1, 0b11),)
    assert placed(harness, frugal) == (Span(0, 1, 0b1100, 2),)
    assert placed(harness, greedy) == (Span(0, 1, 0b110000, 20, 400),)
    assert placed(harness, just) == (), "two GPUs come with 250 MiB, and 900 are taken"
    assert placed(harness, whole) == (Span(1, 1, 0xFF),), "whole nodes are had whole"


def test_what_one_leaves_is_for_its_neighbour_until_both_are_gone() -> None:
    harness = hall(1)
    frugal, greedy = harness.submit("ant", 4, cpus_per_node=4), harness.submit("ant", 4, cpus_per_node=60)
    harness.tick()
    assert placed(harness, greedy) == (Span(0, 1, 0xF0, 60),)
    harness.end(frugal)
    after = harness.submit("ant", 4), harness.submit("ant", 2, cpus_per_node=4)
    harness.tick()
    assert placed(harness, after[0]) == ()
    assert placed(harness, after[1]) == (Span(0, 1, 0b11, 4),)
    harness.end(greedy)
    harness.tick()
    assert placed(harness, after[0]) == (Span(0, 1, 0b111100),)


@pytest.mark.parametrize(
    ("asked", "code", "detail"),
    [
        ({"cpus_per_node": 60}, ReasonCode.TOO_FEW_CPUS, "there 14 CPUs are free, the job asks for 60"),
        ({}, ReasonCode.TOO_FEW_CPUS, "there 14 CPUs are free, the job asks for 16"),
        ({"cpus_per_gpu": 1, "host_memory_mib_per_node": 990}, ReasonCode.TOO_LITTLE_MEMORY, "there 900 MiB of memory"),
    ],
)
def test_who_waits_for_cpus_and_not_for_gpus_is_told_so(asked: dict[str, Any], code: ReasonCode, detail: str) -> None:
    harness = hall(1)
    harness.submit("ant", 1, cpus_per_node=50, host_memory_mib_per_node=100)
    job = harness.submit("ant", 2, **asked)
    harness.tick()
    reason = harness.plan.reasons[job].first
    assert (reason.code, reason.slurm) == (code, "Resources")
    assert reason.detail.startswith(f"beside 2 free GPUs of a node {detail}")
    assert "more" in reason.would_start


def test_more_than_the_share_is_for_who_owns_the_pool_alone() -> None:
    asked = spec("ant", 2, cpus_per_node=17)
    assert [fit.need.cpus for fit in eligible(hall().state, asked, START_MS)[0]] == [17]
    for harness, job in ((hall(shared=True), asked), (hall(), replace(asked, queue="bee"))):
        _, (verdict,) = eligible(harness.state, job, START_MS)
        assert (verdict.code, "come with 16 CPUs" in verdict.detail) == (ReasonCode.CPUS, True)
    _, (verdict,) = eligible(hall().state, replace(asked, cpus_per_node=65), START_MS)
    assert verdict.detail == "its nodes have 64 CPUs, the job asks for 65"


def test_facts_from_before_spans_had_cpus_and_memory_can_be_read() -> None:
    harness = hall()
    harness.submit("ant", 16)
    harness.tick()
    fact = harness.log[-2]
    assert isinstance(fact, AttemptPlaced)
    assert decode(encode(fact).replace(b"[0,2,255,0,0]", b"[0,2,255]")) == fact
    assert b"[0,2,255,0,0]" in encode(fact)


def test_a_pool_that_counts_none_gives_what_it_gives() -> None:
    declared = pool("hall", {"ant": 8})
    need = need_in(declared, spec("ant", 2, cpus_per_node=999, host_memory_mib_per_gpu=999))
    assert (need.cpus, need.memory_mib) == (0, 0)


def test_a_claim_takes_no_node_where_its_owner_left_no_cpus() -> None:
    harness = hall(2)
    harness.submit("ant", 1, cpus_per_node=50, time_limit_seconds=7200)
    harness.tick()
    loans = [harness.submit("bee", 1, cpus_per_node=1) for _ in range(15)]
    harness.tick()
    assert sum(bool(placed(harness, loan)) for loan in loans) == 15, "they leave enough for each other"
    job = harness.submit("ant", 4)
    harness.tick()
    reserved = [fact for fact in harness.plan.events if isinstance(fact, ReservationMade)]
    assert [fact.spans[0].first for fact in reserved] == [1]
    harness.wait(90)
    harness.tick()
    assert placed(harness, job)


def test_nobody_is_stopped_for_gpus_that_come_without_their_share() -> None:
    harness = hall(1)
    harness.submit("ant", 1, cpus_per_node=50, time_limit_seconds=7200)
    harness.tick()
    for _ in range(7):
        harness.submit("bee", 1, cpus_per_node=1)
    harness.tick()
    job = harness.submit("ant", 4)
    harness.tick()
    assert not [fact for fact in harness.plan.events if isinstance(fact, StopOrdered | ReservationMade)]
    assert job in harness.plan.reasons


def test_a_claim_takes_free_gpus_only_with_their_share() -> None:
    harness = hall(3)
    harness.submit("ant", 1, cpus_per_node=62, time_limit_seconds=7200)
    harness.tick()
    for gpus in (8, 4):
        harness.submit("bee", gpus, time_limit_seconds=7200)
    harness.tick()
    job = harness.submit("ant", 8, gpus_per_node=4)
    harness.tick()
    (reserved,) = [fact for fact in harness.plan.events if isinstance(fact, ReservationMade)]
    assert reserved.job == job
    assert [span.first for span in reserved.spans] == [1, 2], "node 0 has 7 GPUs free, and 2 CPUs"


def test_more_than_the_share_keeps_off_nodes_where_something_is_promised() -> None:
    harness = hall(3)
    loan = harness.submit("bee", 4, cpus_per_node=1)
    harness.tick()
    for gpus in (8, 5):
        harness.submit("ant", gpus)
    claimant, greedy = harness.submit("ant", 6), harness.submit("ant", 1, cpus_per_node=40)
    harness.tick()
    assert [fact.job for fact in harness.plan.events if isinstance(fact, StopOrdered)] == [loan]
    assert placed(harness, greedy) == (), "47 CPUs are free beside six GPUs until the loan ends"
    assert harness.plan.reasons[greedy].first.code is ReasonCode.PLANNED_START
    harness.wait(90)
    harness.tick()
    assert placed(harness, claimant)


def test_a_start_is_planned_for_when_the_cpus_come_back() -> None:
    harness = hall(1, starts=2)
    harness.submit("ant", 1, cpus_per_node=60, time_limit_seconds=3600)
    harness.submit("ant", 4, cpus_per_node=1, time_limit_seconds=600)
    harness.tick()
    job = harness.submit("ant", 4, time_limit_seconds=600)
    harness.tick()
    (start,) = [fact for fact in harness.plan.events if isinstance(fact, StartPlanned)]
    assert (start.job, start.start_ms) == (job, harness.now_ms + 3600_000)


def test_asking_for_more_is_no_shelter_from_more_important_work() -> None:
    harness = hall(1, preempts=True)
    greedy = harness.submit("ant", 4, cpus_per_node=60)
    harness.submit("ant", 4, cpus_per_node=1)
    harness.tick()
    job = harness.submit("ant", 4, priority=9)
    harness.tick()
    assert [fact.job for fact in harness.plan.events if isinstance(fact, StopOrdered)] == [greedy]
    harness.wait(90)
    harness.tick()
    assert placed(harness, job)


def test_nobody_makes_room_where_somebody_takes_more_and_stays() -> None:
    harness = hall(1, preempts=True)
    harness.submit("ant", 1, cpus_per_node=20, priority=9)
    harness.submit("ant", 4)
    harness.tick()
    harness.submit("ant", 5, priority=9)
    harness.tick()
    assert not [fact for fact in harness.plan.events if isinstance(fact, StopOrdered)]
    harness.submit("ant", 3, priority=9)
    harness.tick()
    assert not [fact for fact in harness.plan.events if isinstance(fact, StopOrdered)], "12 CPUs are free, not 24"


def test_the_judge_finds_out_who_gets_too_little_or_too_much() -> None:
    harness = hall(1)
    harness.submit("ant", 4, cpus_per_node=40)
    harness.submit("ant", 2, cpus_per_node=20)
    made = plan(harness.state, START_MS)
    assert not lint(harness.state, made, START_MS)
    for cpus in ((39, 20), (40, 0), (41, 20)):
        spoiled = [
            replace(fact, spans=(replace(fact.spans[0], cpus=given),)) if isinstance(fact, AttemptPlaced) else fact
            for fact, given in zip(made.events, cpus, strict=True)
        ]
        assert lint(harness.state, Plan(tuple(spoiled), made.reasons), START_MS)


def test_the_judge_finds_out_who_is_given_what_is_not_there() -> None:
    harness = hall(1)
    harness.submit("ant", 4, cpus_per_node=60)
    harness.tick()
    job = harness.submit("ant", 2)
    harness.tick()
    assert harness.state.jobs[job].state is JobState.WAITING
    fact = next(fact for fact in harness.log if isinstance(fact, AttemptPlaced))
    spoiled = replace(fact, job=job, spans=(Span(0, 1, 0b110000),), charges=(replace(fact.charges[0], gpus=2),))
    assert any("lacks CPUs" in finding for finding in lint(harness.state, Plan((spoiled,), {}), START_MS))


# --- whatever happens ------------------------------------------------------------------------------------------------


@st.composite
def halls(draw: st.DrawFn) -> list[Event]:
    """A pool of ant's alone, of odd numbers, of which others borrow."""
    cpus, memory_mib = draw(st.sampled_from((8, 20, 30))), draw(st.sampled_from((0, 100)))
    some = pool("p", {"ant": 8 * draw(st.integers(1, 4))}, nodes_per_rack=2, cpus=cpus, memory_mib=memory_mib)
    preemption = draw(st.sampled_from((Preemption.NEVER, Preemption.LOWER_PRIORITY)))
    queues = [Queue(id="ant", preemption=preemption), *(Queue(id=f"ant/{name}") for name in ("x", "y", "y/z"))]
    queues += [Queue(id=f"{name}/{path}") for name in ("bee", "cat") for path in ("x", "y", "y/z")]
    return fleet_facts(draw(owners()), [some], queues, policy=Policy(planned_starts=draw(st.sampled_from((0, 3)))))


@st.composite
def asking(draw: st.DrawFn) -> Step:
    """A small job that may ask for other than its share, and a cycle."""
    what, count, _, fields = draw(jobs())
    asked = {
        "gpus": draw(st.sampled_from((1, 1, 2, 2, 3, 4, 5, 8, 12))),
        "gpus_per_node": 0,
        "topology": Topology(),
        "segment_nodes": 0,
        "cpus_per_node": draw(st.sampled_from((0, 0, 1, 3, 7, 12, 20))),
        "host_memory_mib_per_gpu": draw(st.sampled_from((0, 0, 2, 12, 50))),
    }
    return (what, count, draw(st.sampled_from(("ant", "ant", "ant/x", "bee/x", "cat/y"))), fields | asked, "tick")


ends = st.tuples(st.just("end"), st.integers(0, 20))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(fleet=halls(), story=st.lists(st.one_of(asking(), asking(), asking(), ends, steps()), min_size=10, max_size=40))
def test_every_plan_of_every_story_keeps_cpus_and_memory_as_well(fleet: list[Event], story: list[Step]) -> None:
    harness = Harness(fleet)
    for step in story:
        play(harness, step)
        if harness.state.occupancy["p"].free.tight:
            event("somebody takes more than its share")
    harness.tick()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(fleet=fleets(), story=st.lists(steps(), min_size=5, max_size=30))
def test_where_nobody_asks_counting_changes_nothing(fleet: list[Event], story: list[Step]) -> None:
    silent = {"cpus_per_node": 0, "host_memory_mib_per_gpu": 0}
    story = [(*step[:3], step[3] | silent, *step[4:]) if step[0] == "submit" else step for step in story]
    counting, other = Harness(map(counted, fleet)), Harness(map(uncounted, fleet))
    for step in story:
        play(counting, step)
        play(other, step)
    assert [fact for fact in counting.log if not isinstance(fact, PoolDeclared)] == [
        fact for fact in other.log if not isinstance(fact, PoolDeclared)
    ]
    assert state_of(counting.log).occupancy["p"].free.beyond == {}


def counted(fact: Event) -> Event:
    """The fact, with CPUs and memory on the nodes it declares."""
    return _with(fact, 20, 100)


def uncounted(fact: Event) -> Event:
    """The fact, with none."""
    return _with(fact, 0, 0)


def _with(fact: Event, cpus: int, memory_mib: int) -> Event:
    if not isinstance(fact, PoolDeclared):
        return fact
    return replace(fact, pool=replace(fact.pool, cpus_per_node=cpus, memory_mib_per_node=memory_mib))
