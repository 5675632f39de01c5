"""Backfill with planned starts: a waiting gang is promised exact GPUs, and nothing that starts delays it."""

from pumasi.events.facts import AttemptPlaced, NodeState, StartGivenUp, StartPlanned
from pumasi.model.fleet import Policy, Queue
from pumasi.model.jobs import Charge, Level, Topology
from pumasi.scheduler.backfill import LATE_MS
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness


def harness(planned_starts: int = 1, lends: int = 0) -> Harness:
    policy = Policy(planned_starts=planned_starts)
    owners, queues = [owner("ant", lends), owner("bee")], [Queue(id="ant/x"), Queue(id="ant/y"), Queue(id="bee")]
    return Harness(fleet_facts(owners, [pool("p", {"ant": 32})], queues, policy=policy))


def placed(fleet: Harness) -> list[int]:
    return [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)]


def planned(fleet: Harness) -> dict[int, int]:
    """The planned starts, in seconds from now."""
    return {start.job: (start.start_ms - fleet.now_ms) // 1000 for start in fleet.state.planned.values()}


def test_a_gang_gets_a_start_and_only_what_is_gone_by_then_passes() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    gang = fleet.submit("ant/x", 32)
    fleet.tick()
    long, short = fleet.submit("ant/y", 8, time_limit_seconds=1001), fleet.submit("ant/y", 8, time_limit_seconds=1000)
    assert placed(fleet) == [short]
    assert planned(fleet) == {gang: 1000}
    assert fleet.told_start_ms(gang) == fleet.now_ms + 1_000_000
    assert fleet.plan.reasons[long].first.code == "planned_start"
    assert "at most 1000 seconds" in fleet.plan.reasons[long].would_start
    fleet.wait(1000)
    assert placed(fleet) == [gang]
    assert planned(fleet) == {long: 3600}


def test_work_that_leaves_enough_nodes_may_stay_longer() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    gang, small = fleet.submit("ant/x", 24), fleet.submit("ant/y", 8, time_limit_seconds=9999)
    assert placed(fleet) == [small]
    fleet.wait(1000)
    assert placed(fleet) == [gang]


def test_several_gangs_have_their_starts() -> None:
    fleet = harness(planned_starts=2)
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.submit("ant/x", 8, time_limit_seconds=500)
    fleet.tick()
    first, second = fleet.submit("ant/x", 16), fleet.submit("ant/x", 24)
    fleet.tick()
    assert planned(fleet) == {first: 500, second: 500 + 3600}, "the second needs GPUs that the first will use"
    fleet.wait(500)
    assert placed(fleet) == [first]
    fleet.wait(3600)
    assert placed(fleet) == [second]


def test_gangs_that_need_the_same_get_their_starts_one_after_the_other_whoever_has_the_turn() -> None:
    fleet = harness(planned_starts=2)
    fleet.submit("ant/x", 8, time_limit_seconds=1000)
    fleet.tick()
    first, second = fleet.submit("ant/y", 32), fleet.submit("ant/x", 32)
    fleet.tick()
    small = fleet.submit("ant/y", 16, time_limit_seconds=1000)
    assert placed(fleet) == [small], "now the next turn is that of the other queue"
    fleet.tick()
    assert planned(fleet) == {first: 1000}
    fleet.wait(1000)
    assert placed(fleet) == [first]
    assert planned(fleet) == {second: 3600}


def test_loans_do_not_delay_a_planned_start_either() -> None:
    fleet = harness(lends=100)
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    gang = fleet.submit("ant/x", 32)
    fleet.submit("bee", 16, time_limit_seconds=5000)
    loan = fleet.submit("bee", 16, time_limit_seconds=900)
    assert placed(fleet) == [loan]
    assert list(planned(fleet)) == [gang]


def test_a_start_that_a_fault_breaks_is_planned_anew() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    gang = fleet.submit("ant/x", 24)
    fleet.tick()
    broken = fleet.state.planned[gang].spans
    fleet.set_node("p", 3 if broken[-1].first + broken[-1].nodes == 4 else 0, NodeState.DOWN)
    kinds = [type(event) for event in fleet.tick().events]
    assert kinds[0] is StartGivenUp
    assert kinds[-1] is StartPlanned
    assert fleet.state.planned[gang].spans != broken


def test_the_plan_of_a_cancelled_job_is_gone() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    gang = fleet.submit("ant/x", 32)
    fleet.tick()
    long = fleet.submit("ant/y", 8, time_limit_seconds=9999)
    assert placed(fleet) == []
    fleet.cancel(gang)
    assert placed(fleet) == [long]


def test_a_job_that_starts_as_planned_has_had_its_turn() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.submit("ant/y", 16, time_limit_seconds=1000)
    fleet.tick()
    first, second, other = fleet.submit("ant/x", 16), fleet.submit("ant/x", 16), fleet.submit("ant/y", 16)
    fleet.tick()
    assert list(planned(fleet)) == [first]
    fleet.wait(1000)
    assert placed(fleet) == [first, other]
    assert list(planned(fleet)) == [second]


def test_a_claim_leaves_a_planned_start_its_entitlement() -> None:
    fleet = harness(lends=100)
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.submit("bee", 16, time_limit_seconds=900)
    fleet.tick()
    gang = fleet.submit("ant/x", 32)
    fleet.tick()
    assert planned(fleet) == {gang: 1000}
    long = fleet.submit("ant/y", 8, time_limit_seconds=9999)
    assert not fleet.tick().events, "it could have lent GPUs back, and would hold them longer"
    assert long in fleet.plan.reasons


def test_one_that_is_late_is_planned_anew() -> None:
    fleet = harness()
    running = fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    gang = fleet.submit("ant/x", 32)
    fleet.tick()
    assert planned(fleet) == {gang: 1000}
    fleet.now_ms += 1_000_000 + LATE_MS + 1
    assert [type(event) for event in fleet.tick().events] == [StartGivenUp, StartPlanned]
    fleet.end(running)
    assert placed(fleet) == [gang]


def test_without_a_policy_for_it_nothing_is_planned() -> None:
    fleet = harness(planned_starts=0)
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    fleet.submit("ant/x", 32)
    long = fleet.submit("ant/y", 8, time_limit_seconds=9999)
    assert placed(fleet) == [long]
    assert planned(fleet) == {}


def village(planned_starts: int = 1) -> Harness:
    """Two owners with half of two racks each; the first is asked first, and the second lends."""
    owners, policy = [owner("ant", 0), owner("bee", 100)], Policy(planned_starts=planned_starts)
    hall = pool("p", {"ant": 16, "bee": 16}, nodes_per_rack=2)
    return Harness(fleet_facts(owners, [hall], [Queue(id="ant"), Queue(id="bee")], policy=policy))


def test_whom_a_start_held_back_goes_in_the_cycle_in_which_it_gives_way() -> None:
    fleet = village()
    fleet.submit("ant", 8, time_limit_seconds=3600)
    fleet.submit("bee", 8, time_limit_seconds=72_000)
    fleet.tick()
    rack = Topology(level=Level.RACK, required=True)
    gang = fleet.submit("ant", 16, may_borrow=False, topology=rack)
    fleet.tick()
    assert planned(fleet) == {gang: 3600}, "by then it is due so many GPUs, and one rack is free"
    behind = fleet.submit("ant", 8, time_limit_seconds=7200)
    other = fleet.submit("bee", 8, time_limit_seconds=36_000)
    assert placed(fleet) == [other, behind]
    assert planned(fleet) == {gang: 36_000}


def test_a_loan_stays_one_while_a_start_needs_what_its_borrower_has_idle() -> None:
    fleet = village()
    fleet.submit("ant", 8, time_limit_seconds=3600)
    fleet.tick()
    gang = fleet.submit("ant", 16, may_borrow=False)
    fleet.tick()
    long = fleet.submit("ant", 8, time_limit_seconds=7200)
    assert placed(fleet) == [long]
    short = fleet.submit("bee", 8, time_limit_seconds=60)
    assert placed(fleet) == [short]
    assert fleet.state.jobs[long].attempts[-1].charges == (Charge("bee", 8),)
    fleet.wait(3600)
    assert placed(fleet) == [gang]


def test_a_claim_takes_nothing_that_a_start_of_its_owner_counts_on() -> None:
    """What a long job may not take while it is free it does not take from a borrower either."""
    fleet = village()
    fleet.submit("bee", 8, time_limit_seconds=600)
    fleet.submit("ant", 16, time_limit_seconds=72_000)
    fleet.tick()
    gang = fleet.submit("bee", 16, may_borrow=False)
    fleet.tick()
    borrower = fleet.submit("ant", 8, time_limit_seconds=300)
    assert placed(fleet) == [borrower]
    fleet.submit("bee", 8, time_limit_seconds=7200)
    assert fleet.tick().events == ()
    assert planned(fleet) == {gang: 600}
