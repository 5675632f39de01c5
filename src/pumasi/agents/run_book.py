"""What an agent knows of its runs. Pure: every change is an entry, and the book is what its entries say."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from pumasi.model.jobs import OUTCOME_OF_STOP, Outcome, StopCause
from pumasi.ports.engine import Ending
from pumasi.protocol.messages import Report, RunEnded, RunKey, RunStarted


class Ordered(Struct, frozen=True, tag="ordered"):
    """The control plane ordered a run, and the engine is about to get it. `notice_signal`: what a stop sends it."""

    run: RunKey
    notice_signal: str = "TERM"
    gpus: int = 0


class Queued(Struct, frozen=True, tag="queued"):
    """The engine has it and will start it."""

    run: RunKey


class Began(Struct, frozen=True, tag="began"):
    """The engine runs it."""

    run: RunKey


class Stopping(Struct, frozen=True, tag="stopping"):
    """It is about to be told to stop."""

    run: RunKey
    cause: StopCause


class Over(Struct, frozen=True, tag="over"):
    """It has ended, and so it will be reported. `at_seconds`: Unix time, for forgetting it one day."""

    report: RunEnded
    at_seconds: int = 0


class Told(Struct, frozen=True, tag="told"):
    """The control plane has acknowledged its end."""

    run: RunKey


Entry: TypeAlias = Ordered | Queued | Began | Stopping | Over | Told


class Phase(StrEnum):
    """How far a run has come, as the agent sees it."""

    ORDERED = "ordered"
    QUEUED = "queued"
    RUNNING = "running"
    OVER = "over"


class KnownRun(Struct, kw_only=True):
    """A line of the book. `began`: the engine has run it. `start_told`, `end_told`: the control plane knows it."""

    run: RunKey
    phase: Phase = Phase.ORDERED
    began: bool = False
    notice_signal: str = "TERM"
    gpus: int = 0
    stop_cause: StopCause | None = None
    ended: RunEnded | None = None
    ended_at_seconds: int = 0
    start_told: bool = False
    end_told: bool = False


class RunBook:
    """All runs the agent knows, those that are over too: an order that comes late or twice must not start one again."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._runs: dict[RunKey, KnownRun] = {}
        self._to_tell: dict[RunKey, None] = {}
        self._asked_again: set[RunKey] = set()
        for entry in entries:
            self.apply(entry)

    def apply(self, entry: Entry) -> None:
        """Take an entry in. What it says of a run that is over already is no news."""
        match entry:
            case Ordered(run, notice_signal, gpus):
                known = self._runs.setdefault(run, KnownRun(run=run))
                if known.phase is not Phase.OVER:
                    known.notice_signal, known.gpus = notice_signal, gpus
            case Queued(run):
                known = self._runs.setdefault(run, KnownRun(run=run))
                if known.phase is Phase.ORDERED:
                    known.phase = Phase.QUEUED
            case Began(run):
                self._begin(run)
            case Stopping(run, cause):
                known = self._runs.setdefault(run, KnownRun(run=run))
                if known.phase is not Phase.OVER:
                    known.stop_cause = known.stop_cause or cause
            case Over(report, at_seconds):
                self._end(report, at_seconds)
            case Told(run):
                self._acknowledge_end(run)

    def _begin(self, run: RunKey) -> None:
        known = self._runs.setdefault(run, KnownRun(run=run))
        if known.phase in (Phase.ORDERED, Phase.QUEUED):
            known.phase, known.began = Phase.RUNNING, True
            self._to_tell[run] = None

    def _end(self, report: RunEnded, at_seconds: int) -> None:
        known = self._runs.setdefault(report.run, KnownRun(run=report.run))
        if known.phase is not Phase.OVER:
            known.phase, known.ended, known.ended_at_seconds = Phase.OVER, report, at_seconds
            known.notice_signal, known.stop_cause = "TERM", None  # nobody will stop it any more
            self._to_tell[report.run] = None

    def _acknowledge_end(self, run: RunKey) -> None:
        known = self._runs.get(run)
        if known is not None and known.phase is Phase.OVER and run not in self._asked_again:
            known.start_told = known.end_told = True
            self._to_tell.pop(run, None)

    def get(self, run: RunKey) -> KnownRun | None:
        """What is known of a run."""
        return self._runs.get(run)

    def live(self) -> list[KnownRun]:
        """Runs that are not over."""
        return [known for known in self._runs.values() if known.phase is not Phase.OVER]

    def gpus_in_use(self) -> int:
        """GPUs of the runs that the engine has."""
        return sum(known.gpus for known in self._runs.values() if known.phase in (Phase.QUEUED, Phase.RUNNING))

    def tell_again(self, run: RunKey) -> None:
        """The control plane asks for a run whose state it should know: report it once more."""
        known = self._runs.get(run)
        if known is not None and known.phase is not Phase.ORDERED:
            known.start_told = known.end_told = False
            self._to_tell[run] = None
            self._asked_again.add(run)

    def untold(self, limit: int) -> list[Report]:
        """What the control plane has not acknowledged, at most `limit` reports, each start before its end."""
        reports: list[Report] = []
        for run in self._to_tell:
            if len(reports) >= limit:
                break
            reports += _reports_of(self._runs[run])
            self._asked_again.discard(run)
        return reports

    def acknowledged(self, reports: Iterable[Report]) -> list[Entry]:
        """Take in that these reports have arrived; returns the entries to keep of it.

        One that was asked for again while it was under way may have crossed the question: it is made again.
        """
        entries: list[Entry] = []
        for report in reports:
            known = self._runs.get(report.run)
            if known is None or report.run in self._asked_again:
                continue
            if isinstance(report, RunEnded):
                entries.append(Told(report.run))
            else:
                known.start_told = True
                if known.phase is Phase.RUNNING:
                    self._to_tell.pop(report.run, None)
        return entries

    def forget(self, ended_before_seconds: int) -> None:
        """Drop runs whose end was acknowledged and came before that time."""
        for known in list(self._runs.values()):
            if known.end_told and known.ended_at_seconds < ended_before_seconds:
                del self._runs[known.run]

    def entries(self) -> Iterator[Entry]:
        """The shortest journal that says the same."""
        for known in self._runs.values():
            if known.ended is None:
                yield Ordered(known.run, known.notice_signal, known.gpus)
            if known.phase is Phase.QUEUED:
                yield Queued(known.run)
            if known.began:
                yield Began(known.run)
            if known.stop_cause is not None:
                yield Stopping(known.run, known.stop_cause)
            if known.ended is not None:
                yield Over(known.ended, known.ended_at_seconds)
            if known.end_told:
                yield Told(known.run)


def _reports_of(known: KnownRun) -> Iterator[Report]:
    if known.began and not known.start_told:
        yield RunStarted(run=known.run)
    if known.ended is not None:
        yield known.ended


_DETAIL_CHARACTERS = 500


def ended_report(ending: Ending) -> RunEnded:
    """What the control plane is told of an ending. A run told to stop ended for that reason, however it went."""
    if not ending.known:
        return RunEnded(run=ending.run, outcome=Outcome.LOST, detail=ending.detail)
    outcome = ending.outcome or Outcome.COMPLETED
    if ending.stopped_for is not None:
        outcome = OUTCOME_OF_STOP[ending.stopped_for]
    return RunEnded(
        run=ending.run,
        outcome=outcome,
        exit_code=ending.exit_code,
        signal=ending.signal,
        detail=ending.detail[:_DETAIL_CHARACTERS],
    )


def unstarted_report(run: RunKey, cause: StopCause) -> RunEnded:
    """What the control plane is told of a run it wants stopped and of which there is nothing."""
    return RunEnded(run=run, outcome=OUTCOME_OF_STOP[cause], detail="there was nothing of it to stop")
