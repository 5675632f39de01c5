"""What every `Engine` must do. Subclass `EngineConformance`, say how to open the engine, and let pytest collect it."""

import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pumasi.model.jobs import Span, StopCause
from pumasi.ports.engine import Ending, Engine, Start, StartVerdict
from pumasi.protocol.messages import RunKey, StartOrder

_LONG_MS = 600_000

ORDER = StartOrder(
    run=RunKey(1, 1),
    name="train",
    user="mina",
    queue="public/academia/kaist",
    pool="sejong-b200",
    spans=(Span(0, 2, 0b11111111), Span(4, 1, 0b11111111)),
    script="true",
    environment={},
    working_directory="",
    stdout="",
    stderr="",
    time_limit_seconds=600,
    notice_signal="TERM",
)


def an_order(script: str, job: int = 1, attempt: int = 1, **changes: Any) -> StartOrder:
    """An order for three whole nodes to run `script`; `changes` are fields of `StartOrder`."""
    return msgspec.structs.replace(ORDER, run=RunKey(job, attempt), script=script, **changes)


class Driver:
    """Calls an engine as an agent would, and collects what it tells."""

    def __init__(self, engine: Engine, patience_seconds: float) -> None:
        self.engine = engine
        self._patience_seconds = patience_seconds
        self.endings: dict[RunKey, Ending] = {}
        self.started: dict[RunKey, None] = {}
        self.told: list[Ending] = []

    def start(self, order: StartOrder, time_limit_ms: int = _LONG_MS, grace_ms: int = _LONG_MS) -> None:
        """Start a run that the engine has to take."""
        verdict = self.verdict(order, time_limit_ms, grace_ms)
        assert verdict in (StartVerdict.ACCEPTED, StartVerdict.QUEUED)
        if verdict is StartVerdict.ACCEPTED and order.run not in self.endings:
            self.started.setdefault(order.run)

    def verdict(self, order: StartOrder, time_limit_ms: int = _LONG_MS, grace_ms: int = _LONG_MS) -> StartVerdict:
        """What the engine says to an order."""
        return self.engine.start([Start(order, time_limit_ms, grace_ms)])[0].verdict

    def poll(self) -> None:
        """Ask once."""
        polled = self.engine.poll()
        for run in polled.started:
            assert run not in self.started, "a start is told once"
            self.started[run] = None
        for ending in polled.ended:
            self.told.append(ending)
            self.endings[ending.run] = ending

    def ending(self, run: RunKey) -> Ending:
        """The ending of a run, once the engine tells it."""
        give_up_at = time.monotonic() + self._patience_seconds
        while run not in self.endings:
            assert time.monotonic() < give_up_at, f"{run} did not end in time"
            self.poll()
            time.sleep(0.005)
        return self.endings[run]

    def run(self, script: str, job: int = 1, **changes: Any) -> Ending:
        """Start a run and see it end."""
        order = an_order(script, job, **changes)
        self.start(order)
        return self.ending(order.run)

    def output(self, run: RunKey, stream: str = "stdout") -> str:
        """All a run wrote."""
        return self.engine.read_output(run, stream, 0, 1 << 20).data.decode()

    def await_output(self, run: RunKey, text: str) -> None:
        """Wait until a run has written `text` to its stdout."""
        give_up_at = time.monotonic() + self._patience_seconds
        while text not in self.output(run):
            assert time.monotonic() < give_up_at, f"{run} did not write {text!r} in time"
            self.poll()
            time.sleep(0.005)


class EngineConformance(ABC):
    """The suite. `patience_seconds`: how long the engine may take for anything it does at once."""

    patience_seconds = 60.0

    @abstractmethod
    def open_engine(self, directory: Path) -> Engine:
        """The engine of a site whose files are in `directory`; opened anew over the same directory, it is a restart."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[Driver]:
        """A driver of a new engine; at the end, everything of it is ended."""
        with self.opened(tmp_path) as driver:
            yield driver

    @contextmanager
    def opened(self, directory: Path) -> Iterator[Driver]:
        """A driver; leaving, every run it has started is ended."""
        driver = Driver(self.open_engine(directory), self.patience_seconds)
        try:
            yield driver
        finally:
            for found in driver.engine.find():
                if found.ending is None and driver.engine.stop(found.run, StopCause.CANCEL, "KILL", 0):
                    driver.ending(found.run)
            driver.engine.close()

    # --- how it ends -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("code", [0, 1, 7, 137, 143, 255])
    def test_an_exit_code_is_told_as_it_is(self, driver: Driver, code: int) -> None:
        assert driver.run(f"exit {code}") == Ending(RunKey(1, 1), exit_code=code)

    @pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("USR1", 10), ("INT", 2)])
    def test_a_signal_is_told_as_a_signal(self, driver: Driver, name: str, number: int) -> None:
        assert driver.run(f"kill -{name} $$") == Ending(RunKey(1, 1), signal=number)

    def test_an_end_is_told_once(self, driver: Driver) -> None:
        driver.run("exit 0")
        driver.poll()
        assert len(driver.told) == 1

    def test_a_start_is_told_before_the_end(self, driver: Driver) -> None:
        driver.run("exit 0")
        assert list(driver.started) == [RunKey(1, 1)]

    def test_runs_go_on_side_by_side(self, driver: Driver) -> None:
        answers = driver.engine.start([Start(an_order(f"exit {job}", job), _LONG_MS, _LONG_MS) for job in range(1, 9)])
        assert {answer.verdict for answer in answers} <= {StartVerdict.ACCEPTED, StartVerdict.QUEUED}
        assert [driver.ending(RunKey(job, 1)).exit_code for job in range(1, 9)] == list(range(1, 9))

    def test_the_time_limit_ends_a_run(self, driver: Driver) -> None:
        driver.start(an_order("exec sleep 600"), time_limit_ms=200)
        ending = driver.ending(RunKey(1, 1))
        assert (ending.stopped_for, ending.signal) == (StopCause.TIME_LIMIT, 15)

    def test_a_run_that_ignores_its_time_limit_is_killed_after_the_grace(self, driver: Driver) -> None:
        # A second, so that the shell has got as far as its first word on a slow machine too.
        driver.start(an_order("trap '' TERM; while :; do sleep 0.1; done"), time_limit_ms=1000, grace_ms=200)
        ending = driver.ending(RunKey(1, 1))
        assert (ending.stopped_for, ending.signal) == (StopCause.TIME_LIMIT, 9)

    # --- stopping ----------------------------------------------------------------------------------------------------

    def test_a_stop_gives_notice_and_the_run_may_save_its_work(self, driver: Driver) -> None:
        script = "trap 'echo saved; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
        driver.start(an_order(script))
        driver.await_output(RunKey(1, 1), "ready")
        assert driver.engine.stop(RunKey(1, 1), StopCause.RECLAIM, "USR1", _LONG_MS)
        ending = driver.ending(RunKey(1, 1))
        assert (ending.stopped_for, ending.exit_code) == (StopCause.RECLAIM, 5)
        assert "saved" in driver.output(RunKey(1, 1))

    def test_a_run_that_ignores_the_notice_is_killed(self, driver: Driver) -> None:
        driver.start(an_order("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
        driver.await_output(RunKey(1, 1), "ready")
        driver.engine.stop(RunKey(1, 1), StopCause.DRAIN, "TERM", 200)
        ending = driver.ending(RunKey(1, 1))
        assert (ending.stopped_for, ending.signal) == (StopCause.DRAIN, 9)

    def test_a_second_stop_can_only_bring_the_end_nearer(self, driver: Driver) -> None:
        driver.start(an_order("trap 'echo noticed' TERM; echo ready; while :; do sleep 0.05; done"))
        driver.await_output(RunKey(1, 1), "ready")
        driver.engine.stop(RunKey(1, 1), StopCause.RECLAIM, "TERM", _LONG_MS)
        driver.await_output(RunKey(1, 1), "noticed")
        driver.engine.stop(RunKey(1, 1), StopCause.CANCEL, "TERM", 100)
        assert driver.ending(RunKey(1, 1)).stopped_for is StopCause.RECLAIM

    def test_what_is_not_there_cannot_be_stopped(self, driver: Driver) -> None:
        assert not driver.engine.stop(RunKey(9, 9), StopCause.CANCEL, "TERM", 0)

    # --- starting once -----------------------------------------------------------------------------------------------

    def test_starting_again_changes_nothing(self, driver: Driver, tmp_path: Path) -> None:
        order = an_order(f"echo x >> {shlex.quote(str(tmp_path / 'trace'))}; sleep 0.3")
        for _ in range(3):
            driver.start(order)
        driver.ending(order.run)
        assert driver.verdict(order) is StartVerdict.REFUSED
        driver.poll()
        assert ((tmp_path / "trace").read_text(), len(driver.told)) == ("x\n", 1)

    def test_each_attempt_is_a_run_of_its_own(self, driver: Driver) -> None:
        for attempt in (1, 2):
            driver.start(an_order("echo $PUMASI_ATTEMPT $SLURM_RESTART_COUNT", 1, attempt))
            driver.ending(RunKey(1, attempt))
        assert [driver.output(RunKey(1, attempt)) for attempt in (1, 2)] == ["1 0\n", "2 1\n"]

    # --- what a job finds --------------------------------------------------------------------------------------------

    def test_a_job_learns_what_it_was_given(self, driver: Driver) -> None:
        ours = ("PUMASI_JOB_ID", "PUMASI_NODELIST", "PUMASI_NODE_COUNT", "PUMASI_GPUS", "PUMASI_GPUS_PER_NODE")
        slurm = ("PUMASI_POOL", "PUMASI_QUEUE", "SLURM_NNODES", "SLURM_JOB_NAME", "SLURM_PROCID")
        driver.run("".join(f"echo ${name}\n" for name in ours + slurm))
        assert driver.output(RunKey(1, 1)).splitlines() == [
            *("1", "sejong-b200-[00001-00002,00005]", "3", "24", "8"),
            *("sejong-b200", "public/academia/kaist", "3", "train", "0"),
        ]

    def test_values_arrive_byte_for_byte(self, driver: Driver) -> None:
        value = "a 'b' \"c\" $(d) `e` \\ \n\t품앗이 %s ; & | > *"
        driver.run('printf %s "$NOTE"', environment={"NOTE": value})
        assert driver.output(RunKey(1, 1)) == value

    def test_a_script_may_name_its_interpreter(self, driver: Driver) -> None:
        driver.run("#!/usr/bin/env python3\nprint(6 * 7)\n")
        assert driver.output(RunKey(1, 1)) == "42\n"

    def test_a_job_runs_where_it_wants_and_writes_where_it_wants(self, driver: Driver, tmp_path: Path) -> None:
        driver.run("pwd; echo oops >&2", working_directory=str(tmp_path), stdout="out-%j.txt", stderr="err-%x.txt")
        assert (tmp_path / "out-1.txt").read_text() == f"{tmp_path}\n"
        assert (tmp_path / "err-train.txt").read_text() == "oops\n"
        assert driver.output(RunKey(1, 1), "stderr") == "oops\n"

    def test_one_named_file_takes_both_streams(self, driver: Driver, tmp_path: Path) -> None:
        driver.run("echo one; echo two >&2; echo three", working_directory=str(tmp_path), stdout="both")
        assert (tmp_path / "both").read_text() == "one\ntwo\nthree\n"

    def test_a_missing_working_directory_is_a_clear_failure(self, driver: Driver, tmp_path: Path) -> None:
        ending = driver.run("true", working_directory=str(tmp_path / "nowhere"))
        assert (ending.known, ending.exit_code, ending.stopped_for) == (True, 1, None)
        assert "nowhere" in ending.detail
        assert "nowhere" in driver.output(RunKey(1, 1), "stderr")

    # --- output ------------------------------------------------------------------------------------------------------

    def test_output_is_read_in_pieces_and_is_complete_at_the_end(self, driver: Driver) -> None:
        driver.start(an_order("printf abc; until [ -e go ]; do sleep 0.02; done; printf defgh"))
        driver.await_output(RunKey(1, 1), "abc")
        first = driver.engine.read_output(RunKey(1, 1), "stdout", 0, 2)
        assert (first.data, first.size, first.complete) == (b"ab", 3, False)
        driver.engine.stop(RunKey(1, 1), StopCause.CANCEL, "TERM", 0)
        driver.ending(RunKey(1, 1))
        last = driver.engine.read_output(RunKey(1, 1), "stdout", 2, 100)
        assert (last.data, last.size, last.complete) == (b"c", 3, True)
        assert driver.engine.read_output(RunKey(1, 1), "stdout", 50, 100).data == b""

    def test_output_stays_after_the_run_is_forgotten(self, driver: Driver) -> None:
        driver.run("echo kept")
        driver.engine.forget(RunKey(1, 1))
        driver.engine.forget(RunKey(1, 1))
        assert driver.output(RunKey(1, 1)) == "kept\n"

    def test_output_of_what_never_was_is_a_problem_in_words(self, driver: Driver) -> None:
        assert driver.engine.read_output(RunKey(9, 9), "stdout", 0, 10).problem

    # --- restarts ----------------------------------------------------------------------------------------------------

    def test_a_live_run_is_found_again_and_its_end_is_told(self, driver: Driver, tmp_path: Path) -> None:
        driver.start(
            an_order("echo ready; until [ -e go ]; do sleep 0.02; done; exit 9", working_directory=str(tmp_path))
        )
        driver.await_output(RunKey(1, 1), "ready")
        with self.opened(tmp_path) as other:
            assert [(found.run, found.ending) for found in other.engine.find()] == [(RunKey(1, 1), None)]
            (tmp_path / "go").touch()
            assert other.ending(RunKey(1, 1)).exit_code == 9

    def test_a_run_that_ended_unwatched_is_found_with_its_end(self, driver: Driver, tmp_path: Path) -> None:
        driver.start(an_order("exit 4"))
        give_up_at = time.monotonic() + self.patience_seconds
        with self.opened(tmp_path) as other:
            found = other.engine.find()
            while found[0].ending is None and time.monotonic() < give_up_at:
                found = other.engine.find()
            assert found[0].ending == Ending(RunKey(1, 1), exit_code=4)

    def test_a_forgotten_run_is_not_found(self, driver: Driver) -> None:
        driver.run("exit 0")
        driver.engine.forget(RunKey(1, 1))
        assert driver.engine.find() == ()

    def test_a_found_run_can_be_stopped(self, driver: Driver, tmp_path: Path) -> None:
        driver.start(an_order("exec sleep 600"))
        with self.opened(tmp_path) as other:
            other.engine.find()
            assert other.engine.stop(RunKey(1, 1), StopCause.CANCEL, "TERM", _LONG_MS)
            assert other.ending(RunKey(1, 1)).stopped_for is StopCause.CANCEL
