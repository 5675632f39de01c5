"""Starts runs and stays with each to its end. Runs as a program of its own; stdlib only.

For the local engine the program is a small process that the agent starts once. For each run directory it is told of, it
forks a supervisor, which starts the job and outlives the agent: it keeps the time limit, gives notice and kills, ends
whatever the job leaves behind, and writes the exit record. So a run's end is known although nobody watched. The
supervisor adopts all orphans of its job (it is their "subreaper"), so nothing a job starts can slip away, whatever
session or environment it gives itself.

For an engine with machines of its own (Slurm), the program is told one run directory, which all of them see, and is the
supervisor itself, wherever and however often the engine starts it: only the first to claim the run goes on.

In a run directory: `launch` (what to run), `supervisor` (who keeps it: made once, so a run is started once), `outputs`
(the files the job writes to), `stop` (the agent's order to stop), `exit` (how it ended; written last).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False  # as that of `typing`, whose import would take a seventh of a supervisor's start
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Record = dict[str, Any]

_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNAL = signal.SIGUSR1
_HELD = frozenset({signal.SIGCHLD, _STOP_SIGNAL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_ENGINE_STOP_SIGNAL = signal.SIGTERM  # what an engine sends that ends the job itself
_COPY_BYTES = 1 << 20
_KILL_AGAIN_SECONDS = 0.2
_REQUEST_BYTES = 8192
_SHELL_SIGNAL_CODES = 128  # a shell whose command was killed by signal n exits with 128 + n
_ENGINE_SIGNAL_SECONDS = 0.5
_FOREVER = float("inf")


def serve(channel: int) -> None:
    """Fork a supervisor for every run directory that comes over `channel`; answer with its pid, or -errno."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries supervisors; nobody asks for their status
    # A supervisor must never meet a signal before it can handle it, so they are held from before it is born.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    gc.disable()
    gc.freeze()  # shared pages stay shared: a supervisor costs little memory
    with contextlib.suppress(ConnectionError):  # the agent went away before the answer
        while request := os.read(channel, _REQUEST_BYTES):
            os.write(channel, b"%d" % _fork_supervisor(channel, request))


def _fork_supervisor(channel: int, request: bytes) -> int:
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if pid:
        return pid
    try:
        os.close(channel)
        _supervise(os.fsdecode(request))
    finally:
        os._exit(0)


def _supervise(directory: str) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
        os.set_inheritable(standard, True)  # dup2 leaves a descriptor as it is where it already stands
    os.umask(0o077)
    if claim(directory):
        _keep(directory, {signal.SIGCHLD, _STOP_SIGNAL})


def serve_engine(directory: str, engine_id: str, restarts: str) -> int:
    """Be the supervisor of a run, as the batch script of an engine's job; returns what the job is to exit with.

    A job that the engine starts again by itself is not ours to run: what becomes of the run is the control plane's
    decision, and it would be another attempt.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    os.umask(0o077)
    if restarts not in ("", "0") or not claim(directory, engine_id):
        return 0
    ending = _keep(directory, {signal.SIGCHLD, _STOP_SIGNAL, _ENGINE_STOP_SIGNAL})
    number = int(ending.get("signal", 0))
    return 128 + number if number else int(ending.get("exit_code", 1))


def _keep(directory: str, waited_for: set[signal.Signals]) -> Record:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        ending = Supervisor(directory, _read(directory, "launch"), waited_for).run()
    except Exception as error:  # noqa: BLE001  (whatever it is, it is recorded: the run is over)
        _end_children()
        ending = {"known": False, "detail": f"the supervisor failed: {error!r}"}
    if not os.path.exists(f"{directory}/exit"):  # else it was given up, and that has been told
        _write(directory, "exit", ending, durable=True)
    return ending


def claim(directory: str, engine_id: str = "") -> bool:
    """True for the first supervisor of a run; there is never a second. False too if the run's directory is gone."""
    pid, host = os.getpid(), os.uname().nodename
    record = {"pid": pid, "start": process_start(pid), "host": host, "engine_id": engine_id}
    draft = f"{directory}/supervisor.{host}.{pid}"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(record, file)
    except FileNotFoundError:
        return False
    try:
        os.link(draft, f"{directory}/supervisor")
    except FileExistsError:
        # Over a network the first request may have been carried out and only its answer lost: then there are two names.
        return os.stat(draft).st_nlink > 1
    finally:
        os.unlink(draft)
    return True


class CannotStart(Exception):
    """The job could not be started, by its own fault: what is missing is not ours. `exit_code` as a shell's."""

    def __init__(self, exit_code: int, detail: str) -> None:
        super().__init__(detail)
        self.exit_code = exit_code


class Supervisor:
    """One run, from start to end. `launch`: the record the engine wrote; its durations are milliseconds."""

    def __init__(self, directory: str, launch: Record, waited_for: set[signal.Signals]) -> None:
        self._directory = directory
        self._launch = launch
        self._waited_for = waited_for
        self._cause = ""
        self._by_engine = False
        self._time_limit_at = _in(launch["time_limit_ms"])
        self._kill_at = _FOREVER
        self._check_outputs_at = _in(launch["output_check_ms"])
        self._job = 0

    def run(self) -> Record:
        """Start the job, see it through, leave nothing behind; returns the exit record."""
        self._heed_order()
        if self._cause:
            return {"cause": self._cause, "detail": "told to stop before it started"}
        try:
            self._start()
        except CannotStart as problem:
            return self._failed(problem)
        status = self._see_through()
        self._look_for_engine(status)
        _end_children()
        for path in self._flooded_outputs():  # nobody writes any more: its last part can be kept
            _keep_tail(path, self._launch["output_limit_bytes"])
            self._note_cut(path)
        return {
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "cause": self._cause,
            "by_engine": self._by_engine,
        }

    def _failed(self, problem: CannotStart) -> Record:
        """The user finds the reason where they look first: in the run's stderr."""
        path = f"{self._directory}/stderr"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"pumasi: {problem}\n".encode(errors="backslashreplace"))
        self._note_outputs({"stdout": (f"{self._directory}/stdout", None), "stderr": (path, descriptor)})
        return {"exit_code": problem.exit_code, "signal": 0, "cause": "", "detail": str(problem)}

    # -- starting

    def _start(self) -> None:
        directory = self._launch["working_directory"]
        try:
            os.chdir(directory)
        except (OSError, ValueError) as error:
            raise CannotStart(1, f"working directory {directory!r}: {_reason(error)}") from error
        outputs = self._open_outputs()
        failure_end, success_end = os.pipe()
        self._job = os.fork()
        if self._job == 0:
            _become_job(self._launch, outputs["stdout"], outputs["stderr"], success_end)
        os.close(success_end)
        os.chdir("/")  # a supervisor pins no file system
        for descriptor in set(outputs.values()):
            os.close(descriptor)
        self._await_exec(failure_end)

    def _open_outputs(self) -> dict[str, int]:
        paths = {stream: self._launch[stream] for stream in ("stdout", "stderr")}
        opened: dict[str, int] = {}
        for stream, path in paths.items():
            if stream == "stderr" and path == paths["stdout"]:
                opened[stream] = opened["stdout"]
                continue
            try:
                opened[stream] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
            except (OSError, ValueError) as error:
                raise CannotStart(1, f"{stream} {path!r}: {_reason(error)}") from error
        self._note_outputs({stream: (paths[stream], opened[stream]) for stream in paths})
        return opened

    def _note_outputs(self, opened: dict[str, tuple[str, int | None]]) -> None:
        """Remember which files they are, so that a reader can tell if a name has come to mean another file."""
        record = {}
        for stream, (path, descriptor) in opened.items():
            status = os.fstat(descriptor) if descriptor is not None else None
            own = path == f"{self._directory}/{stream}"
            record[stream] = {
                # Our own by name alone: the directory moves once the run is over.
                "path": path.removeprefix(f"{self._directory}/") if own else os.path.abspath(path),
                "device": status.st_dev if status else 0,
                "inode": status.st_ino if status else 0,
            }
        _write(self._directory, "outputs", record)

    def _await_exec(self, failure_end: int) -> None:
        failure = os.read(failure_end, 16)
        os.close(failure_end)
        if failure:
            os.waitpid(self._job, 0)
            self._job = 0
            number = int(failure)
            raise CannotStart(126 if number == errno.EACCES else 127, self._why_not(number))

    def _why_not(self, number: int) -> str:
        script = self._launch["arguments"][-1]
        with open(script, "rb") as file:
            first_line = file.readline(200).decode(errors="replace").strip()
        return f"the script cannot be executed (first line {first_line!r}): {os.strerror(number)}"

    # -- seeing it through

    def _see_through(self) -> int:
        """The job's wait status."""
        while True:
            status = self._bury()
            if status is not None:
                return status
            now = time.monotonic()
            self._act(now)
            wake_at = min(self._time_limit_at, self._kill_at, self._check_outputs_at)
            arrived = signal.sigtimedwait(self._waited_for, max(0.0, wake_at - now))
            if arrived is not None and arrived.si_signo == _STOP_SIGNAL:
                self._heed_order()
            if arrived is not None and arrived.si_signo == _ENGINE_STOP_SIGNAL:
                self._heed_engine()

    def _bury(self) -> int | None:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return None
            if pid == self._job:
                return status

    def _act(self, now: float) -> None:
        if now >= self._time_limit_at:
            self._time_limit_at = _FOREVER
            self._stop("time_limit", signal.SIGTERM, self._launch["grace_ms"])
        if now >= self._kill_at:
            self._signal(signal.SIGKILL)
            self._kill_at = now + _KILL_AGAIN_SECONDS
        if now >= self._check_outputs_at:
            self._check_outputs_at = _in(self._launch["output_check_ms"])
            self._show_life()
            for path in self._flooded_outputs():
                os.truncate(path, 0)
                self._note_cut(path)

    def _show_life(self) -> None:
        """An agent on another machine sees that the run lives, and can order its end when no signal gets through."""
        with contextlib.suppress(OSError):
            os.utime(f"{self._directory}/supervisor")
        self._heed_order()
        if os.path.exists(f"{self._directory}/exit") or not os.path.exists(self._directory):
            self._kill_at = 0.0  # the run has been given up: somebody else may have its place

    def _heed_engine(self) -> None:
        """The engine ends the job, and will kill everything, this process too, a moment later: be done before."""
        self._by_engine = self._by_engine or not self._cause
        self._kill_at = min(self._kill_at, _in(self._launch["engine_kill_ms"]))
        self._signal(signal.SIGTERM)

    def _heed_order(self) -> None:
        try:
            order = _read(self._directory, "stop")
        except FileNotFoundError:
            return
        self._stop(order["cause"], order["signal"], order["kill_in_ms"])

    def _stop(self, cause: str, number: int, kill_in_ms: int) -> None:
        self._kill_at = min(self._kill_at, _in(kill_in_ms))
        if not self._cause:
            self._cause = cause
            self._signal(number)

    def _look_for_engine(self, status: int) -> None:
        """An engine that ends a job signals all its processes, and some may be gone before this one has its signal."""
        if _ENGINE_STOP_SIGNAL not in self._waited_for:
            return
        by_signal = os.WIFSIGNALED(status) or os.WEXITSTATUS(status) > _SHELL_SIGNAL_CODES
        patience_seconds = _ENGINE_SIGNAL_SECONDS if by_signal else 0.0
        if signal.sigtimedwait({_ENGINE_STOP_SIGNAL}, patience_seconds) is not None:
            self._by_engine = self._by_engine or not self._cause

    def _signal(self, number: int) -> None:
        # The job leads its group and is not buried yet, so the number cannot mean anybody else.
        if self._job:
            with contextlib.suppress(PermissionError):  # all of it has become another user's (sudo)
                os.killpg(self._job, number)

    def _flooded_outputs(self) -> list[str]:
        """Output files of ours that have passed the limit; files a job names itself are its own affair."""
        limit = self._launch["output_limit_bytes"]
        own = (f"{self._directory}/{stream}" for stream in ("stdout", "stderr") if self._is_own(stream))
        return [path for path in own if os.path.exists(path) and os.path.getsize(path) > limit]

    def _is_own(self, stream: str) -> bool:
        return bool(self._launch[stream] == f"{self._directory}/{stream}")

    def _note_cut(self, path: str) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"\npumasi: this passed {self._launch['output_limit_bytes']} bytes; what came before is cut\n")


def _become_job(launch: Record, stdout: int, stderr: int, failure: int) -> NoReturn:
    try:
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        arguments = launch["arguments"]
        environment = {**launch["environment"], **_inherited(launch["inherited"])}
        os.execve(arguments[0], arguments, environment)  # noqa: S606  (a user's job, and no shell of ours)
    except OSError as error:
        os.write(failure, b"%d" % (error.errno or 1))
    except ValueError:
        os.write(failure, b"22")  # EINVAL
    finally:
        os._exit(127)


def _inherited(names: list[str]) -> dict[str, str]:
    beginnings = tuple(name for name in names if name.endswith("_"))
    return {
        name: value
        for name, value in os.environ.items()
        if (name in names or name.startswith(beginnings)) and f"-{name}" not in names
    }


def _end_children() -> None:
    """Kill all there is below this process until nothing is left; orphans of the killed come to us and go next."""
    while True:
        for pid in _children():
            with contextlib.suppress(PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    # Not buried before this process waits for them, so none of these numbers can have come to mean another process.
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel built without it
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == os.getpid()]


def _parent(pid: int) -> int:
    try:
        return int(_status_fields(pid)[1])
    except OSError:
        return 0


def _status_fields(pid: int) -> list[bytes]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()  # the name before it may hold anything, parentheses too


def _keep_tail(path: str, size: int) -> None:
    """Move the last `size` bytes of a file to its start and cut the rest."""
    with open(path, "r+b", buffering=0) as file:
        start, moved = os.path.getsize(path) - size, 0
        while piece := os.pread(file.fileno(), min(_COPY_BYTES, size - moved), start + moved):
            moved += os.pwrite(file.fileno(), piece, moved)
        file.truncate(size)


def process_start(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was; with the pid it names a process for ever.

    :raises OSError: if there is no such process.
    """
    return int(_status_fields(pid)[19])


def _in(milliseconds: int) -> float:
    return time.monotonic() + milliseconds / 1000


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _read(directory: str, name: str) -> Record:
    with open(f"{directory}/{name}", encoding="utf-8") as file:
        record: Record = json.load(file)
        return record


def _write(directory: str, name: str, record: Record, durable: bool = False) -> None:
    draft = f"{directory}/{name}.draft"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.rename(draft, f"{directory}/{name}")


def main() -> int:
    """Be the supervisor of the run directory on the command line, or without one fork them for who asks on stdin."""
    if len(sys.argv) > 1:
        engine_id, restarts = (os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"))
        return serve_engine(sys.argv[1], engine_id, restarts)
    serve(sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
