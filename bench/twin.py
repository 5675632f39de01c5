"""`make bench-twin`: the speed of the twin with full semantics, and AccaSim beside it on the same trace and policy.

Every part runs in a process of its own, so that memory is that part's alone, and its CPU seconds are taken beside the
wall's: a rate is jobs per wall second, a ratio is of CPU seconds, which hardly feel what else the machine does. Writes
`bench/results/twin.json`.
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from msgspec import structs

from bench import twin_fleets as fleets
from bench.measure import RESULTS, Figures, median, peak_memory_mib, publish
from pumasi.control.plane import ControlPlane
from pumasi.model.fleet import FleetPlan, Policy, QueueOrder
from pumasi.plans.locate import find_plan
from pumasi.plans.reader import load_plan
from pumasi.twin.jobs import TwinJob
from pumasi.twin.kernel import Kernel
from pumasi.twin.outcome import Outcome
from pumasi.twin.run import look_ahead, simulate
from pumasi.twin.scenario import Scenario

MILLION = 1_000_000
BEGIN_MS = 1_900_000_000_000
FILL_DAYS = 5
CYCLE_MS = 1000  # as the live service
BRANCHES = 7
ACCASIM_PYTHON = Path(".venv-accasim/bin/python")
REPEATS = 2

NOTES = {
    "philly_jobs_per_second": "82,247 jobs on 128 nodes of 8, virtual clusters as owners that lend; per wall second",
    "philly_jobs_per_cpu_second": "the same per CPU second",
    "philly_fifo_jobs_per_second": "the same trace, one owner and one queue, in order of submission",
    "philly_fifo_jobs_per_cpu_second": "the same per CPU second",
    "accasim_fifo_jobs_per_cpu_second": "AccaSim 1.1.3, FIFO and first fit, in the same run",
    "accasim_fifo_mean_wait_seconds": "its mean wait",
    "accasim_easy_jobs_per_cpu_second": "AccaSim 1.1.3, EASY backfilling and first fit, in the same run",
    "accasim_easy_mean_wait_seconds": "its mean wait",
    "flat_fifo_jobs_per_cpu_second": "ours, strict order, on the GPUs as AccaSim counts them: without node boundaries",
    "flat_fifo_mean_wait_seconds": "our mean wait there",
    "flat_easy_jobs_per_cpu_second": "ours there where jobs that fit may pass one that does not",
    "flat_easy_mean_wait_seconds": "our mean wait there",
    "flat_planned_jobs_per_cpu_second": "ours there where they may pass it only if they leave its planned start alone",
    "flat_planned_mean_wait_seconds": "our mean wait there",
    "accasim_ratio_fifo": "CPU seconds of AccaSim's FIFO over ours; present only if both give the same mean wait",
    "accasim_ratio_easy": "CPU seconds of AccaSim's EASY over ours; present only if both give the same mean wait",
    "fleet_million_jobs_seconds": "1,000,000 jobs on all 260,000 GPUs, wall seconds",
    "fleet_million_jobs_cpu_seconds": "the same, CPU seconds",
    "peak_memory_mib": "the most memory that run used, workload and log included",
    "branch_ms": "branching a busy control plane of the whole fleet",
    "branch_mib": "memory a branch takes",
    "branch_live_jobs": "jobs running or waiting at the branch",
    "fleet_day_ahead_seconds": "the next 24 hours of the whole fleet from a branch, wall seconds",
    "fleet_day_ahead_cpu_seconds": "the same, CPU seconds",
    "fleet_day_ahead_jobs": "jobs submitted in these hours",
}


def measured(plan: FleetPlan, jobs: list[TwinJob], cycle_ms: int = 0) -> tuple[Outcome, float, float]:
    """The outcome of a simulation, its wall and its CPU seconds."""
    gc.collect()
    gc.freeze()
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = simulate(plan, jobs, Scenario(start_ms=jobs[0].submit_ms - 1000, cycle_ms=cycle_ms))
    figures = time.perf_counter() - wall, time.process_time() - cpu
    if len(outcome.jobs) + len(outcome.refused) != len(jobs) or outcome.state.jobs:
        raise RuntimeError("not every job came to an end")
    return outcome, *figures


def mean_wait(outcome: Outcome) -> float:
    """Seconds."""
    return fleets.mean_wait_seconds([outcome.jobs.wait_ms(row) for row in range(len(outcome.jobs))])


# --- the parts, each in a process of its own -------------------------------------------------------------------------


def philly() -> Figures:
    """The trace with its virtual clusters as owners."""
    rows = fleets.philly_rows()
    plan = fleets.philly_plan(fleets.by_virtual_cluster(rows), fleets.GPUS_PER_NODE)
    jobs = fleets.philly_jobs(rows, None)
    runs = [measured(plan, jobs)[1:] for _ in range(REPEATS)]
    wall, cpu = median([each[0] for each in runs]), median([each[1] for each in runs])
    return {"philly_jobs_per_second": len(jobs) / wall, "philly_jobs_per_cpu_second": len(jobs) / cpu}


def philly_fifo() -> Figures:
    """The trace in one queue of one owner, on nodes of 8."""
    rows = fleets.philly_rows()
    plan = fleets.philly_plan({fleets.FLAT_OWNER: fleets.NODES * fleets.GPUS_PER_NODE}, fleets.GPUS_PER_NODE)
    jobs = fleets.philly_jobs(rows, fleets.FLAT_OWNER)
    runs = [measured(plan, jobs)[1:] for _ in range(REPEATS)]
    wall, cpu = median([each[0] for each in runs]), median([each[1] for each in runs])
    return {"philly_fifo_jobs_per_second": len(jobs) / wall, "philly_fifo_jobs_per_cpu_second": len(jobs) / cpu}


def flat() -> Figures:
    """As AccaSim sees it: a job fits wherever so many GPUs are free.

    In strict order; backfilled; and backfilled around the planned start of the first that waits. AccaSim's EASY comes
    to the same as the second: on this trace its reservations hold nobody back.
    """
    return (
        _flat_with("fifo", QueueOrder.STRICT, 0)
        | _flat_with("easy", QueueOrder.BEST_EFFORT, 0)
        | _flat_with("planned", QueueOrder.BEST_EFFORT, 1)
    )


def _flat_with(policy: str, order: QueueOrder, planned_starts: int) -> Figures:
    rows = fleets.philly_rows()
    plan = fleets.philly_plan({fleets.FLAT_OWNER: fleets.NODES * fleets.GPUS_PER_NODE}, 1, order)
    plan = structs.replace(plan, policy=Policy(planned_starts=planned_starts))
    jobs = fleets.philly_jobs(rows, fleets.FLAT_OWNER)
    runs = [measured(plan, jobs) for _ in range(REPEATS)]
    rate = len(jobs) / median([each[2] for each in runs])
    return {f"flat_{policy}_jobs_per_cpu_second": rate, f"flat_{policy}_mean_wait_seconds": mean_wait(runs[0][0])}


def accasim() -> Figures:
    """AccaSim on the same trace, nodes and policy."""
    if not ACCASIM_PYTHON.exists():
        print("bench: AccaSim is not there (make bench-twin installs it); its figures are left out", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        workload = Path(folder) / "philly.swf"
        fleets.write_swf(fleets.philly_rows(), workload)
        return _accasim_with("fifo", workload) | _accasim_with("easy", workload)


def _accasim_with(policy: str, workload: Path) -> Figures:
    command = [str(ACCASIM_PYTHON), "bench/accasim_peer.py", str(workload), str(fleets.NODES), policy]
    runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(REPEATS)]
    return {
        f"accasim_{policy}_jobs_per_cpu_second": runs[0]["jobs"] / median([each["cpu_seconds"] for each in runs]),
        f"accasim_{policy}_mean_wait_seconds": runs[0]["mean_wait_seconds"],
    }


def million() -> Figures:
    """A million jobs on the whole Korean fleet."""
    plan = load_plan(find_plan("korea"))
    jobs = list(fleets.fleet_jobs(plan, fleets.philly_rows(), MILLION, BEGIN_MS))
    _, wall, cpu = measured(plan, jobs, CYCLE_MS)
    return {
        "fleet_million_jobs_seconds": wall,
        "fleet_million_jobs_cpu_seconds": cpu,
        "peak_memory_mib": peak_memory_mib(),
    }


def ahead() -> Figures:
    """Fill the fleet for some days, branch it, and let the branch go on for one more."""
    plan = load_plan(find_plan("korea"))
    jobs = list(fleets.fleet_jobs(plan, fleets.philly_rows(), FILL_DAYS * fleets.JOBS_PER_DAY, BEGIN_MS))
    filled = Scenario(start_ms=BEGIN_MS - 1000, cycle_ms=CYCLE_MS, until_ms=jobs[-1].submit_ms)
    outcome = simulate(plan, jobs, filled)
    gc.collect()
    gc.freeze()
    figures = _branching(outcome.plane)
    now_ms = outcome.plane.now_ms() + 1
    day = list(fleets.fleet_jobs(plan, fleets.philly_rows(), fleets.JOBS_PER_DAY, now_ms))
    to_come = Scenario(start_ms=now_ms, cycle_ms=CYCLE_MS, until_ms=now_ms + fleets.DAY_MS)
    table = outcome.jobs
    began, cpu = time.perf_counter(), time.process_time()
    found = look_ahead(outcome.plane, day, to_come, runtime_ms=lambda job: jobs[table.source_of(job.id)].runtime_ms)
    figures["fleet_day_ahead_seconds"] = time.perf_counter() - began
    figures["fleet_day_ahead_cpu_seconds"] = time.process_time() - cpu
    figures["fleet_day_ahead_jobs"] = len(found.jobs)
    return figures


def _branching(plane: ControlPlane) -> Figures:
    times = []
    for _ in range(BRANCHES):
        began = time.perf_counter()
        plane.branch(Kernel(plane.now_ms()))
        times.append(time.perf_counter() - began)
    tracemalloc.start()
    kept = plane.branch(Kernel(plane.now_ms()))
    mib = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return {"branch_ms": median(times) * 1000, "branch_mib": mib, "branch_live_jobs": len(kept.state.jobs)}


PARTS = {each.__name__: each for each in (philly, philly_fifo, flat, accasim, million, ahead)}


def in_a_process(part: str) -> Figures:
    """The figures of one part."""
    print(f"bench: {part}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "bench.twin", "--here", part], stdout=subprocess.PIPE, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def with_ratios(figures: Figures) -> Figures:
    """Add AccaSim's ratio for each policy with which both found the same mean wait, to the digits that are kept."""
    for policy in ("fifo", "easy"):
        ours = figures.get(f"flat_{policy}_mean_wait_seconds")
        figures.pop(f"accasim_ratio_{policy}", None)
        theirs = figures.get(f"accasim_{policy}_mean_wait_seconds")
        if ours is not None and theirs is not None and abs(theirs - ours) < 0.0001:
            rate = figures[f"accasim_{policy}_jobs_per_cpu_second"]
            figures[f"accasim_ratio_{policy}"] = figures[f"flat_{policy}_jobs_per_cpu_second"] / rate
    return figures


def main() -> None:
    """Measure all parts, or anew those named; `--here PART` measures one in this process and prints it."""
    if sys.argv[1:2] == ["--here"]:
        json.dump(PARTS[sys.argv[2]](), sys.stdout)
        return
    figures: Figures = {}
    known = RESULTS / "twin.json"
    if sys.argv[1:] and known.exists():
        figures = {key: value for key, value in json.loads(known.read_text()).items() if key in NOTES}
    fleets.philly_rows()  # every part needs them: better told at once
    for part in sys.argv[1:] or PARTS:
        figures |= in_a_process(part)
        publish("twin", with_ratios({key: figures[key] for key in NOTES if key in figures}), NOTES)


if __name__ == "__main__":
    main()
