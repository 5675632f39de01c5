"""The same command on a real Ray cluster: a head and its workers on this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from pumasi.cli.errors import ExitCode
from pumasi.twin.commands import TwinProblem, simulate, tasks_of
from pumasi.twin.runner import Task, run_all
from pumasi.twin.scenario_file import load_scenario

TEXT = """
name: small
plan: campus
start: 2026-06-01
days: 2
workload: {synthetic: {load_percent: 60}}
"""
RAY = (sys.executable, "-m", "ray.scripts.scripts")
WAIT_SECONDS = 60


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A head with two workers, on the loopback alone."""
    port = free_port()
    words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2"]
    words += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
    path = os.pathsep.join([str(Path("src").resolve()), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen([*RAY, *words], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL) as head:
        try:
            until = time.monotonic() + WAIT_SECONDS
            while not _answers(port) and time.monotonic() < until:
                assert head.poll() is None, "Ray did not start"
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return tasks_of(load_scenario(path), ["silo", "as-planned"], [1, 2])


def run(tasks: list[Task], folder: Path) -> None:
    simulate(tasks, folder / "out", "x", folder, 1, lambda _done, _day: None)


def ignore(_done: int, _at_ms: int) -> None:
    """Nobody watches."""


def test_a_cluster_measures_what_this_machine_does(
    cluster: str, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = run_all(tasks, tmp_path, 1, ignore)
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    told: list[int] = []
    there = run_all(tasks, tmp_path, 1, lambda done, _: told.append(done))
    assert there == here and [(run.rules, run.seed) for run in there] == [
        (task.rules.name, task.seed) for task in tasks
    ]
    assert told[-1] == 1000


def test_what_goes_wrong_there_is_said_here(cluster: str, tasks: list[Task], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    nowhere = structs.replace(tasks[1], file=structs.replace(tasks[1].file, plan="atlantis"))
    with pytest.raises(TwinProblem, match="atlantis"):
        run([tasks[0], nowhere], tmp_path)


def test_ctrl_c_leaves_what_has_been_run(cluster: str, tasks: list[Task], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    long = [structs.replace(task, file=structs.replace(task.file, days=4000)) for task in tasks[1:]]

    def told(done: int, _day: str) -> None:
        if done:
            raise KeyboardInterrupt

    finished = simulate([tasks[0], *long], tmp_path / "out", "x", tmp_path, 1, told)
    assert (finished.runs, finished.missing) == (1, 3)


def test_a_cluster_that_is_not_there_is_said_at_once(tasks: list[Task], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(TwinProblem, match=r"no Ray cluster at RAY_ADDRESS=ray://127\.0\.0\.1:") as error:
        run(tasks, tmp_path)
    assert time.monotonic() - began < 30, "Ray itself takes minutes"
    assert ExitCode[error.value.kind.upper()] is ExitCode.UNREACHABLE


def test_a_cluster_without_ray_is_said_in_a_line(tasks: list[Task], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TwinProblem, match=r"pip install 'pumasi\[ray\]'"):
        run(tasks, tmp_path)
