"""The log: how fast it takes facts durably, folds a million of them, and comes back after a restart."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.log_of_a_fleet import Workload, declarations
from bench.measure import Figures, median, peak_memory_mib, percentile, seconds
from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import AttemptEnded, Event
from pumasi.ledger import ledger as books
from pumasi.ledger.ledger import Ledger
from pumasi.model.jobs import TERMINAL_STATES, JobState
from pumasi.ports.event_log import JobFilter, Snapshot
from pumasi.state import snapshot
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.state.records import Job
from pumasi.testing.event_log import ended_job, submitted

FACTS = 1_000_000
WAITING_JOBS = 80_000
ACTIVE_JOBS = 20_000
TAIL_FACTS = 10_000  # written since the last snapshot when the process dies
ARCHIVED_JOBS = 1_000_000
_BATCH = 1000

NOTES = {
    "sync_median_ms": "fdatasync of 4 KiB on this disk",
    "append_1_facts_per_second": "facts made durable one by one, by one thread",
    "append_1_p99_ms": "one fact, durable",
    "append_100_facts_per_second": "in transactions of 100 facts",
    "append_100_p99_ms": "100 facts, durable",
    "append_1000_facts_per_second": "in transactions of 1,000 facts",
    "append_1000_p99_ms": "1,000 facts, durable",
    "archive_jobs_per_second": "ended jobs archived with their listings, 1,000 in a transaction",
    "archive_page_all_ms": "100 newest of 1,000,000 ended jobs",
    "archive_page_state_ms": "those in a state that one in 1,000 has",
    "archive_page_queue_ms": "those of one team among 1,000",
    "archive_page_owner_ms": "those of a fifth of all, an owner and all its queues",
    "archive_page_person_ms": "those of one person among 997",
    "archive_page_person_in_queue_ms": "those of one person with one owner",
    "archive_page_lately_ms": "the last 1,000 that ended, of one owner",
    "archive_page_long_ago_ms": "a short time long ago",
    "archive_page_long_time_long_ago_ms": "the oldest tenth: the newer nine are passed over",
    "log_mib": "the file with 1,000,000 facts and 215,000 archived jobs",
    "live_jobs": "jobs waiting or active at its end",
    "fold_million_events_seconds": "1,000,000 facts read, checked against the chain, decoded and folded, ledger too",
    "restart_seconds": "open, load the snapshot, replay 10,000 facts; 100,000 live jobs, 260,000 GPUs",
    "restart_memory_mib": "peak memory of that process",
    "snapshot_mib": "the snapshot of state and ledger",
    "log_verify_seconds": "the whole file checked: pages, chain, every archived record",
}


def measure() -> Figures:
    """All figures by name, as in `NOTES`. Takes some two minutes and 2 GB of disk."""
    with TemporaryDirectory(prefix="pumasi-bench-", dir=".") as scratch:
        folder = Path(scratch)
        return appends(folder) | archive_pages(folder) | million_facts(folder)


# --- appending -------------------------------------------------------------------------------------------------------


def appends(folder: Path) -> Figures:
    """Durable appends from one thread by size of batch, and what one sync of the disk costs here."""
    found: Figures = {"sync_median_ms": _sync_ms(folder)}
    for size, rounds in ((1, 2000), (100, 300), (1000, 100)):
        log = SqliteLog(folder / f"appends-{size}.db")
        times = [_append_ms(log, first, size) for first in range(1, size * rounds, size)]
        log.close()
        found[f"append_{size}_facts_per_second"] = 1000 * size * rounds / sum(times)
        found[f"append_{size}_p99_ms"] = percentile(times, 99)
    return found


def _append_ms(log: SqliteLog, first: int, size: int) -> float:
    batch = [submitted(job) for job in range(first, first + size)]
    started = time.perf_counter()
    log.append(batch)
    return (time.perf_counter() - started) * 1000


def _sync_ms(folder: Path) -> float:
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return median(times)


# --- the archive -----------------------------------------------------------------------------------------------------


def archive_pages(folder: Path) -> Figures:
    """A page of 100 jobs among a million ended ones, by kind of filter (median of 20)."""
    log = SqliteLog(folder / "archive.db")
    started = time.perf_counter()
    for first in range(1, ARCHIVED_JOBS, _BATCH):
        log.append([submitted(first)], [_ended(number) for number in range(first, first + _BATCH)])
    found: Figures = {"archive_jobs_per_second": ARCHIVED_JOBS / (time.perf_counter() - started)}
    for name, wanted in _FILTERS.items():
        found[f"archive_page_{name}_ms"] = median(_page_ms(log, wanted) for _ in range(20))
    log.close()
    return found


_FILTERS = {
    "all": JobFilter(),
    "state": JobFilter(states=(JobState.UNKNOWN_OUTCOME,)),
    "queue": JobFilter(queues=("public/group-3/team-7",)),
    "owner": JobFilter(queues=("public",)),
    "person": JobFilter(by="user-77"),
    "person_in_queue": JobFilter(by="user-77", queues=("public",)),
    "lately": JobFilter(queues=("public",), ended_from_ms=(ARCHIVED_JOBS - 1000) * 100),
    "long_ago": JobFilter(ended_from_ms=100_000, ended_until_ms=200_000),
    "long_time_long_ago": JobFilter(ended_until_ms=ARCHIVED_JOBS * 10),
}


def _ended(number: int) -> Job:
    owner = ("public", "samsung", "sk", "hyundai", "naver")[number % 5]
    queue = f"{owner}/group-{number // 5 % 20}/team-{number // 100 % 10}"
    state = JobState.UNKNOWN_OUTCOME if number % 1000 == 0 else JobState.SUCCEEDED
    return ended_job(number, queue, state, f"user-{number % 997}", number * 100)


def _page_ms(log: SqliteLog, wanted: JobFilter) -> float:
    started = time.perf_counter()
    log.page(wanted, None, 100)
    return (time.perf_counter() - started) * 1000


# --- a million facts -------------------------------------------------------------------------------------------------


def million_facts(folder: Path) -> Figures:
    """Folding a log of a million facts from its first, and restarting from a snapshot near its end."""
    path = folder / "fleet.db"
    found: Figures = {"live_jobs": _write(path), "log_mib": path.stat().st_size / 2**20}
    found["snapshot_mib"] = path.with_name(f"{path.name}.snapshot").stat().st_size / 2**20
    found["fold_million_events_seconds"], _ = _in_new_process(_fold, path)
    found["restart_seconds"], found["restart_memory_mib"] = _in_new_process(_restart, path)
    found["log_verify_seconds"], _ = _in_new_process(_verify, path)
    return found


def _in_new_process(work: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Median seconds of three runs and peak MiB, each run in a process that has done nothing else."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        runs = [pool.apply(_timed, (work, path)) for _ in range(3)]
    return median([run[0] for run in runs]), max(run[1] for run in runs)


def _timed(work: Callable[[Path], None], path: Path) -> tuple[float, float]:
    return seconds(lambda: work(path), repeats=1)[0], peak_memory_mib()


def _write(path: Path) -> int:
    """Write the log as the control plane would, with its archive and a snapshot; the number of live jobs at the end."""
    log, state, ledger = SqliteLog(path), FleetState(), Ledger()
    for batch in _batches(FACTS):
        ended = [job for event in batch if (job := _follow(state, ledger, event))]
        log.append(batch, ended)
        if state.seq == FACTS - TAIL_FACTS:
            log.save_snapshot(Snapshot(state.seq, {"state": snapshot.save(state), "ledger": books.save(ledger)}))
    log.close()
    return len(state.jobs)


def _batches(count: int) -> Iterator[list[Event]]:
    declared = declarations()
    workload = Workload(WAITING_JOBS, ACTIVE_JOBS).facts()
    facts = iter([*declared, *islice(workload, count - len(declared))])
    while batch := list(islice(facts, _BATCH)):
        yield batch


def _follow(state: FleetState, ledger: Ledger, event: Event) -> Job | None:
    """Fold a fact; the job, if the fact ended it."""
    ends = isinstance(event, AttemptEnded) and event.job_state in TERMINAL_STATES
    job = state.jobs[event.job] if ends and isinstance(event, AttemptEnded) else None
    apply(state, event)
    ledger.apply(event)
    return job


def _fold(path: Path) -> None:
    log, state, ledger = SqliteLog(path), FleetState(), Ledger()
    for _, event in log.read(0):
        apply(state, event)
        ledger.apply(event)
    assert state.seq == FACTS
    log.close()


def _restart(path: Path) -> None:
    log = SqliteLog(path)
    saved = log.load_snapshot()
    assert saved is not None
    state, ledger = snapshot.load(saved.parts["state"]), books.load(saved.parts["ledger"])
    for _, event in log.read(saved.seq):
        apply(state, event)
        ledger.apply(event)
    assert state.seq == FACTS
    log.close()


def _verify(path: Path) -> None:
    log = SqliteLog(path)
    log.verify()
    log.close()
