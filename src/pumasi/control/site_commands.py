"""What agents and operators say of sites, nodes and runs: reconciling what is desired with what is reported."""

from pumasi.control.commands import EnrolSite, HearSite, SetNodeState, SetPowerCap
from pumasi.control.decisions import Answer, Decision
from pumasi.control.mailboxes import BY_SITE
from pumasi.control.node_health import as_operators_words, health_facts, set_by_operator
from pumasi.control.quarantine import takes_down_too_many
from pumasi.control.refusals import Refusal, RefusalKind, not_found
from pumasi.events.facts import (
    AttemptEnded,
    AttemptStarted,
    Event,
    JobHeld,
    LinkState,
    NodeChanged,
    NodeState,
    PowerCapSet,
    SiteConnected,
    SiteEnrolled,
    TokenRevoked,
)
from pumasi.model.hostlist import node_name
from pumasi.model.jobs import AttemptState, JobState, Outcome, StopCause, not_again
from pumasi.protocol.messages import Report, RunEnded, RunKey
from pumasi.scheduler.eligibility import never_admissible
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Attempt, Job


def enrol(state: FleetState, command: EnrolSite, now_ms: int) -> Answer:
    """Bind a key to the site and use the token up. The API has checked token and proof."""
    record = state.sites.get(command.site)
    if record is None:
        return not_found("site", command.site)
    if command.used_up not in state.tokens:
        return Refusal(kind=RefusalKind.DENIED, code="token-used", detail="this enrolment token has been used")
    generation = record.generation + 1
    events = (
        TokenRevoked(at_ms=now_ms, by=command.by, digest=command.used_up),
        SiteEnrolled(
            at_ms=now_ms, by=command.by, site=command.site, public_key=command.public_key, generation=generation
        ),
    )
    return Decision(events, generation)


def hear(state: FleetState, command: HearSite, now_ms: int) -> Answer:
    """The site is there; fold what it reports. A report about an attempt that is not live changes nothing."""
    record = state.sites.get(command.site)
    if record is None:
        return not_found("site", command.site)
    events: list[Event] = []
    if record.link is LinkState.SILENT:
        events.append(SiteConnected(at_ms=now_ms, by=command.by, site=command.site))
    started: set[int] = set()
    ended: set[int] = set()
    for report in command.reports:
        events += _reported(state, command, report, now_ms, started, ended)
    if command.nodes is not None:
        events += health_facts(state, command.site, command.nodes, now_ms)
    return Decision(tuple(events))


def _reported(
    state: FleetState, command: HearSite, report: Report, now_ms: int, started: set[int], ended: set[int]
) -> tuple[Event, ...]:
    """The facts in a report, unless it is stale, a repeat within the call, or about another site's run."""
    run = report.run
    job = state.jobs.get(run.job)
    live = None if job is None or run.job in ended else job.live
    if job is None or live is None or live.number != run.attempt:
        return ()
    if state.pools[live.pool].declared.site != command.site:
        return ()
    by = BY_SITE + command.site
    if isinstance(report, RunEnded):
        ended.add(run.job)
        return end_attempt(state, job, report, now_ms, by)
    if live.started_ms or run.job in started or live.state is AttemptState.RUNNING:
        return ()
    started.add(run.job)
    return (AttemptStarted(at_ms=now_ms, by=by, job=run.job, attempt=run.attempt),)


def end_attempt(state: FleetState, job: Job, report: RunEnded, now_ms: int, by: str) -> tuple[Event, ...]:
    """The facts that the live attempt of a job ended, and what becomes of the job."""
    live = job.attempts[-1]
    ended = AttemptEnded(
        at_ms=now_ms,
        by=by,
        job=job.id,
        attempt=live.number,
        outcome=report.outcome,
        job_state=_becomes(state, job, live, report, now_ms),
        exit_code=report.exit_code,
        signal=report.signal,
        detail=report.detail,
    )
    is_poison = ended.job_state is JobState.WAITING and report.outcome is Outcome.NODE_FAILED
    if is_poison and takes_down_too_many(job, now_ms):
        return ended, JobHeld(at_ms=now_ms, by="control", job=job.id, reason="it takes down one node after the other")
    return (ended,)


# What becomes of a job whose attempt ended so: (if it may run again, if not).
_AFTER: dict[Outcome, tuple[JobState, JobState]] = {
    Outcome.TIME_LIMIT: (JobState.EXPIRED, JobState.EXPIRED),
    Outcome.CANCELLED: (JobState.CANCELLED, JobState.CANCELLED),
    Outcome.RECLAIMED: (JobState.WAITING, JobState.CANCELLED),
    Outcome.DRAINED: (JobState.WAITING, JobState.CANCELLED),
    Outcome.PREEMPTED: (JobState.WAITING, JobState.CANCELLED),
    Outcome.POWER_CUT: (JobState.WAITING, JobState.CANCELLED),
    Outcome.NODE_FAILED: (JobState.WAITING, JobState.FAILED),
    Outcome.NEVER_STARTED: (JobState.WAITING, JobState.FAILED),
    Outcome.REFUSED: (JobState.WAITING, JobState.FAILED),
    Outcome.LOST: (JobState.WAITING, JobState.UNKNOWN_OUTCOME),
}


def _becomes(state: FleetState, job: Job, live: Attempt, report: RunEnded, now_ms: int) -> JobState:
    if live.stop is not None and live.stop.cause is StopCause.CANCEL:
        return JobState.CANCELLED
    if report.outcome is Outcome.COMPLETED:
        return JobState.SUCCEEDED if report.exit_code == 0 and report.signal == 0 else JobState.FAILED
    again, otherwise = _AFTER[report.outcome]
    if report.outcome is Outcome.REFUSED:
        return otherwise if never_admissible(state, not_again(job.spec, live.pool), now_ms) else again
    may_run_again = job.spec.requeue or report.outcome is Outcome.NEVER_STARTED
    return again if may_run_again and live.number <= state.policy.requeue_limit else otherwise


def set_node_state(state: FleetState, command: SetNodeState, now_ms: int) -> Answer:
    """Change nodes; what ran on a node that is down has failed with it."""
    if command.pool not in state.pools:
        return not_found("pool", command.pool)
    nodes = state.pools[command.pool].declared.nodes
    unknown = [node for node in command.nodes if not 0 <= node < nodes]
    if unknown:
        return not_found("node", node_name(command.pool, unknown[0]))
    events: list[Event] = []
    occupancy = state.occupancy[command.pool]
    failed: dict[int, None] = {}
    for node in dict.fromkeys(command.nodes):
        states = _steps(state, command, node)
        events += (
            NodeChanged(
                at_ms=now_ms,
                by=command.by,
                pool=command.pool,
                node=node,
                state=each,
                reason=as_operators_words(command.reason) if each is command.state else "",
            )
            for each in states
        )
        if not states:
            continue
        if command.state is NodeState.DOWN:
            failed.update(dict.fromkeys(occupancy.jobs_on(node)))
    return Decision((*_fail(state, list(failed), now_ms, command), *events))


def _steps(state: FleetState, command: SetNodeState, node: int) -> tuple[NodeState, ...]:
    """The states a node goes through. What others had said becomes the operator's word by way of UP."""
    if state.occupancy[command.pool].node_state(node) is not command.state:
        return (command.state,)
    if command.state is not NodeState.UP and not set_by_operator(state, command.pool, node):
        return (NodeState.UP, command.state)
    return ()


def set_power_cap(state: FleetState, command: SetPowerCap, now_ms: int) -> Answer:
    """Cap a site's power; the next cycle gives notice to what it no longer carries. The same cap again is nothing."""
    record = state.sites.get(command.site)
    if record is None:
        return not_found("site", command.site)
    if command.kilowatts < 0 or command.notice_seconds < 1:
        detail = "a cap is 0 or more kilowatts, and its notice 1 second or more"
        return Refusal(kind=RefusalKind.INVALID, code="power-invalid", detail=detail)
    if record.power_cap_kilowatts == command.kilowatts:
        return Decision(())
    due_ms = now_ms + command.notice_seconds * 1000
    return Decision(
        (PowerCapSet(at_ms=now_ms, by=command.by, site=command.site, kilowatts=command.kilowatts, due_ms=due_ms),)
    )


def _fail(state: FleetState, jobs: list[int], now_ms: int, command: SetNodeState) -> list[Event]:
    detail = command.reason or "a node of the allocation went down"
    events: list[Event] = []
    for job in (state.jobs[number] for number in jobs):
        report = RunEnded(run=_run_key(job), outcome=Outcome.NODE_FAILED, detail=detail)
        events += end_attempt(state, job, report, now_ms, command.by)
    return events


def _run_key(job: Job) -> RunKey:
    return RunKey(job.id, job.attempts[-1].number)
