"""`pumasi twin`: try rules, fleets and faults in the digital twin. Works on files alone; no server is asked."""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pumasi.cli.errors import CommandError, ExitCode

_scenario = click.argument("scenario", metavar="SCENARIO")
_out = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report; else twin-SCENARIO."
)
_traces = click.option(
    "--traces",
    type=click.Path(path_type=Path),
    default=Path("../shared/traces"),
    envvar="PUMASI_TRACES",
    show_default=True,
    help="Folder of the workload traces that scenarios name.",
)
_processes = click.option(
    "--processes", type=click.IntRange(1, 256), default=os.cpu_count() or 1, help="Runs at a time; default: all cores."
)
_seeds = click.option("--seeds", type=click.IntRange(1, 1000), help="Seeds 1 to this; else as the scenario says.")


def _commands() -> Any:
    # The command line reaches the live fleet over HTTP alone; the twin is a fleet of its own, so it is found by name.
    return importlib.import_module("pumasi.twin.commands")


@contextmanager
def _told() -> Iterator[Any]:
    """Problems of the twin as those of the command line."""
    commands = _commands()
    try:
        yield commands
    except commands.TwinProblem as error:
        raise CommandError(str(error), ExitCode[error.kind.upper()], lines=tuple(error.lines[:8])) from error


@click.group()
def twin() -> None:
    """Try rules, fleets and faults in the digital twin: this very control plane on simulated time.

    A SCENARIO is a YAML file, or the name of one that ships with Pumasi: philly, korea, korea-flood,
    first-call, openb.
    """


@twin.command()
@_scenario
@click.option("--rules", metavar="NAME|FILE", help="Rules to run under; else the scenario's first.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="What chance draws from.")
@_out
@_traces
def run(scenario: str, rules: str | None, seed: int, out: Path | None, traces: Path) -> None:
    """Simulate a scenario once and write a report. Ctrl-C stops it and reports what there is by then."""
    with _told() as commands:
        file = commands.scenario_of(scenario)
        tasks = commands.tasks_of(file, [rules or file.rules[0]], [seed])
        _simulate(commands, tasks, out or Path(f"twin-{file.name}"), file.title, traces, 1)


@twin.command()
@_scenario
@click.option(
    "--rules", metavar="NAME|FILE", multiple=True, help="Rules to compare, once for each; else the scenario's."
)
@_seeds
@_out
@_traces
@_processes
def compare(
    scenario: str, rules: tuple[str, ...], seeds: int | None, out: Path | None, traces: Path, processes: int
) -> None:
    """Simulate a scenario under several rules and seeds, and report the differences to the first rules."""
    with _told() as commands:
        file = commands.scenario_of(scenario)
        tasks = commands.tasks_of(file, rules or file.rules, range(1, (seeds or file.seeds) + 1))
        _simulate(commands, tasks, out or Path(f"twin-{file.name}"), file.title, traces, processes)


@twin.command()
@_scenario
@click.option("--vary", metavar="NAME=VALUES", required=True, help="A number of the scenario: load_percent=80,100,120.")
@click.option("--rules", metavar="NAME|FILE", help="Rules to run under; else the scenario's first.")
@_seeds
@_out
@_traces
@_processes
def sweep(
    scenario: str, vary: str, rules: str | None, seeds: int | None, out: Path | None, traces: Path, processes: int
) -> None:
    """Simulate a scenario with one of its numbers at several values, and report the differences to the first."""
    name, values = _variation(vary)
    with _told() as commands:
        file = commands.scenario_of(scenario)
        tasks = commands.varied(file, rules or file.rules[0], range(1, (seeds or file.seeds) + 1), name, values)
        _simulate(commands, tasks, out or Path(f"twin-{file.name}-{name}"), file.title, traces, processes)


@twin.command()
@_scenario
@_traces
def check(scenario: str, traces: Path) -> None:
    """Say whether a scenario and its rules are sound, and what one run of it consists of."""
    with _told() as commands:
        file = commands.scenario_of(scenario)
        for name in file.rules:
            click.echo(f"{scenario} under {name}: {commands.check(file, commands.rules_of(name, file.folder), traces)}")


@twin.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report(folder: Path) -> None:
    """Make the page and pictures of a report anew from the numbers beside them."""
    with _told() as commands:
        click.echo(commands.report_again(folder))


def _variation(text: str) -> tuple[str, list[int]]:
    name, _, values = text.partition("=")
    if not name or not all(value.isascii() and value.isdigit() and len(value) < 10 for value in values.split(",")):
        raise click.BadParameter(f"{text!r} is not like load_percent=80,100,120", param_hint="--vary")
    return name, [int(value) for value in values.split(",")]


def _simulate(commands: Any, tasks: Any, out: Path, title: str, traces: Path, processes: int) -> None:
    with _progress(len(tasks)) as told:
        finished = commands.simulate(tasks, out, title, traces, processes, told)
    if finished.partial or finished.missing:
        click.echo(f"stopped: {finished.partial} runs are partial, {finished.missing} were not begun", err=True)
    click.echo(finished.page)


def told_in_lines(of_runs: str) -> Callable[[int, str], None]:
    """What tells progress (thousandths done, the simulated day) with a line for each tenth."""
    tenths = 0

    def tell(done: int, day: str) -> None:
        nonlocal tenths
        if done // 100 > tenths:
            tenths = done // 100
            click.echo(f"{of_runs}: {10 * tenths} % done{f', at {day}' if day else ''}", err=True)

    return tell


@contextmanager
def _progress(runs: int) -> Iterator[Any]:
    """A bar with the simulated date on a terminal, lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console, of_runs = Console(stderr=True), f"{runs} run{'s' if runs > 1 else ''}"
    if not console.is_terminal:
        yield told_in_lines(of_runs)
        return
    columns = (
        TextColumn(of_runs),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[day]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1000, day="")
        yield lambda done, day: bar.update(task, completed=done, day=day)
