"""`simulate`: a fleet, its jobs and a scenario in; the log, the books and a row per job out."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from pumasi.adapters.fact_list import FactList
from pumasi.control.plane import ControlPlane
from pumasi.model.fleet import FleetPlan
from pumasi.ports.event_log import JobStore
from pumasi.state.records import Job
from pumasi.twin.calendar import Calendar
from pumasi.twin.faults import Faults
from pumasi.twin.jobs import TwinJob
from pumasi.twin.kernel import Kernel
from pumasi.twin.outcome import Outcome
from pumasi.twin.scenario import Scenario
from pumasi.twin.world import CannotSimulate, World

INSTANTS_BETWEEN_PROGRESS = 512

Progress = Callable[[int], bool]


def simulate(
    plan: FleetPlan,
    jobs: Sequence[TwinJob],
    scenario: Scenario,
    *,
    log: JobStore | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Run a scenario to its end.

    `jobs`: in order of submission. `log`: where the facts go; in memory if none is given. `progress` is told the
    simulated time every so often, and stops the simulation by answering False.

    :raises CannotSimulate: if the control plane refuses the plan or a change of it.
    :raises ValueError: if the jobs are not in order.
    """
    _check_order(jobs)
    kernel = Kernel(scenario.start_ms)
    world = World(kernel, scenario, jobs, log if log is not None else FactList(), ControlPlane(kernel))
    world.declare(plan, scenario.as_of)
    world.await_changes()
    world.await_jobs()
    return run_world(world, progress)


def look_ahead(
    plane: ControlPlane,
    jobs: Sequence[TwinJob],
    scenario: Scenario,
    *,
    runtime_ms: Callable[[Job], int] = lambda job: job.spec.time_limit_seconds * 1000,
    progress: Progress | None = None,
) -> Outcome:
    """Let a branch of a control plane go on with jobs to come, from now to the scenario's horizon.

    `plane` is not changed. `runtime_ms`: how long the jobs it has already run in all; to their limits if nobody knows
    better. The outcome's log holds the facts of the branch alone, its table the jobs of the branch alone.

    :raises CannotSimulate: if the scenario crashes the control plane: a branch has no log to come back from. If servers
        are to be handed over: the job that stands for them is none of a simulation's.
    :raises ValueError: if the jobs are not in order, or begin before now.
    """
    _check_order(jobs)
    kernel = Kernel(plane.now_ms())
    if jobs and jobs[0].submit_ms < kernel.time_ms:
        raise ValueError("the jobs begin before now")
    if scenario.faults.control_crash_days:
        raise CannotSimulate("a branch has no log of its own to come back from after a crash")
    if any(record.is_to_be_handed_over for record in plane.state.advance_reservations.values()):
        raise CannotSimulate("servers are to be handed over, and the twin only goes on with those that are")
    world = World(kernel, scenario, jobs, FactList(), plane.branch(kernel))
    world.take_over(runtime_ms)
    world.await_changes()
    world.await_jobs()
    return run_world(world, progress)


def _check_order(jobs: Sequence[TwinJob]) -> None:
    if any(one.submit_ms > other.submit_ms for one, other in pairwise(jobs)):
        raise ValueError("the jobs are not in the order of their submission")


def run_world(world: World, progress: Progress | None = None) -> Outcome:
    """Let a world go its way until the scenario's horizon, or until no job is left."""
    Faults(world).begin()
    Calendar(world).begin()
    instants, finished = _run(world, progress)
    world.close_books()  # what was taken in last is made durable, and open jobs are written down
    return Outcome(
        log=world.log,
        jobs=world.table,
        refused=world.refused,
        plane=world.plane,
        at_ms=world.kernel.time_ms,
        finished=finished,
        cycles=world.cycles,
        instants=instants,
        violations=world.violations,
    )


def _run(world: World, progress: Progress | None) -> tuple[int, bool]:
    """How many instants passed, and whether the end was reached."""
    kernel, until_ms = world.kernel, world.scenario.until_ms
    world.settle()
    instants = 0
    while True:
        next_ms = kernel.next_ms()
        if next_ms is None or (until_ms and next_ms > until_ms) or (not until_ms and world.is_done):
            return instants, True
        kernel.run_instant()
        world.settle()
        instants += 1
        if progress is not None and instants % INSTANTS_BETWEEN_PROGRESS == 0 and not progress(kernel.time_ms):
            return instants, False
