"""The twin against answers worked out by hand."""

import pytest

from pumasi.adapters.fact_list import FactList
from pumasi.control.plane import ControlPlane
from pumasi.events.facts import AttemptEnded, AttemptPlaced
from pumasi.model.fleet import CalendarWindow, LendingContract
from pumasi.model.jobs import JobState, Outcome
from pumasi.testing.builders import START_MS
from pumasi.twin.kernel import Kernel
from pumasi.twin.run import run_world, simulate
from pumasi.twin.scenario import PlanChange
from pumasi.twin.world import CannotSimulate, World
from tests.twin.fleets import HOUR_MS, MINUTE_MS, drawn_jobs, job, scenario, village


def rows(outcome):
    """(start, end, state) of each job, times from the start of the scenario; None if there is none."""
    table = outcome.jobs
    return [
        (
            table.started_ms[row] - START_MS if table.started_ms[row] else None,
            table.ended_ms[row] - START_MS if table.ended_ms[row] else None,
            table.state_of(row),
        )
        for row in range(len(table))
    ]


def test_one_machine_first_come_first_served():
    jobs = [job(0, 8, 100_000), job(10_000, 8, 50_000), job(20_000, 8, 1_000), job(500_000, 8, 1_000)]
    done = JobState.SUCCEEDED
    assert rows(simulate(village({"a": 8}), jobs, scenario(check_every_cycles=1))) == [
        (0, 100_000, done), (100_000, 150_000, done), (150_000, 151_000, done), (500_000, 501_000, done)
    ]  # fmt: skip


def test_a_time_limit_and_an_exit_code_end_a_job():
    jobs = [job(0, 1, 100_000, time_limit_seconds=60), job(0, 1, 100_000, exit_code=3)]
    assert rows(simulate(village({"a": 8}), jobs, scenario())) == [
        (0, 60_000, JobState.EXPIRED), (0, 100_000, JobState.FAILED)
    ]  # fmt: skip


def test_users_cancel_waiting_and_running_jobs():
    """A cancelled run has 30 seconds of grace; one that saves its work leaves sooner."""
    jobs = [
        job(0, 8, HOUR_MS, cancel_after_ms=MINUTE_MS),
        job(0, 8, HOUR_MS, cancel_after_ms=40_000),
        job(0, 8, HOUR_MS, cancel_after_ms=2 * MINUTE_MS, saves_on_notice=True, leaves_after_ms=5_000),
    ]
    assert rows(simulate(village({"a": 8}), jobs, scenario())) == [
        (0, 90_000, JobState.CANCELLED), (None, 40_000, JobState.CANCELLED), (90_000, 125_000, JobState.CANCELLED)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "ends_ms"),
    [
        # Stopped at 10 min + 60 s of notice, started again when the owner is done at 10 min + 60 s + 30 min.
        ({}, 41 * MINUTE_MS + HOUR_MS),  # all is done again
        ({"checkpoint_seconds": 600}, 41 * MINUTE_MS + 50 * MINUTE_MS),  # from the checkpoint at 10 min
        # Saves and leaves after 30 s of notice: ten and a half minutes are done.
        ({"saves_on_notice": True}, 40 * MINUTE_MS + 30_000 + HOUR_MS - 10 * MINUTE_MS - 30_000),
    ],
)
def test_a_loan_is_called_back(how, ends_ms):
    jobs = [job(0, 8, HOUR_MS, "b", time_limit_seconds=7200, **how), job(10 * MINUTE_MS, 8, 30 * MINUTE_MS, "a")]
    plan = village({"a": 8, "b": 8})
    blocker = job(0, 8, 100 * HOUR_MS, "b", time_limit_seconds=1_000_000)
    outcome = simulate(plan, [blocker, *jobs], scenario(check_every_cycles=1, until_ms=START_MS + 10 * HOUR_MS))
    gone_ms = 10 * MINUTE_MS + (30_000 if how.get("saves_on_notice") else 60_000)
    assert rows(outcome)[1] == (0, ends_ms, JobState.SUCCEEDED)
    assert rows(outcome)[2] == (gone_ms, gone_ms + 30 * MINUTE_MS, JobState.SUCCEEDED)
    ends = [event.outcome for _, event in outcome.log.read(0) if isinstance(event, AttemptEnded)]
    assert ends.count(Outcome.RECLAIMED) == 1
    assert [reclaim.kept for reclaim in outcome.ledger.reclaims.settled] == [True]


class TimedPlane(ControlPlane):
    """Remembers when it planned, in milliseconds from the start."""

    def __init__(self, clock):
        super().__init__(clock)
        self.cycles_ms = []

    def cycle(self):
        self.cycles_ms.append(self.clock.now_ms() - START_MS)
        return super().cycle()


def test_what_is_reserved_is_looked_at_again_though_nothing_happens():
    """As the live service plans every second, GPUs that were free when they were reserved wait no longer than that."""
    jobs = [job(0, 16, 10 * HOUR_MS, "b"), job(10_500, 8, HOUR_MS, "a")]
    kernel = Kernel(START_MS)
    plane = TimedPlane(kernel)
    world = World(kernel, scenario(), jobs, FactList(), plane)
    world.declare(village({"a": 8, "b": 8}), "2026-01-01")
    world.await_jobs()
    run_world(world)
    assert sorted(set(plane.cycles_ms))[:4] == [0, 10_500, 11_500, 70_500], "asked back, looked at again, free"


def test_latency_and_start_delay_are_waited_for():
    """100 ms to the site, 2 s to start, 100 ms for the news: the control plane hears of the start at 2.2 s."""
    jobs = [job(0, 8, 10_000), job(1_000, 8, 10_000)]
    found = rows(simulate(village({"a": 8}), jobs, scenario(latency_ms=100, start_delay_ms=2_000)))
    assert found[0] == (2_200, 12_200, JobState.SUCCEEDED)
    assert found[1] == (14_400, 24_400, JobState.SUCCEEDED)


def test_an_end_is_known_late_and_nothing_that_happens_meanwhile_ends_it_otherwise():
    jobs = [job(0, 8, 10_000, cancel_after_ms=10_500), job(1_000, 8, 10_000)]
    found = rows(simulate(village({"a": 8}), jobs, scenario(end_delay_ms=1_000)))
    assert found == [(0, 11_000, JobState.CANCELLED), (11_000, 22_000, JobState.SUCCEEDED)]


def test_cycles_keep_their_distance():
    jobs = [job(0, 1, 1_000), job(500, 1, 1_000), job(700, 1, 1_000)]
    found = rows(simulate(village({"a": 8}), jobs, scenario(cycle_ms=60_000)))
    assert [start for start, _, _ in found] == [60_000] * 3  # the fleet was declared, and planned for, at 0


def test_a_job_that_no_pool_takes_is_refused_and_the_rest_of_its_instant_is_not():
    outcome = simulate(village({"a": 8}), [job(0, 1, 1000), job(0, 64, 1000), job(0, 1, 1000)], scenario())
    assert [(refused.source, refused.code) for refused in outcome.refused] == [(1, "never-admissible")]
    assert list(outcome.jobs.source) == [0, 2]
    assert [state for _, _, state in rows(outcome)] == [JobState.SUCCEEDED] * 2


def test_a_begin_time_wakes_the_control_plane():
    outcome = simulate(village({"a": 8}), [job(0, 8, 1_000, begin_at_ms=START_MS + HOUR_MS)], scenario())
    assert rows(outcome) == [(HOUR_MS, HOUR_MS + 1_000, JobState.SUCCEEDED)]


def test_a_change_of_plan_brings_gpus():
    change = PlanChange(at_ms=START_MS + 2 * HOUR_MS, plan=village({"a": 16}), as_of="2031-12-31")
    outcome = simulate(village({"a": 8}), [job(0, 8, 10 * HOUR_MS)] * 2, scenario(changes=(change,)))
    assert [start for start, _, _ in rows(outcome)] == [0, 2 * HOUR_MS]


def test_a_plan_the_control_plane_refuses_is_said():
    change = PlanChange(at_ms=START_MS, plan=village({"b": 16}), as_of="2031-12-31")
    with pytest.raises(CannotSimulate, match="the plan must keep it"):
        simulate(village({"a": 8}), [], scenario(changes=(change,)))


def test_a_lending_window_opens():
    """Korean time is 9 hours ahead; START_MS is 2025-10-09 08:53:20 UTC, so 20:00 in Seoul is 11:00 UTC."""
    window = CalendarWindow(days=tuple(range(7)), from_minute=20 * 60, to_minute=21 * 60)
    plan = village({"a": 8, "b": 8}, lending=LendingContract(lendable_percent=100, windows=(window,)))
    jobs = [job(0, 8, 100 * HOUR_MS, "b"), job(0, 8, MINUTE_MS, "b")]
    outcome = simulate(plan, jobs, scenario(until_ms=START_MS + 24 * HOUR_MS))
    assert rows(outcome)[1][0] == 11 * HOUR_MS - (8 * 60 + 53) * MINUTE_MS - 20_000


def test_it_can_be_stopped_and_what_it_has_is_good():
    jobs = drawn_jobs(2_000, ("a",), 1)
    outcome = simulate(village({"a": 64}), jobs, scenario(), progress=lambda now_ms: False)
    assert not outcome.finished and 0 < len(outcome.jobs) < 2_000
    assert outcome.state.seq == outcome.log.last_seq() == outcome.ledger.seq
    assert sum(isinstance(event, AttemptPlaced) for _, event in outcome.log.read(0)) == sum(outcome.jobs.attempts)


def test_jobs_out_of_order_are_refused():
    with pytest.raises(ValueError, match="not in the order"):
        simulate(village({"a": 8}), [job(5, 1, 1), job(4, 1, 1)], scenario())
