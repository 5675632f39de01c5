"""How `pumasi plan` prints: tables, CSV and bars for the terminal."""

import csv
import io
from collections.abc import Sequence

from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pumasi.model.fleet import FleetPlan, Stage
from pumasi.plans.basis import Provenance
from pumasi.plans.difference import Change, Difference, FieldChange
from pumasi.plans.summary import By, Group, groups

# A stage has a letter of its own shape, so that bars read without colour.
STAGE_BARS = {
    Stage.ANNOUNCED: ("·", "white"),
    Stage.ORDERED: ("░", "yellow"),
    Stage.DELIVERED: ("▒", "bright_yellow"),
    Stage.ACCEPTED: ("▓", "cyan"),
    Stage.IN_SERVICE: ("█", "green"),
}
BAR_LETTERS = 60

Cell = str | int


class Sheet(Struct, frozen=True, kw_only=True):
    """A table of words and whole numbers, ready for the terminal or CSV."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footer: tuple[Cell, ...] = ()


def group_sheet(plan: FleetPlan, by: By, as_of: str, *, wide: bool) -> Sheet:
    """GPUs by owner, site, model or stage. `wide` adds pools, nodes and kilowatts."""
    found = groups(plan, by, as_of)
    sizes = ("pools", "nodes", "kilowatts") if wide or by is By.STAGE else ()
    stages = () if by is By.STAGE else tuple(stage.value for stage in Stage)
    entitled = ("entitled",) if by is By.OWNER else ()
    titles = ("title",) if wide else ()
    rows = tuple(_group_row(group, by, wide=wide) for group in found)
    numbers = len(rows[0]) - (1 if wide else 0) if rows else 1
    totals = tuple(sum(cell for row in rows if isinstance(cell := row[index], int)) for index in range(1, numbers))
    return Sheet(
        title=f"GPUs by {by.value}, {as_of}",
        columns=(by.value, "gpus", *stages, *entitled, *sizes, *titles),
        rows=rows,
        footer=("total", *totals, *(("",) if wide else ())),
    )


def _group_row(group: Group, by: By, *, wide: bool) -> tuple[Cell, ...]:
    stages = () if by is By.STAGE else tuple(group.gpus_by_stage.values())
    entitled = () if group.gpus_entitled is None else (group.gpus_entitled,)
    sizes = (group.pools, group.nodes, group.kilowatts) if wide or by is By.STAGE else ()
    titles = (group.title,) if wide else ()
    return (group.id, group.gpus, *stages, *entitled, *sizes, *titles)


def source_sheet(provenance: Provenance) -> Sheet:
    """Every figure with what it rests on."""
    rows = tuple((figure.path, figure.value, str(figure.basis)) for figure in provenance.figures)
    return Sheet(title="Figures and what they rest on", columns=("figure", "value", "basis"), rows=rows)


def to_csv(sheet: Sheet) -> str:
    """The sheet as CSV, without its footer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.columns)
    writer.writerows(sheet.rows)
    return text.getvalue()


def print_sheet(console: Console, sheet: Sheet) -> None:
    """Print the sheet as a table; numbers are grouped and stand right."""
    table = Table(show_footer=bool(sheet.footer), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    footer: Sequence[Cell] = sheet.footer or ("",) * len(sheet.columns)
    for index, column in enumerate(sheet.columns):
        numeric = all(isinstance(row[index], int) for row in sheet.rows)
        heading = column.replace("_", " ")
        footing, fixed = _shown(footer[index]), index == 0 or numeric
        table.add_column(heading, footing, justify="right" if numeric else "left", no_wrap=fixed)
    for row in sheet.rows:
        table.add_row(*(_shown(cell) for cell in row))
    console.print(f"[bold]{sheet.title}[/]", highlight=False)
    console.print(table)
    console.print()


def print_bars(console: Console, plan: FleetPlan, as_of: str) -> None:
    """Print stacked bars by owner, one letter per stage."""
    found = [group for group in groups(plan, By.OWNER, as_of) if group.gpus]
    largest = max(group.gpus for group in found)
    width = max(len(group.id) for group in found)
    letters = max(10, min(BAR_LETTERS, console.width - width - 12))
    for group in found:
        console.print(f"{group.id:<{width}}  {_bar(group, largest, letters)} {group.gpus:,}", highlight=False)
    console.print()
    legend = "   ".join(
        f"[{colour}]{bar}[/] {stage.replace('_', ' ')}" for stage, (bar, colour) in reversed(STAGE_BARS.items())
    )
    console.print(f"{'':<{width}}  {legend}", highlight=False)


def _bar(group: Group, largest: int, letters: int) -> str:
    drawn, before = [], 0
    for stage, gpus in reversed(group.gpus_by_stage.items()):
        bar, colour = STAGE_BARS[stage]
        start, before = before * letters // largest, before + gpus
        length = before * letters // largest - start
        drawn.append(f"[{colour}]{bar * length}[/]" if length else "")
    return "".join(drawn)


def difference_lines(difference: Difference) -> list[str]:
    """A difference in lines: `+` added, `-` removed, `~` changed; then the totals that move."""
    if not difference.changes:
        return ["The two plans declare the same fleet."]
    lines = [line for change in difference.changes for line in _change_lines(change)]
    lines += ["", "Totals" if difference.totals else "No total changes."]
    for total in difference.totals:
        name = f"{total.total}.{total.key}" if total.key else total.total
        lines.append(f"  {name}: {total.before:,} -> {total.after:,} ({total.after - total.before:+,})")
    return lines


def _change_lines(change: Change) -> list[str]:
    sign = {"added": "+", "removed": "-", "changed": "~"}[change.kind]
    gpus = change.gpus_after - change.gpus_before
    note = f" ({gpus:+,} GPUs)" if gpus else ""
    head = f"{sign} {change.part} {change.id}{note}"
    return [head, *(f"    {_field_line(field)}" for field in change.fields)]


def _field_line(field: FieldChange) -> str:
    return f"{field.field}: {_value(field.before)} -> {_value(field.after)}"


def _value(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _shown(cell: Cell) -> str:
    return f"{cell:,}" if isinstance(cell, int) else escape(cell)
