"""Many runs at once, on all cores, with progress told and a stop that leaves what there is.

Each run is a process of its own from the start, so that none inherits anything from another. Where `RAY_ADDRESS` names
a Ray cluster, as Ray's own tools take it, the runs are spread over that instead.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from ctypes import c_longlong
from multiprocessing import get_context
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from pumasi.twin.experiment import day_ms, run
from pumasi.twin.report.measures import Measures
from pumasi.twin.rules import Rules
from pumasi.twin.run import Progress
from pumasi.twin.scenario_file import ScenarioFile
from pumasi.twin.workloads.resample import DAY_MS

LOOK_SECONDS = 0.2
KNOCK_SECONDS = 5
Told = Callable[[int, int], None]  # thousandths of all work that are done; the simulated time of the run that is last


class Task(Struct, frozen=True, kw_only=True):
    """One run: a scenario under rules with a seed. `label`: what it is called in the report, else its rules' name."""

    file: ScenarioFile
    rules: Rules
    seed: int
    label: str = ""


def run_task(task: Task, traces: Path, progress: Progress | None = None) -> Measures:
    """One run; what `experiment.run` raises."""
    measures = run(task.file, task.rules, task.seed, traces, progress)
    if not task.label:
        return measures
    return structs.replace(measures, rules=task.label, rules_title=f"{measures.rules_title}, {task.label}")


def run_all(tasks: Sequence[Task], traces: Path, processes: int, told: Told) -> list[Measures]:
    """Run tasks on some processes, or on a Ray cluster; on Ctrl-C, what has been run by then.

    :raises CannotSimulate: and what else `experiment.run` raises, of the first task that fails.
    :raises NoCluster: if a Ray cluster is named that cannot be had.
    """
    if os.environ.get("RAY_ADDRESS"):
        return _run_on_ray(tasks, traces, told)
    return _run_here(tasks, traces, processes, told)


# --- on this machine -------------------------------------------------------------------------------------------------


class _Shared:
    """What a worker process was given at its start."""

    reached_ms: "SynchronizedArray[int]"
    stop: Event


_shared = _Shared()


def _begin(reached_ms: "SynchronizedArray[int]", stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear; it sets `stop`
    _shared.reached_ms, _shared.stop = reached_ms, stop


def _work(index: int, task: Task, traces: Path) -> Measures | None:
    def progress(at_ms: int) -> bool:
        _shared.reached_ms[index] = at_ms
        return not _shared.stop.is_set()

    if _shared.stop.is_set():
        return None
    measures = run_task(task, traces, progress)
    _shared.reached_ms[index] = measures.until_ms
    return measures


def _run_here(tasks: Sequence[Task], traces: Path, processes: int, told: Told) -> list[Measures]:
    """Runs that Ctrl-C stops are measured as far as they got."""
    context = get_context("spawn")
    reached_ms: SynchronizedArray[int] = context.Array(c_longlong, len(tasks))
    stop = context.Event()
    with ProcessPoolExecutor(min(processes, len(tasks)), context, _begin, (reached_ms, stop)) as pool:
        futures = [pool.submit(_work, index, task, traces) for index, task in enumerate(tasks)]
        try:
            for _ in _until_done(futures):
                told(*_progress(tasks, reached_ms))
        except KeyboardInterrupt:
            stop.set()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
        return [measures for future in futures if (measures := future.result()) is not None]


def _until_done(futures: list["Future[Measures | None]"]) -> Iterator[None]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, LOOK_SECONDS)
        for future in done:
            future.result()  # what went wrong in it goes wrong here
        yield


def _progress(tasks: Sequence[Task], reached_ms: "SynchronizedArray[int]") -> tuple[int, int]:
    done, latest = 0, 0
    for index, task in enumerate(tasks):
        at_ms = reached_ms[index]
        if at_ms:
            done += min(1000, 1000 * (at_ms - day_ms(task.file.start)) // (task.file.days * DAY_MS))
            latest = at_ms
    return done // len(tasks), latest


# --- on a Ray cluster ------------------------------------------------------------------------------------------------


class NoCluster(Exception):
    """`RAY_ADDRESS` names a cluster, but there is none there, or no Ray here."""


def _run_on_ray(tasks: Sequence[Task], traces: Path, told: Told) -> list[Measures]:
    """Progress is told run by run, and a run that Ctrl-C stops is lost: its process is somewhere else."""
    ray = _connected()
    try:
        remote = ray.remote(num_cpus=1)(run_task)
        futures = [remote.remote(task, traces) for task in tasks]
        done, waiting = [], futures
        try:
            while waiting:
                done, waiting = ray.wait(futures, num_returns=len(tasks), timeout=LOOK_SECONDS, fetch_local=False)
                ray.get(done)  # what went wrong goes wrong here
                told(1000 * len(done) // len(tasks), 0)
        except KeyboardInterrupt:
            for future in waiting:
                ray.cancel(future, force=True)
        return [ray.get(future) for future in futures if future in done]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        ray.shutdown()


def _connected() -> Any:
    """Ray, connected to the cluster that is named."""
    try:
        import ray
    except ImportError as error:
        raise NoCluster("RAY_ADDRESS is set, but Ray is not installed here: pip install 'pumasi[ray]'") from error
    address = os.environ["RAY_ADDRESS"]
    try:
        _knock(address)
        ray.init(logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError) as error:
        raise NoCluster(f"no Ray cluster at RAY_ADDRESS={address}: {error}") from error
    return ray


def _knock(address: str) -> None:
    """See whether anybody listens there, if the address is a host's: Ray itself takes minutes to find out.

    :raises OSError: if nobody does.
    """
    host, has_port, port = address.removeprefix("ray://").rpartition(":")
    if has_port and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
