"""A run that its site does not name any more is told of, and nothing is concluded from silence of other kinds."""

from collections.abc import Callable

import pytest

from pumasi.control.commands import HearSite, SubmitJobs
from pumasi.model.ids import JobId
from pumasi.model.jobs import JobSpec
from pumasi.protocol.messages import RunKey, RunStarted
from tests.control.conftest import Bench

SITE = "north-dc"


@pytest.fixture
def two(bench: Bench, spec: Callable[..., JobSpec]) -> tuple[JobId, JobId]:
    """Two jobs, one running at the north, the other placed there; its agent calls all the time."""
    bench.plane.listen(SITE, begins=True)
    running, placed = bench.do(SubmitJobs(by="kim", specs=(spec(), spec())))
    bench.cycle()
    bench.do(HearSite(by="site", site=SITE, reports=(RunStarted(run=RunKey(running, 1)),)))
    return running, placed


def call_roll(bench: Bench, *jobs: JobId) -> None:
    bench.do(HearSite(by="site", site=SITE, runs=tuple(RunKey(job, 1) for job in jobs)))


def silent_seconds(bench: Bench, job: JobId) -> int | None:
    """For how long a job has been silent; None if it is not."""
    since_ms = bench.plane.silent_since_ms(bench.plane.state.jobs[job])
    return (bench.clock.at_ms - since_ms) // 1000 if since_ms else None


def test_a_run_that_is_named_is_not_silent_and_one_that_is_not_is(bench: Bench, two: tuple[JobId, JobId]) -> None:
    running, placed = two
    for _ in range(11):
        bench.clock.pass_seconds(60)
        call_roll(bench, running)
    assert (silent_seconds(bench, running), silent_seconds(bench, placed)) == (None, None), "not for long enough yet"
    bench.clock.pass_seconds(60)
    call_roll(bench, running)
    assert (silent_seconds(bench, running), silent_seconds(bench, placed)) == (None, 660)
    assert bench.plane.silent_jobs == 1
    call_roll(bench, running, placed)
    assert silent_seconds(bench, placed) is None
    assert bench.plane.silent_jobs == 0


def test_where_the_roll_is_called_no_more_all_runs_are_silent(bench: Bench, two: tuple[JobId, JobId]) -> None:
    """The agent calls, but its engine does not answer it."""
    call_roll(bench, *two)
    bench.clock.pass_seconds(601)
    assert [silent_seconds(bench, job) for job in two] == [601, 601]


def test_an_agent_that_never_calls_the_roll_is_an_older_one(bench: Bench, two: tuple[JobId, JobId]) -> None:
    bench.clock.pass_seconds(100_000)
    assert [silent_seconds(bench, job) for job in two] == [None, None]


def test_a_site_out_of_touch_says_so_itself_and_has_its_time_when_it_is_back(
    bench: Bench, two: tuple[JobId, JobId]
) -> None:
    call_roll(bench, *two)
    bench.plane.listen(SITE, begins=False)
    bench.clock.pass_seconds(10_000)
    bench.cycle()
    assert bench.plane.state.sites[SITE].link == "silent"
    assert [silent_seconds(bench, job) for job in two] == [None, None]
    bench.do(HearSite(by="site", site=SITE))
    bench.clock.pass_seconds(600)
    assert [silent_seconds(bench, job) for job in two] == [None, None]
    bench.clock.pass_seconds(1)
    assert [silent_seconds(bench, job) for job in two] == [601, 601]


def test_a_roll_call_is_no_fact(bench: Bench, two: tuple[JobId, JobId]) -> None:
    seq = bench.plane.seq
    call_roll(bench, *two)
    assert bench.plane.seq == seq
