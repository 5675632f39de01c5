"""The heart at full size: loading the Korean plan, filling the fleet, and a cycle with 10,000 waiting jobs on it."""

import time

from bench.measure import Figures, median, peak_memory_mib, seconds
from pumasi.adapters.clocks import SystemClock
from pumasi.control.commands import ApplyPlan, CancelJob, EnrolSite, IssueToken, SubmitJobs
from pumasi.control.plane import ControlPlane
from pumasi.control.refusals import Refusal
from pumasi.events.facts import AttemptPlaced
from pumasi.model.access import Token, TokenKind
from pumasi.model.fleet import FleetPlan
from pumasi.model.jobs import JobSpec
from pumasi.plans.locate import find_plan
from pumasi.plans.reader import load_plan
from pumasi.scheduler.plan import plan

WAITING_JOBS = 10_000
AS_OF = "2030-12-31"
SIZES = (8, 8, 8, 16, 32, 64, 128, 512)  # GPUs; mostly single nodes, as in the published traces

NOTES = {
    "plan_load_seconds": "read, check and apply plans/korea.yaml: 260,000 GPUs",
    "plan_load_memory_mib": "peak memory of the process after it",
    "fill_placements_per_second": "jobs placed per second while the empty fleet fills",
    "cycle_10k_waiting_ms": "a full cycle: 10,000 jobs wait, none fits, 260,000 GPUs declared",
}


def korean_plane() -> ControlPlane:
    """A control plane on the whole Korean fleet, every site's agent enrolled."""
    fleet = load_plan(find_plan("korea"))
    plane = ControlPlane(SystemClock())
    answer = plane.execute(ApplyPlan(by="bench", plan=fleet, as_of=AS_OF))
    assert not isinstance(answer, Refusal), answer
    for site in fleet.sites:
        token = Token(digest=site.id, kind=TokenKind.ENROL, site=site.id, expires_at_ms=plane.now_ms() + 60_000)
        plane.execute(IssueToken(by="bench", token=token))
        plane.execute(EnrolSite(by="bench", site=site.id, public_key="key", used_up=token.digest))
    return plane


def jobs(fleet: FleetPlan, count: int) -> tuple[JobSpec, ...]:
    """Jobs of mixed sizes over all the leaf queues of the plan."""
    parents = {queue.id.rpartition("/")[0] for queue in fleet.queues}
    leaves = [queue.id for queue in fleet.queues if queue.id not in parents]
    return tuple(
        JobSpec(
            name=f"job-{number}",
            queue=leaves[number % len(leaves)],
            script="srun train\n",
            gpus=SIZES[number % len(SIZES)],
            time_limit_seconds=3600 * (1 + number % 24),
        )
        for number in range(count)
    )


def fill(plane: ControlPlane, fleet: FleetPlan) -> float:
    """Submit and place until nothing more fits; returns placements per second of cycle."""
    placed, spent = 0, 0.0
    while True:
        plane.execute(SubmitJobs(by="bench", specs=jobs(fleet, WAITING_JOBS)))
        began = time.perf_counter()
        plane.cycle()
        spent += time.perf_counter() - began
        staged = plane.take_staged()
        now = sum(isinstance(event, AttemptPlaced) for event in staged.events)
        plane.made_durable(staged)
        placed += now
        if now == 0:
            return placed / spent


def measure() -> Figures:
    """All figures of this module."""
    load_seconds = median(seconds(korean_plane, 3))
    memory = peak_memory_mib()
    plane, fleet = korean_plane(), load_plan(find_plan("korea"))
    rate = fill(plane, fleet)
    state = plane.state
    surplus = sum(len(record.waiting) for record in state.queues.values()) - WAITING_JOBS
    if surplus < 0:
        raise RuntimeError("fewer jobs wait than the figure says")
    _cancel(plane, surplus)
    cycle = median(seconds(lambda: plan(state, plane.now_ms()), 7))
    return {
        "plan_load_seconds": load_seconds,
        "plan_load_memory_mib": memory,
        "fill_placements_per_second": rate,
        "cycle_10k_waiting_ms": cycle * 1000,
    }


def _cancel(plane: ControlPlane, count: int) -> None:
    """End waiting jobs until as many wait as the figure says."""
    waiting = [job for record in plane.state.queues.values() for _, job in record.waiting]
    for job in waiting[:count]:
        plane.execute(CancelJob(by="bench", job=job))
