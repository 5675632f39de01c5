"""What the local engine keeps of a run on disk, shared with the run's supervisor (which says what each file means)."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pumasi.agents.supervisor import process_start
from pumasi.model.jobs import Outcome, StopCause
from pumasi.ports.engine import Ending, Output
from pumasi.protocol.messages import RunKey


class Launch(Struct, frozen=True, kw_only=True):
    """The record `launch`: all a supervisor needs. Durations are milliseconds of real time.

    `inherited`: variables that the job takes from what is around its supervisor; a name that ends in `_` stands for all
    that begin so, and one after a `-` is left out. `engine_kill_ms`: how long the job may take to end when the engine
    itself tells the supervisor to.
    """

    run: RunKey
    arguments: tuple[str, ...]
    environment: dict[str, str]
    working_directory: str
    stdout: str
    stderr: str
    output_limit_bytes: int
    output_check_ms: int
    time_limit_ms: int
    grace_ms: int
    inherited: tuple[str, ...] = ()
    engine_kill_ms: int = 0


class StopRequest(Struct, frozen=True, kw_only=True):
    """The record `stop`; `signal` is a number."""

    cause: StopCause
    signal: int
    kill_in_ms: int


class ExitRecord(Struct, frozen=True, kw_only=True):
    """The record `exit`. `cause`: why it was told to stop, empty if it was not.

    `by_engine`: it ended because the engine itself told its supervisor to end it.
    """

    exit_code: int = 0
    signal: int = 0
    cause: str = ""
    known: bool = True
    detail: str = ""
    by_engine: bool = False
    outcome: Outcome | None = None

    def ending(self, run: RunKey) -> Ending:
        """The same as the agent's port says it."""
        stopped_for = StopCause(self.cause) if self.cause else None
        return Ending(run, self.exit_code, self.signal, stopped_for, self.known, self.detail, self.outcome)


class Keeper(Struct, frozen=True):
    """The record `supervisor`: a process, named for ever by pid and start on its host.

    `engine_id`: what the engine calls the job it was started as, if there is one. Pid 0: it is claimed for nobody.
    """

    pid: int
    start: int
    host: str = ""
    engine_id: str = ""

    def lives(self) -> bool:
        """True if that very process is there and not a zombie."""
        try:
            return process_start(self.pid) == self.start and not _is_zombie(self.pid)
        except OSError:
            return False


class _OutputFile(Struct, frozen=True):
    path: str
    device: int
    inode: int


class RunDirectory(NamedTuple):
    """A run's directory; what is not there reads as None."""

    path: Path

    def create(self, launch: Launch, script: str, nodes: str) -> None:
        """Lay out everything a supervisor needs; `launch` comes last, so that it vouches for the rest.

        :raises OSError: if the disk does not take it.
        """
        self.path.mkdir(mode=0o700, exist_ok=True)
        (self.path / "work").mkdir(exist_ok=True)
        self._write("script", script.encode(), 0o700)
        self._write("nodes", nodes.encode(), 0o600)
        self.write_record("launch", launch)

    def write_record(self, name: str, record: Struct) -> None:
        """Write a record so that a reader sees all of it or nothing."""
        draft = self.path / f"{name}.draft"
        self._write(draft.name, msgspec.json.encode(record), 0o600)
        draft.rename(self.path / name)

    def launch(self) -> Launch | None:
        """What was ordered."""
        raw = self._read("launch")
        return None if raw is None else msgspec.json.decode(raw, type=Launch)

    def keeper(self) -> Keeper | None:
        """Its supervisor, if one has claimed it."""
        raw = self._read("supervisor")
        return None if raw is None else msgspec.json.decode(raw, type=Keeper)

    def claim_for_nobody(self) -> bool:
        """Claim the run so that no supervisor ever will; False if one has."""
        draft = self.path / "supervisor.nobody"
        self._write(draft.name, msgspec.json.encode(Keeper(pid=0, start=0)), 0o600)
        try:
            (self.path / "supervisor").hardlink_to(draft)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def ending(self, run: RunKey) -> Ending | None:
        """How it ended, if the record is there."""
        record = self.exit_record()
        return None if record is None else record.ending(run)

    def exit_record(self) -> ExitRecord | None:
        """The record `exit`, if it is there."""
        raw = self._read("exit")
        return None if raw is None else msgspec.json.decode(raw, type=ExitRecord)

    def stop_request(self) -> StopRequest | None:
        """The last order to stop, if there is one."""
        raw = self._read("stop")
        return None if raw is None else msgspec.json.decode(raw, type=StopRequest)

    def strip(self) -> None:
        """Drop what only a live run needs, the environment with its secrets among it."""
        for name in ("launch", "script", "nodes", "stop", "supervisor"):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the job has left files there: they are its own
            (self.path / "work").rmdir()

    def read_output(self, stream: str, offset: int, limit: int) -> Output:
        """A piece of `stream`. The job could have put another file in its output's place: that one is not shown."""
        complete = (self.path / "exit").exists()  # looked at first: what is written before the end is then all there
        raw = self._read("outputs")
        if raw is None:
            return Output(complete=complete)
        file = msgspec.json.decode(raw, type=dict[str, _OutputFile]).get(stream)
        if file is None:
            return Output(complete=complete, problem=f"this site keeps no {stream} of a run")
        try:
            return self._read_file(file, offset, limit, complete)
        except OSError as error:
            gone = "the output file is gone" if error.errno == errno.ENOENT else f"output: {error.strerror}"
            return Output(complete=complete, problem=gone)

    def _read_file(self, file: _OutputFile, offset: int, limit: int, complete: bool) -> Output:
        if file.inode == 0:
            return Output(complete=complete)
        # Nonblocking: opening a pipe that stands in the file's place must not hang the agent.
        descriptor = os.open(self.path / file.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return Output(complete=complete, problem="the output does not go to a file")
            if (status.st_dev, status.st_ino) != (file.device, file.inode):
                return Output(complete=complete, problem="the output file was replaced by another")
            return Output(os.pread(descriptor, limit, offset), status.st_size, complete)
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write(self, name: str, data: bytes, mode: int) -> None:
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def processes_of(runs: Path) -> dict[int, str]:
    """Processes whose environment names a run directory under `runs`: pid -> the directory's name."""
    mark = b"PUMASI_RUN_DIRECTORY=" + os.fsencode(runs) + b"/"
    found: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            name = _marked(int(entry), mark)
            if name is not None:
                found[int(entry)] = name
    return found


def _marked(pid: int, mark: bytes) -> str | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:  # it has gone, or is another user's
        return None
    return next((os.fsdecode(each[len(mark) :]) for each in variables if each.startswith(mark)), None)


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
