"""Commands on single jobs: show, explain, print their output, cancel, hold and release."""

import sys
from collections.abc import Iterator

import click

from pumasi.cli.arguments import parse_job_numbers
from pumasi.cli.durations import format_elapsed
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.job_rows import charges, exit_code, gpu_count
from pumasi.cli.output import Row, dash, print_json, safe
from pumasi.cli.session import act_on_each, open_client
from pumasi.cli.times import format_time, seconds_between

shape_option = click.option(
    "-o", "--output", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True
)
json_option = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")


@click.command()
@click.argument("number", metavar="JOB")
@click.option("--accounts", is_flag=True, help="Add what the site's own accounting (slurmdbd) has of its last attempt.")
@shape_option
@json_option
@click.pass_context
def job(context: click.Context, number: str, accounts: bool, shape: str, as_json: bool) -> None:
    """Show all there is to know of one job: what it asked for, its attempts, what it was charged to."""
    client = open_client(context)
    found = client.job(_one(number))
    if accounts:
        found["accounts"] = client.accounts(_one(number))
    if as_json or shape == "json":
        print_json(found)
        return
    _print_fields(_job_fields(found))
    for line in _timeline(found):
        click.echo(line)
    if accounts:
        _print_accounts(found["accounts"])


def _print_accounts(rows: list[Row]) -> None:
    if not rows:
        click.echo("Accounts: the site's accounting has nothing of it, or no longer")
    for row in rows:
        click.echo(f"Accounts of {safe(row.get('JobID', '?'))}")
        _print_fields([(f"  {safe(name)}", value) for name, value in row.items() if name != "JobID"])


def _one(text: str) -> int:
    numbers = parse_job_numbers([text])
    if len(numbers) != 1:
        raise CommandError(f"{text!r} is not one job number", ExitCode.USAGE)
    return numbers[0]


def _print_fields(fields: list[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        click.echo(f"{name:<{width}}  {safe(dash(value))}")


def _job_fields(row: Row) -> list[tuple[str, object]]:
    return [
        ("Job", row["id"]),
        ("Name", row["name"]),
        ("User", row["user"]),
        ("Queue", row["queue"]),
        ("State", f"{row.get('display_state') or row['state']} ({row.get('slurm_state')})"),
        ("Reason", row.get("reason")),
        ("GPUs", gpu_count(row)),
        ("Nodes", row.get("nodes")),
        ("Pool", row.get("pool")),
        ("Site", row.get("site")),
        ("Node list", row.get("node_list")),
        ("Charged to", charges(row)),
        ("Time limit", format_elapsed(int(row.get("time_limit_seconds") or 0))),
        ("Submitted", format_time(row.get("submitted_at"))),
        ("Started", format_time(row.get("started_at"))),
        ("Ended", format_time(row.get("ended_at"))),
        ("Exit code", exit_code(row) if row.get("ended_at") else None),
    ]


def _timeline(row: Row) -> Iterator[str]:
    """The attempts, oldest first, each with what happened to it and when."""
    for attempt in row.get("attempts") or ():
        place = safe(" ".join(part for part in (str(attempt.get("node_list") or ""), _held(attempt)) if part))
        yield f"Attempt {attempt.get('number')}: {place}"
        for name, at, text in _steps(attempt):
            yield f"  {format_time(at):<19}  {name:<8}  {safe(text)}".rstrip()


def _held(attempt: Row) -> str:
    """`2 GPUs, 20 CPUs, 64,000 MiB`, the latter two of each node; what is not counted is left out."""
    names = (("gpus", "GPUs"), ("cpus_per_node", "CPUs"), ("memory_mib_per_node", "MiB"))
    return ", ".join(f"{attempt[field]:,} {name}" for field, name in names if attempt.get(field))


def _steps(attempt: Row) -> Iterator[tuple[str, str, str]]:
    stop = attempt.get("stop") or {}
    placed, started, ended = (attempt.get(f"{name}_at") for name in ("placed", "started", "ended"))
    if placed:
        yield "placed", placed, charges(attempt)
    if started:
        yield "started", started, f"after {format_elapsed(seconds_between(placed, started))}"
    if stop.get("ordered_at"):
        claimant = f" for job {stop['claimant']}" if stop.get("claimant") else ""
        yield (
            "stopping",
            stop["ordered_at"],
            f"{stop.get('cause')}{claimant}, killed at {format_time(stop.get('kill_at'))}",
        )
    if ended:
        detail = f": {attempt['detail']}" if attempt.get("detail") else ""
        yield "ended", ended, f"{attempt.get('outcome')}, exit code {exit_code(attempt)}{detail}"


@click.command()
@click.argument("number", metavar="JOB")
@shape_option
@json_option
@click.pass_context
def why(context: click.Context, number: str, shape: str, as_json: bool) -> None:
    """Say what blocks a job, what would start it, and when it may start."""
    client = open_client(context)
    found = client.why(_one(number))
    if as_json or shape == "json":
        print_json(found)
        return
    for line in why_lines(client.job(_one(number)), found):
        click.echo(line)


def why_lines(row: Row, found: Row) -> Iterator[str]:
    """The answer in sentences: state, reasons in order of weight, what would start it, estimate."""
    yield f"Job {row['id']} ({safe(row['name'])}): {safe(row['display_state'])}"
    reasons = found.get("reasons") or []
    if reasons:
        yield "What blocks it:"
    elif found.get("note"):
        note = safe(found["note"])
        yield f"{note[0].upper()}{note[1:]}."
    for position, reason in enumerate(reasons, 1):
        where = f"{reason['pool']}: " if reason.get("pool") else ""
        word = f"  [{reason['slurm']}]" if reason.get("slurm") else ""
        yield f"  {position}. {safe(where)}{safe(reason.get('detail', ''))}{safe(word)}"
        if reason.get("would_start"):
            yield f"     would help: {safe(reason['would_start'])}"
    if found.get("would_start"):
        yield f"What would start it: {safe(found['would_start'])}"
    if found.get("estimated_start_at"):
        start = format_time(found["estimated_start_at"])
        yield f"By the time limits of what runs and of what waits before it, it starts at {start} or sooner."
    elif reasons:
        yield "When: cannot be told; what runs now does not free enough by its time limits."


@click.command()
@click.argument("number", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("-e", "--stderr", "errors", is_flag=True, help="Its error output instead of its output.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Start at this byte.")
@click.pass_context
def logs(context: click.Context, number: str, follow: bool, errors: bool, offset: int) -> None:
    """Print what a job wrote."""
    stream = "stderr" if errors else "stdout"
    for data in open_client(context).logs(_one(number), stream=stream, follow=follow, offset=offset):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("numbers", metavar="JOB...", nargs=-1, required=True)
@click.pass_context
def cancel(context: click.Context, numbers: tuple[str, ...]) -> int:
    """Cancel jobs: at once those that wait; those that run are told to stop."""
    return act_on_each(parse_job_numbers(numbers), open_client(context).cancel, "job ")


@click.command()
@click.argument("numbers", metavar="JOB...", nargs=-1, required=True)
@click.pass_context
def hold(context: click.Context, numbers: tuple[str, ...]) -> int:
    """Keep waiting jobs from starting until they are released."""
    return act_on_each(parse_job_numbers(numbers), open_client(context).hold, "job ")


@click.command()
@click.argument("numbers", metavar="JOB...", nargs=-1, required=True)
@click.pass_context
def release(context: click.Context, numbers: tuple[str, ...]) -> int:
    """Let held jobs wait for their turn again."""
    return act_on_each(parse_job_numbers(numbers), open_client(context).release, "job ")
