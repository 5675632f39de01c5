"""Fair shares at full size: five owners with 1,000 projects each and 100,000 waiting jobs on the Korean fleet."""

import time

from bench.fleet import SIZES, korean_plane
from bench.measure import Figures, median
from pumasi.events.facts import JobCancelled, JobSubmitted, QueueDeclared
from pumasi.model.fleet import Queue
from pumasi.model.ids import QueueId
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.plan import plan
from pumasi.scheduler.shares import Shares
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply

OWNERS = ("public", "samsung", "sk", "hyundai", "naver")
GROUPS, PROJECTS = 25, 40  # of each owner
JOBS = 100_000
REPEATS = 15

NOTES = {
    "max_min_cold_ms": "exact max-min shares of 5 owners x 1,000 projects, 100,000 jobs waiting: CPU time from nothing",
    "max_min_incremental_ms": "the same after one project's demand has changed",
}


def busy_state() -> FleetState:
    """The Korean fleet, full, with a thousand more projects for each large owner and all jobs waiting in them."""
    state = korean_plane().state
    at_ms = state.at_ms
    projects = []
    for owner in OWNERS:
        for group in range(GROUPS):
            name = f"{owner}/group-{group}"
            apply(state, QueueDeclared(at_ms=at_ms, queue=Queue(id=name, weight=1 + group % 7)))
            for project in range(PROJECTS):
                projects.append(f"{name}/project-{project}")
                apply(state, QueueDeclared(at_ms=at_ms, queue=Queue(id=projects[-1], weight=1 + project % 5)))
    for number in range(JOBS):
        submit(state, projects[number % len(projects)], SIZES[number // len(projects) * 7 % len(SIZES)])
    placed = plan(state, at_ms).events
    for number, event in enumerate(placed):
        apply(state, event)
        submit(state, projects[number * 37 % len(projects)], SIZES[number % len(SIZES)])
    return state


def submit(state: FleetState, queue: QueueId, gpus: int) -> None:
    """A job arrives."""
    spec = JobSpec(name="job", queue=queue, script="srun train\n", gpus=gpus, time_limit_seconds=3600)
    apply(state, JobSubmitted(at_ms=state.at_ms, by="bench", job=state.next_job, spec=spec))


def milliseconds(shares: Shares, now_ms: int) -> float:
    """CPU time to bring the shares up to date."""
    began = time.process_time()
    shares.refresh(now_ms)
    return (time.process_time() - began) * 1000


def cold(state: FleetState) -> float:
    """From nothing but the state."""
    return milliseconds(Shares(state), state.at_ms)


def incremental(state: FleetState, shares: Shares, queue: QueueId, repeat: int) -> float:
    """After a job came to a project, or left it again."""
    if repeat % 2:
        apply(state, JobCancelled(at_ms=state.at_ms, job=state.next_job - 1))
    else:
        submit(state, queue, 8)
    return milliseconds(shares, state.at_ms)


def measure() -> Figures:
    """Both figures."""
    state = busy_state()
    shares = Shares(state)
    shares.refresh(state.at_ms)
    queue = f"{OWNERS[1]}/group-3/project-5"
    return {
        "max_min_cold_ms": median([cold(state) for _ in range(REPEATS)]),
        "max_min_incremental_ms": median([incremental(state, shares, queue, repeat) for repeat in range(2 * REPEATS)]),
    }


if __name__ == "__main__":
    print(measure())
