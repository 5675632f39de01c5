"""`pumasi power`: what sites draw and may draw, and capping one."""

import click

from pumasi.cli.durations import parse_duration
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import Column, Output, Row, output_options, print_rows
from pumasi.cli.session import open_client


def _cap(row: Row) -> str:
    limit = int(row["power_limit_kilowatts"])
    return str(limit) if limit else "-"


_COLUMNS = [
    Column("SITE", lambda row: str(row["id"])),
    Column("OPERATOR", lambda row: str(row["operator"])),
    Column("GPUS(U/T)", lambda row: f"{row['gpus_in_use']}/{row['gpus']}"),
    Column("DRAWS(KW)", lambda row: int(row["power_planned_kilowatts"])),
    Column("MAY DRAW(KW)", _cap),
    Column("PLANNED(KW)", lambda row: int(row["power_cap_kilowatts"]), wide=True),
]


@click.command()
@click.argument("site", required=False)
@click.argument("kilowatts", type=click.IntRange(0), required=False)
@click.option("--notice", default="5m", show_default=True, help="By when the site must be down to it.")
@output_options
@click.pass_context
def power(context: click.Context, site: str | None, kilowatts: int | None, notice: str, output: Output) -> None:
    """Show what sites draw and may draw; with SITE and KILOWATTS, cap one (0: back to what its plan says).

    DRAWS counts the GPUs in use by the planning figure of their model. A lower cap stops borrowed work first, then home
    work above what its owner is still due, the lowest priority and the least lost work first, with notice.
    """
    client = open_client(context)
    if site is not None and kilowatts is not None:
        seconds = parse_duration(notice)
        if not seconds:
            raise CommandError(f"{notice!r} is no duration; write for example 90s or 5m", ExitCode.USAGE)
        print_rows([client.power(site, kilowatts, seconds)], _COLUMNS, output)
        return
    print_rows([row for row in client.sites() if site in (None, row["id"])], _COLUMNS, output)
