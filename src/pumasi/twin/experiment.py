"""From a scenario file to what one run of the twin needs, and to what it measured."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

from msgspec import Struct, structs

from pumasi.control.commands import MakeReservation
from pumasi.model.fleet import FleetPlan
from pumasi.model.jobs import JobSpec
from pumasi.plans.locate import find_plan
from pumasi.plans.problems import suggestion
from pumasi.plans.reader import load_plan
from pumasi.twin.changes import PowerCut, Reserve, with_change
from pumasi.twin.jobs import TwinJob
from pumasi.twin.report.measures import Measures, measure
from pumasi.twin.rules import Rules, queue_under, with_rules
from pumasi.twin.run import Progress, simulate
from pumasi.twin.scenario import PlanChange, PowerChange, ReservationChange, Scenario
from pumasi.twin.scenario_file import CALL_PLAN, OPENB_PLAN, Flood, ScenarioFile, TraceWork
from pumasi.twin.workloads.call import call_jobs, call_plan
from pumasi.twin.workloads.mapping import SCRIPT, Placed, Placing, limit_seconds, place
from pumasi.twin.workloads.openb import openb_plan, read_openb_nodes, read_openb_pods
from pumasi.twin.workloads.philly import read_philly
from pumasi.twin.workloads.resample import DAY_MS, HOUR_MS, Resampling, resample, source_jobs
from pumasi.twin.workloads.shapes import ShapeDistances, shape_distances
from pumasi.twin.workloads.swf import read_swf
from pumasi.twin.workloads.synthetic import SyntheticWork, synthetic_jobs
from pumasi.twin.workloads.trace import TraceJob, TraceProblem
from pumasi.twin.world import OPERATOR

GROUPS_LISTED = 12
KOREA = timezone(timedelta(hours=9))
OPENB_NODES = "openb/openb_node_list_gpu_node.csv"
READERS: dict[str, Callable[..., list[TraceJob]]] = {
    "philly": read_philly,
    "swf": read_swf,
    "openb": read_openb_pods,
}


class UnknownQueues(Exception):
    """A scenario names queues that its plan does not have. `named`: where, one each."""

    def __init__(self, named: Sequence[str]) -> None:
        super().__init__("; ".join(named))
        self.named = tuple(named)


class Prepared(Struct):
    """One run, ready: the plan under its rules, the jobs in order, and the scenario. `notes`: what is not as asked."""

    plan: FleetPlan
    jobs: list[TwinJob]
    scenario: Scenario
    shapes: ShapeDistances | None
    notes: tuple[str, ...]


def day_ms(day: str) -> int:
    """The first moment of a day (ISO) in Korea, Unix milliseconds."""
    return int(datetime.combine(date.fromisoformat(day), datetime.min.time(), KOREA).timestamp() * 1000)


def day_of(at_ms: int) -> str:
    """The day (ISO) of a moment in Korea."""
    return datetime.fromtimestamp(at_ms / 1000, KOREA).date().isoformat()


def read_fleet(file: ScenarioFile, traces: Path, seed: int = 1) -> FleetPlan:
    """The plan of a scenario with its changes, before any rules.

    :raises TraceProblem: if the plan is the nodes of a trace that has mistakes.
    :raises FileNotFoundError: if there is no such plan or trace.
    :raises PlanError: with every mistake of the plan.
    :raises ChangeRefused: if a change does not fit the plan.
    """
    if file.plan == CALL_PLAN:
        return call_plan(seed, 100)
    if file.plan == OPENB_PLAN:
        return openb_plan(read_openb_nodes(_trace_path(file, OPENB_NODES, traces)))
    beside = file.folder / file.plan
    plan = load_plan(beside if beside.is_file() else find_plan(file.plan))
    for change in file.changes:
        plan = with_change(plan, change, file.start)
    return plan


def prepare(file: ScenarioFile, rules: Rules, seed: int, traces: Path) -> Prepared:
    """Everything one run needs.

    :raises UnknownQueues: if the scenario names a queue that the plan does not have.
    :raises FileNotFoundError: if there is no such trace.
    :raises TraceProblem: if it has mistakes, or lacks what is to be drawn from it; and what `read_fleet` raises.
    """
    fleet, start_ms = read_fleet(file, traces, seed), day_ms(file.start)
    _check_queues(file, fleet)
    jobs, shapes, notes = _jobs(file, fleet, seed, traces)
    if rules.one_owner:
        jobs = [_moved(job, rules) for job in jobs]
    plan = with_rules(fleet, rules)
    scenario = Scenario(
        name=file.name,
        seed=seed,
        start_ms=start_ms,
        until_ms=start_ms + file.days * DAY_MS,
        as_of=file.as_of,
        cycle_ms=file.cycle_seconds * 1000,
        faults=file.faults,
        changes=(*(_roll_out(file, plan) if file.roll_out else ()), *_power(file), *_reservations(file)),
    )
    return Prepared(plan, jobs, scenario, shapes, notes)


def run(file: ScenarioFile, rules: Rules, seed: int, traces: Path, progress: Progress | None = None) -> Measures:
    """Simulate once and measure. Stopped by `progress`, it measures what there is by then.

    :raises CannotSimulate: if the control plane refuses the plan; and what `prepare` raises.
    """
    ready = prepare(file, rules, seed, traces)
    outcome = simulate(ready.plan, ready.jobs, ready.scenario, progress=progress)
    from_ms = ready.scenario.start_ms + file.warm_up_days * DAY_MS
    return measure(outcome, ready, rules, from_ms)


def _check_queues(file: ScenarioFile, fleet: FleetPlan) -> None:
    known = sorted(queue.id for queue in fleet.queues)
    named = [(f"floods.{flood.name}.queue", flood.queue) for flood in file.floods]
    if file.synthetic is not None:
        named += [(f"workload.synthetic.loads.{queue}", queue) for queue in file.synthetic.loads]
    if file.trace is not None:
        named += [(f"workload.trace.queues.{group}", queue) for group, queue in file.trace.queues.items()]
    unknown = [
        f"{key}: the plan has no queue {queue!r}{suggestion(queue, known)}"
        for key, queue in named
        if queue not in known
    ]  # fmt: skip
    if unknown:
        raise UnknownQueues(unknown)


# --- jobs ------------------------------------------------------------------------------------------------------------


def _jobs(
    file: ScenarioFile, fleet: FleetPlan, seed: int, traces: Path
) -> tuple[list[TwinJob], ShapeDistances | None, tuple[str, ...]]:
    start_ms, shapes = day_ms(file.start), None
    jobs: list[TwinJob] = []
    notes: tuple[str, ...] = ()
    if file.trace is not None:
        placed, shapes = _from_trace(file, file.trace, seed, traces)
        jobs += placed.jobs
        notes = _notes(placed, shapes)
    if file.synthetic is not None:
        load = file.synthetic
        jobs += synthetic_jobs(
            fleet,
            SyntheticWork(
                start_ms=start_ms,
                days=file.days,
                as_of=file.as_of,
                load_percent=load.load_percent,
                loads=load.loads,
            ),
            seed,
        )
    if file.plan == CALL_PLAN:
        jobs += call_jobs(seed, start_ms, file.days)
    for flood in file.floods:
        jobs += [_flood_job(flood, start_ms)] * flood.jobs
    jobs.sort(key=lambda job: job.submit_ms)
    return jobs, shapes, notes


def _from_trace(file: ScenarioFile, work: TraceWork, seed: int, traces: Path) -> tuple[Placed, ShapeDistances]:
    path, by = _trace_path(file, work.file, traces), (work.group_by,) if work.group_by else ()
    trace = READERS[work.reader](path, *by)
    wanted = Resampling(
        source_from_ms=day_ms(work.source_from) + 9 * HOUR_MS,  # the trace's own midnight, read as UTC
        source_days=work.source_days,
        start_ms=day_ms(file.start),
        days=file.days,
        load_percent=work.load_percent,
    )
    source = source_jobs(trace, wanted)
    _check_source(work, trace, source)
    drawn = resample(trace, wanted, seed)
    placing = Placing(
        queues=work.queues,
        gpus_per_gpu=work.gpus_per_gpu,
        gpus_max=work.gpus_max,
        checkpoint_seconds=work.checkpoint_seconds,
        saves_on_notice=work.saves_on_notice,
    )
    return place(drawn, placing), shape_distances(source, drawn)


def _check_source(work: TraceWork, trace: list[TraceJob], source: list[TraceJob]) -> None:
    """See that the days to draw from have jobs, and each group that a queue stands for."""
    if not source:
        has = f"its jobs are from {_utc_day(trace[0])} to {_utc_day(trace[-1])}" if trace else "it has none at all"
        raise TraceProblem(f"{work.file}: no jobs in the {work.source_days} days from {work.source_from}; {has}")
    groups = sorted({job.group for job in source})
    for group in work.queues:
        if group not in groups:
            listed = ", ".join(groups[:GROUPS_LISTED]) + ", ..." * (len(groups) > GROUPS_LISTED)
            raise TraceProblem(f"{work.file}: no job of group {group!r} in these days; there are {listed}")


def _utc_day(job: TraceJob) -> str:
    return datetime.fromtimestamp(job.submitted_ms / 1000, UTC).date().isoformat()


def _trace_path(file: ScenarioFile, name: str, traces: Path) -> Path:
    for folder in (file.folder, traces):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is neither in {file.folder} nor in {traces}; --traces names another folder")


def _notes(placed: Placed, shapes: ShapeDistances) -> tuple[str, ...]:
    said = (
        (placed.left_out, "jobs were left out, as no queue stands for their group"),
        (placed.without_gpus, "jobs were left out, as they need no GPU"),
        (placed.rounded_up, "jobs that need a part of a GPU were given a whole one"),
    )
    notes = [f"{count:,} {what}" for count, what in said if count]
    if not shapes.is_kept:
        notes.append("sizes, lengths or hours of what was drawn are more than a tenth off those of the trace")
    return tuple(notes)


def _flood_job(flood: Flood, start_ms: int) -> TwinJob:
    runtime_ms = flood.hours * HOUR_MS
    spec = JobSpec(
        name="flood",
        queue=flood.queue,
        script=SCRIPT,
        gpus=flood.gpus,
        time_limit_seconds=limit_seconds(runtime_ms),
        checkpoint_seconds=1800,
    )
    at_ms = start_ms + flood.day * DAY_MS
    return TwinJob(submit_ms=at_ms, spec=spec, runtime_ms=runtime_ms, saves_on_notice=True)


def _moved(job: TwinJob, rules: Rules) -> TwinJob:
    queue = queue_under(job.spec.queue, rules)
    return structs.replace(job, spec=structs.replace(job.spec, queue=queue))


def _roll_out(file: ScenarioFile, plan: FleetPlan) -> tuple[PlanChange, ...]:
    """The plan applied anew on every day within the scenario on which a pool reaches a stage."""
    end = day_of(day_ms(file.start) + file.days * DAY_MS)
    days = sorted({day for pool in plan.pools for day in pool.stages.values() if file.start < day < end})
    return tuple(PlanChange(at_ms=day_ms(day), plan=plan, as_of=day) for day in days)


def _power(file: ScenarioFile) -> tuple[PowerChange, ...]:
    """What the operators of cut sites do within the scenario: cap the power, and lift the cap."""
    cuts = [change for change in file.changes if isinstance(change, PowerCut)]
    steps = [
        PowerChange(at_ms=day_ms(day), site=cut.site, kilowatts=kilowatts, notice_seconds=cut.notice_seconds)
        for cut in cuts
        for day, kilowatts in ((cut.from_day, cut.kilowatts), (cut.until_day, 0))
        if day
    ]
    return tuple(sorted(steps, key=lambda step: step.at_ms))


def _reservations(file: ScenarioFile) -> Iterator[ReservationChange]:
    """What is reserved within the scenario, each when it is announced."""
    for change in file.changes:
        if isinstance(change, Reserve):
            command = MakeReservation(
                by=OPERATOR,
                name=change.name,
                purpose=change.purpose,
                pool=change.pool,
                nodes=change.nodes,
                queue=change.queue,
                start_ms=day_ms(change.from_day),
                duration_seconds=change.hours * 3600,
            )
            yield ReservationChange(at_ms=day_ms(change.announced), command=command)
