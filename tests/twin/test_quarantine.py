"""Black holes: nodes that look well and fail every run. What they eat with quarantine and without."""

from msgspec.structs import replace

from pumasi.events.facts import AttemptEnded, NodeChanged
from pumasi.model.fleet import FleetPlan
from pumasi.twin.jobs import TwinJob
from pumasi.twin.run import simulate
from pumasi.twin.scenario import FaultRates
from tests.twin.fleets import drawn_jobs, scenario, village

OWNERS = ("a", "b", "c", "d")


def played(plan: FleetPlan, jobs: list[TwinJob], per_mille: int) -> tuple[int, list[NodeChanged]]:
    """Attempts that failed by themselves, and what became of nodes."""
    outcome = simulate(plan, jobs, scenario(seed=1, faults=FaultRates(black_hole_per_mille=per_mille)))
    assert outcome.finished
    events = [event for _, event in outcome.log.read(0)]
    failed = sum(isinstance(event, AttemptEnded) and event.exit_code == 1 for event in events)
    return failed, [event for event in events if isinstance(event, NodeChanged)]


def test_quarantine_keeps_a_black_hole_from_eating_the_queue() -> None:
    """A quarter of the jobs fail by themselves as well, and take out no sound node."""
    plan = village(dict.fromkeys(OWNERS, 128))
    left_to_operators = replace(plan, policy=replace(plan.policy, quarantine_percent_max=0))
    jobs = drawn_jobs(600, OWNERS, 1, mean_gap_ms=20_000)
    by_themselves, sound = played(plan, jobs, 0)
    eaten_without = played(left_to_operators, jobs, 16)[0] - by_themselves
    failed, (change,) = played(plan, jobs, 16)
    assert sound == []
    assert change.reason.startswith("quarantined: ")
    assert eaten_without > 50
    assert failed - by_themselves < eaten_without // 5
