"""Power: what a cap lets run, who stops when it falls, and in what order."""

from msgspec.structs import replace

from pumasi.events.facts import AttemptPlaced, SiteDeclared, StopOrdered
from pumasi.model.fleet import Site
from pumasi.model.jobs import JobState, StopCause
from pumasi.scheduler.check import lint
from pumasi.scheduler.plan import Plan, plan
from pumasi.scheduler.reasons import ReasonCode
from pumasi.state import snapshot
from pumasi.testing.builders import HGX, NVL72, START_MS, fleet_facts, owner, pool
from pumasi.testing.harness import Harness

NODE_WATTS = HGX.planning_watts * 8


def harness(cap_kilowatts: int = 0) -> Harness:
    """Ant and bee share 8 nodes at a site; cat owns none."""
    site = Site(id="here", title="here", operator="ant", power_cap_kilowatts=cap_kilowatts)
    owners = [owner("ant", 100), owner("bee", 100), owner("cat")]
    return Harness(fleet_facts(owners, [pool("p", {"ant": 32, "bee": 32}, site="here")], sites=[site]))


def stopped(made: Plan) -> list[int]:
    """Who is told to stop, in order."""
    return [event.job for event in made.events if isinstance(event, StopOrdered)]


def test_a_declared_cap_holds_at_placement() -> None:
    """58 kW carry 4 nodes of 13.6 kW: two for each owner."""
    fleet = harness(58)
    for queue in ("ant", "bee", "ant", "ant", "bee", "cat"):
        fleet.submit(queue, 8)
    made = fleet.tick()
    assert [event.job for event in made.events if isinstance(event, AttemptPlaced)] == [1, 3, 2, 5]
    assert made.reasons[4].first.code is ReasonCode.POWER_CAP
    assert made.reasons[6].first.code is ReasonCode.POWER_CAP


def test_borrowed_goes_first_then_low_priority_then_least_lost() -> None:
    fleet = harness()
    old = [fleet.submit("ant", 8) for _ in range(2)]
    fleet.tick()
    fleet.wait(60)
    important, young = fleet.submit("ant", 8, priority=1), fleet.submit("ant", 8)
    fleet.tick()
    borrowed = fleet.submit("cat", 8, priority=9)
    fleet.tick()
    fleet.wait(60)
    fleet.set_power("here", NODE_WATTS * 4 // 1000 + 1)
    assert stopped(fleet.tick()) == [borrowed]
    fleet.wait(300)
    fleet.set_power("here", NODE_WATTS * 2 // 1000 + 1)
    assert stopped(fleet.tick()) == [young, old[0]]
    assert fleet.state.jobs[important].state is JobState.ACTIVE


def test_an_owner_within_its_due_is_not_touched() -> None:
    fleet = harness()
    for queue in ("ant", "ant", "ant", "ant", "bee"):
        fleet.submit(queue, 8)
    fleet.tick()
    fleet.set_power("here", NODE_WATTS * 2 // 1000 + 1)
    assert stopped(fleet.tick()) == [1, 2, 3]


def test_the_power_is_down_when_it_must_be_and_nobody_is_told_twice() -> None:
    fleet = harness()
    for _ in range(8):
        fleet.submit("cat", 8)
    fleet.tick()
    fleet.set_power("here", 14, 90)
    stops = [event for event in fleet.tick().events if isinstance(event, StopOrdered)]
    assert {(stop.cause, stop.kill_at_ms - fleet.now_ms, stop.claimant) for stop in stops} == {
        (StopCause.POWER, 90_000, 0)
    }
    assert stopped(fleet.tick()) == []
    fleet.wait(90)
    assert fleet.state.occupancy["p"].used_gpus * HGX.planning_watts <= 14_000


def test_who_turns_out_not_to_be_needed_is_spared() -> None:
    """The small job would go first; but the large one must go anyway, and alone is enough."""
    fleet = harness()
    small, large = fleet.submit("cat", 8), fleet.submit("cat", 32)
    fleet.tick()
    fleet.set_power("here", NODE_WATTS * 1 // 1000 + 1)
    assert stopped(fleet.tick()) == [large]
    assert fleet.state.jobs[small].attempts[-1].stop is None


def test_pools_share_the_power_of_their_site() -> None:
    """60 kW for 8 HGX nodes (108.8 kW) and 16 NVL72 nodes (121.6 kW): both get 26 in 100 of what they draw."""
    site = Site(id="here", title="here", operator="ant", power_cap_kilowatts=60)
    both = [pool("p", {"ant": 64}, site="here"), pool("q", {"ant": 64}, site="here", model=NVL72)]
    state = Harness(fleet_facts([owner("ant")], both, sites=[site])).state
    assert state.powered == {"p": 16, "q": 16}
    watts = state.powered["p"] * HGX.planning_watts + state.powered["q"] * NVL72.planning_watts
    assert watts <= 60_000 < watts + HGX.planning_watts + NVL72.planning_watts


def test_the_lower_of_both_caps_counts_and_zero_lifts_the_operators() -> None:
    fleet = harness(58)
    fleet.set_power("here", 200)
    assert fleet.state.powered == {"p": 34}
    fleet.set_power("here", 20)
    assert fleet.state.powered == {"p": 11}
    fleet.set_power("here", 0)
    assert fleet.state.powered == {"p": 34}
    site = replace(fleet.state.sites["here"].declared, power_cap_kilowatts=0)
    fleet.record(SiteDeclared(at_ms=START_MS, site=site))
    assert (fleet.state.powered, fleet.state.books["p"]["ant"].due) == ({}, 32)


def test_a_cut_survives_a_snapshot() -> None:
    fleet = harness()
    fleet.set_power("here", 20)
    loaded = snapshot.load(snapshot.save(fleet.state))
    assert loaded.powered == fleet.state.powered == {"p": 11}
    assert loaded.books == fleet.state.books


def test_the_judge_finds_a_plan_that_ignores_power_or_stops_the_wrong_one() -> None:
    fleet = harness()
    for queue in ("ant", "cat"):
        fleet.submit(queue, 32)
    fleet.tick()
    fleet.set_power("here", NODE_WATTS * 4 // 1000 + 1)
    good = plan(fleet.state, fleet.now_ms)
    assert lint(fleet.state, good, fleet.now_ms) == []
    assert any("more than its power carries" in said for said in lint(fleet.state, Plan((), {}), fleet.now_ms))
    (stop,) = [event for event in good.events if isinstance(event, StopOrdered)]
    wrong = Plan((replace(stop, job=1),), good.reasons)
    assert any("while others borrow" in said for said in lint(fleet.state, wrong, fleet.now_ms))


def test_who_stops_for_a_loan_leaves_its_home_part_too() -> None:
    """ant runs eight GPUs at home beside a gang of sixteen, half of them lent; power is left for six of each owner."""
    owners = [owner("ant", 100), owner("bee", 100)]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 16, "bee": 16})]))
    for name in ("ant", "bee"):
        for _ in range(4):
            fleet.submit(name, 2)
    fleet.submit("ant", 16)
    fleet.tick()
    fleet.set_power("p-site", 21)
    stopped = [fleet.state.jobs[event.job] for event in fleet.tick().events if isinstance(event, StopOrdered)]
    assert sorted((job.owner, job.spec.gpus) for job in stopped) == [("ant", 2), ("ant", 16), ("bee", 2)]
