"""The local engine keeps the contract, and what is its own: processes, files, supervisors."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi.agents.layout import signal_number
from pumasi.agents.local_engine import LocalEngine, LocalSettings
from pumasi.agents.run_directory import RunDirectory, processes_of
from pumasi.agents.spawner import Spawner
from pumasi.model.jobs import Span, StopCause
from pumasi.ports.engine import Ending, Start, StartVerdict
from pumasi.protocol.messages import RunKey
from pumasi.testing.engine import Driver, EngineConformance, an_order

RUN = RunKey(1, 1)
TAG = "pumasi-test-1-1"
LONG_MS = 600_000


@pytest.fixture(scope="module", name="spawner")
def a_spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


class LocalEngineCase(EngineConformance):
    spawner: Spawner

    @pytest.fixture(autouse=True)
    def _with_spawner(self, spawner: Spawner) -> None:
        self.spawner = spawner

    def open_engine(self, directory: Path) -> LocalEngine:
        settings = LocalSettings(fleet="test", site="sejong", directory=directory / "site", output_limit_bytes=1000)
        return LocalEngine(settings, self.spawner)


class TestContract(LocalEngineCase):
    """Everything the suite asks."""


def run_directory(directory: Path) -> RunDirectory:
    return RunDirectory(directory / "site" / "runs" / TAG)


def supervisor_of(directory: Path) -> int:
    give_up_at = time.monotonic() + 60
    while (keeper := run_directory(directory).keeper()) is None:
        assert time.monotonic() < give_up_at
        time.sleep(0.005)
    return keeper.pid


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 60.0) -> bool:
    give_up_at = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < give_up_at:
        time.sleep(0.005)
    return not lives(pid)


def open_local(directory: Path, spawner: Spawner, **changes: int) -> Driver:
    settings = LocalSettings(fleet="test", site="sejong", directory=directory / "site", **changes)
    return Driver(LocalEngine(settings, spawner), 60.0)


@pytest.fixture(name="driver")
def a_driver(tmp_path: Path, spawner: Spawner) -> Iterator[Driver]:
    driver = open_local(tmp_path, spawner, output_limit_bytes=1000)
    yield driver
    for found in driver.engine.find():
        if found.ending is None and driver.engine.stop(found.run, StopCause.CANCEL, "KILL", 0):
            driver.ending(found.run)
    driver.engine.close()


# --- nothing is left behind ------------------------------------------------------------------------------------------

STRAY = "sh -c \"echo \\$\\$ >> strays; trap '' TERM HUP; while :; do sleep 0.1; done\""


@pytest.mark.parametrize(
    "escape",
    [
        f"{STRAY} &",
        f"setsid {STRAY} &",
        f"env -i setsid {STRAY} &",
        f"(setsid {STRAY} &)",
        f"(env -i setsid {STRAY} & env -i setsid {STRAY} &)",
    ],
)
def test_a_job_cannot_leave_processes_behind(driver: Driver, tmp_path: Path, escape: str) -> None:
    script = f"{escape}\nuntil [ -s strays ]; do sleep 0.01; done; exit 6"
    assert driver.run(script, working_directory=str(tmp_path)).exit_code == 6
    strays = [int(pid) for pid in (tmp_path / "strays").read_text().split()]
    assert strays
    assert not [pid for pid in strays if lives(pid)]


def test_a_job_that_is_killed_takes_its_escaped_children_along(driver: Driver, tmp_path: Path) -> None:
    script = f"env -i setsid {STRAY} &\nuntil [ -s strays ]; do sleep 0.01; done; echo ready; sleep 600"
    driver.start(an_order(script, working_directory=str(tmp_path), stdout=str(tmp_path / "out")))
    driver.await_output(RUN, "ready")
    driver.engine.stop(RUN, StopCause.CANCEL, "TERM", 0)
    driver.ending(RUN)
    assert not lives(int((tmp_path / "strays").read_text()))


def ignored_signals(status: str) -> set[int]:
    """Numbers of the ignored signals in a process' status. The C library keeps 32 and 33 to itself: what `make` starts
    has one of them ignored, and nobody can change it."""
    mask = int(status.partition("SigIgn:\t")[2].split(maxsplit=1)[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1} - {32, 33}


def test_a_job_inherits_nothing_of_the_agent(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SECRET", "canary")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    script = "env; ls /proc/self/fd; cat /proc/self/status; readlink /proc/self/fd/0"
    driver.run(script, working_directory=str(tmp_path), stdout="out")
    output = driver.output(RUN)
    assert "canary" not in output
    assert "LD_LIBRARY_PATH" not in output
    assert "SigBlk:\t0000000000000000" in output
    assert ignored_signals(output) == set()
    assert output.endswith("/dev/null\n")
    # 0, 1, 2 and the descriptor by which ls reads the directory
    assert "\n0\n1\n2\n3\n" in output
    assert "\n4\n" not in output


# --- supervisors -----------------------------------------------------------------------------------------------------


def test_a_run_whose_supervisor_is_killed_is_lost_and_ended(driver: Driver, tmp_path: Path) -> None:
    driver.start(an_order("echo $$ > pid; echo ready; sleep 600; echo", working_directory=str(tmp_path)))
    driver.await_output(RUN, "ready")
    os.kill(supervisor_of(tmp_path), signal.SIGKILL)
    ending = driver.ending(RUN)
    assert (ending.known, ending.stopped_for) == (False, None)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_run_whose_supervisor_died_unwatched_is_found_lost(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    driver.start(an_order("echo $$ > pid; echo ready; sleep 600; echo", working_directory=str(tmp_path)))
    driver.await_output(RUN, "ready")
    supervisor = supervisor_of(tmp_path)
    os.kill(supervisor, signal.SIGKILL)
    assert gone(supervisor)
    other = open_local(tmp_path, spawner)
    found = other.engine.find()
    other.engine.close()
    assert [(each.run, each.ending is not None and each.ending.known) for each in found] == [(RUN, False)]
    assert gone(int((tmp_path / "pid").read_text()))


def test_two_supervisors_start_a_run_once(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    driver.start(an_order("echo x >> trace; sleep 0.3; exit 3", working_directory=str(tmp_path)))
    second = spawner.spawn(run_directory(tmp_path).path)
    assert gone(second)
    assert driver.ending(RUN).exit_code == 3
    assert (tmp_path / "trace").read_text() == "x\n"


def test_a_run_watched_by_its_second_supervisor_is_not_lost(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    """The agent died between fork and answer: the new one has it started again, and gets the second one's pid."""
    order = an_order("until [ -e go ]; do sleep 0.02; done; exit 3", working_directory=str(tmp_path))
    driver.start(order)
    supervisor_of(tmp_path)
    other = open_local(tmp_path, spawner)
    other.start(order)
    (tmp_path / "go").touch()
    assert other.ending(RUN) == Ending(RUN, exit_code=3)
    other.engine.close()


def test_the_program_that_forks_supervisors_may_die(driver: Driver, spawner: Spawner) -> None:
    driver.start(an_order("sleep 0.3; exit 1", 1))
    program = spawner._program
    assert program is not None
    program.kill()
    program.wait()
    driver.start(an_order("exit 2", 2))
    assert [driver.ending(RunKey(job, 1)).exit_code for job in (1, 2)] == [1, 2]


def test_a_wiped_directory_is_no_way_to_keep_running(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    driver.start(an_order("echo $$ > pid; echo ready; sleep 600; echo", working_directory=str(tmp_path)))
    driver.await_output(RUN, "ready")
    run_directory(tmp_path).path.rename(tmp_path / "elsewhere")
    assert processes_of(tmp_path / "site" / "runs")
    other = open_local(tmp_path, spawner)
    assert other.engine.find() == ()
    other.engine.close()
    assert gone(int((tmp_path / "pid").read_text()))
    assert not driver.ending(RUN).known


def test_a_stop_reaches_a_run_whose_directory_was_wiped(driver: Driver, tmp_path: Path) -> None:
    driver.start(an_order("echo ready; sleep 600; echo"))
    driver.await_output(RUN, "ready")
    run_directory(tmp_path).path.rename(tmp_path / "elsewhere")
    assert driver.engine.stop(RUN, StopCause.CANCEL, "TERM", LONG_MS)
    assert not driver.ending(RUN).known


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_node_file_lists_every_node(driver: Driver) -> None:
    driver.run("cat $PUMASI_NODE_FILE")
    assert driver.output(RUN).split() == ["sejong-b200-00001", "sejong-b200-00002", "sejong-b200-00005"]


def test_what_a_run_keeps_is_its_users_alone(driver: Driver, tmp_path: Path) -> None:
    driver.run("true", environment={"TOKEN": "secret"})
    directory = run_directory(tmp_path).path
    assert directory.stat().st_mode & 0o777 == 0o700
    secretive = [directory / name for name in ("launch", "nodes", "script", "outputs", "exit", "supervisor")]
    assert [path.name for path in secretive if path.stat().st_mode & 0o077] == []


def test_another_file_in_the_outputs_place_is_not_shown(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    driver.run("echo x; ln -sf secret out", working_directory=str(tmp_path), stdout="out")
    output = driver.engine.read_output(RUN, "stdout", 0, 100)
    assert (output.data, output.problem) == (b"", "the output file was replaced by another")


def test_output_that_goes_to_no_file_is_a_problem_in_words(driver: Driver) -> None:
    driver.run("echo x", stdout="/dev/null")
    assert driver.engine.read_output(RUN, "stdout", 0, 100).problem == "the output does not go to a file"
    assert driver.engine.read_output(RUN, "../launch", 0, 100).problem == "this site keeps no ../launch of a run"


def test_a_flood_of_output_is_cut_while_it_comes(tmp_path: Path, spawner: Spawner) -> None:
    driver = open_local(tmp_path, spawner, output_limit_bytes=1000, output_check_ms=50)
    script = "head -c 5000 /dev/zero; until grep -q passed $PUMASI_RUN_DIRECTORY/stdout; do sleep 0.02; done; echo end"
    driver.run(script)
    assert driver.output(RUN) == "\npumasi: this passed 1000 bytes; what came before is cut\nend\n"
    driver.engine.close()


def test_the_last_part_of_a_flood_is_kept_at_the_end(driver: Driver) -> None:
    driver.run("seq 1 2000")
    output = driver.output(RUN)
    assert output.endswith("1999\n2000\n\npumasi: this passed 1000 bytes; what came before is cut\n")
    assert output.index("\n\npumasi") == 999


def test_a_file_the_job_names_is_never_cut(driver: Driver, tmp_path: Path) -> None:
    driver.run("seq 1 2000", working_directory=str(tmp_path), stdout="out")
    assert (tmp_path / "out").read_text().split() == [str(number) for number in range(1, 2001)]


def test_a_stop_before_the_start_starts_nothing(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    driver.run("touch ran", working_directory=str(tmp_path))
    driver.endings.clear()
    (tmp_path / "ran").unlink()
    directory = run_directory(tmp_path).path
    for name in ("exit", "supervisor"):
        (directory / name).unlink()
    (directory / "stop").write_text('{"cause": "reclaim", "signal": 15, "kill_in_ms": 0}')
    driver.start(an_order("touch ran", working_directory=str(tmp_path)))
    assert driver.ending(RUN).stopped_for is StopCause.RECLAIM
    assert not (tmp_path / "ran").exists()


def test_a_half_laid_out_run_is_no_run_and_can_be_started(driver: Driver, tmp_path: Path) -> None:
    path = run_directory(tmp_path).path
    path.mkdir(parents=True)
    (path / "script").write_text("half of it")
    assert driver.engine.find() == ()
    assert driver.run("exit 8").exit_code == 8


def test_a_run_that_no_supervisor_took_has_not_started(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    driver.run("exit 1")
    directory = run_directory(tmp_path)
    for name in ("exit", "supervisor"):
        (directory.path / name).unlink()
    other = open_local(tmp_path, spawner)
    assert other.engine.find() == ()
    assert other.run("exit 2").exit_code == 2
    other.engine.close()


def test_old_runs_are_pruned(driver: Driver, tmp_path: Path, spawner: Spawner) -> None:
    for job in (1, 2):
        driver.run("echo x", job)
        driver.engine.forget(RunKey(job, 1))
    os.utime(tmp_path / "site" / "ended" / TAG, (0, 0))
    other = open_local(tmp_path, spawner)
    assert other.engine.read_output(RunKey(1, 1), "stdout", 0, 10).problem
    assert other.engine.read_output(RunKey(2, 1), "stdout", 0, 10).data == b"x\n"
    other.engine.close()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_disk_that_takes_nothing_refuses_the_run(driver: Driver, tmp_path: Path) -> None:
    runs = tmp_path / "site" / "runs"
    runs.rmdir()
    runs.write_text("in the way")
    (answer,) = driver.engine.start([Start(an_order("true"), LONG_MS, 0)])
    assert answer.verdict is StartVerdict.REFUSED
    assert "cannot start here" in answer.detail
    runs.unlink()
    runs.mkdir()


@pytest.mark.parametrize("script", ["\ud800", "#!/no/such/interpreter\n", "#!\n", "\x00"])
@pytest.mark.parametrize("environment", [{}, {"A": "\x00"}, {"B=C": "d"}, {"E": "\ud800"}])
def test_what_cannot_be_started_ends_with_words(driver: Driver, script: str, environment: dict[str, str]) -> None:
    order = an_order(script, environment=environment)
    (answer,) = driver.engine.start([Start(order, LONG_MS, 0)])
    assert (answer.verdict is StartVerdict.REFUSED and answer.detail) or driver.ending(RUN).known


@pytest.mark.parametrize("place", ["/no/such/place/out", "", "out\x00put", "x" * 300])
def test_an_output_that_cannot_be_opened_is_a_clear_failure(driver: Driver, tmp_path: Path, place: str) -> None:
    ending = driver.run("true", working_directory=str(tmp_path), stdout=place or str(tmp_path))
    assert (ending.known, ending.exit_code) == (True, 1)
    assert ending.detail.startswith("stdout")
    assert ending.detail in driver.output(RUN, "stderr")


@pytest.mark.parametrize(
    ("name", "number"),
    [("TERM", 15), ("SIGUSR1", 10), ("usr2", 12), ("12", 12), ("nonsense", 15), ("", 15), ("9999", 15), ("²", 15)],
)
def test_a_notice_is_always_some_signal(name: str, number: int) -> None:
    assert signal_number(name) == number


# --- slices ----------------------------------------------------------------------------------------------------------

LISTED = """\
GPU 0: NVIDIA B200 (UUID: GPU-0)
  MIG 1g.23gb     Device  0: (UUID: MIG-a)
  MIG 1g.23gb     Device  1: (UUID: MIG-b)
GPU 1: NVIDIA B200 (UUID: GPU-1)
  MIG 3g.90gb     Device  0: (UUID: MIG-c)
  MIG 1g.23gb     Device  1: (UUID: MIG-d)
"""


def with_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an `nvidia-smi` on the path that says what the driver's own does."""
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")


def test_a_job_finds_its_slices_under_the_names_the_driver_gives_them(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_driver(tmp_path, monkeypatch, f"cat <<'END'\n{LISTED}END")
    driver.run("echo $CUDA_VISIBLE_DEVICES", spans=(Span(0, 1, 0b110),), slice="1g.23gb")
    assert driver.output(RUN) == "MIG-b,MIG-d\n"
    too_few = an_order("true", 2, spans=(Span(0, 1, 0b1000),), slice="1g.23gb")
    answer = driver.engine.start([Start(too_few, LONG_MS, LONG_MS)])[0]
    assert answer.verdict is StartVerdict.REFUSED
    assert "this machine has 3 slices of 1g.23gb, and the run's is number 3" in answer.detail


def test_a_job_on_shards_finds_its_gpu_whatever_the_driver_says(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_driver(tmp_path, monkeypatch, "echo NVML: not today; exit 9")
    driver.run("echo $CUDA_VISIBLE_DEVICES", spans=(Span(0, 1, 0b11 << 4),), slice="shard", slices_per_gpu=4)
    assert driver.output(RUN) == "1\n"


def test_a_driver_that_fails_starts_no_job_on_slices(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_driver(tmp_path, monkeypatch, "echo NVML: not today; exit 9")
    order = an_order("true", spans=(Span(0, 1, 1),), slice="1g.23gb")
    answer = driver.engine.start([Start(order, LONG_MS, LONG_MS)])[0]
    assert (answer.verdict, "not today" in answer.detail) == (StartVerdict.REFUSED, True)
