"""What `make fidelity` makes of two logs; the comparison itself takes real clusters and minutes."""

import pytest

from bench.slurm_fidelity import Delays, Sized, compare, in_twin, learn, lives
from pumasi.events.facts import AttemptEnded, AttemptPlaced, AttemptStarted, Event, JobSubmitted
from pumasi.model.jobs import JobState, Outcome
from pumasi.testing.builders import spec

RUNTIME_MS = 5_000


def story(job: int, submit_ms: int, placed_ms: int, start_ms: int, end_ms: int, pool: str = "p") -> list[Event]:
    return [
        JobSubmitted(at_ms=submit_ms, by="kim", job=job, spec=spec(queue="public/kaist", gpus=8)),
        AttemptPlaced(
            at_ms=placed_ms, by="control", job=job, attempt=1, queue="q", pool=pool, spans=(), charges=()
        ),
        AttemptStarted(at_ms=start_ms, by="site:s", job=job, attempt=1),
        AttemptEnded(
            at_ms=end_ms,
            by="site:s",
            job=job,
            attempt=1,
            outcome=Outcome.COMPLETED,
            job_state=JobState.SUCCEEDED,
        ),
    ]  # fmt: skip


REAL = story(1, 1_000, 1_100, 2_000, 7_500) + story(2, 1_500, 1_600, 3_000, 8_100, "q")


def test_a_log_beside_itself_shows_no_error() -> None:
    same = compare(lives(REAL), lives(REAL))
    assert same["twin_start_error_percent_of_makespan"] == 0
    assert (same["twin_start_order_agreement_percent"], same["twin_same_site_percent"]) == (100, 100)
    assert same["slurm_wait_seconds"] == same["twin_wait_seconds"] == 1.25
    assert same["slurm_makespan_seconds"] == 7.1


def test_what_starts_at_another_time_or_place_is_an_error() -> None:
    twin = story(1, 1_000, 1_100, 3_420, 8_000) + story(2, 1_500, 1_600, 3_000, 8_100)
    found = compare(lives(REAL), lives(twin))
    assert found["twin_start_error_percent_of_makespan"] == pytest.approx(710 / 7_100 * 100)
    assert (found["twin_start_order_agreement_percent"], found["twin_same_site_percent"]) == (0, 50)


def test_a_job_that_never_started_is_no_figure() -> None:
    with pytest.raises(ValueError, match="never started"):
        compare(lives(REAL), lives(REAL[:6]))


def test_delays_are_learnt_and_the_twin_keeps_them() -> None:
    jobs: list[Sized] = [({}, RUNTIME_MS)] * 2
    delays = learn(REAL, jobs)
    assert delays == Delays(start_ms=1_150, end_ms=300)
    twin = lives(in_twin(REAL, jobs, delays))
    assert [life.start_ms - life.submit_ms for life in twin.values()] == [1_150, 1_150]
    assert [life.end_ms - life.start_ms for life in twin.values()] == [RUNTIME_MS + 300] * 2
