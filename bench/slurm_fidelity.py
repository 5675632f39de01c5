"""`python -m bench.slurm_fidelity`: the same jobs on five real Slurm clusters and in the twin, start for start.

Time is compressed: hours of the Philly trace in about a minute and a half. Half of the jobs teach the twin how long a
real engine takes to start a run and to tell of its end; on the other half, on a fresh fleet, it is judged.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from bench.measure import Figures, amend
from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.demo.slurm_fleet import SlurmFleet, slurm_fleet
from pumasi.demo.workload import QUEUES, TRACE, WINDOW_FROM_MS, WINDOW_MS
from pumasi.events.facts import AttemptEnded, AttemptPlaced, AttemptStarted, Event, JobSubmitted
from pumasi.model.ids import JobId
from pumasi.model.jobs import Outcome
from pumasi.plans.locate import find_plan
from pumasi.plans.reader import load_plan
from pumasi.twin.jobs import TwinJob
from pumasi.twin.run import simulate
from pumasi.twin.scenario import Scenario
from pumasi.twin.workloads.philly import read_philly
from pumasi.twin.workloads.trace import TraceJob, window

JOBS = 160  # half of them for each part
ARRIVAL_SECONDS = 0.4
COMPRESSION = 400  # an hour of the trace in nine seconds
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 15.0
GPUS_PER_TRACE_GPU, MOST_GPUS = 8, 32  # a cluster here has 32
CYCLE_MS = 50  # what the live service rests between two plans
PATIENCE_SECONDS = 300.0

NOTES = {
    "twin_start_error_percent_of_makespan": "mean distance between a job's first start on real Slurm and in the twin, "
    "of the time from the first submission to the last end",
    "twin_start_order_agreement_percent": "pairs of jobs that start in the same order on both",
    "twin_same_site_percent": "jobs that first start at the same site on both",
    "twin_wait_seconds": "mean wait for the first start, in the twin",
    "slurm_wait_seconds": "the same, on real Slurm",
    "twin_makespan_seconds": "from the first submission to the last end, in the twin",
    "slurm_makespan_seconds": "the same, on real Slurm",
    "engine_start_delay_seconds": "from a placement until it is known to run: measured, and the twin's",
    "engine_end_delay_seconds": "from a run's end until it is known: measured, and the twin's",
}


_QUEUES = {"samsung": "samsung/chips", "sk": "sk/language", "naver": "naver/cloud", "public": "public/kaist"}

Sized = tuple[dict[str, Any], int]  # a job as it is submitted, and the milliseconds it runs


class Life(NamedTuple):
    """A job as the facts tell it; times are Unix milliseconds. `start_ms`: the first start, with its pool."""

    submit_ms: int
    start_ms: int
    end_ms: int
    pool: str


class Delays(NamedTuple):
    """What a real engine takes, in milliseconds."""

    start_ms: int
    end_ms: int


def main() -> None:
    """Run both parts, print the comparison, and write its keys into `bench/results/slurm.json`."""
    amend("slurm", measure(), NOTES)


def measure() -> Figures:
    """The figures of `NOTES`."""
    jobs = trace_jobs()
    lessons, examination = jobs[::2], jobs[1::2]
    delays = learn(on_slurm(lessons), lessons)
    facts = on_slurm(examination)
    return compare(lives(facts), lives(in_twin(facts, examination, delays))) | {
        "engine_start_delay_seconds": delays.start_ms / 1000,
        "engine_end_delay_seconds": delays.end_ms / 1000,
    }


def trace_jobs() -> list[Sized]:
    """The first jobs of the demo's window of the Philly trace, small and short enough for this machine.

    :raises TraceProblem: if the trace cannot be read.
    """
    running, submitted = window(read_philly(TRACE), WINDOW_FROM_MS, WINDOW_FROM_MS + WINDOW_MS)
    return [_sized(job) for job in [*running, *submitted][:JOBS]]


def _sized(job: TraceJob) -> Sized:
    """It runs on when it is given notice, until it is killed: that is what the twin takes a job to do."""
    seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, job.duration_ms / 1000 / COMPRESSION))
    queue = _QUEUES[QUEUES[job.group].split("/")[0]]
    gpus = min(job.gpus * GPUS_PER_TRACE_GPU, MOST_GPUS)
    script = f"#!/bin/sh\ntrap '' TERM\nsleep {seconds:.3f}\n"
    body = {"name": "fidelity", "queue": queue, "gpus": gpus, "time_limit_seconds": 600, "script": script}
    return body, round(seconds * 1000)


def on_slurm(jobs: Sequence[Sized]) -> list[Event]:
    """The facts of a fresh fleet on real clusters that was given these jobs, one after the other."""
    with tempfile.TemporaryDirectory(prefix="pumasi-slurm-") as folder:
        with slurm_fleet(Path(folder) / "f") as fleet:
            _submit(fleet, jobs)
            fleet.until(lambda: not list(fleet.client.jobs(state=["live"], limit=1)), "jobs live", PATIENCE_SECONDS)
        log = SqliteLog(Path(folder) / "f" / "data" / "fleet.db")
        try:
            return [event for _, event in log.read(0)]
        finally:
            log.close()


def _submit(fleet: SlurmFleet, jobs: Sequence[Sized]) -> None:
    began = time.monotonic()
    for number, (body, _) in enumerate(jobs):
        time.sleep(max(0.0, began + number * ARRIVAL_SECONDS - time.monotonic()))
        fleet.client.submit(body)


def learn(facts: Iterable[Event], jobs: Sequence[Sized]) -> Delays:
    """The mean delays of attempts that nothing cut short."""
    placed: dict[tuple[JobId, int], int] = {}
    started: dict[tuple[JobId, int], int] = {}
    to_start, to_end = [], []
    for event in facts:
        if isinstance(event, AttemptPlaced):
            placed[event.job, event.attempt] = event.at_ms
        elif isinstance(event, AttemptStarted):
            started[event.job, event.attempt] = event.at_ms
            to_start.append(event.at_ms - placed[event.job, event.attempt])
        elif isinstance(event, AttemptEnded) and event.outcome is Outcome.COMPLETED:
            runtime_ms = jobs[event.job - 1][1]
            to_end.append(event.at_ms - started[event.job, event.attempt] - runtime_ms)
    return Delays(round(fmean(to_start)), round(fmean(to_end)))


def in_twin(facts: Iterable[Event], jobs: Sequence[Sized], delays: Delays) -> list[Event]:
    """The facts of the twin, given the plan, the jobs and the moments of their submission."""
    submitted = [event for event in facts if isinstance(event, JobSubmitted)]
    twins = [TwinJob(submit_ms=event.at_ms, spec=event.spec, runtime_ms=jobs[event.job - 1][1]) for event in submitted]
    scenario = Scenario(
        start_ms=submitted[0].at_ms - CYCLE_MS,  # the fleet stands when the first job comes
        cycle_ms=CYCLE_MS,
        start_delay_ms=delays.start_ms,
        end_delay_ms=delays.end_ms,
    )
    return [event for _, event in simulate(load_plan(find_plan("five-slurm")), twins, scenario).log.read(0)]


def lives(facts: Iterable[Event]) -> dict[JobId, Life]:
    """What became of each job."""
    found: dict[JobId, Life] = {}
    for event in facts:
        if isinstance(event, JobSubmitted):
            found[event.job] = Life(event.at_ms, 0, 0, "")
        elif isinstance(event, AttemptPlaced) and not found[event.job].start_ms:
            found[event.job] = found[event.job]._replace(pool=event.pool)
        elif isinstance(event, AttemptStarted) and not found[event.job].start_ms:
            found[event.job] = found[event.job]._replace(start_ms=event.at_ms)
        elif isinstance(event, AttemptEnded):
            found[event.job] = found[event.job]._replace(end_ms=event.at_ms)
    return found


def compare(real: dict[JobId, Life], twin: dict[JobId, Life]) -> Figures:
    """How near the twin comes to the real fleet."""
    if real.keys() != twin.keys() or not all(life.start_ms for life in (*real.values(), *twin.values())):
        raise ValueError("a job is missing or has never started")
    jobs = sorted(real)
    makespan_ms = _makespan_ms(real)
    pairs = [(one, other) for one in jobs for other in jobs if one < other]
    return {
        "twin_start_error_percent_of_makespan": _mean(jobs, lambda job: abs(real[job].start_ms - twin[job].start_ms))
        / makespan_ms
        * 100,
        "twin_start_order_agreement_percent": fmean(_order(real, *pair) == _order(twin, *pair) for pair in pairs) * 100,
        "twin_same_site_percent": _mean(jobs, lambda job: real[job].pool == twin[job].pool) * 100,
        "twin_wait_seconds": _mean(jobs, lambda job: twin[job].start_ms - twin[job].submit_ms) / 1000,
        "slurm_wait_seconds": _mean(jobs, lambda job: real[job].start_ms - real[job].submit_ms) / 1000,
        "twin_makespan_seconds": _makespan_ms(twin) / 1000,
        "slurm_makespan_seconds": makespan_ms / 1000,
    }


def _mean(jobs: Iterable[JobId], figure: Callable[[JobId], float]) -> float:
    return fmean(figure(job) for job in jobs)


def _order(lives: dict[JobId, Life], one: JobId, other: JobId) -> bool:
    return lives[one].start_ms <= lives[other].start_ms


def _makespan_ms(lives: dict[JobId, Life]) -> int:
    return max(life.end_ms for life in lives.values()) - min(life.submit_ms for life in lives.values())


if __name__ == "__main__":
    main()
