"""`pumasi queue`: jobs that wait or run, as squeue lists them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from pumasi.cli.arguments import parse_job_numbers, split_names
from pumasi.cli.job_rows import api_states, in_places, in_states, parse_states, queue_columns
from pumasi.cli.output import Format, Output, Row, output_options, print_rows
from pumasi.cli.session import clock_now, open_client, principal_name

if TYPE_CHECKING:
    from pumasi.client.client import Client


@click.command()
@click.option("--me", is_flag=True, help="Only my own jobs.")
@click.option("-u", "--user", metavar="NAME", help="Only this user's jobs.")
@click.option("-A", "-q", "--account", "--queue", "queue_path", metavar="QUEUE", help="Only of this queue and below.")
@click.option("-p", "--partition", "places", metavar="NAMES", default="", help="Only at these pools or sites.")
@click.option("-t", "--states", metavar="STATES", default="", help="Only in these states: PD, R, CG, ..., or all.")
@click.option("-j", "--jobs", "numbers", metavar="IDS", default="", help="Only these jobs.")
@click.option("-l", "--long", "long_form", is_flag=True, help="The same as -o wide.")
@click.option("-S", "--sort", "slurm_sort", metavar="COLUMN", default="", help="The same as --sort-by.")
@click.option("--limit", type=click.IntRange(1), help="At most this many jobs.")
@output_options
@click.pass_context
def queue(
    context: click.Context,
    me: bool,
    user: str | None,
    queue_path: str | None,
    places: str,
    states: str,
    numbers: str,
    long_form: bool,
    slurm_sort: str,
    limit: int | None,
    output: Output,
) -> None:
    """List jobs that wait or run, as squeue does."""
    words = parse_states(states)
    client = open_client(context)
    who = client.whoami() if me or not output.json else {}
    rows = _rows(client, numbers, words, principal_name(who) if me else user, queue_path)
    chosen = islice(in_places(in_states(rows, words), frozenset(split_names(places))), limit)
    if long_form and output.format is Format.TABLE:
        output = output._replace(format=Format.WIDE)
    if slurm_sort:
        output = output._replace(sort_by=slurm_sort.upper())
    print_rows(chosen, queue_columns(clock_now(who) if who else datetime.now(UTC)), output)


def _rows(client: "Client", numbers: str, words: list[str], user: str | None, queue_path: str | None) -> Iterable[Row]:
    if numbers:
        return [client.job(number) for number in parse_job_numbers([numbers])]
    wanted = [] if "ALL" in words else api_states(words) or ["live"]
    return client.jobs(state=wanted, user=user, queue=queue_path)
