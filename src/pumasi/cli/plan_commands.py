"""`pumasi plan`: check, show and compare plan files. Works on files alone; no server is asked."""

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.model.calendar import is_day
from pumasi.model.fleet import FleetPlan
from pumasi.plans.locate import find_plan, shipped_plans
from pumasi.plans.problems import PlanProblem
from pumasi.plans.reader import PlanReading, read_plan
from pumasi.plans.summary import By, summarize

WIDE_COLUMNS = 160  # `-o wide` lets the terminal break lines rather than leave columns out


class Day(click.ParamType[str]):
    """A day of the calendar, such as 2027-12-31."""

    name = "date"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The day as it came, if it is one."""
        return value if is_day(value) else self.fail(f"{value!r} is no day such as 2027-12-31", param, ctx)


_as_of = click.option("--as-of", type=Day(), metavar="DATE", help="Show the stages reached by this day; else by today.")


@click.group()
def plan() -> None:
    """Check, show and compare fleet plans.

    A plan is a YAML file, or the name of one that ships with Pumasi: korea, campus.
    """


@plan.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.pass_context
def check(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Say whether plan files are sound; if not, list every mistake with its line and what would be right."""
    ctx.exit(max(_check(file) for file in files))


def _check(file: str) -> ExitCode:
    try:
        reading = read_plan(find_plan(file))
    except FileNotFoundError as error:
        click.echo(f"pumasi: {error}", err=True)
        return ExitCode.NOT_FOUND
    if isinstance(reading, PlanReading):
        click.echo(f"{file}: sound: {_size(reading.plan)}")
        return ExitCode.OK
    for problem in reading:
        click.echo(str(problem), err=True)
    click.echo(f"{file}: {_mistakes(reading)}", err=True)
    return ExitCode.FAILED


def _size(fleet: FleetPlan) -> str:
    gpus = sum(pool.whole_gpus for pool in fleet.pools)
    parts = {
        "owners": len(fleet.owners),
        "sites": len(fleet.sites),
        "pools": len(fleet.pools),
        "queues": len(fleet.queues),
    }
    return ", ".join([f"{gpus:,} GPUs", *(f"{count:,} {part}" for part, count in parts.items())])


def _mistakes(problems: list[PlanProblem]) -> str:
    return "1 mistake" if len(problems) == 1 else f"{len(problems):,} mistakes"


@plan.command()
@click.argument("file")
@click.option("--by", type=click.Choice([by.value for by in By]), help="One table instead of all.")
@_as_of
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "csv"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@click.option("--sources", is_flag=True, help="List every figure with its sources, or the assumption it is.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the plan into this SVG file."
)
def show(file: str, by: str | None, as_of: str | None, output: str, sources: bool, picture: Path | None) -> None:
    """Show a plan: GPUs by owner, site, model and stage."""
    reading = _sound(file)
    day = as_of or _today()
    if picture is not None:
        _draw(reading, day, picture)
    if output == "json":
        click.echo(_json(reading, day, sources=sources))
    elif output == "csv":
        _print_csv(reading, By(by or By.OWNER), day, sources=sources)
    else:
        chosen = [By(by)] if by else list(By)
        _print_tables(reading, chosen, day, wide=output == "wide", sources=sources)


def _sound(file: str) -> PlanReading:
    try:
        reading = read_plan(find_plan(file))
    except FileNotFoundError as error:
        hint = f"plans that ship with Pumasi: {', '.join(shipped_plans())}"
        raise CommandError(str(error), ExitCode.NOT_FOUND, hint) from None
    if isinstance(reading, PlanReading):
        return reading
    lines = tuple(str(problem) for problem in reading)
    raise CommandError(f"{file} has {_mistakes(reading)}", ExitCode.FAILED, lines=lines)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _draw(reading: PlanReading, day: str, picture: Path) -> None:
    from pumasi.plans.picture import draw_plan

    try:
        picture.write_text(draw_plan(reading.plan, reading.title, day), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {picture}: {error.strerror}") from None
    click.echo(f"drawn: {picture}", err=True)


def _json(reading: PlanReading, day: str, *, sources: bool) -> str:
    document = msgspec.to_builtins(summarize(reading.plan, day))
    if sources:
        document["sources"] = reading.provenance.sources
        document["figures"] = msgspec.to_builtins(reading.provenance.figures)
    return _pretty(document)


def _pretty(document: object) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _print_csv(reading: PlanReading, by: By, day: str, *, sources: bool) -> None:
    from pumasi.cli.plan_tables import group_sheet, source_sheet, to_csv

    sheet = source_sheet(reading.provenance) if sources else group_sheet(reading.plan, by, day, wide=True)
    click.echo(to_csv(sheet), nl=False)


def _print_tables(reading: PlanReading, chosen: list[By], day: str, *, wide: bool, sources: bool) -> None:
    from rich.console import Console

    from pumasi.cli.plan_tables import group_sheet, print_bars, print_sheet, source_sheet

    console = Console()
    if wide:
        console = Console(width=max(console.width, WIDE_COLUMNS))
    console.print(f"{reading.title}: {_size(reading.plan)}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    for by in chosen:
        print_sheet(console, group_sheet(reading.plan, by, day, wide=wide))
    print_bars(console, reading.plan, day)
    if sources:
        console.print()
        print_sheet(console, source_sheet(reading.provenance))
        for tag, address in reading.provenance.sources.items():
            console.print(f"{tag:<5}{address}", highlight=False, markup=False, soft_wrap=True)


@plan.command()
@click.argument("before")
@click.argument("after")
@_as_of
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
)
def diff(before: str, after: str, as_of: str | None, output: str) -> None:
    """Say part by part what changes from plan BEFORE to plan AFTER, and what that does to the totals."""
    from pumasi.cli.plan_tables import difference_lines
    from pumasi.plans.difference import compare

    difference = compare(_sound(before).plan, _sound(after).plan, as_of or _today())
    if output == "json":
        click.echo(_pretty(difference))
    else:
        click.echo("\n".join(difference_lines(difference)))
