"""`pumasi demo --slurm`: the village custom on five real Slurm clusters; one controller is killed meanwhile."""

import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from pumasi.client.client import Client
from pumasi.client.errors import PumasiError
from pumasi.demo import report
from pumasi.demo.server import ServerFailed
from pumasi.demo.slurm_fleet import FleetTrouble, SlurmFleet, slurm_fleet
from pumasi.demo.village import DemoFailed
from pumasi.demo.workload import QUEUES, TRACE, WINDOW_FROM_MS, WINDOW_MS
from pumasi.testing.slurm_cluster import SlurmTrouble
from pumasi.testing.slurm_files import missing_slurm
from pumasi.twin.workloads.philly import read_philly
from pumasi.twin.workloads.trace import TraceJob, TraceProblem, window

JOBS = 60
COMPRESSION = 400  # an hour of the trace in nine seconds
LONGEST_SECONDS, SHORTEST_SECONDS = 20.0, 1.0
ARRIVAL_SECONDS = 0.4
MOST_GPUS = 32  # a cluster here has 32
LENDER, LENDER_QUEUE, LENDER_POOL = "hyundai", "hyundai/driving", "hyundai-b200"
KILLED = "sk"
LENT_SECONDS, END_SECONDS = 60.0, 300.0
TELL_SECONDS = 10.0

FAILURES = (DemoFailed, FleetTrouble, ServerFailed, SlurmTrouble, TraceProblem, PumasiError)

Row = dict[str, Any]


def run(console: Console, keep: bool, picture: Path | None) -> None:
    """Run the demo. `keep` leaves the data for a look, not the clusters; there is no `picture` of this one.

    :raises DemoFailed: if something that must happen does not.
    """
    problem = missing_slurm()
    if problem:
        raise DemoFailed(problem)
    if picture is not None:
        raise DemoFailed("there is no picture of the demo on Slurm")
    folder = Path(tempfile.mkdtemp(prefix="pumasi-slurm-"))
    console.print(
        "Starting five Slurm clusters of four nodes with eight GPUs each; each joins with an agent of its own.",
        soft_wrap=True,
    )
    try:
        with slurm_fleet(folder) as fleet:
            _show(console, fleet)
            console.print("Stopping agents, control plane and clusters.")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        console.print(f"Logs, journals and output of runs are in {folder}.", soft_wrap=True)


def _show(console: Console, fleet: SlurmFleet) -> None:
    began = time.monotonic()

    def tell(sentence: str) -> None:
        console.print(f"{time.monotonic() - began:5.1f} s  {sentence}", soft_wrap=True)

    tell(f"{len(fleet.clusters)} sites connected, {fleet.client.fleet()['gpus_in_service']} GPUs in service")
    tell(f"{JOBS} jobs of the Philly trace come, {COMPRESSION} times as fast; Hyundai has none")
    for job in trace_jobs():
        fleet.client.submit(job)
        time.sleep(ARRIVAL_SECONDS)
    _reclaim(fleet, tell)
    tell(f"kill -9 of {KILLED}'s slurmctld while jobs run and wait there; it comes back a second later")
    fleet.clusters[KILLED].kill_controller()
    time.sleep(1)
    fleet.clusters[KILLED].start_controller()
    _see_out(fleet, tell)
    for node in fleet.clusters[KILLED].resume_drained():
        tell(f"{KILLED}'s Slurm drained {node} when it found a job there that it had forgotten; its staff resumed it")
    tell("every job has ended")
    _close(console, fleet)


def _reclaim(fleet: SlurmFleet, tell: Any) -> None:
    borrowers = [_long_job(queue) for queue in ("sk/language", "naver/cloud", "samsung/chips") for _ in range(2)]
    fleet.client.submit(borrowers)
    lent = fleet.until(lambda: _lent(fleet.client), f"nobody borrows from {LENDER}", LENT_SECONDS)
    big = fleet.client.submit(_job("atria-pretrain", LENDER_QUEUE, MOST_GPUS, 5.0) | {"pools": [LENDER_POOL]})
    tell(f"{lent} of Hyundai's {MOST_GPUS} GPUs are lent when its own job arrives, which needs all of them")
    fleet.wait_state(big, "running", "succeeded")
    (reclaim,) = [row for row in fleet.client.reclaims() if row["claimant"] == big]
    tell(
        f"{len(reclaim['victims'])} borrowers got notice and queued again; Hyundai's job runs "
        f"{reclaim['took_seconds']} s after it came, {reclaim['promised_seconds']} s were promised"
    )


def _see_out(fleet: SlurmFleet, tell: Any) -> None:
    """Wait until every job has ended, and tell now and then how many have not."""
    tell_at = time.monotonic() + TELL_SECONDS

    def has_ended() -> bool:
        nonlocal tell_at
        states = Counter(job["display_state"] for job in fleet.client.jobs(state=["live"]))
        if states and time.monotonic() > tell_at:
            tell_at += TELL_SECONDS
            tell("live jobs: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
        return not states

    fleet.until(has_ended, "jobs are still live", END_SECONDS)


def _lent(client: Client) -> int:
    owners = client.shares()["owners"]
    return next(int(owner["total"]["lent"]) for owner in owners if owner["owner"] == LENDER)


def trace_jobs() -> list[Row]:
    """The first jobs of the demo's window of the Philly trace, small and short enough for this machine.

    :raises TraceProblem: if the trace cannot be read.
    """
    running, submitted = window(read_philly(TRACE), WINDOW_FROM_MS, WINDOW_FROM_MS + WINDOW_MS)
    return [_small(job, number) for number, job in enumerate([*running, *submitted][:JOBS], 1)]


def _small(job: TraceJob, number: int) -> Row:
    owner = QUEUES[job.group].split("/")[0]
    queue = {"samsung": "samsung/chips", "sk": "sk/language", "naver": "naver/cloud", "public": "public/kaist"}[owner]
    seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, job.duration_ms / 1000 / COMPRESSION))
    return _job(f"philly-{number}", queue, min(job.gpus, MOST_GPUS), seconds)


def _long_job(queue: str) -> Row:
    return _job("long", queue, 16, LONGEST_SECONDS)


def _job(name: str, queue: str, gpus: int, seconds: float) -> Row:
    script = f"""#!/bin/sh
trap 'echo "notice: state saved, leaving"; kill $!; exit 143' TERM
echo "$PUMASI_GPUS GPUs on $SLURM_JOB_NODELIST of $PUMASI_SITE"
sleep {seconds:.1f} & wait $!
"""
    return {"name": name, "queue": queue, "gpus": gpus, "time_limit_seconds": 600, "script": script}


def _close(console: Console, fleet: SlurmFleet) -> None:
    """Print the tables; check that the books add up, no job was lost, and the clusters themselves saw the work."""
    jobs = list(fleet.client.jobs())
    usage = fleet.client.usage(by="owner,lender")
    reclaims = list(fleet.client.reclaims())
    owners = fleet.client.shares()["owners"]
    for table in (
        report.owners_table(owners, usage["items"], "seconds"),
        report.reclaims_table(reclaims),
        report.jobs_table(jobs),
    ):
        console.print(table)
    for site, cluster in fleet.clusters.items():
        states = Counter(cluster.ask("squeue", "--noheader", "--states=all", "--format=%T").split())
        shown = ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
        console.print(f"{site}'s own squeue: {shown or 'no jobs'}", soft_wrap=True)
    unfinished = [job["id"] for job in jobs if job["state"] != "succeeded"]
    posted, allocated = usage["total"]["gpu_milliseconds"], report.allocated_gpu_milliseconds(jobs)
    console.print(f"Ledger {posted:,} GPU-ms; integral of all allocations {allocated:,} GPU-ms.", soft_wrap=True)
    if unfinished:
        raise DemoFailed(f"jobs {unfinished} did not come to a good end")
    if posted != allocated:
        raise DemoFailed("the ledger does not add up to the allocations")
    if not all(row["kept"] for row in reclaims):
        raise DemoFailed("a reclaim took longer than its lending contract promises")
