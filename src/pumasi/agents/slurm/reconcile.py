"""Holds what Slurm lists against what the engine knows: a job with our mark is adopted or ended, no other touched."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from pumasi.agents.run_directory import ExitRecord
from pumasi.agents.slurm.commands import Refused, SlurmAway, SlurmCommands
from pumasi.agents.slurm.readers import SlurmJob
from pumasi.agents.slurm.site import SlurmSite
from pumasi.agents.slurm.states import Stage, explained, stage_of, unrecorded_end
from pumasi.agents.slurm.tracked import Patience, Tracked
from pumasi.model.ids import SiteId
from pumasi.model.jobs import Outcome
from pumasi.protocol.messages import RunKey

_COMPLETING = "COMPLETING"  # Slurm's word for a job that is over and not yet cleared up
_MOST_SUBMISSIONS = 64  # in one pass: stops and news must not wait for long

Rows = Sequence[SlurmJob]


class Runs(Protocol):
    """What the engine does about a run."""

    def submit(self, runs: Sequence[Tracked]) -> list[Refused | None]:
        """Submit them (again)."""
        ...

    def conclude(self, tracked: Tracked, record: ExitRecord) -> None:
        """It is over, and its record is written."""
        ...

    def record_end(self, tracked: Tracked, record: ExitRecord) -> None:
        """It is over, and its record is not written."""
        ...

    def give_back_unstarted(self, tracked: Tracked, detail: str, outcome: Outcome = Outcome.NEVER_STARTED) -> bool:
        """It has not started and never will; False if it has."""
        ...


class Reconciler:
    """Looks at Slurm's list and draws the conclusions; each rests on what was seen for long enough."""

    def __init__(
        self,
        runs: Runs,
        fleet: str,
        site: SiteId,
        commands: SlurmCommands,
        patience: Patience,
        table: SlurmSite,
    ) -> None:
        self._runs = runs
        self._tag = re.compile(rf"pumasi-{re.escape(fleet)}-([0-9]{{1,18}})-([0-9]{{1,9}})")
        self._site = site
        self._commands = commands
        self._patience = patience
        self._table = table
        self._strays: dict[tuple[int, int], float] = {}
        self._log = structlog.get_logger("pumasi.agent").bind(site=site)

    def run(self, tracked: Sequence[Tracked], clock: Callable[[], float]) -> None:
        """One pass.

        :raises SlurmAway: if Slurm does not answer; what it has said until then has been acted on.
        """
        began = clock()
        by_run = self._by_run(self._commands.jobs())
        self._end_strays(by_run, {each.run for each in tracked}, began)
        due = [each for each in tracked if self._match(each, by_run.get(each.run, ()), began)]
        due = due[:_MOST_SUBMISSIONS]
        for each, refused in zip(due, self._runs.submit(due), strict=True):
            if refused is not None:
                self._runs.give_back_unstarted(each, *refused)

    def _by_run(self, jobs: Iterable[SlurmJob]) -> dict[RunKey, list[SlurmJob]]:
        """Our jobs by their run, the oldest first: those of this fleet and site, by name and comment alike."""
        found: dict[RunKey, list[SlurmJob]] = defaultdict(list)
        for job in sorted(jobs, key=lambda job: (job.submitted, job.id)):
            match = self._tag.fullmatch(job.name)
            if match and job.comment == f"{job.name}@{self._site}":
                found[RunKey(int(match[1]), int(match[2]))].append(job)
        return found

    # -- jobs of runs that are not live

    def _end_strays(self, by_run: dict[RunKey, list[SlurmJob]], live: set[RunKey], now: float) -> None:
        strays = [job for run, jobs in by_run.items() if run not in live for job in jobs]
        before, self._strays = self._strays, {}
        for job in strays:
            stage = stage_of(job.state)
            since = before.get((job.id, job.submitted), now)
            if stage is Stage.ENDED or job.state == _COMPLETING:
                continue
            self._strays[job.id, job.submitted] = since
            # A run that has just written its record is about to leave by itself.
            if stage is Stage.WAITING or now - since >= self._patience.stray:
                self._log.warning("stray job ended", job=job.id, name=job.name)
                self._commands.cancel(job)

    # -- jobs of live runs

    def _match(self, tracked: Tracked, rows: Rows, now: float) -> bool:
        """Draw conclusions about one run; True if it should be submitted (again)."""
        active = [row for row in rows if stage_of(row.state) is not Stage.ENDED]
        if tracked.record is not None:
            self._explain(tracked, tracked.record, rows, now)
        elif tracked.keeper is not None:
            self._match_started(tracked, rows, now)
        elif active:
            tracked.job, tracked.absent_since, tracked.sure = active[0], None, True
            if now - tracked.queued_at > self._table.queue_seconds:
                self._hand_back(tracked, f"Slurm has not started it in time: {active[0].reason}")
        elif rows:
            self._hand_back(tracked, f"Slurm says {rows[-1].state} before it started")
        else:
            return self._match_absent(tracked, now)
        self._end_copies(tracked, active)
        return False

    def _match_absent(self, tracked: Tracked, now: float) -> bool:
        """It has not started, and Slurm does not list it. Whatever Slurm still makes of it, submitting is safe."""
        if now - tracked.queued_at > self._table.queue_seconds:
            self._hand_back(tracked, "the site's Slurm has not taken it in time")
            return False
        if tracked.asked_at is None:
            return True
        if not tracked.sure:
            return now - tracked.asked_at >= self._patience.unsure
        tracked.absent_since = now if tracked.absent_since is None else tracked.absent_since
        forgotten = now - tracked.absent_since >= self._patience.forgotten
        if forgotten:
            self._log.warning("slurm forgot a job", run=tracked.run)
        return forgotten

    def _match_started(self, tracked: Tracked, rows: Rows, now: float) -> None:
        tracked.look_for_life(now)
        mine = next((row for row in rows if tracked.keeper and str(row.id) == tracked.keeper.engine_id), None)
        if mine is None:
            tracked.absent_since = now if tracked.absent_since is None else tracked.absent_since
            if min(now - tracked.absent_since, tracked.silent_seconds) >= self._patience.lost:
                self._runs.record_end(tracked, unrecorded_end(self._accounted(tracked), tracked.cause))
            return
        tracked.job, tracked.absent_since = mine, None
        if stage_of(mine.state) is not Stage.ENDED:
            tracked.over_since = None
            overdue = tracked.kill_at is not None and now > tracked.kill_at + self._patience.stop
            if overdue or tracked.silent_seconds >= self._patience.dead:
                self._commands.cancel(mine)
            return
        tracked.over_since = now if tracked.over_since is None else tracked.over_since
        if now - tracked.over_since >= self._patience.record and tracked.silent_seconds >= self._patience.silence:
            self._runs.record_end(tracked, unrecorded_end(mine.state, tracked.cause))

    def _explain(self, tracked: Tracked, record: ExitRecord, rows: Rows, now: float) -> None:
        """Slurm says why it ended a job once it has cleared up after it."""
        mine = next((row for row in rows if tracked.keeper and str(row.id) == tracked.keeper.engine_id), None)
        is_to_come = mine is not None and mine.state == _COMPLETING
        if mine is not None and stage_of(mine.state) is Stage.ENDED:
            self._runs.record_end(tracked, explained(record, mine.state, tracked.cause))
        elif now - tracked.record_at >= (self._patience.lost if is_to_come else self._patience.record):
            self._runs.record_end(tracked, explained(record, "", tracked.cause))

    def _accounted(self, tracked: Tracked) -> str:
        """The state slurmdbd knows, where it runs; "" if there is none."""
        if not self._table.accounting or tracked.keeper is None:
            return ""
        found = self._commands.accounted(tracked.submission.tag)
        return next((each.state for each in reversed(found) if str(each.id) == tracked.keeper.engine_id), "")

    def _hand_back(self, tracked: Tracked, detail: str) -> None:
        if self._runs.give_back_unstarted(tracked, detail):
            self.cancel(tracked.job)

    def _end_copies(self, tracked: Tracked, active: Rows) -> None:
        """Only one job of a run is wanted; a copy that runs would find it claimed, and go by itself."""
        wanted = tracked.keeper.engine_id if tracked.keeper else str(active[0].id) if active else ""
        for copy in active:
            if str(copy.id) != wanted and stage_of(copy.state) is Stage.WAITING:
                self._log.warning("second job of a run ended", job=copy.id, run=tracked.run)
                self._commands.cancel(copy)

    # -- telling Slurm

    def cancel(self, job: SlurmJob | None) -> None:
        """End a job that is not wanted; if Slurm is away now, the next pass does it."""
        if job is not None and self._commands.answers:
            self._try(lambda: self._commands.cancel(job))

    def notify(self, tracked: Tracked) -> None:
        """Tell a supervisor to look at its orders now; if that fails, it looks by itself before long."""
        job = tracked.job
        keeper = tracked.keeper
        if job is not None and keeper is not None and str(job.id) == keeper.engine_id and self._commands.answers:
            self._try(lambda: self._commands.signal(job, "USR1"))

    def _try(self, call: Callable[[], bool]) -> None:
        try:
            call()
        except SlurmAway as error:
            self._log.warning("slurm away", problem=str(error))
