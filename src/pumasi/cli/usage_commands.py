"""Reports: GPU-hours from the ledger, ended jobs, and reclaims against their promise."""

from datetime import datetime
from itertools import islice
from typing import Any

import click

from pumasi.cli.arguments import api_moment, local_moment, split_names
from pumasi.cli.durations import format_elapsed, format_gpu_hours
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.job_rows import api_states, ended_columns, in_states, parse_states
from pumasi.cli.output import Column, Format, Output, Row, output_options, print_json, print_rows
from pumasi.cli.session import open_client
from pumasi.cli.times import format_time, parse_time

KEYS = ("owner", "queue", "pool", "day", "lender")

period_options = (
    click.option("-S", "--from", "since", metavar="TIME", help="From a day (2027-01-31) or time; all by default."),
    click.option("-E", "--until", metavar="TIME", help="Until a day or time; now by default."),
)


def _with_period(command: Any) -> Any:
    for option in reversed(period_options):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--by", metavar="KEYS", default="owner", show_default=True, help=f"Any of {', '.join(KEYS)}.")
@_with_period
@output_options
@click.pass_context
def usage(context: click.Context, by: str, since: str | None, until: str | None, output: Output) -> None:
    """Report GPU-hours from the ledger: all, those at home and those borrowed; and the total, which adds up.

    By owner alone it also tells what each lent. Days are Korean days. 'pumasi usage jobs' lists the jobs that have
    ended instead, as sacct does.
    """
    if context.invoked_subcommand is not None:
        return
    keys = split_names(by)
    if not keys or not set(keys) <= set(KEYS):
        raise CommandError(f"--by takes any of {', '.join(KEYS)}", ExitCode.USAGE)
    client = open_client(context)
    period = {"from": api_moment(since), "until": api_moment(until)}
    if output.json:
        print_json(client.usage(by=",".join(keys), **period))
        return
    # What is borrowed and what is lent come from one answer: a moment later, both have grown.
    with_lent = keys == ["owner"]
    found = client.usage(by="owner,lender" if with_lent else ",".join(keys), **period)
    rows = report_rows(_by_owner(found) if with_lent else found, keys, _lent(found) if with_lent else None)
    if output.format is Format.CSV:
        rows = rows[:-1]  # who reads it adds up themselves, and would count everything twice
    print_rows(rows, _report_columns(keys, with_lent), output)


def _by_owner(found: Row) -> Row:
    """A report by owner and lender, summed by owner."""
    sums: dict[str, dict[str, Any]] = {}
    for row in found["items"]:
        owner = str(row["by"]["owner"])
        total = sums.setdefault(owner, {"by": {"owner": owner}})
        for name in ("gpu_milliseconds", "home_gpu_milliseconds", "borrowed_gpu_milliseconds"):
            total[name] = int(total.get(name, 0)) + int(row[name])
    return {**found, "items": list(sums.values())}


def _lent(found: Row) -> dict[str, int]:
    """GPU-milliseconds that others used, by lender."""
    lent: dict[str, int] = {}
    for row in found["items"]:
        lender = str(row["by"]["lender"])
        if row["by"]["owner"] != lender:
            lent[lender] = lent.get(lender, 0) + int(row["gpu_milliseconds"])
    return lent


def report_rows(found: Row, keys: list[str], lent: dict[str, int] | None) -> list[Row]:
    """The rows of a report and, last, its total; `lent` adds owners that lent and used nothing."""
    rows: list[Row] = [{**row["by"], **row} for row in found["items"]]
    if lent is not None:
        seen = {str(row["owner"]) for row in rows}
        rows += [{"owner": owner, "gpu_milliseconds": 0} for owner in sorted(lent.keys() - seen)]
        rows = [{**row, "lent_gpu_milliseconds": lent.get(str(row["owner"]), 0)} for row in rows]
    total = {**found["total"], keys[0]: "TOTAL", "lent_gpu_milliseconds": sum((lent or {}).values())}
    return [*rows, total]


def _report_columns(keys: list[str], with_lent: bool) -> list[Column]:
    fields = {"GPU_HOURS": "gpu", "HOME": "home_gpu", "BORROWED": "borrowed_gpu"} | (
        {"LENT": "lent_gpu"} if with_lent else {}
    )
    return [_key_column(key) for key in keys] + [_hours_column(*pair) for pair in fields.items()]


def _key_column(key: str) -> Column:
    return Column(key.upper(), lambda row: str(row.get(key, "")))


def _hours_column(heading: str, field: str) -> Column:
    return Column(heading, lambda row: format_gpu_hours(int(row.get(f"{field}_milliseconds") or 0)))


@usage.command("jobs")
@click.option("-u", "--user", metavar="NAME", help="Only this user's jobs.")
@click.option("-A", "--account", "--queue", "queue_path", metavar="QUEUE", help="Only of this queue and below.")
@click.option("-s", "--state", "states", metavar="STATES", default="", help="Only in these states: CD, F, TO, ...")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most this many.")
@_with_period
@output_options
@click.pass_context
def usage_jobs(
    context: click.Context,
    user: str | None,
    queue_path: str | None,
    states: str,
    limit: int,
    since: str | None,
    until: str | None,
    output: Output,
) -> None:
    """List jobs that have ended, newest first, as sacct does."""
    words = parse_states(states) or ["ENDED"]
    first, last = local_moment(since), local_moment(until)
    client = open_client(context)
    wanted = ["ended"] if "ALL" in words else api_states(words)
    rows = in_states(client.jobs(state=wanted, user=user, queue=queue_path), words)
    found = list(islice((row for row in rows if _ended_within(row, first, last)), limit + 1))
    print_rows(found[:limit], ended_columns(), output)
    if len(found) > limit:
        click.echo(f"pumasi: note: only the newest {limit} are shown; --limit shows more", err=True)


def _ended_within(row: Row, first: datetime | None, last: datetime | None) -> bool:
    ended = parse_time(row.get("ended_at"))
    return ended is not None and (first is None or ended >= first) and (last is None or ended < last)


def _kept(row: Row) -> str:
    if row.get("kept") is None:
        return str(row["state"])  # open, or released: the claimant no longer needed them
    return "yes" if row["kept"] else "NO"


_KEPT_STYLES = {"yes": "green", "NO": "bold red", "open": "yellow"}
RECLAIM_COLUMNS = [
    Column("CLAIMANT", lambda row: int(row["claimant"])),
    Column("OWNER", lambda row: str(row["owner"])),
    Column("POOL", lambda row: str(row["pool"])),
    Column("GPUS", lambda row: int(row["gpus"])),
    Column("ASKED", lambda row: format_time(row.get("asked_at")), wide=True),
    Column("CLAIMED", lambda row: format_time(row.get("claimed_at"))),
    Column("PROMISED", lambda row: format_elapsed(int(row["promised_seconds"]))),
    Column("TOOK", lambda row: "-" if row.get("took_seconds") is None else format_elapsed(int(row["took_seconds"]))),
    Column("KEPT", _kept, style=lambda row: _KEPT_STYLES.get(_kept(row), "")),
    Column("EVICTED", lambda row: int(row["evicted_gpus"])),
    Column("VICTIMS", lambda row: ",".join(str(job) for job in row.get("victims") or ()) or "-", wide=True),
]


@click.command()
@click.option("--owner", metavar="NAME", help="Only reclaims of this owner.")
@output_options
@click.pass_context
def reclaims(context: click.Context, owner: str | None, output: Output) -> None:
    """List reclaims: which owner claimed its GPUs back, what it was promised, how long it took.

    ASKED is since when the job waited; the promise counts from CLAIMED, when its owner's entitlement could carry it.
    """
    rows = open_client(context).reclaims()
    print_rows([row for row in rows if not owner or row["owner"] == owner], RECLAIM_COLUMNS, output)
