"""What the command line asks of the twin: read files, run, and write a report. Errors are `TwinProblem`, one line."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import structs

from pumasi.plans.problems import PlanError
from pumasi.twin.changes import ChangeRefused
from pumasi.twin.experiment import UnknownQueues, day_of, prepare, read_fleet
from pumasi.twin.report.files import write_again, write_report
from pumasi.twin.rules import Rules
from pumasi.twin.runner import NoCluster, Task, run_all
from pumasi.twin.scenario_file import ScenarioFile, find_file, load_rules, load_scenario
from pumasi.twin.workloads.trace import TraceProblem
from pumasi.twin.world import CannotSimulate

VARIABLES = ("load_percent", "cycle_seconds", "days", "checkpoint_seconds", "gpus_per_gpu", "flood_jobs")
Told = Callable[[int, str], None]


class TwinProblem(Exception):
    """The twin cannot do it. `kind`: the name of the exit code. `lines`: mistakes of a file, one each."""

    def __init__(self, message: str, kind: str = "failed", lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.lines = lines


@contextmanager
def _as_problems(what: str) -> Iterator[None]:
    """What can go wrong with files, plans and clusters, as problems. `what` may have mistakes."""
    try:
        yield
    except PlanError as error:
        raise TwinProblem(f"{what} has mistakes", "usage", tuple(str(each) for each in error.problems)) from error
    except UnknownQueues as error:
        raise TwinProblem("the plan lacks queues that the scenario names", "usage", error.named) from error
    except (ChangeRefused, TraceProblem) as error:
        raise TwinProblem(str(error), "usage") from error
    except FileNotFoundError as error:
        raise TwinProblem(str(error), "not_found") from error
    except NoCluster as error:
        raise TwinProblem(str(error), "unreachable") from error
    except (CannotSimulate, OSError) as error:
        raise TwinProblem(str(error)) from error


class Finished(msgspec.Struct, frozen=True):
    """A report was written to `page`; `partial` runs were cut short of `runs`."""

    page: Path
    runs: int
    partial: int
    missing: int


def scenario_of(name: str) -> ScenarioFile:
    """The scenario of a name or path.

    :raises TwinProblem: if there is none, or it has mistakes.
    """
    with _as_problems(name):
        return load_scenario(find_file(name))


def rules_of(name: str, folder: Path) -> Rules:
    """The rules of a name or path, the latter seen from a scenario's folder too.

    :raises TwinProblem: if there are none, or they have mistakes.
    """
    beside = folder / name
    with _as_problems(name):
        return load_rules(beside if beside.is_file() else find_file(name, "rules"))


def tasks_of(file: ScenarioFile, rules: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """Every seed under all rules, then the next: a run that is stopped early has compared what it has."""
    known = [rules_of(name, file.folder) for name in rules]
    return [Task(file=file, rules=each, seed=seed) for seed in seeds for each in known]


def varied(file: ScenarioFile, rules: str, seeds: Sequence[int], name: str, values: Sequence[int]) -> list[Task]:
    """One set of rules, with one number of the scenario at several values.

    :raises TwinProblem: if the scenario has no such number.
    """
    known = rules_of(rules, file.folder)
    return [
        Task(file=with_value(file, name, value), rules=known, seed=seed, label=f"{name}-{value}")
        for seed in seeds
        for value in values
    ]


def with_value(file: ScenarioFile, name: str, value: int) -> ScenarioFile:
    """The scenario with another value of a number in it or in its workload.

    :raises TwinProblem: if it has no such number.
    """
    if name in ("cycle_seconds", "days"):
        return structs.replace(file, **{name: value}, warm_up_days=min(file.warm_up_days, max(file.days - 1, 0)))
    if name == "flood_jobs" and file.floods:
        return structs.replace(file, floods=tuple(structs.replace(flood, jobs=value) for flood in file.floods))
    parts = {
        part: structs.replace(work, **{name: value})
        for part in ("trace", "synthetic")
        if (work := getattr(file, part)) is not None and name in work.__struct_fields__
    }
    if name not in VARIABLES or not parts:
        raise TwinProblem(f"the scenario has no {name!r} to vary; there is: {', '.join(VARIABLES)}", "usage")
    return structs.replace(file, **parts)


def simulate(tasks: Sequence[Task], out: Path, title: str, traces: Path, processes: int, told: Told) -> Finished:
    """Run tasks and write their report. `told`: thousandths done, and the simulated day.

    :raises TwinProblem: if a run cannot be made or the report not be written.
    """
    with _as_problems("the plan"):
        fleet = read_fleet(tasks[0].file, traces)
        runs = run_all(tasks, traces, processes, lambda done, at_ms: told(done, day_of(at_ms) if at_ms else ""))
        if not runs:
            raise TwinProblem("stopped before anything was simulated; no report was written")
        target = write_report(out, title, fleet, runs)
    return Finished(target, len(runs), sum(not each.finished for each in runs), len(tasks) - len(runs))


def report_again(folder: Path) -> Path:
    """Make the page of a report anew.

    :raises TwinProblem: if the folder holds no report of this version.
    """
    try:
        return write_again(folder)
    except OSError as error:
        raise TwinProblem(f"{folder} holds no report: {error.strerror}", "not_found") from error
    except msgspec.MsgspecError as error:
        raise TwinProblem(f"the report in {folder} is of another version: {error}") from error


def check(file: ScenarioFile, rules: Rules, traces: Path) -> str:
    """What one run of the scenario would consist of, in one line.

    :raises TwinProblem: if it cannot be made.
    """
    with _as_problems("the plan"):
        ready = prepare(file, rules, 1, traces)
    gpus = sum(pool.whole_gpus for pool in ready.plan.pools)
    consists = f"{gpus:,} GPUs, {len(ready.plan.owners):,} owners, {len(ready.jobs):,} jobs in {file.days:,} days"
    return "; ".join([consists, *ready.notes])
