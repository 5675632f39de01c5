"""The Slurm engine: a run is a job of the site's Slurm whose batch script is the run's supervisor.

Slurm promises little: it may lose a job it has taken, take one it has refused, start one twice, give a number out again
and forget what has ended. So the truth of a run is in its directory, which all nodes see. Whoever claims the run there
runs it, and nobody else ever will, however many jobs Slurm makes of it; the supervisor's record says how it ended. What
has not been claimed can be claimed for nobody, and then it is proven never to have started. So submitting again is
always safe, and Slurm is asked only for what the directory cannot say: whether a job waits still, or died with its
node.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from pumasi.agents import supervisor
from pumasi.agents.layout import Limits, UnixUser, lay_out, signal_number
from pumasi.agents.run_directory import ExitRecord, RunDirectory, StopRequest
from pumasi.agents.run_store import RunStore
from pumasi.agents.slurm.commands import NotAsked, Refused, SlurmAway, SlurmCommands, Submission
from pumasi.agents.slurm.health import Health
from pumasi.agents.slurm.reconcile import Reconciler
from pumasi.agents.slurm.site import SlurmSite
from pumasi.agents.slurm.submission import CannotAsk, batch_script, submission_of
from pumasi.agents.slurm.tracked import Patience, Tracked
from pumasi.model.ids import SiteId
from pumasi.model.jobs import Outcome, StopCause
from pumasi.ports.engine import Ending, Found, Output, Polled, Start, StartAnswer, StartVerdict
from pumasi.protocol.messages import RunKey, StartOrder

_MOST_ASKS = 5
_LOG_BYTES = 400
_ASKED = "asked"  # a file that is there once Slurm may have been asked to run it

# Variables that Slurm gives a job and that `srun` within it needs; the name and the count of restarts are ours.
_INHERITED = (
    *("SLURM_", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
    *("ZE_AFFINITY_MASK", "TMPDIR", "-SLURM_JOB_NAME", "-SLURM_RESTART_COUNT", "-SLURM_EXPORT_ENV"),
    *("-SLURM_GET_USER_ENV", "-SLURM_TIME_FORMAT", "-SLURM_SUBMIT_DIR", "-SLURM_JOB_USER"),
)


class SlurmSettings(Struct, frozen=True, kw_only=True):
    """`directory`: the agent's own, seen by all nodes under the same path; the rest as for any engine.

    `beat_ms`: how often a supervisor shows that it lives, and looks whether it is told to stop. `submissions_at_once`:
    how many `sbatch` may be under way.
    """

    fleet: str
    site: SiteId
    directory: Path
    output_limit_bytes: int = 64 << 20
    beat_ms: int = 5000
    keep_days: int = 7
    submissions_at_once: int = 8
    patience: Patience = Patience()


class SlurmEngine:
    """Runs jobs on a site's Slurm, as the agent's Unix user."""

    def __init__(
        self,
        settings: SlurmSettings,
        site: SlurmSite,
        commands: SlurmCommands,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._site = site
        self._commands = commands
        self._clock = clock
        self._store = RunStore(settings.directory, settings.fleet, settings.keep_days)
        self._user = UnixUser.of_this_process()
        self._supervisor = _install_supervisor(settings.directory)
        self._runs: dict[RunKey, Tracked] = {}
        self._started: list[RunKey] = []
        self._ended: list[Ending] = []
        self._list_at = 0.0
        self._away_since: float | None = None
        self._log = structlog.get_logger("pumasi.agent").bind(site=settings.site)
        self._health = Health(site, commands, settings.patience)
        self._reconciler = Reconciler(self, settings.fleet, settings.site, commands, settings.patience, site)

    # -- the port

    def start(self, starts: Sequence[Start]) -> list[StartAnswer]:
        """As the port says. With Slurm away the run is queued all the same, and submitted when Slurm is back."""
        prepared = [self._prepare(*start) for start in starts]
        fresh = [each for each in prepared if isinstance(each, Tracked)]
        refusals = dict(zip([each.run for each in fresh], self.submit(fresh), strict=True))
        return [self._begin(each, refusals[each.run]) if isinstance(each, Tracked) else each for each in prepared]

    def _prepare(self, order: StartOrder, time_limit_ms: int, grace_ms: int) -> StartAnswer | Tracked:
        """A run that is to be submitted; the answer if it is not."""
        if order.run in self._runs:
            return self._known(self._runs[order.run])
        if self._store.is_over(order.run):
            if any(ending.run == order.run for ending in self._ended):
                return StartAnswer(StartVerdict.ACCEPTED)  # `poll` is about to tell
            return StartAnswer(StartVerdict.REFUSED, "this run has ended before")
        directory = self._store.directory(order.run)
        if directory.launch() is not None:  # an agent before this one laid it out, and may have submitted it
            self._adopt(directory)
            return self._known(self._runs[order.run])
        try:
            return self._lay_out(directory, order, time_limit_ms, grace_ms)
        except (OSError, UnicodeEncodeError, CannotAsk) as error:
            shutil.rmtree(directory.path, ignore_errors=True)
            verdict = StartVerdict.FORBIDDEN if isinstance(error, CannotAsk) else StartVerdict.REFUSED
            return StartAnswer(verdict, f"cannot start here: {error}")

    def _begin(self, tracked: Tracked, refused: Refused | None) -> StartAnswer:
        """The answer to an order that was submitted, and what Slurm said to it."""
        if refused is not None and tracked.directory.claim_for_nobody():
            shutil.rmtree(tracked.directory.path, ignore_errors=True)
            return StartAnswer(StartVerdict.FORBIDDEN, refused.detail)
        self._runs[tracked.run] = tracked
        return StartAnswer(StartVerdict.QUEUED)

    def stop(self, run: RunKey, cause: StopCause, signal: str, kill_in_ms: int) -> bool:  # the port's names
        """As the port says. What has not started never will; what has is told by a file, and a signal if it arrives."""
        tracked = self._runs.get(run)
        if tracked is None:
            return self._store.directory(run).ending(run) is not None
        now = self._clock()
        tracked.cause = tracked.cause or cause
        tracked.kill_at = min(tracked.kill_at or float("inf"), now + kill_in_ms / 1000)
        request = StopRequest(cause=cause, signal=signal_number(signal), kill_in_ms=kill_in_ms)
        with contextlib.suppress(FileNotFoundError):  # somebody wiped the directory: its supervisor sees that too
            tracked.directory.write_record("stop", request)
        if self.give_back(tracked, ExitRecord(cause=cause, detail="told to stop before it started")):
            self._reconciler.cancel(tracked.job)
        else:
            if tracked.job is None:
                self._reconcile(now)  # a signal goes to a job that Slurm has listed, by all its names
            self._reconciler.notify(tracked)
        return True

    def poll(self) -> Polled:
        """As the port says. Directories are looked at every time, Slurm every so often: never if it takes long."""
        now = self._clock()
        polled = self.poll_runs()
        return polled._replace(nodes=self._health.look(now, self._away_since))

    def poll_runs(self) -> Polled:
        """The same without the nodes."""
        now = self._clock()
        for tracked in list(self._runs.values()):
            self._look(tracked, now)
        if now >= self._list_at:
            self._reconcile(now)
        started, self._started = self._started, []
        ended, self._ended = self._ended, []
        return Polled(tuple(ended), tuple(started))

    def find(self) -> tuple[Found, ...]:
        """As the port says; the directories know, and Slurm is not asked."""
        return tuple(found for directory in self._store.all() if (found := self._adopt(directory)) is not None)

    def read_output(self, run: RunKey, stream: str, offset: int, limit: int) -> Output:
        """As the port says."""
        if stream == "accounts":
            return self._read_accounts(run, offset, limit)
        return self._store.read_output(run, stream, offset, limit)

    def _read_accounts(self, run: RunKey, offset: int, limit: int) -> Output:
        if not self._site.accounting:
            return Output(complete=True, problem="this site keeps no accounts: its table says that it has no slurmdbd")
        try:
            data = self._commands.accounts(run.tag(self._settings.fleet)).encode()
        except SlurmAway as error:
            return Output(problem=f"the site's slurmdbd does not answer: {error}")
        return Output(data[offset : offset + limit], len(data), complete=run not in self._runs)

    def forget(self, run: RunKey) -> None:
        """As the port says: what was written stays among the ended runs."""
        for name in ("submission", _ASKED):
            (self._store.directory(run).path / name).unlink(missing_ok=True)
        self._store.forget(run)

    def news_descriptor(self) -> int | None:
        """None: files on other machines wake nobody."""
        return None

    def close(self) -> None:
        """Nothing is held: runs go on by themselves."""

    # -- starting

    def _known(self, tracked: Tracked) -> StartAnswer:
        return StartAnswer(StartVerdict.QUEUED if not tracked.has_started else StartVerdict.ACCEPTED)

    def _lay_out(self, directory: RunDirectory, order: StartOrder, time_limit_ms: int, grace_ms: int) -> Tracked:
        pool = self._site.pools.get(order.pool)
        if pool is None:
            raise CannotAsk(f"the site's table names no pool {order.pool}")
        tag = order.run.tag(self._settings.fleet)
        submission = submission_of(
            order,
            pool,
            tag=tag,
            mark=f"{tag}@{self._settings.site}",
            log=f"{directory.path}/slurm.log",
            seconds=(time_limit_ms + grace_ms) / 1000 + self._site.kill_wait_seconds,
        )
        limits = Limits(
            time_limit_ms=time_limit_ms,
            grace_ms=grace_ms,
            output_limit_bytes=self._settings.output_limit_bytes,
            output_check_ms=self._settings.beat_ms,
            engine_kill_ms=self._site.kill_wait_seconds * 500,
        )
        directory.path.mkdir(mode=0o700, exist_ok=True)
        directory.write_record("submission", submission)
        lay_out(
            directory,
            order,
            site=self._settings.site,
            fleet=self._settings.fleet,
            user=self._user,
            limits=limits,
            inherited=_INHERITED,
        )
        return Tracked(run=order.run, directory=directory, submission=submission, queued_at=self._clock())

    def submit(self, runs: Sequence[Tracked]) -> list[Refused | None]:
        """Submit runs, several at once, and once more if they were before: what has claimed one goes on alone.

        Returns Slurm's refusal of each, None if it is none.
        """
        if len(runs) < 2 or self._settings.submissions_at_once == 1:
            return [self._submit(tracked) for tracked in runs]
        with ThreadPoolExecutor(self._settings.submissions_at_once, thread_name_prefix="sbatch") as threads:
            return list(threads.map(self._submit, runs))

    def _submit(self, tracked: Tracked) -> Refused | None:
        if tracked.asks >= _MOST_ASKS:
            return Refused(f"Slurm took it {_MOST_ASKS} times and lost it as often", Outcome.NEVER_STARTED)
        if not tracked.directory.path.exists():
            return Refused("its directory is gone", Outcome.NEVER_STARTED)
        (tracked.directory.path / _ASKED).touch()
        tracked.asked_at, tracked.sure, tracked.absent_since = self._clock(), False, None
        tracked.asks += 1
        script = batch_script(self._site.python, self._supervisor, tracked.directory.path)
        try:
            answer = self._commands.submit(tracked.submission, script)
        except SlurmAway as error:
            tracked.asks -= 1  # what Slurm does while it is away is not held against the run
            if isinstance(error, NotAsked):
                tracked.asked_at = None
            self._log.warning("submission unsure", run=tracked.run, problem=str(error))
            return None
        if isinstance(answer, Refused):
            return answer
        tracked.sure = True
        return None

    def _adopt(self, directory: RunDirectory) -> Found | None:
        """Take up a run that an agent before this one laid out."""
        launch = directory.launch()
        if launch is None:
            return None  # it was never submitted, and starting it again completes it
        run, record = launch.run, directory.exit_record()
        if record is not None and not record.by_engine:
            return Found(run, record.ending(run))
        if run not in self._runs:
            try:
                raw = (directory.path / "submission").read_bytes()
            except FileNotFoundError:
                return Found(run, ExitRecord(known=False, detail="its directory is damaged").ending(run))
            submission = msgspec.json.decode(raw, type=Submission)
            now = self._clock()
            asked_at = now if (directory.path / _ASKED).exists() else None
            tracked = Tracked(run=run, directory=directory, submission=submission, queued_at=now, asked_at=asked_at)
            tracked.look_for_keeper(now)
            request = directory.stop_request()
            if request is not None:
                tracked.cause, tracked.kill_at = request.cause, now + request.kill_in_ms / 1000
            self._runs[run] = tracked
        return Found(run, started=self._runs[run].has_started)

    # -- watching

    def _look(self, tracked: Tracked, now: float) -> None:
        self._note_start(tracked, now)
        record = tracked.directory.exit_record()
        if record is None or tracked.record is not None:
            return
        if record.by_engine and not record.cause:
            tracked.record, tracked.record_at = record, now  # Slurm will say why, if it is asked soon
            return
        self.conclude(tracked, record)

    def _note_start(self, tracked: Tracked, now: float) -> None:
        if tracked.look_for_keeper(now):
            self._started.append(tracked.run)

    def _reconcile(self, now: float) -> None:
        try:
            self._reconciler.run(list(self._runs.values()), self._clock)
        except SlurmAway as error:
            if self._away_since is None:
                self._away_since = now
                self._log.warning("slurm away", problem=str(error))
        else:
            if self._away_since is not None:
                self._log.warning("slurm back", away_seconds=round(now - self._away_since))
            self._away_since = None
        # A list of many jobs costs Slurm and us time: a tenth of it at most is spent on lists.
        took = self._clock() - now
        self._list_at = now + took + max(self._settings.patience.list, 10 * took if self._away_since is None else took)

    # -- ending

    def conclude(self, tracked: Tracked, record: ExitRecord) -> None:
        """The run is over: tell it."""
        del self._runs[tracked.run]
        self._ended.append(record.ending(tracked.run))

    def record_end(self, tracked: Tracked, record: ExitRecord) -> None:
        """Write the record that a run's supervisor did not, and tell it; one that did in this moment is right."""
        if tracked.directory.path.exists():
            written = tracked.directory.exit_record()
            if written is not None and not written.by_engine:
                record = written
            else:
                tracked.directory.write_record("exit", record)
        self.conclude(tracked, record)

    def give_back(self, tracked: Tracked, record: ExitRecord) -> bool:
        """End a run that has not started, so that it never will. False if it has."""
        if not tracked.directory.path.exists():  # the claim went with it: it may have started
            record = ExitRecord(cause=record.cause, known=False, detail="its directory is gone")
        elif not tracked.directory.claim_for_nobody():
            self._note_start(tracked, self._clock())
        if tracked.has_started:
            return False
        self.record_end(tracked, record)
        return True

    def give_back_unstarted(self, tracked: Tracked, detail: str, outcome: Outcome = Outcome.NEVER_STARTED) -> bool:
        """The same, for a run that Slurm does not start, or refuses."""
        said = _tail(tracked.directory.path / "slurm.log")
        if said:
            detail = f"{detail}: {said}"
        return self.give_back(tracked, ExitRecord(outcome=outcome, detail=detail))


def _install_supervisor(directory: Path) -> Path:
    """A copy of the supervisor's program where all nodes see it; under a name of its own for each version of it."""
    source = Path(supervisor.__file__).read_bytes()
    path = directory / f"supervisor_{hashlib.sha256(source).hexdigest()[:16]}.py"
    if not path.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(source)
        draft.rename(path)
    return path


def _tail(path: Path) -> str:
    try:
        data = path.read_bytes()[-_LOG_BYTES:]
    except OSError:
        return ""
    return " ".join(data.decode(errors="replace").split())
