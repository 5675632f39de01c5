"""`python -m bench.slurm`: Pumasi beside plain sbatch on the same real clusters; writes `bench/results/slurm.json`.

Both are judged by what the jobs themselves write: the moment of their first line.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import slurm_agent
from bench.measure import Figures, amend
from bench.slurm_process import running, until, weigh
from pumasi.demo.slurm_fleet import SlurmFleet, slurm_fleet
from pumasi.plans.locate import find_plan

ONE_BY_ONE = 15
AT_ONCE = 200
JOB_SECONDS = 10  # of the jobs that last a little
OUTAGE_NODES, OUTAGE_JOBS = 125, 1000
QUEUE_SECONDS = 600  # nothing is given back while a thousand jobs start

QUEUES = ("samsung/chips", "sk/language", "hyundai/driving", "naver/cloud", "public/kaist")

NOTES = {
    "submit_to_running_ratio": "median time from submission to a job's first line, idle cluster: Pumasi / plain sbatch",
    "submit_to_running_seconds": "the same, Pumasi's own",
    "sbatch_to_running_seconds": "the same, plain sbatch's",
    "jobs_per_second_ratio": f"{AT_ONCE} one-GPU jobs on five clusters, first submission to last end: Pumasi / sbatch",
    "jobs_per_second": "the same, Pumasi's own",
    "sbatch_jobs_per_second": "the same, plain sbatch's; one loop for each cluster",
    "jobs_per_second_ratio_of_10_second_jobs": "the same ratio, where each job lasts ten seconds",
    "reconcile_1000_jobs_seconds": "agent and control plane killed, 1,000 runs end meanwhile: from the restart of both "
    "until the control plane knows every end",
    "agent_memory_mib": "resident memory of an agent with 1,000 live runs",
    "agent_cpu_percent": "CPU of an agent with 1,000 live runs, of one core",
}


def main() -> None:
    """Measure; close what else runs on this machine."""
    with tempfile.TemporaryDirectory(prefix="pumasi-slurm-") as folder:
        with slurm_fleet(Path(folder) / "f", queue_seconds=QUEUE_SECONDS) as fleet:
            figures = _latency(fleet, Path(folder)) | _throughput(fleet, Path(folder))
            figures |= _throughput_of_longer_jobs(fleet, Path(folder))
        figures |= _outage(Path(folder))
        figures |= slurm_agent.agent_with_many_runs(Path(folder) / "a", one_site(slurm_agent.NODES))
    amend("slurm", figures, NOTES | slurm_agent.NOTES)


# --- one after the other ---------------------------------------------------------------------------------------------


def _latency(fleet: SlurmFleet, folder: Path) -> Figures:
    marks = folder / "latency"
    marks.mkdir()
    ours = [_lag(marks / f"ours-{number}", lambda file: _submit(fleet, file)) for number in range(ONE_BY_ONE)]
    plain = [
        _lag(marks / f"plain-{number}", lambda file: _sbatch(fleet, "public", file)) for number in range(ONE_BY_ONE)
    ]
    mine, theirs = statistics.median(ours), statistics.median(plain)
    return {
        "submit_to_running_ratio": mine / theirs,
        "submit_to_running_seconds": mine,
        "sbatch_to_running_seconds": theirs,
    }


def _lag(file: Path, submit: Callable[[Path], object]) -> float:
    """Seconds from the submission to the first line of the job, which writes the time into `file`."""
    began = time.time()
    submit(file)
    until(lambda: file.exists() and file.read_text().endswith("\n"), f"{file.name} does not run")
    time.sleep(0.5)  # both sides come to rest
    return float(file.read_text()) - began


def _script(file: Path, seconds: int = 0) -> str:
    return f"#!/bin/sh\ndate +%s.%N > {file}\n" + (f"sleep {seconds}\n" if seconds else "")


def _submit(fleet: SlurmFleet, file: Path) -> None:
    fleet.client.submit(_job("public/kaist", _script(file), sites=["public"]))


def _job(queue: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": "bench", "queue": queue, "gpus": 1, "time_limit_seconds": 3600, "script": script} | fields


def _sbatch(fleet: SlurmFleet, site: str, file: Path, seconds: int = 0) -> None:
    fleet.clusters[site].submit(_script(file, seconds), "--gres=gpu:1", "--output=/dev/null", "--time=60")


# --- many at once ----------------------------------------------------------------------------------------------------


def _throughput(fleet: SlurmFleet, folder: Path) -> Figures:
    mine, theirs = _jobs_per_second(fleet, folder, 0)
    return {"jobs_per_second_ratio": mine / theirs, "jobs_per_second": mine, "sbatch_jobs_per_second": theirs}


def _throughput_of_longer_jobs(fleet: SlurmFleet, folder: Path) -> Figures:
    mine, theirs = _jobs_per_second(fleet, folder, JOB_SECONDS)
    return {f"jobs_per_second_ratio_of_{JOB_SECONDS}_second_jobs": mine / theirs}


def _jobs_per_second(fleet: SlurmFleet, folder: Path, seconds: int) -> tuple[float, float]:
    """Of jobs that last so long: Pumasi's and plain sbatch's."""
    ours, plain = folder / f"ours-{seconds}", folder / f"plain-{seconds}"
    ours.mkdir()
    plain.mkdir()
    began = time.monotonic()
    scripts = [_script(ours / str(number), seconds) for number in range(AT_ONCE)]
    jobs = [_job(QUEUES[number % len(QUEUES)], script) for number, script in enumerate(scripts)]
    fleet.client.submit(jobs)
    until(lambda: not list(fleet.client.jobs(state=["live"], limit=1)), "jobs do not end")
    mine = AT_ONCE / (time.monotonic() - began)
    began = time.monotonic()
    sites = list(fleet.clusters)
    with ThreadPoolExecutor(len(sites)) as pool:
        list(pool.map(lambda place: _loop(fleet, sites, plain, place, seconds), range(len(sites))))
    until(lambda: all(_is_idle(fleet, site) for site in sites), "plain jobs do not end")
    theirs = AT_ONCE / (time.monotonic() - began)
    if len(list(ours.iterdir())) != AT_ONCE or len(list(plain.iterdir())) != AT_ONCE:
        sys.exit("bench: jobs are missing")
    return mine, theirs


def _loop(fleet: SlurmFleet, sites: list[str], marks: Path, place: int, seconds: int) -> None:
    for number in range(place, AT_ONCE, len(sites)):
        _sbatch(fleet, sites[place], marks / str(number), seconds)


def _is_idle(fleet: SlurmFleet, site: str) -> bool:
    return not fleet.clusters[site].ask("squeue", "--noheader", "--states=PD,R,CG,CF")


# --- an outage -------------------------------------------------------------------------------------------------------


def _outage(folder: Path) -> Figures:
    """One site large enough for 1,000 runs at once, all of which end while agent and control plane are dead."""
    plan = folder / "plan.yaml"
    plan.write_text(one_site(OUTAGE_NODES), encoding="utf-8")
    with slurm_fleet(folder / "o", ["public"], str(plan), OUTAGE_NODES, QUEUE_SECONDS) as fleet:
        end_at = folder / "end"
        script = f"#!/bin/sh\nwhile [ ! -s {end_at} ]; do sleep 5; done\n"
        fleet.client.submit([_job("public/kaist", script) for _ in range(OUTAGE_JOBS)])
        until(lambda: running(fleet.client) == OUTAGE_JOBS, "not all jobs run", 2.0)
        memory_mib, cpu_percent = weigh(fleet.agent_pid("public"))
        figures = {"agent_memory_mib": memory_mib, "agent_cpu_percent": cpu_percent}
        fleet.kill_agent("public")
        fleet.kill_control()
        end_at.write_text("now\n")
        until(lambda: _is_idle(fleet, "public"), "the runs do not end")
        began = time.monotonic()
        fleet.start_control()
        fleet.start_agent("public")
        until(lambda: not list(fleet.client.jobs(state=["live"], limit=1)), "the ends are not known")
        figures["reconcile_1000_jobs_seconds"] = time.monotonic() - began
        if any(job["state"] != "succeeded" for job in fleet.client.jobs()):
            sys.exit("bench: a job was lost in the outage")
    return figures


def one_site(nodes: int) -> str:
    """The shipped plan with Slurm at the public site alone, and that one large; the other sites have nobody's agent."""
    head, _, rest = find_plan("five-slurm").read_text(encoding="utf-8").partition("  public-b200:\n")
    old = "nodes: 4\n    entitlements: {public: 32}"
    assert old in rest, "the plan has changed"
    new = f"nodes: {nodes}\n    entitlements: {{public: {nodes * 8}}}"
    return f"{head}  public-b200:\n{rest.replace(old, new, 1)}"


if __name__ == "__main__":
    main()
