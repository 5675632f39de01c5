"""Output: one list of columns per command, shown as a table, CSV or JSON. Only results go to stdout."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import click

from pumasi.cli.errors import CommandError, ExitCode

PIPE_COLUMNS = 160  # what a drawn table may take where no terminal says how wide it is

Row: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = str | int


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    CSV = "csv"


class Column(NamedTuple):
    """A column: its heading, how to get its cell from a row, and whether it is shown by `table` or by `wide` alone.

    Numbers are aligned right. `style` colours cells on a terminal.
    """

    heading: str
    cell: Callable[[Row], Cell]
    wide: bool = False
    style: Callable[[Row], str] | None = None


class Output(NamedTuple):
    """What the output options of a command say."""

    format: Format
    columns: tuple[str, ...]
    headers: bool
    sort_by: str

    @property
    def json(self) -> bool:
        """True if one JSON document is wanted."""
        return self.format is Format.JSON


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o`, `--json`, `--columns`, `--no-headers`, `--sort-by` to a command; it gets them as `output: Output`."""

    @click.option(
        "-o",
        "--output",
        "shape",
        type=click.Choice([f.value for f in Format]),
        default="table",
        show_default=True,
        help="How to show it.",
    )
    @click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
    @click.option("--columns", metavar="NAMES", default="", help="Columns to show: headings with commas between.")
    @click.option("--sort-by", metavar="COLUMN", default="", help="Sort by a column; -COLUMN: largest first.")
    @click.option("--no-headers", is_flag=True, help="Leave out the headings.")
    @functools.wraps(command)
    def wrapper(
        *arguments: Any, shape: str, as_json: bool, columns: str, sort_by: str, no_headers: bool, **named: Any
    ) -> Any:
        names = tuple(name.strip().upper() for name in columns.split(",") if name.strip())
        output = Output(Format.JSON if as_json else Format(shape), names, not no_headers, sort_by.strip().upper())
        return command(*arguments, output=output, **named)

    return wrapper


def print_rows(rows: Iterable[Row], columns: Sequence[Column], output: Output, title: str = "") -> None:
    """Print a list: JSON gives the rows as the API gave them under `items`, the others the chosen columns."""
    if output.json:
        print_json({"items": list(rows)})
        return
    shown = _chosen(columns, output)
    ordered = _sorted(list(rows), columns, output.sort_by)
    cells = [[column.cell(row) for column in shown] for row in ordered]
    if output.format is Format.CSV:
        _print_csv([column.heading for column in shown], cells, output.headers)
    elif sys.stdout.isatty():
        _print_rich(ordered, shown, cells, output.headers, title)
    else:
        _print_plain([column.heading for column in shown], cells, output.headers)


def print_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def safe(text: object) -> str:
    """Text fit for a terminal line: what could break a row or steer a terminal is shown as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def dash(value: object) -> str:
    """The value as text; "-" if there is none."""
    return "-" if value is None or value == "" else str(value)


def console() -> Any:
    """The rich console for stdout; it honours NO_COLOR and COLUMNS."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPE_COLUMNS
    return Console(highlight=False, width=width)


def _chosen(columns: Sequence[Column], output: Output) -> list[Column]:
    if not output.columns:
        return [column for column in columns if output.format is not Format.TABLE or not column.wide]
    return [_named(columns, name) for name in output.columns]


def _named(columns: Sequence[Column], name: str) -> Column:
    for column in columns:
        if column.heading == name:
            return column
    known = ", ".join(column.heading for column in columns)
    raise CommandError(f"there is no column {name}", ExitCode.USAGE, hint=f"columns are: {known}")


def _sorted(rows: list[Row], columns: Sequence[Column], sort_by: str) -> list[Row]:
    if not sort_by:
        return rows
    column = _named(columns, sort_by.removeprefix("-"))

    def key(row: Row) -> tuple[bool, int, str]:
        cell = column.cell(row)
        return (False, cell, "") if isinstance(cell, int) else (True, 0, cell)

    return sorted(rows, key=key, reverse=sort_by.startswith("-"))


def _print_csv(headings: list[str], cells: list[list[Cell]], headers: bool) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    if headers:
        writer.writerow(headings)
    writer.writerows(cells)


def _print_plain(headings: list[str], cells: list[list[Cell]], headers: bool) -> None:
    """Fixed columns, nothing cut off: for pipes and scripts."""
    from rich.cells import cell_len

    lines = [[safe(cell) for cell in row] for row in cells]
    numeric = [_is_numeric(cells, index) for index in range(len(headings))]
    table = [headings, *lines] if headers else lines
    widths = [max((cell_len(line[index]) for line in table), default=0) for index in range(len(headings))]
    for line in table:
        padded = [
            _padded(text, width - cell_len(text), right)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _padded(text: str, missing: int, right: bool) -> str:
    return " " * missing + text if right else text + " " * missing


def _is_numeric(cells: list[list[Cell]], index: int) -> bool:
    column = [row[index] for row in cells if row[index] != "-"]
    return bool(column) and all(_looks_numeric(cell) for cell in column)


def _looks_numeric(cell: Cell) -> bool:
    return isinstance(cell, int) or cell.lstrip("-").replace(",", "").replace(".", "").isdigit()


def _print_rich(rows: list[Row], columns: list[Column], cells: list[list[Cell]], headers: bool, title: str) -> None:
    console().print(rich_table(rows, columns, cells, headers, title))


def rich_table(
    rows: Sequence[Row], columns: Sequence[Column], cells: list[list[Cell]], headers: bool = True, title: str = ""
) -> Any:
    """The table for a terminal; wide characters are aligned and long cells folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_header=headers, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column.heading, justify="right" if _is_numeric(cells, index) else "left", overflow="fold")
    for row, line in zip(rows, cells, strict=True):
        texts = zip(columns, line, strict=True)
        table.add_row(*[Text(safe(cell), style=column.style(row) if column.style else "") for column, cell in texts])
    return table
