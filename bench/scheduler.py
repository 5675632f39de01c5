"""`make bench-scheduler`: what a decision costs on the whole Korean fleet, and real Slurm beside it in the same run.

Times are CPU seconds of one core, so that what else runs on the machine counts little; medians unless said otherwise.
Writes `bench/results/scheduler.json` and a plot of cost against size beside it.
"""

import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

from bench import max_min, slurm_peer
from bench import scheduler_fleets as fleets
from bench.measure import RESULTS, Figures, machine, median, peak_memory_mib, percentile, publish
from bench.plot import Series, draw
from bench.reclaim_bound import least_lost
from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import ReservationMade, StopOrdered
from pumasi.model.jobs import JobSpec, JobState, Outcome
from pumasi.scheduler.fairshare import ShareNode, ShareTree, Turn
from pumasi.scheduler.plan import Plan, plan
from pumasi.scheduler.planner import Planner
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply

SIZES_OF_QUEUES = (1_000, 10_000, 100_000)  # waiting jobs; a million has a process of its own
SIZES_OF_FLEETS = (10_000, 30_000, 100_000, 260_000)  # GPUs
DECISIONS = 200
BACKFILL_TESTS = 2_000
FILLS = 3

NOTES = {
    "placements_single_node_per_second": "20,000 jobs of one node placed on the empty Korean fleet, in one plan",
    "placements_rack_gang_per_second": "5,000 gangs, each within one rack, placed on the empty fleet, in one plan",
    "full_pass_100k_waiting_ms": "a plan by a planner that remembers nothing: 100,000 jobs wait on the full fleet",
    "backfill_tests_per_second": "jobs tried one by one around a planned start, a CPU second: each would delay it, and "
    "is shorter than the one before",
    "planned_starts": "starts that are planned on the full fleet",
    "decision_after_free_p50_ms": "all jobs of a node end on that fleet; the next plan, by a planner with memory that "
    f"has decided so {DECISIONS} times before",
    "decision_after_free_p99_ms": f"the same, 99th percentile of {DECISIONS}",
    "decision_after_free_first_p99_ms": f"the same of the first {DECISIONS}",
    "look_ahead_ms": "what a control plane does once when it starts: read when everything that runs will end",
    "decision_after_submit_p50_ms": "one job arrives on that fleet",
    "reclaim_52k_plan_ms": "an owner asks 52,000 lent GPUs back at once: half in whole racks, half in jobs of eight",
    "reclaim_evicted_over_requested": "GPUs of the jobs stopped for it over GPUs asked",
    "reclaim_lost_over_lp": "GPU-time that reclaim throws away over the least a linear program finds",
    "full_pass_1m_waiting_ms": "a plan by a planner that remembers nothing: 1,000,000 jobs wait",
    "peak_memory_mib": "the process that knows these jobs and has planned for them",
    "our_started_per_cpu_second": "1,500 gangs on 32,500 nodes: planned, folded and on disk, a CPU second",
    **{f"slurm_started_per_cpu_second_{name}": f"the same gangs by slurmctld ({name}), a CPU second of its own"
       for name in slurm_peer.VARIANTS},
    **{f"slurm_started_ratio_{name}": f"ours over Slurm's ({name}), both a CPU second, back to back"
       for name in slurm_peer.VARIANTS},
    **max_min.NOTES,
}  # fmt: skip


# --- many placements -------------------------------------------------------------------------------------------------


def rate(specs: list[JobSpec]) -> float:
    """Placements a CPU second while one plan places these jobs on the empty fleet."""
    rates = []
    for _ in range(FILLS):
        state = fleets.korea()
        fleets.submit(state, specs)
        seconds, made = cpu_seconds(partial(plan, state, fleets.NOW_MS))
        placed = fleets.fold(state, made)
        if placed < len(specs):
            raise RuntimeError(f"{placed} of {len(specs)} jobs placed: the figure would be of something else")
        rates.append(placed / seconds)
    return median(rates)


def cpu_seconds(work: Callable[[], Plan]) -> tuple[float, Plan]:
    """CPU seconds of making a plan, and the plan."""
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def placements() -> Figures:
    """Filling the empty fleet."""
    queues = fleets.leaf_queues(fleets.korea())
    singles = list(fleets.some_jobs(queues, 20_000, (1, 2, 4, 8)))
    gangs = list(fleets.some_jobs(queues, 5_000, (12, 16), topology=fleets.REQUIRED_RACK))
    return {"placements_single_node_per_second": rate(singles), "placements_rack_gang_per_second": rate(gangs)}


# --- a crowded fleet -------------------------------------------------------------------------------------------------


def full_pass_ms(state: FleetState) -> float:
    """A plan by a planner that remembers nothing."""
    return median(cpu_seconds(lambda: plan(state, fleets.NOW_MS))[0] * 1000 for _ in range(5))


def backfill_tests_per_second() -> float:
    """Jobs that would delay a planned start, each shorter than the one before, so that each has to be tried."""
    state = fleets.held_for_a_gang(BACKFILL_TESTS)
    turns, next_turn = 0, ShareTree.next

    def counted(tree: ShareTree) -> tuple[ShareNode, Turn] | None:
        nonlocal turns
        turn = next_turn(tree)
        turns += turn is not None
        return turn

    with patch.object(ShareTree, "next", counted):
        plan(state, fleets.NOW_MS)
    if turns < BACKFILL_TESTS:
        raise RuntimeError(f"{turns} of {BACKFILL_TESTS} jobs tried: the figure would be of something else")
    return turns * 1000 / full_pass_ms(state)


def decisions(state: FleetState) -> Figures:
    """One node after another frees, one job after another arrives; a planner with memory decides after each."""
    planner, stream = Planner(state), random.Random(3)
    began = time.process_time()
    planner.look_ahead()
    look_ahead_seconds = time.process_time() - began
    fleets.settle(state, planner)
    gc.collect()
    gc.freeze()
    freed, arrived = [], []
    for spec in fleets.jobs(fleets.leaf_queues(state), 2 * DECISIONS, 77):
        for job in fleets.jobs_of_some_node(state, stream):
            apply(state, fleets.ended(state, job, Outcome.COMPLETED, JobState.SUCCEEDED))
        freed.append(_decide(state, planner))
        fleets.submit(state, [spec])
        arrived.append(_decide(state, planner))
    return {
        "decision_after_free_p50_ms": median(freed[DECISIONS:]),
        "decision_after_free_p99_ms": percentile(freed[DECISIONS:], 99),
        "decision_after_free_first_p99_ms": percentile(freed[:DECISIONS], 99),
        "decision_after_submit_p50_ms": median(arrived),
        "look_ahead_ms": look_ahead_seconds * 1000,
    }


def _decide(state: FleetState, planner: Planner) -> float:
    """Milliseconds of one decision. It is carried out, and what it leads to settled, before the next."""
    seconds, made = cpu_seconds(lambda: plan(state, fleets.NOW_MS, planner))
    fleets.carry_out(state, made)
    fleets.settle(state, planner)
    return seconds * 1000


def crowded_100k() -> Figures:
    """Full passes by how many jobs wait, and single decisions where most do."""
    state = fleets.crowded(max(SIZES_OF_QUEUES))
    figures: Figures = {}
    for waiting in reversed(SIZES_OF_QUEUES):
        fleets.thin_out(state, waiting)
        figures[f"full_pass_{waiting // 1000}k_waiting_ms"] = full_pass_ms(state)
        if waiting == max(SIZES_OF_QUEUES):
            figures["backfill_tests_per_second"] = backfill_tests_per_second()
            figures["planned_starts"] = len(state.planned)
            figures |= decisions(state)
    return figures


def million() -> Figures:
    """Memory and time with a million jobs known."""
    state = fleets.crowded(1_000_000)
    return {"full_pass_1m_waiting_ms": full_pass_ms(state), "peak_memory_mib": peak_memory_mib()}


def small_jobs() -> Figures:
    """Microseconds to place one single-GPU job on an empty fleet, by its size; median of many."""
    return {f"small_job_{gpus // 1000}k_gpus_us": _small_job_us(gpus) for gpus in SIZES_OF_FLEETS}


def _small_job_us(gpus: int) -> float:
    state = fleets.plain_fleet(gpus)
    planner, spent = Planner(state), []
    fleets.settle(state, planner)
    for spec in fleets.some_jobs(fleets.leaf_queues(state), DECISIONS, (1,)):
        fleets.submit(state, [spec])
        spent.append(_decide(state, planner) * 1000)
    return median(spent)


# --- reclaim ---------------------------------------------------------------------------------------------------------


def reclaim() -> Figures:
    """A fifth of the fleet asked back at once."""
    state = fleets.lent_out()
    fleets.submit(state, fleets.claims(), fleets.ASKED_MS)
    runs = [cpu_seconds(lambda: plan(state, fleets.ASKED_MS)) for _ in range(3)]
    made = runs[0][1]
    asked = sum(charge.gpus for event in made.events if isinstance(event, ReservationMade) for charge in event.charges)
    if asked < fleets.CLAIMED_GPUS:
        raise RuntimeError(f"{asked} GPUs were granted, not all")
    victims = [event.job for event in made.events if isinstance(event, StopOrdered)]
    lost = sum(fleets.lost_gpu_milliseconds(state, job) for job in victims)
    return {
        "reclaim_52k_plan_ms": median(seconds * 1000 for seconds, _ in runs),
        "reclaim_evicted_over_requested": sum(state.jobs[job].spec.gpus for job in victims) / asked,
        "reclaim_lost_over_lp": lost / least_lost(state),
    }


# --- beside Slurm ----------------------------------------------------------------------------------------------------


def our_started_per_cpu_second() -> float:
    """Slurm's gangs on a pool of as many nodes: planned, folded, and durable in a log on disk."""
    rates = []
    for _ in range(FILLS):
        state = fleets.one_pool(slurm_peer.NODES * 8)
        nodes = slurm_peer.gang_nodes()
        fleets.submit(state, (fleets.gang("public", 8 * count) for count in nodes))
        with tempfile.TemporaryDirectory() as folder, closing(SqliteLog(Path(folder) / "log.db")) as log:
            began = time.process_time()
            made = plan(state, fleets.NOW_MS)
            log.append(list(made.events), [])
            placed = fleets.fold(state, made)
            rates.append(placed / (time.process_time() - began))
        if placed < len(nodes):
            raise RuntimeError(f"{placed} of {len(nodes)} gangs placed")
    return median(rates)


def slurm() -> Figures:
    """Slurm beside us, theirs and ours in turn."""
    if not slurm_peer.is_installed():
        say("Slurm is not installed here: no ratios")
        return {}
    figures: Figures = {}
    for variant in slurm_peer.VARIANTS:
        say(f"Slurm, {variant}")
        theirs, ours = slurm_peer.started_per_cpu_second(variant), our_started_per_cpu_second()
        figures["our_started_per_cpu_second"] = ours
        figures[f"slurm_started_per_cpu_second_{variant}"] = theirs
        figures[f"slurm_started_ratio_{variant}"] = ours / theirs
    return figures


# --- all of it -------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], Figures]] = {
    "placements on the empty fleet": placements,
    "a crowded fleet": crowded_100k,
    "a reclaim of 52,000 GPUs": reclaim,
    "a million jobs": million,
    "fair shares": max_min.measure,
    "one small job, by the size of the fleet": small_jobs,
    "real Slurm": slurm,
}


def say(what: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"bench-scheduler: {what}\n")


def alone(work: Callable[[], Figures]) -> Figures:
    """Measure in a process of its own, so that memory and garbage are its own."""
    with get_context("spawn").Pool(1, gc.freeze) as workers:
        return workers.apply(work)


def plot(figures: Figures) -> str:
    """Cost against size."""
    passes = {waiting: figures[f"full_pass_{waiting // 1000}k_waiting_ms"] for waiting in SIZES_OF_QUEUES}
    passes[1_000_000] = figures["full_pass_1m_waiting_ms"]
    small = {gpus: figures[f"small_job_{gpus // 1000}k_gpus_us"] for gpus in SIZES_OF_FLEETS}
    return draw(
        f"Cost of a decision by size ({machine()})",
        [
            Series("a full pass, by waiting jobs", "ms", passes),
            Series("one small job placed, by GPUs of the fleet", "us", small),
        ],
    )


def main() -> None:
    """Measure all, print a table, write the results and the plot. What was measured is kept even if a part fails."""
    figures: Figures = {}
    try:
        for what, part in PARTS.items():
            say(what)
            figures |= alone(part)
    finally:
        publish("scheduler", figures, NOTES)
    (RESULTS / "scheduler.svg").write_text(plot(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
