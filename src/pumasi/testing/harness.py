"""State and scheduler on a clock set by hand, with an engine in memory that starts and ends runs when told to.

Every plan is linted before it is applied, every state is checked after; a finding is an AssertionError.
"""

from collections.abc import Iterable
from typing import Any

from pumasi.control import reservation_commands, reservation_times
from pumasi.control.commands import MakeReservation
from pumasi.control.refusals import Refusal
from pumasi.events import facts
from pumasi.events.facts import AttemptPlaced, Event, NodeState, StopOrdered
from pumasi.ledger.ledger import Ledger
from pumasi.model.ids import JobId, PoolId, QueueId, SiteId
from pumasi.model.jobs import OUTCOME_OF_STOP, AttemptState, JobState, Outcome, StopCause
from pumasi.scheduler.check import lint
from pumasi.scheduler.plan import Plan, plan
from pumasi.scheduler.planner import Planner
from pumasi.state import snapshot
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.state.invariants import violations
from pumasi.state.records import Job
from pumasi.testing.builders import START_MS, spec

_FINAL = {StopCause.CANCEL: JobState.CANCELLED, StopCause.TIME_LIMIT: JobState.EXPIRED}  # others wait again


def planned(state: FleetState, now_ms: int, planner: Planner | None = None) -> Plan:
    """Plan, lint the plan, apply it, check the state."""
    before = snapshot.digest(state)
    made = plan(state, now_ms, planner)
    assert snapshot.digest(state) == before, "a plan changes nothing"
    assert plan(state, now_ms) == made, "the same state and time must give the same plan, whatever is remembered"
    findings = lint(state, made, now_ms)
    assert not findings, "\n".join(findings)
    for event in made.events:
        apply(state, event)
    assert not violations(state)
    assert is_complete(state, made, now_ms), "a plan leaves nothing to decide at the same moment"
    return made


def is_complete(state: FleetState, made: Plan, now_ms: int) -> bool:
    """True if nothing is left to decide once a plan is applied, unless it stops what only this plan has placed."""
    again, placed = plan(state, now_ms).events, {event.job for event in made.events if isinstance(event, AttemptPlaced)}
    return not again or any(isinstance(event, StopOrdered) and event.job in placed for event in again)


class Harness:
    """A fleet to play with. `log`: every fact; `plan`: the last plan."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.state = FleetState()
        self._planner = Planner(self.state)
        self.log: list[Event] = []
        self.ledger = Ledger()
        self.now_ms = START_MS
        self.plan = Plan((), {})
        for event in events:
            self.record(event)

    def told_start_ms(self, job: JobId) -> int | None:
        """The start that a waiting job is told now."""
        return self._planner.why_waiting(self.now_ms).start_ms(job)

    def record(self, event: Event) -> None:
        """Fold a fact."""
        apply(self.state, event)
        self._remember(event)

    def _remember(self, event: Event) -> None:
        self.log.append(event)
        self.ledger.apply(event)

    def submit(self, queue: QueueId, gpus: int, **fields: Any) -> JobId:
        """A job arrives."""
        job = self.state.next_job
        self.record(facts.JobSubmitted(at_ms=self.now_ms, by="user", job=job, spec=spec(queue, gpus, **fields)))
        return job

    def tick(self) -> Plan:
        """One cycle, and the engines start at once what it placed."""
        self._settle_advance()
        self.plan = planned(self.state, self.now_ms, self._planner)
        for event in self.plan.events:
            self._remember(event)
        for event in self.plan.events:
            if isinstance(event, AttemptPlaced):
                self.record(facts.AttemptStarted(at_ms=self.now_ms, job=event.job, attempt=event.attempt))
        return self.plan

    def reserve(self, command: MakeReservation) -> Refusal | None:
        """Reserve nodes in advance; returns why not, if so."""
        answer = reservation_commands.make(self.state, command, self.now_ms)
        if isinstance(answer, Refusal):
            return answer
        for event in answer.events:
            self.record(event)
        return None

    def _settle_advance(self) -> None:
        for record in reservation_times.in_turn(self.state):
            for event in reservation_times.due(self.state, record, self.now_ms):
                self.record(event)

    def wait(self, seconds: int) -> None:
        """Time passes; runs end at their time limit or when they are killed."""
        until_ms = self.now_ms + seconds * 1000
        while due := self._next_end(until_ms):
            self.now_ms, job = due
            self._run_out(self.state.jobs[job])
        self.now_ms = until_ms

    def end(self, job: JobId, outcome: Outcome = Outcome.COMPLETED, becomes: JobState = JobState.SUCCEEDED) -> None:
        """A run ends."""
        number = len(self.state.jobs[job].attempts)
        self.record(
            facts.AttemptEnded(at_ms=self.now_ms, job=job, attempt=number, outcome=outcome, job_state=becomes)
        )  # fmt: skip

    def cancel(self, job: JobId) -> None:
        """A user cancels a job: a waiting one at once, an active one gets half a minute."""
        record = self.state.jobs[job]
        if record.state is JobState.ACTIVE:
            self._order_stop(record, StopCause.CANCEL, 30)
            return
        if job in self.state.reservations:
            released = facts.ReservationState.RELEASED
            self.record(facts.ReservationEnded(at_ms=self.now_ms, job=job, state=released))
        self.record(facts.JobCancelled(at_ms=self.now_ms, job=job))

    def set_node(self, pool: PoolId, node: int, state: NodeState) -> None:
        """A node is drained, repaired, or goes down with all that runs on it."""
        if self.state.occupancy[pool].node_state(node) is state:
            return
        if state is NodeState.DOWN:
            for job in self.state.occupancy[pool].jobs_on(node):
                again = JobState.WAITING if self.state.jobs[job].spec.requeue else JobState.FAILED
                self.end(job, Outcome.NODE_FAILED, again)
        self.record(facts.NodeChanged(at_ms=self.now_ms, pool=pool, node=node, state=state, reason="test"))

    def set_power(self, site: SiteId, kilowatts: int, within_seconds: int = 300) -> None:
        """A site may draw less from now on, and must be down to it within so many seconds."""
        due_ms = self.now_ms + within_seconds * 1000
        self.record(facts.PowerCapSet(at_ms=self.now_ms, site=site, kilowatts=kilowatts, due_ms=due_ms))

    def _order_stop(self, job: Job, cause: StopCause, seconds: int) -> None:
        kill_at_ms = self.now_ms + seconds * 1000
        number = len(job.attempts)
        self.record(
            StopOrdered(at_ms=self.now_ms, job=job.id, attempt=number, cause=cause, kill_at_ms=kill_at_ms)
        )  # fmt: skip

    def _next_end(self, until_ms: int) -> tuple[int, JobId] | None:
        handed_over = self.state.handed_over()
        ends = [(_end_ms(job), job.id) for job in self.state.jobs.values() if job.live and job.id not in handed_over]
        return min((end for end in ends if end[0] <= until_ms), default=None)

    def _run_out(self, job: Job) -> None:
        stop = job.attempts[-1].stop
        if stop is not None and self.now_ms < stop.kill_at_ms:
            stop = None  # its time limit came first
        cause = stop.cause if stop else StopCause.TIME_LIMIT
        self.end(job.id, OUTCOME_OF_STOP[cause], _FINAL.get(cause, JobState.WAITING))


def _end_ms(job: Job) -> int:
    attempt = job.attempts[-1]
    assert attempt.state is not AttemptState.PLACED, "the engines of this harness start at once"
    limit_ms = attempt.started_ms + job.spec.time_limit_seconds * 1000
    return min(limit_ms, attempt.stop.kill_at_ms) if attempt.stop else limit_ms
