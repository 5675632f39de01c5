"""Everything goes wrong in an order drawn by a seed; in the end each run ran once and its end is known."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from pumasi.agents.run_directory import processes_of
from pumasi.model.jobs import Outcome, StopCause
from pumasi.protocol.messages import RunEnded, RunKey, StopOrder
from pumasi.testing.control_plane import SmallControlPlane
from pumasi.testing.engine import an_order
from tests.agents.conftest import SITE, AgentProcess

JOBS = 24
STEPS = 16
SCRIPT = (
    "echo x >> trace-$PUMASI_JOB_ID; setsid sleep 600 & sleep 0.$((PUMASI_JOB_ID % 5)); exit $((PUMASI_JOB_ID % 7))"
)


class Chaos:
    """One drawn history."""

    def __init__(self, seed: int, plane: SmallControlPlane, agent: AgentProcess, place: Path) -> None:
        self._draw = random.Random(seed)
        self._plane = plane
        self._agent = agent
        self._place = place
        self._next_job = 1
        self.stopped: set[int] = set()

    def step(self) -> None:
        """Something happens, and a little time passes."""
        kinds = [self._order, self._order, self._stop, self._kill_agent, self._partition, self._lose, self._repeat]
        self._draw.choice(kinds)()
        time.sleep(self._draw.choice((0, 0.001, 0.01, 0.05)))

    def finish(self) -> None:
        """Order what has not been ordered."""
        while self._next_job <= JOBS:
            self._order()

    def _order(self) -> None:
        jobs = range(self._next_job, min(self._next_job + self._draw.randint(1, 4), JOBS + 1))
        self._next_job = jobs.stop
        self._plane.order(SITE, *(an_order(SCRIPT, job, working_directory=str(self._place)) for job in jobs))

    def _stop(self) -> None:
        job = self._draw.randint(1, JOBS)
        if job < self._next_job and self._plane.ended(SITE, RunKey(job, 1)) is None:
            self.stopped.add(job)
            kill_in_ms = self._draw.choice((0, 60_000))
            self._plane.stop(SITE, StopOrder(run=RunKey(job, 1), cause=StopCause.RECLAIM, kill_in_ms=kill_in_ms))

    def _kill_agent(self) -> None:
        self._agent.kill()
        self._agent.start("--end-runs")

    def _partition(self) -> None:
        self._plane.go_away()
        time.sleep(self._draw.choice((0, 0.02, 0.1)))
        self._plane.come_back()

    def _lose(self) -> None:
        self._plane.lose_answers(self._draw.randint(1, 2))

    def _repeat(self) -> None:
        job = self._draw.randint(1, JOBS)
        if job < self._next_job and self._plane.ended(SITE, RunKey(job, 1)) is not None:
            self._plane.order(SITE, an_order(SCRIPT, job, working_directory=str(self._place)))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_each_run_runs_once(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path, seed: int
) -> None:
    chaos = Chaos(seed, plane, agent, tmp_path)
    for _ in range(STEPS):
        chaos.step()
    chaos.finish()
    ended = {job: plane.await_end(SITE, RunKey(job, 1)) for job in range(1, JOBS + 1)}
    for job, report in ended.items():
        trace = tmp_path / f"trace-{job}"
        times = len(trace.read_text()) // 2 if trace.exists() else 0
        if job in chaos.stopped and report.outcome is Outcome.RECLAIMED:
            assert times <= 1
        else:
            assert (report.outcome, report.exit_code, report.signal, times) == (Outcome.COMPLETED, job % 7, 0, 1)
    _assert_consistent([report for report in plane.reports(SITE) if isinstance(report, RunEnded)])
    plane.wait(lambda: processes_of(agent.data / "sites" / SITE / "runs") == {})


def _assert_consistent(reports: list[RunEnded]) -> None:
    """A run's end may be reported often, and always as the same."""
    assert Counter({report.run: 1 for report in set(reports)}) == Counter(report.run for report in set(reports))
