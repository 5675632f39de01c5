"""Orders to the sites, made from durable facts. Memory only: an agent that asks from further back is told all."""

from collections.abc import Callable, Iterator, Sequence, Set

from pumasi.events.facts import AttemptEnded, AttemptPlaced, Event, StopOrdered
from pumasi.model.ids import SiteId
from pumasi.model.jobs import AttemptState, StopCause
from pumasi.protocol.messages import RunKey, StartOrder, StopOrder, SyncResponse
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Attempt, Job

BY_SITE = "site:"
BY_RESERVATION = "reservation:"  # what is handed over is no engine's business
_NEWS = (AttemptPlaced, StopOrdered, AttemptEnded)


class Mailboxes:
    """One mailbox per site. `since_seq`: facts up to here were folded before the mailboxes existed.

    In a mailbox are the runs of the site with something new, each with the number of the newest fact about it.
    """

    def __init__(self, since_seq: int) -> None:
        self._since_seq = since_seq
        self._boxes: dict[SiteId, dict[RunKey, int]] = {}
        self.seq = since_seq

    def post(self, state: FleetState, first_seq: int, events: Sequence[Event]) -> set[SiteId]:
        """Note what facts on disk, numbered from `first_seq`, mean for the sites; returns those that have mail now."""
        sites: set[SiteId] = set()
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, _NEWS) and (site := self._site_of(state, event)) is not None:
                self._boxes.setdefault(site, {})[RunKey(event.job, event.attempt)] = seq
                sites.add(site)
        self.seq = max(self.seq, first_seq + len(events) - 1)
        return sites

    def _site_of(self, state: FleetState, event: AttemptPlaced | StopOrdered | AttemptEnded) -> SiteId | None:
        if event.by.startswith(BY_RESERVATION):
            return None
        if isinstance(event, AttemptPlaced):
            return state.pools[event.pool].declared.site
        if isinstance(event, AttemptEnded) and event.by.startswith(BY_SITE):
            return None  # only the site that ran it can have said so
        key = RunKey(event.job, event.attempt)
        known = next((site for site, box in self._boxes.items() if key in box), None)
        if known is not None:
            return known
        job = state.jobs.get(event.job)
        if job is None or job.by.startswith(BY_RESERVATION):
            return None
        return state.pools[job.attempts[event.attempt - 1].pool].declared.site

    def has_news(self, site: SiteId, after_seq: int) -> bool:
        """True if the site's agent, which has acted on everything up to `after_seq`, has something to do."""
        if self._knows_too_little(after_seq):
            return True
        box = self._boxes.get(site)
        return box is not None and any(seq > after_seq for seq in box.values())

    def collect(
        self, state: FleetState, site: SiteId, after_seq: int, now_ms: int, undurable: Callable[[], Set[RunKey]]
    ) -> SyncResponse:
        """What the site's agent is to do, and forget what it has acted on. Placements in `undurable` stay secret."""
        if self._knows_too_little(after_seq):
            return self._whole(state, site, now_ms, undurable())
        box = self._boxes.get(site, {})
        box = self._boxes[site] = {run: seq for run, seq in box.items() if seq > after_seq}
        starts: list[StartOrder] = []
        stops: list[StopOrder] = []
        for run in box:
            _add_orders(state, _live(state, run), run, now_ms, starts, stops)
        return SyncResponse(seq=self.seq, whole=False, starts=tuple(starts), stops=tuple(stops))

    def _knows_too_little(self, after_seq: int) -> bool:
        # An agent that asks from 0 has just come back. What it acted on before is no longer here, so it is told all.
        return after_seq == 0 or not self._since_seq <= after_seq <= self.seq

    def _whole(self, state: FleetState, site: SiteId, now_ms: int, undurable: Set[RunKey]) -> SyncResponse:
        starts: list[StartOrder] = []
        stops: list[StopOrder] = []
        for job in active_at(state, site):
            run = RunKey(job.id, job.attempts[-1].number)
            if run not in undurable:
                _add_orders(state, job, run, now_ms, starts, stops)
        return SyncResponse(seq=self.seq, whole=True, starts=tuple(starts), stops=tuple(stops))


def active_at(state: FleetState, site: SiteId) -> Iterator[Job]:
    """The active jobs that the site's engine runs, or is to run."""
    for pool, jobs in state.active.items():
        if state.pools[pool].declared.site == site:
            yield from (state.jobs[job] for job in jobs if not state.jobs[job].by.startswith(BY_RESERVATION))


def _live(state: FleetState, run: RunKey) -> Job | None:
    job = state.jobs.get(run.job)
    return job if job and job.live and job.live.number == run.attempt else None


def _add_orders(
    state: FleetState, job: Job | None, run: RunKey, now_ms: int, starts: list[StartOrder], stops: list[StopOrder]
) -> None:
    """A run that should be: start it (no news if it is there) and pass on an order to stop. Any other: end it."""
    if job is None:
        stops.append(StopOrder(run=run, cause=StopCause.CANCEL, kill_in_ms=0))
        return
    attempt = job.attempts[-1]
    starts.append(start_order(job, attempt, state.pools[attempt.pool].declared.slices_per_gpu))
    if attempt.stop is not None:
        kill_in_ms = max(0, attempt.stop.kill_at_ms - now_ms)
        stops.append(StopOrder(run=run, cause=attempt.stop.cause, kill_in_ms=kill_in_ms))


def start_order(job: Job, attempt: Attempt, slices_per_gpu: int) -> StartOrder:
    """All an engine needs to start the attempt, in a pool with so many slices to a GPU."""
    spec = job.spec
    return StartOrder(
        run=RunKey(job.id, attempt.number),
        name=spec.name,
        user=job.by,
        queue=spec.queue,
        pool=attempt.pool,
        spans=attempt.spans,
        script=spec.script,
        environment=spec.environment,
        working_directory=spec.working_directory,
        stdout=spec.stdout,
        stderr=spec.stderr,
        time_limit_seconds=spec.time_limit_seconds,
        notice_signal=spec.notice_signal,
        data_class=spec.data_class,
        slice=spec.slice,
        slices_per_gpu=slices_per_gpu,
        was_running=attempt.state is AttemptState.RUNNING or attempt.started_ms > 0,
    )
