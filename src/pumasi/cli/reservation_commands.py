"""`pumasi reservation`: nodes for a span of time, in the words of `scontrol create reservation`."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from pumasi.cli.arguments import split_names
from pumasi.cli.durations import TIME_FORMS, format_elapsed, parse_duration
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import Column, Output, Row, dash, output_options, print_json, print_rows, safe
from pumasi.cli.session import act_on_each, fleet_now, open_client
from pumasi.cli.times import BEGIN_FORMS, format_time, parse_begin
from pumasi.model.hostlist import compress
from pumasi.model.jobs import Span
from pumasi.model.reservations import ReservationPurpose

if TYPE_CHECKING:
    from pumasi.client.client import Client

ALL_NODES = "ALL"
_MAINT, _HAND_OVER, _IGNORE_JOBS = FLAGS = ("maint", "hand_over", "ignore_jobs")

COLUMNS = [
    Column("RESV_NAME", lambda row: str(row["id"])),
    Column("STATE", lambda row: str(row["state"]), style=lambda row: "green" if row["state"] == "active" else ""),
    Column("PURPOSE", lambda row: str(row["purpose"])),
    Column("START_TIME", lambda row: format_time(row["start_at"])),
    Column("END_TIME", lambda row: format_time(row["end_at"]), wide=True),
    Column("DURATION", lambda row: format_elapsed(int(row["duration_seconds"]))),
    Column("ACCOUNT", lambda row: dash(row["queue"])),
    Column("NODES", lambda row: int(row["nodes"])),
    Column("GPUS", lambda row: int(row["gpus"])),
    Column("OWNER", lambda row: dash(row["owner"]), wide=True),
    Column("SITE", lambda row: str(row["site"]), wide=True),
    Column("JOBID", lambda row: dash(row["job"]), wide=True),
    Column("NODELIST", lambda row: str(row["node_list"])),
    Column("REASON", lambda row: dash(row["reason"]), wide=True),
]


@click.group()
def reservation() -> None:
    """Reserve nodes for a span of time: for maintenance, for a queue, or to hand them over."""


@reservation.command("create")
@click.argument("name")
@click.option("-p", "--partition", "pool", metavar="POOL", required=True, help="The pool whose nodes they are.")
@click.option("--start", metavar="TIME", default="now", show_default=True, help=f"When it begins: {BEGIN_FORMS}.")
@click.option("--duration", metavar="TIME", default="", help=f"How long it lasts: {TIME_FORMS}.")
@click.option("--end", metavar="TIME", default="", help="When it ends, instead of a duration.")
@click.option("-N", "--nodes", type=click.IntRange(1), help="How many nodes ...")
@click.option("-G", "--gpus", type=click.IntRange(1), help="... or how many GPUs, of whole nodes ...")
@click.option("-w", "--nodelist", metavar="LIST", default="", help="... or which: pool-[00001-00004], or ALL.")
@click.option("-A", "--account", "queue", metavar="QUEUE", default="", help="The queue whose jobs may run there.")
@click.option("--flags", metavar="FLAGS", default="", help=f"With commas between: {', '.join(FLAGS)}.")
@click.option("--reason", default="", help="Why; shown to whoever may look.")
@click.pass_context
def create(
    context: click.Context,
    name: str,
    pool: str,
    start: str,
    duration: str,
    end: str,
    nodes: int | None,
    gpus: int | None,
    nodelist: str,
    queue: str,
    flags: str,
    reason: str,
) -> None:
    """Reserve whole nodes that are free by then. NAME is what it is called.

    Without flags it is an award: the jobs of a queue (--account) and those below it run on the nodes, and nobody
    else's. With --flags=maint nobody's do. With --flags=hand_over the queue has the servers without an engine.
    --flags=maint,ignore_jobs takes the nodes listed although jobs may run on when it begins.
    """
    chosen = _flags(flags)
    client = open_client(context)
    start_ms, seconds = _times(client, start, duration, end)
    made = client.reserve(
        name=name,
        purpose=_purpose(chosen),
        pool=pool,
        start_at_ms=start_ms,
        duration_seconds=seconds,
        nodes=nodes,
        gpus=gpus,
        node_list=_all_nodes(client, pool) if nodelist == ALL_NODES else nodelist,
        queue=queue,
        ignore_running=_IGNORE_JOBS in chosen,
        reason=reason,
    )
    click.echo(f"Reserved {safe(made['node_list'])} as {safe(made['id'])}, from {format_time(made['start_at'])}")


def _flags(text: str) -> list[str]:
    flags = [flag.lower() for flag in split_names(text)]
    for flag in flags:
        if flag not in FLAGS:
            raise CommandError(f"there is no flag {flag}", ExitCode.USAGE, f"flags are: {', '.join(FLAGS)}")
    if _MAINT in flags and _HAND_OVER in flags:
        raise CommandError("nodes are under maintenance or handed over, not both", ExitCode.USAGE)
    return flags


def _purpose(flags: list[str]) -> ReservationPurpose:
    if _MAINT in flags:
        return ReservationPurpose.MAINTENANCE
    return ReservationPurpose.HAND_OVER if _HAND_OVER in flags else ReservationPurpose.AWARD


def _times(client: "Client", start: str, duration: str, end: str) -> tuple[int, int]:
    """When it begins, in Unix milliseconds (0: now, when the server hears of it), and how many seconds it lasts."""
    if bool(duration) == bool(end):
        raise CommandError("say either how long it lasts (--duration) or when it ends (--end)", ExitCode.USAGE)
    now = fleet_now(client).astimezone()
    start_ms = 0 if start == "now" else _moment(start, now)
    if end:
        seconds = (_moment(end, now) - (start_ms or int(now.timestamp() * 1000))) // 1000
    else:
        seconds = parse_duration(duration) or 0
    if seconds < 1:
        forms = BEGIN_FORMS if end else TIME_FORMS
        raise CommandError(f"{duration or end!r} is no time after it begins", ExitCode.USAGE, f"write {forms}")
    return start_ms, seconds


def _moment(text: str, now: datetime) -> int:
    found = parse_begin(text, now)
    if found is None:
        raise CommandError(f"{text!r} is no time", ExitCode.USAGE, f"write {BEGIN_FORMS}")
    return found


def _all_nodes(client: "Client", name: str) -> str:
    for pool in client.pools():
        if pool["id"] == name:
            return compress(name, (Span(0, int(pool["nodes"]), 1),))
    raise CommandError(f"there is no pool {name}", ExitCode.NOT_FOUND)


@reservation.command("list")
@output_options
@click.pass_context
def list_reservations(context: click.Context, output: Output) -> None:
    """List the reservations that have not ended, as sinfo -T does."""
    print_rows(open_client(context).reservations(), COLUMNS, output)


@reservation.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Show all there is to know of a reservation."""
    found = open_client(context).reservation(name)
    if as_json:
        print_json(found)
        return
    fields = _fields(found)
    width = max(map(len, fields))
    for field, value in fields.items():
        click.echo(f"{field:<{width}}  {safe(dash(value))}")


def _fields(row: Row) -> dict[str, object]:
    return {
        "Reservation": row["id"],
        "Purpose": row["purpose"],
        "State": row["state"],
        "Begins": format_time(row["start_at"]),
        "Ends": format_time(row["end_at"]),
        "Duration": format_elapsed(int(row["duration_seconds"])),
        "Queue": row["queue"],
        "Owner": row["owner"],
        "Pool": row["pool"],
        "Site": row["site"],
        "Nodes": row["nodes"],
        "GPUs": row["gpus"],
        "Node list": row["node_list"],
        "Job": row["job"],
        "Reason": row["reason"],
    }


@reservation.command("delete")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_context
def delete(context: click.Context, names: tuple[str, ...]) -> int:
    """Cancel reservations, or end those that have begun; what they held is for all again."""
    return act_on_each(names, open_client(context).delete_reservation)
