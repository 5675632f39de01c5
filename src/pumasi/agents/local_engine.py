"""The local engine: jobs are processes of this machine (Linux), each kept by a supervisor that outlives the agent."""

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from pumasi.agents.environment import first_node_gpus
from pumasi.agents.layout import Limits, UnixUser, lay_out, signal_number
from pumasi.agents.mig import slice_names
from pumasi.agents.run_directory import ExitRecord, RunDirectory, StopRequest, processes_of
from pumasi.agents.run_store import RunStore
from pumasi.agents.spawner import Spawner, SpawnerAway, SpawnFailed
from pumasi.model.fleet import SHARD
from pumasi.model.ids import SiteId
from pumasi.model.jobs import StopCause
from pumasi.ports.engine import Ending, Found, Output, Polled, Start, StartAnswer, StartVerdict
from pumasi.protocol.messages import RunKey, StartOrder

_SWEEP_SECONDS = 5.0
_CLAIM_SECONDS = 0.5


class LocalSettings(Struct, frozen=True, kw_only=True):
    """`directory`: the site's own. Output files of ours start anew when a check, every `output_check_ms`, finds them
    beyond `output_limit_bytes`; ended runs are kept on disk for `keep_days`.
    """

    fleet: str
    site: SiteId
    directory: Path
    output_limit_bytes: int = 64 << 20
    output_check_ms: int = 5000
    keep_days: int = 7


class LocalEngine:
    """Runs jobs as processes of the agent's Unix user."""

    def __init__(self, settings: LocalSettings, spawner: Spawner) -> None:
        self._settings = settings
        self._spawner = spawner
        self._store = RunStore(settings.directory, settings.fleet, settings.keep_days)
        self._runs = self._store.runs
        self._watched: dict[int, RunKey] = {}  # by the pidfd of the supervisor
        self._live: dict[RunKey, int] = {}  # the same, by run
        self._untold: list[Ending] = []
        self._selector = select.epoll()
        self._wake_end, self._wake = os.pipe()
        self._selector.register(self._wake_end, select.EPOLLIN)
        self._user = UnixUser.of_this_process()

    # -- the port

    def start(self, starts: Sequence[Start]) -> list[StartAnswer]:
        """As the port says; a fault of the job's own (no such working directory) is told by `poll`, as its end."""
        return [self._start(*start) for start in starts]

    def _start(self, order: StartOrder, time_limit_ms: int, grace_ms: int) -> StartAnswer:
        if order.run in self._live or any(ending.run == order.run for ending in self._untold):
            return StartAnswer(StartVerdict.ACCEPTED)
        directory = self._store.directory(order.run)
        if self._store.is_over(order.run):
            return StartAnswer(StartVerdict.REFUSED, "this run has ended before")
        try:
            if directory.launch() is None:
                self._lay_out(directory, order, time_limit_ms, grace_ms)
            pid = self._spawn(directory)
        except SpawnerAway as error:
            return StartAnswer(StartVerdict.UNSURE, str(error))
        except (OSError, UnicodeEncodeError, SpawnFailed) as error:
            shutil.rmtree(directory.path, ignore_errors=True)
            return StartAnswer(StartVerdict.REFUSED, f"cannot start here: {error}")
        if not self._watch(order.run, pid) and not self._watch_other_keeper(order.run):
            self._add_untold(self._ending(order.run))
        return StartAnswer(StartVerdict.ACCEPTED)

    def stop(self, run: RunKey, cause: StopCause, signal: str, kill_in_ms: int) -> bool:  # the port's names
        """As the port says."""
        directory = self._store.directory(run)
        if run not in self._live:
            return directory.ending(run) is not None
        request = StopRequest(cause=cause, signal=signal_number(signal), kill_in_ms=kill_in_ms)
        try:
            directory.write_record("stop", request)
        except FileNotFoundError:  # somebody wiped the directory; what still runs is found and ended by its mark
            self._end_marked({directory.path.name})
            return True
        self._tell_supervisor(run)
        return True

    def poll(self) -> Polled:
        """As the port says; cheap when nothing has happened."""
        ended, self._untold = self._untold, []
        for descriptor, _ in self._selector.poll(0):
            if descriptor == self._wake_end:
                os.read(self._wake_end, 4096)
                continue
            run = self._unwatch(descriptor)
            if not self._watch_other_keeper(run):
                ended.append(self._ending(run))
        return Polled(tuple(ended))

    def find(self) -> tuple[Found, ...]:
        """As the port says. Processes that carry our mark but have no supervisor any more are ended."""
        self._await_claims()
        runs = [found for directory in self._store.all() if (found := self._look(directory))]
        kept = {self._store.directory(found.run).path.name for found in runs if found.ending is None}
        strays = {name for name in processes_of(self._runs).values() if name not in kept}
        self._end_marked(strays)
        return tuple(runs)

    def read_output(self, run: RunKey, stream: str, offset: int, limit: int) -> Output:
        """As the port says."""
        return self._store.read_output(run, stream, offset, limit)

    def forget(self, run: RunKey) -> None:
        """As the port says: what was written stays among the ended runs."""
        self._store.forget(run)

    def news_descriptor(self) -> int | None:
        """The descriptor that watches all supervisors at once."""
        return self._selector.fileno()

    def close(self) -> None:
        """Stop watching."""
        for descriptor in (*self._watched, self._wake_end, self._wake):
            os.close(descriptor)
        self._watched.clear()
        self._selector.close()

    # -- starting

    def _lay_out(self, directory: RunDirectory, order: StartOrder, time_limit_ms: int, grace_ms: int) -> None:
        lay_out(
            directory,
            order,
            site=self._settings.site,
            fleet=self._settings.fleet,
            user=self._user,
            limits=Limits(
                time_limit_ms=time_limit_ms,
                grace_ms=grace_ms,
                output_limit_bytes=self._settings.output_limit_bytes,
                output_check_ms=self._settings.output_check_ms,
            ),
            slices=_slices(order),
        )

    def _spawn(self, directory: RunDirectory) -> int:
        try:
            return self._spawner.spawn(directory.path)
        except SpawnerAway:
            pass
        # Asking again is safe: the first supervisor to claim the run is its only one.
        try:
            return self._spawner.spawn(directory.path)
        except SpawnFailed as error:
            raise SpawnerAway(str(error)) from error

    def _watch(self, run: RunKey, pid: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self._watched[descriptor] = run
        self._live[run] = descriptor
        self._selector.register(descriptor, select.EPOLLIN)
        return True

    def _unwatch(self, descriptor: int) -> RunKey:
        run = self._watched.pop(descriptor)
        del self._live[run]
        self._selector.unregister(descriptor)
        os.close(descriptor)
        return run

    def _watch_other_keeper(self, run: RunKey) -> bool:
        """True if the supervisor that went only came second, and the first is there: that one is watched now."""
        directory = self._store.directory(run)
        keeper = directory.keeper()
        if directory.ending(run) is not None or keeper is None or not keeper.lives():
            return False
        if not self._watch(run, keeper.pid):
            return False
        self._tell_supervisor(run)  # an order to stop may have gone to the one that went
        return True

    # -- ending

    def _tell_supervisor(self, run: RunKey) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself; `poll` will tell
            signal.pidfd_send_signal(self._live[run], signal.SIGUSR1)

    def _ending(self, run: RunKey) -> Ending:
        """How a run ended whose supervisor has gone. Without a record nobody knows; whatever is left of it goes too."""
        directory = self._store.directory(run)
        if directory.path.exists():
            directory.claim_for_nobody()
        ending = directory.ending(run)
        if ending is not None:
            return ending
        self._end_marked({directory.path.name})
        lost = ExitRecord(known=False, detail="its supervisor has gone and left no record")
        if directory.path.exists():
            directory.write_record("exit", lost)
        return lost.ending(run)

    def _end_marked(self, names: set[str]) -> None:
        """Kill every process that carries the mark of one of these run directories, until there is none."""
        give_up_at = time.monotonic() + _SWEEP_SECONDS
        while names and time.monotonic() < give_up_at:
            marked = [pid for pid, name in processes_of(self._runs).items() if name in names]
            if not marked:
                return
            for pid in marked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _add_untold(self, ending: Ending) -> None:
        self._untold.append(ending)
        os.write(self._wake, b"!")

    # -- finding

    def _await_claims(self) -> None:
        """Supervisors forked a moment ago, perhaps for an agent that died since, get the time to claim their runs."""
        give_up_at = time.monotonic() + _CLAIM_SECONDS
        directories = list(self._store.all())
        while any((each.path / "launch").exists() and each.keeper() is None for each in directories):
            if time.monotonic() > give_up_at:
                return
            time.sleep(0.005)

    def _look(self, directory: RunDirectory) -> Found | None:
        launch = directory.launch()
        if launch is None:
            return None  # the agent died while it laid it out; nothing was started, and starting it again completes it
        run = launch.run
        ending = directory.ending(run)
        if ending is not None:
            return Found(run, ending)
        if run in self._live:
            return Found(run)
        if directory.claim_for_nobody():
            shutil.rmtree(directory.path)  # no supervisor has it, and now none will: it has not started
            return None
        keeper = directory.keeper()
        if keeper is not None and keeper.lives() and self._watch(run, keeper.pid):
            return Found(run)
        return Found(run, self._ending(run))


def _slices(order: StartOrder) -> tuple[str, ...]:
    """The names of this machine's slices of the kind the run has, if it has any.

    :raises OSError: if the machine has fewer than the order counts on.
    """
    names = slice_names(order.slice) if order.slice not in {"", SHARD} else ()
    last = first_node_gpus(order)[-1]
    if names and last >= len(names):
        raise OSError(f"this machine has {len(names)} slices of {order.slice}, and the run's is number {last}")
    return names
