"""A simulated site: an agent that speaks the real protocol, and an engine whose runs end when the workload says.

It knows what a site knows: its orders, not the fleet's state. What it has to say waits in `reports` until the control
plane has it on disk.
"""

from collections.abc import Callable, Iterator

from msgspec import Struct

from pumasi.control.commands import SetNodeState
from pumasi.model.ids import JobId, PoolId, SiteId
from pumasi.model.jobs import OUTCOME_OF_STOP, Outcome, Span, StopCause
from pumasi.protocol.messages import Report, RunEnded, RunKey, RunStarted, StartOrder, StopOrder, SyncResponse
from pumasi.state.records import Attempt
from pumasi.twin.jobs import TwinJob
from pumasi.twin.kernel import Kernel, Rank
from pumasi.twin.scenario import Scenario

BLACK_HOLE_MS = 2_000


class Work(Struct, gc=False):
    """A job as the engines of the whole fleet know it; `done_ms`: how much of it is saved."""

    job: TwinJob
    done_ms: int = 0


class Run(Struct, gc=False):
    """A run of the site's. `ends_ms` and `ends_as`: what will happen to it if nothing else does.

    `is_gone`: it has ended; the agent may not have learnt of it yet.
    """

    key: RunKey
    work: Work
    pool: PoolId
    spans: tuple[Span, ...]
    began_ms: int
    ends_ms: int
    ends_as: Outcome
    exit_code: int = 0
    is_gone: bool = False


class SimulatedSite:
    """One site. `is_cut`: no message passes. `is_down`: its agent has crashed; the engine goes on."""

    def __init__(
        self,
        name: SiteId,
        kernel: Kernel,
        work: Callable[[JobId], Work],
        wake: Callable[["SimulatedSite"], None],
        scenario: Scenario,
    ) -> None:
        self.name = name
        self.by = f"site:{name}"
        self.is_cut = False
        self.is_down = False
        self.after_seq = 0
        self.reports: list[Report] = []
        self.node_news: list[SetNodeState] = []
        self._said_reports: list[Report] = []
        self._said_news: list[SetNodeState] = []
        self.runs: dict[RunKey, Run] = {}
        self.black_holes: set[tuple[PoolId, int]] = set()  # nodes that look well and on which every run fails at once
        self._kernel = kernel
        self._work = work
        self._wake = wake
        self._start_delay_ms = scenario.start_delay_ms
        self._end_delay_ms = scenario.end_delay_ms

    @property
    def is_reachable(self) -> bool:
        """True if messages pass both ways."""
        return not (self.is_cut or self.is_down)

    @property
    def has_news(self) -> bool:
        """True if the control plane is to be told something."""
        return bool(self.reports or self.node_news)

    def say(self) -> tuple[tuple[Report, ...], tuple[SetNodeState, ...]]:
        """What there is to say. It is kept until it is known to be on the control plane's disk."""
        reports, news = tuple(self.reports), tuple(self.node_news)
        self._said_reports += reports
        self._said_news += news
        self.reports.clear()
        self.node_news.clear()
        return reports, news

    def was_heard(self) -> None:
        """All that was said is on the control plane's disk."""
        self._said_reports.clear()
        self._said_news.clear()

    def was_not_heard(self) -> None:
        """What was said is lost, and is to be said again."""
        self.reports[:0] = self._said_reports
        self.node_news[:0] = self._said_news
        self.was_heard()

    # --- the agent ---------------------------------------------------------------------------------------------------

    def obey(self, response: SyncResponse) -> None:
        """Do what is ordered; a repeat is no news."""
        self.after_seq = response.seq
        if response.whole:
            wanted = {order.run for order in response.starts}
            for run in [run for key, run in self.runs.items() if key not in wanted]:
                self._stop_for(run, StopCause.CANCEL, 0)
        for order in response.starts:
            self._start(order)
        for stop in response.stops:
            self._stop(stop)

    def adopt(self, key: RunKey, attempt: Attempt, work: Work) -> None:
        """Have a run that began before the simulation; what it should have ended by now ends at once."""
        limit_ms = work.job.spec.time_limit_seconds * 1000
        ends_as = Outcome.COMPLETED if work.job.runtime_ms <= limit_ms else Outcome.TIME_LIMIT
        ends_ms = max(self._kernel.time_ms, attempt.started_ms + min(work.job.runtime_ms, limit_ms))
        exit_code = work.job.exit_code
        run = Run(key, work, attempt.pool, attempt.spans, attempt.started_ms, ends_ms, ends_as, exit_code)
        self.runs[key] = run
        self._kernel.at(ends_ms, Rank.END, self._ends, run)

    def crash(self) -> None:
        """The agent forgets what it acted on last; its journal keeps runs and reports."""
        self.is_down = True
        self.after_seq = 0

    # --- the engine --------------------------------------------------------------------------------------------------

    def _start(self, order: StartOrder) -> None:
        key = order.run
        if key in self.runs:
            return
        if order.was_running:
            self.reports.append(RunEnded(run=key, outcome=Outcome.LOST, detail="the engine has no such run"))
            return
        work, now_ms = self._work(key.job), self._kernel.time_ms
        began_ms = now_ms + self._start_delay_ms
        left_ms, limit_ms = work.job.runtime_ms - work.done_ms, order.time_limit_seconds * 1000
        ends_as = Outcome.COMPLETED if left_ms <= limit_ms else Outcome.TIME_LIMIT
        ends_ms, exit_code = began_ms + min(left_ms, limit_ms), work.job.exit_code
        if self.black_holes and any((order.pool, node) in self.black_holes for node in _nodes(order.spans)):
            ends_as, ends_ms, exit_code = Outcome.COMPLETED, min(ends_ms, began_ms + BLACK_HOLE_MS), 1
        run = self.runs[key] = Run(key, work, order.pool, order.spans, began_ms, ends_ms, ends_as, exit_code)
        self._kernel.at(ends_ms, Rank.END, self._ends, run)
        if self._start_delay_ms:
            self._kernel.at(began_ms, Rank.END, self._began, run)
        else:
            self.reports.append(RunStarted(run=key))

    def _began(self, run: Run) -> None:
        if not run.is_gone:
            self.reports.append(RunStarted(run=run.key))
            self._wake(self)

    def _stop(self, order: StopOrder) -> None:
        run = self.runs.get(order.run)
        if run is not None:
            self._stop_for(run, order.cause, order.kill_in_ms)

    def _stop_for(self, run: Run, cause: StopCause, kill_in_ms: int) -> None:
        job = run.work.job
        in_ms = min(kill_in_ms, job.leaves_after_ms) if job.saves_on_notice else kill_in_ms
        ends_ms = self._kernel.time_ms + in_ms
        if ends_ms < run.ends_ms:
            run.ends_ms, run.ends_as = ends_ms, OUTCOME_OF_STOP[cause]
            self._kernel.at(ends_ms, Rank.END, self._ends, run)

    def _ends(self, run: Run) -> None:
        """Its end, unless it was moved to another moment since."""
        if run.is_gone or run.ends_ms != self._kernel.time_ms:
            return
        completed = run.ends_as is Outcome.COMPLETED
        if not completed:
            self._save(run, noticed=run.ends_as is not Outcome.TIME_LIMIT)
        self._gone(run, RunEnded(run=run.key, outcome=run.ends_as, exit_code=run.exit_code * completed))

    def _save(self, run: Run, *, noticed: bool) -> None:
        """What of the work done in this run is not lost with it."""
        job, worked_ms = run.work.job, max(0, self._kernel.time_ms - run.began_ms)
        if not (noticed and job.saves_on_notice):
            step_ms = job.spec.checkpoint_seconds * 1000
            worked_ms = worked_ms // step_ms * step_ms if step_ms else 0
        run.work.done_ms = min(job.runtime_ms, run.work.done_ms + worked_ms)

    def _gone(self, run: Run, report: RunEnded) -> None:
        run.is_gone = True
        if self._end_delay_ms:
            self._kernel.at(self._kernel.time_ms + self._end_delay_ms, Rank.END, self._learns, report)
        else:
            self._learns(report)

    def _learns(self, report: RunEnded) -> None:
        del self.runs[report.run]
        self.reports.append(report)
        self._wake(self)

    def lose_nodes(self, pool: PoolId, nodes: range, reason: str) -> None:
        """Nodes fail, and every run that touches them with them."""
        there = [run for run in self.runs.values() if run.pool == pool and not run.is_gone]
        for run in [run for run in there if _touches(run.spans, nodes)]:
            self._save(run, noticed=False)
            self._gone(run, RunEnded(run=run.key, outcome=Outcome.NODE_FAILED, detail=reason))


def _nodes(spans: tuple[Span, ...]) -> Iterator[int]:
    for span in spans:
        yield from range(span.first, span.first + span.nodes)


def _touches(spans: tuple[Span, ...], nodes: range) -> bool:
    return any(span.first < nodes.stop and nodes.start < span.first + span.nodes for span in spans)
