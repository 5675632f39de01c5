"""Kills and silence on five real clusters: nothing lost, nothing run twice. `make chaos` does the same fifty times."""

import time
from pathlib import Path

from pumasi.demo.slurm_fleet import SlurmFleet
from tests.slurm import chaos


def assert_all_well(verdicts: list[chaos.Verdict]) -> None:
    assert verdicts
    assert [verdict.problem for verdict in verdicts if verdict.problem] == []


def test_slurmctld_killed_0_to_4_seconds_after_submission(fleet: SlurmFleet, marks: Path) -> None:
    assert_all_well(chaos.wave(fleet, marks, chaos.kill_slurmctld, 0.0, 1.0))


def test_agents_killed_at_any_moment(fleet: SlurmFleet, marks: Path) -> None:
    assert_all_well(chaos.wave(fleet, marks, chaos.kill_agent, 0.0, 0.7))


def test_the_control_plane_killed(fleet: SlurmFleet, marks: Path) -> None:
    assert_all_well(chaos.control_wave(fleet, marks, 1.0))


def test_a_cluster_that_does_not_answer_for_a_while(fleet: SlurmFleet, marks: Path) -> None:
    """Its jobs run on meanwhile; one that comes in the silence runs after it, once."""
    submitted_at = time.monotonic()
    before = fleet.client.submit(chaos.a_job("hyundai", marks, beats=3000))
    fleet.wait_state(before, "running")
    fleet.clusters["hyundai"].freeze_controller()
    during = fleet.client.submit(chaos.a_job("hyundai", marks))
    chaos.let_end(marks, before)
    time.sleep(8)
    fleet.clusters["hyundai"].thaw_controller()
    verdicts = [chaos.judge(fleet, marks, job, submitted_at) for job in (before, during)]
    assert_all_well(verdicts)
    assert verdicts[0].attempts == 1


def test_what_counts_as_run_twice() -> None:
    once = [(1, "start"), (1, "alive"), (1, "end")]
    assert chaos.run_twice(once) == ""
    assert chaos.run_twice([(1, "start"), (2, "start"), (2, "end")]) == ""
    assert "started twice" in chaos.run_twice([(1, "start"), (1, "start")])
    assert "went on" in chaos.run_twice([(1, "start"), (2, "start"), (1, "alive")])
    assert "2 times" in chaos.run_twice([*once, (1, "end")])
