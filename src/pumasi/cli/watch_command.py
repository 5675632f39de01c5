"""Watching: the queue and the shares as a live screen, and the facts of the log as they come."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from pumasi.cli.arguments import split_names
from pumasi.cli.fleet_commands import share_rows
from pumasi.cli.job_rows import queue_columns
from pumasi.cli.output import Column, Row, console, rich_table, safe
from pumasi.cli.session import clock_now, open_client, principal_name
from pumasi.client.errors import TimedOut, Unreachable

if TYPE_CHECKING:
    from pumasi.client.client import Client, FleetEvent

LINES_BESIDE_JOBS = 20  # titles, headings, rules round the tables, and an owner a line
JOBS_SHOWN_MIN = 5


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between looks."
)
@click.option("--once", is_flag=True, help="Look once and end; so does a pipe.")
@click.option("--me", is_flag=True, help="Only my own jobs.")
@click.option(
    "-A", "-q", "--account", "--queue", "queue_path", metavar="QUEUE", help="Only jobs of this queue and below."
)
@click.pass_context
def watch(context: click.Context, interval: float, once: bool, me: bool, queue_path: str | None) -> None:
    """Watch the shares and the queue live; end it with Ctrl-C."""
    client = open_client(context)
    screen = console()
    filters = {"queue": queue_path, "user": principal_name(client.whoami()) if me else None}
    if once or not screen.is_terminal:
        screen.print(_picture(client, filters, jobs_shown=50))
        return
    _live(client, filters, screen, interval)


def _live(client: "Client", filters: Mapping[str, str | None], screen: Any, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=screen, screen=True, auto_refresh=False) as live:
        shown: Any = Text("...")
        while True:
            try:
                shown = _picture(client, filters, max(JOBS_SHOWN_MIN, screen.height - LINES_BESIDE_JOBS))
                live.update(shown, refresh=True)
            except (Unreachable, TimedOut) as error:  # the last picture stays, marked as old
                live.update(Group(Text(f"old: {error.detail}", style="bold red"), shown), refresh=True)
            time.sleep(interval)


def _picture(client: "Client", filters: Mapping[str, str | None], jobs_shown: int) -> Any:
    from rich.console import Group
    from rich.text import Text

    who, fleet = client.whoami(), client.fleet()
    now = clock_now(who)
    jobs = list(islice(client.jobs(state="live", limit=jobs_shown, **filters), jobs_shown))
    owners, columns = share_rows(client.shares(), "owner")
    return Group(
        Text(headline(fleet, who, now), style="bold"),
        _table(owners, columns, "Shares (GPUs)"),
        _table(jobs, queue_columns(now), "Jobs"),
    )


def headline(fleet: Row, who: Row, now: datetime) -> str:
    """One line: the fleet, its time, GPUs in use and free, jobs waiting."""
    parts = [str(fleet.get("plan") or who.get("fleet")), now.astimezone().strftime("%Y-%m-%d %H:%M:%S")]
    named = (
        ("gpus_total", "GPUs"),
        ("gpus_in_use", "in use"),
        ("gpus_lent", "lent"),
        ("gpus_free", "free"),
        ("jobs_waiting", "waiting"),
    )
    parts += [f"{int(fleet[field]):,} {text}" for field, text in named if fleet.get(field) is not None]
    return safe("  |  ".join(parts))


def _table(rows: Sequence[Row], columns: list[Column], title: str) -> Any:
    shown = [column for column in columns if not column.wide]
    return rich_table(rows, shown, [[column.cell(row) for column in shown] for row in rows], title=title)


@click.command()
@click.option("--after", type=click.IntRange(0), help="Start after this sequence number; 0: from the beginning.")
@click.option("--type", "types", metavar="NAMES", default="", help="Only facts of these types, such as AttemptPlaced.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@click.pass_context
def events(context: click.Context, after: int | None, types: str, count: int | None, as_json: bool) -> None:
    """Print the facts of the log as they come; end it with Ctrl-C."""
    wanted = frozenset(split_names(types))
    lines = _event_lines(open_client(context), after, wanted, as_json)
    for line in islice(lines, count):
        click.echo(line)
        sys.stdout.flush()


def _event_lines(client: "Client", after: int | None, wanted: frozenset[str], as_json: bool) -> Iterator[str]:
    for event in client.events(after):
        if wanted and event.type not in wanted:
            continue
        yield _json_line(event) if as_json else _text_line(event)


def _json_line(event: "FleetEvent") -> str:
    return json.dumps({**event.data, "seq": event.seq, "type": event.type}, ensure_ascii=False)


def _text_line(event: "FleetEvent") -> str:
    fields = {name: value for name, value in event.data.items() if name not in {"type", "at_ms"}}
    at = datetime.fromtimestamp(event.data.get("at_ms", 0) / 1000).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    return safe(f"{event.seq:>8}  {at}  {event.type}  {json.dumps(fields, ensure_ascii=False)}")
