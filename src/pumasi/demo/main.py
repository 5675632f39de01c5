"""`pumasi demo`: the main job on real input, in about two minutes, with nothing left behind."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pumasi.client.client import Client
from pumasi.client.errors import PumasiError
from pumasi.demo import report
from pumasi.demo.server import Server, ServerFailed, connect, launch, stop
from pumasi.demo.village import LENDER, DemoFailed, Sight, Village
from pumasi.demo.workload import GPUS_PER_TRACE_GPU, TRACE, demo_jobs
from pumasi.twin.workloads.trace import TraceProblem

CLOCK_RATE = 120  # three hours of the trace in a minute and a half; a reclaim window of 15 minutes in 7.5 seconds
AS_OF = "2031-12-31"  # the whole programme in service
PLAIN_SECONDS = 5.0
AGENT_SECONDS = 60

FAILURES = (DemoFailed, ServerFailed, TraceProblem, PumasiError)

Row = dict[str, Any]


def run(console: Console, keep: bool, picture: Path | None = None) -> None:
    """Run the demo; `keep` leaves the control plane running, `picture` gets the closing tables as SVG.

    :raises DemoFailed: if something that must happen does not.
    :raises TraceProblem: if the trace cannot be read.
    :raises ServerFailed: if the control plane does not start or stop.
    """
    jobs = demo_jobs(TRACE, CLOCK_RATE)
    folder = Path(tempfile.mkdtemp(prefix="pumasi-demo-"))
    console.print(
        f"The Korean plan: 260,000 GPUs, every site with an agent. Fleet time runs {CLOCK_RATE} times faster."
    )
    console.print(
        f"{len(jobs):,} jobs of the Philly trace ({TRACE.name}), each with {GPUS_PER_TRACE_GPU} times its GPUs."
    )
    arguments = ["--plan", "korea", "--as-of", AS_OF, "--agents", "all", "--clock-rate", str(CLOCK_RATE)]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # whatever ends it, it cleans up as for Ctrl-C
    process, ready = launch(folder, arguments)
    try:
        server = connect(process, ready, folder / "server.log")
        _show(console, server, Village(Client(server=server.url, token=server.token), jobs, CLOCK_RATE), picture)
    except BaseException:
        _clean_up(process, folder)
        raise
    if keep:
        _say_how_to_look(console, server, folder)
        return
    console.print("Stopping the control plane and its agents.")
    _clean_up(process, folder)


def _clean_up(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """End what was started and remove its data. A second Ctrl-C does not leave half of it behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop(process)
    shutil.rmtree(folder)


def _show(console: Console, server: Server, village: Village, picture: Path | None) -> None:
    with Client(server=server.url, token=server.token) as client:
        _wait_for_agents(console, client)
        _watch(console, village)
        console.print("All jobs came. Ending what still runs, to close the books.")
        _close(console, client, village.settle(), picture)


def _wait_for_agents(console: Console, client: Client) -> None:
    deadline = time.monotonic() + AGENT_SECONDS
    fleet = client.fleet()
    while fleet["sites_connected"] < fleet["sites"]:
        if time.monotonic() > deadline:
            raise DemoFailed(f"only {fleet['sites_connected']} of {fleet['sites']} agents are connected")
        time.sleep(0.1)
        fleet = client.fleet()
    console.print(
        f"{fleet['sites']} sites connected, {fleet['gpus_total']:,} GPUs in service: {fleet['gpus_in_service']:,}."
    )


def _watch(console: Console, village: Village) -> None:
    if not console.is_terminal:
        _watch_plain(console, village)
        return
    with Live(console=console, refresh_per_second=4) as live:
        for sight in village.live():
            live.update(_screen(sight))


def _watch_plain(console: Console, village: Village) -> None:
    told, said = 0, 0.0
    for sight in village.live():
        for sentence in sight.story[told:]:
            console.print(sentence, soft_wrap=True)
        told = len(sight.story)
        if time.monotonic() - said > PLAIN_SECONDS:
            said = time.monotonic()
            numbers = f"{sight.submitted:,} of {sight.jobs:,} jobs submitted, {sight.active:,} active"
            console.print(
                f"         {numbers}, {sight.waiting:,} waiting, Hyundai lends {sight.lent_gpus:,} GPUs", soft_wrap=True
            )
    for sentence in village.sight.story[told:]:
        console.print(sentence, soft_wrap=True)


def _screen(sight: Sight) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("jobs submitted", ProgressBar(sight.jobs, sight.submitted, width=40), f"{sight.submitted:,}")
    for owner in sight.owners:
        book = owner["total"]
        bar = ProgressBar(max(1, book["due"]), book["home"] + book["lent"], width=40)
        lent, borrowed = f"lends {book['lent']:,}", f"borrows {book['borrowed']:,}"
        table.add_row(owner["title"], bar, f"{book['home']:,} home", lent, borrowed)
    whole = Table.grid()
    whole.add_row(table)
    for sentence in sight.story[-8:]:
        whole.add_row(sentence)
    return whole


def _close(console: Console, client: Client, jobs: list[Row], picture: Path | None) -> None:
    """Print the tables, and check that the ledger adds up and the promise was kept."""
    usage = client.usage(by="owner,lender")
    owners = client.shares()["owners"]
    reclaims = list(client.reclaims())
    tables = (
        report.owners_table(owners, usage["items"]),
        report.loans_table(usage["items"]),
        report.reclaims_table(reclaims),
        report.jobs_table(jobs),
    )
    for table in tables:
        console.print(table)
    console.print(report.verdict(reclaims, LENDER))
    posted, allocated = usage["total"]["gpu_milliseconds"], report.allocated_gpu_milliseconds(jobs)
    console.print(
        f"Ledger {posted:,} GPU-ms; integral of all allocations {allocated:,} GPU-ms; difference {posted - allocated}."
    )
    if picture is not None:
        _draw(picture, tables)
    if posted != allocated:
        raise DemoFailed("the ledger does not add up to the allocations")
    if not any(row["kept"] for row in reclaims) or any(row["kept"] is False for row in reclaims):
        raise DemoFailed("a reclaim took longer than its lending contract promises")


def _draw(picture: Path, tables: tuple[Table, ...]) -> None:
    canvas = Console(record=True, width=96, file=StringIO())
    for table in tables:
        canvas.print(table)
    canvas.save_svg(str(picture), title="make demo")


def _say_how_to_look(console: Console, server: Server, folder: Path) -> None:
    console.print(f"Pumasi keeps running at {server.url} (process {server.pid}, data in {folder}).")
    path = "" if shutil.which("pumasi") else f' PATH="{Path(sys.argv[0]).parent.resolve()}:$PATH"'
    for line in (
        f"Look around:  export PUMASI_SERVER={server.url} PUMASI_TOKEN={server.token}{path}",
        "              pumasi shares; pumasi queue; pumasi reclaims; pumasi usage; pumasi info",
        f"Stop it:      kill {server.pid}; then rm -r {folder} removes its data",
    ):
        console.print(line, soft_wrap=True, highlight=False)  # to be copied: no line may be broken
