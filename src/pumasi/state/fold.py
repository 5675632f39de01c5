"""The fold: one handler per fact. A fact that cannot follow raises before anything is changed."""

from collections.abc import Callable
from typing import Any

from pumasi.events import facts
from pumasi.events.facts import AdvanceReservationState, Event, LinkState, NodeState, ReservationState
from pumasi.model.ids import JobId, SiteId, queue_parent
from pumasi.model.jobs import TERMINAL_STATES, AttemptState, JobState, Outcome, not_again, span_gpus
from pumasi.model.reservations import ReservationId
from pumasi.state import accounts
from pumasi.state.fleet_state import FleetState
from pumasi.state.machines import ADVANCE_RESERVATION, ATTEMPT, JOB, LINK, NODE, RESERVATION, IllegalTransition
from pumasi.state.records import (
    AdvanceRecord,
    Attempt,
    Job,
    OwnerRecord,
    PlannedStart,
    PoolRecord,
    QueueRecord,
    Request,
    Reservation,
    SiteRecord,
    Stop,
)
from pumasi.state.strikes import count_end

REQUEST_MEMORY_MS = 24 * 3600 * 1000  # how long an idempotency key is remembered


def apply(state: FleetState, event: Event) -> Job | None:
    """Fold one fact into the state; returns the job that reached its terminal state by it, if one did.

    :raises IllegalTransition: if the fact cannot follow on this state; the state is then unchanged.
    """
    ended = _HANDLERS[type(event)](state, event)
    state.seq += 1
    state.at_ms = event.at_ms
    return ended


# --- the fleet as declared -------------------------------------------------------------------------------------------


def _plan_applied(state: FleetState, event: facts.PlanApplied) -> None:
    state.plan_name = event.name


def _policy_declared(state: FleetState, event: facts.PolicyDeclared) -> None:
    state.policy = event.policy
    state.changes.declarations += 1


def _gpu_model_declared(state: FleetState, event: facts.GpuModelDeclared) -> None:
    state.gpu_models[event.model.id] = event.model
    state.changes.declarations += 1
    for site in state.sites:
        state.share_power(site)


def _owner_declared(state: FleetState, event: facts.OwnerDeclared) -> None:
    state.changes.declarations += 1
    record = state.owners.get(event.owner.id)
    if record:
        record.declared = event.owner
    else:
        state.owners[event.owner.id] = OwnerRecord(event.owner)


def _site_declared(state: FleetState, event: facts.SiteDeclared) -> None:
    state.changes.declarations += 1
    record = state.sites.get(event.site.id)
    if record:
        record.declared = event.site
        state.share_power(event.site.id)
        return
    LINK.check(event.site.id, None, "SiteDeclared", LinkState.UNENROLLED)
    state.sites[event.site.id] = SiteRecord(event.site, since_ms=event.at_ms)


def _pool_declared(state: FleetState, event: facts.PoolDeclared) -> None:
    state.changes.declarations += 1
    state.pools[event.pool.id] = PoolRecord(event.pool, event.stage)
    state.build_pool(event.pool.id)
    state.share_power(event.pool.site)


def _queue_declared(state: FleetState, event: facts.QueueDeclared) -> None:
    state.changes.declarations += 1
    queue = event.queue
    record = state.queues.get(queue.id)
    if record:
        record.declared = queue
        return
    parent = queue_parent(queue.id)
    state.queues[queue.id] = QueueRecord(queue, parent, 0, past_until_ms=event.at_ms)
    if parent is not None:
        state.queues[parent].children.append(queue.id)


# --- sites and nodes -------------------------------------------------------------------------------------------------


def _site_enrolled(state: FleetState, event: facts.SiteEnrolled) -> None:
    record = state.sites[event.site]
    LINK.check(event.site, record.link, "SiteEnrolled", LinkState.CONNECTED)
    record.public_key, record.generation = event.public_key, event.generation
    record.link, record.since_ms = LinkState.CONNECTED, event.at_ms
    _stir_site(state, event.site)


def _link_changed(state: FleetState, event: facts.SiteConnected | facts.SiteSilent) -> None:
    record = state.sites[event.site]
    target = LinkState.CONNECTED if isinstance(event, facts.SiteConnected) else LinkState.SILENT
    LINK.check(event.site, record.link, type(event).__name__, target)
    record.link, record.since_ms = target, event.at_ms
    _stir_site(state, event.site)


def _stir_site(state: FleetState, site: SiteId) -> None:
    for pool, record in state.pools.items():
        if record.declared.site == site:
            state.changes.stir(pool)


def _power_cap_set(state: FleetState, event: facts.PowerCapSet) -> None:
    record = state.sites[event.site]
    record.power_cap_kilowatts, record.power_due_ms = event.kilowatts, event.due_ms
    state.share_power(event.site)


def _node_changed(state: FleetState, event: facts.NodeChanged) -> None:
    occupancy = state.occupancy[event.pool]
    NODE.check((event.pool, event.node), occupancy.node_state(event.node), "NodeChanged", event.state)
    occupancy.set_node_state(event.node, event.state)
    if event.state is NodeState.UP:
        state.node_reasons.pop((event.pool, event.node), None)
        state.strikes.pop((event.pool, event.node), None)
    else:
        state.node_reasons[event.pool, event.node] = event.reason
    state.share_out(event.pool)


# --- jobs ------------------------------------------------------------------------------------------------------------


def _job_submitted(state: FleetState, event: facts.JobSubmitted) -> None:
    if event.job != state.next_job:
        raise IllegalTransition(f"job {event.job} submitted, {state.next_job} is next")
    job = submitted(event)
    JOB.check(event.job, None, "JobSubmitted", job.state)
    if job.state is JobState.WAITING:
        state.enter_waiting(job, event.at_ms)
    state.jobs[job.id] = job
    state.next_job += 1
    if event.request:
        _remember_request(state, event)


def submitted(event: facts.JobSubmitted) -> Job:
    """The job as it is when it is submitted."""
    target = JobState.HELD if event.held else JobState.WAITING
    return Job(event.job, event.spec, event.by, event.at_ms, target, event.at_ms)


def _remember_request(state: FleetState, event: facts.JobSubmitted) -> None:
    request = state.requests.get(event.request)
    if request:
        request.jobs.append(event.job)
        return
    _forget_old_requests(state.requests, event.at_ms - REQUEST_MEMORY_MS)
    state.requests[event.request] = Request(event.request_hash, event.at_ms, [event.job])


def _forget_old_requests(requests: dict[str, Request], before_ms: int) -> None:
    while requests:
        oldest = next(iter(requests))
        if requests[oldest].at_ms >= before_ms:
            return
        del requests[oldest]


def _job_held(state: FleetState, event: facts.JobHeld) -> None:
    job = _known(state, event.job)
    JOB.check(job.id, job.state, "JobHeld", JobState.HELD)
    state.leave_waiting(job)
    job.state = JobState.HELD


def _job_released(state: FleetState, event: facts.JobReleased) -> None:
    job = _known(state, event.job)
    JOB.check(job.id, job.state, "JobReleased", JobState.WAITING)
    job.state = JobState.WAITING
    state.enter_waiting(job, event.at_ms)


def _job_cancelled(state: FleetState, event: facts.JobCancelled) -> Job:
    job = _known(state, event.job)
    JOB.check(job.id, job.state, "JobCancelled", JobState.CANCELLED)
    if job.state is JobState.WAITING:
        state.leave_waiting(job)
    return state.finish(job, JobState.CANCELLED, event.at_ms)


def _attempt_placed(state: FleetState, event: facts.AttemptPlaced) -> None:
    job = _known(state, event.job)
    JOB.check(job.id, job.state, "AttemptPlaced", JobState.ACTIVE)
    if event.attempt != len(job.attempts) + 1:
        raise IllegalTransition(f"job {job.id}: attempt {event.attempt} placed after {len(job.attempts)}")
    occupancy, owner = state.occupancy[event.pool], job.owner
    if not all(map(occupancy.free.free_in, event.spans)):
        raise IllegalTransition(f"job {job.id}: placed on GPUs of {event.pool} that are not free")
    occupancy.occupy(job.id, event.spans)
    accounts.post(state.books[event.pool], owner, event.charges, 1)
    state.use(event.queue, event.pool, span_gpus(event.spans), event.at_ms)
    state.leave_waiting(job)
    job.state = JobState.ACTIVE
    job.attempts.append(
        Attempt(event.attempt, AttemptState.PLACED, event.pool, event.spans, event.charges, event.at_ms, event.at_ms)
    )
    state.active[event.pool][job.id] = None
    state.changes.move(event.pool, job.id)
    if len(event.charges) != 1 or event.charges[0].owner != owner:
        state.note_guest(job)
        state.changes.stir(event.pool)


def _attempt_started(state: FleetState, event: facts.AttemptStarted) -> None:
    _, attempt = _live(state, event.job, event.attempt)
    target = AttemptState.STOPPING if attempt.state is AttemptState.STOPPING else AttemptState.RUNNING
    ATTEMPT.check((event.job, event.attempt), attempt.state, "AttemptStarted", target)
    attempt.state = target
    attempt.started_ms = event.at_ms
    state.changes.move(attempt.pool, event.job)


def _stop_ordered(state: FleetState, event: facts.StopOrdered) -> None:
    _, attempt = _live(state, event.job, event.attempt)
    ATTEMPT.check((event.job, event.attempt), attempt.state, "StopOrdered", AttemptState.STOPPING)
    attempt.state = AttemptState.STOPPING
    state.guests[attempt.pool][event.job] = None
    state.changes.stir(attempt.pool)
    state.changes.move(attempt.pool, event.job)
    attempt.stop = Stop(event.cause, event.at_ms, event.kill_at_ms, event.claimant)


def _attempt_ended(state: FleetState, event: facts.AttemptEnded) -> Job | None:
    job, attempt = _live(state, event.job, event.attempt)
    JOB.check(job.id, job.state, "AttemptEnded", event.job_state)
    ATTEMPT.check((event.job, event.attempt), attempt.state, "AttemptEnded", AttemptState.ENDED)
    state.settle_credit(job, attempt, event.at_ms)
    occupancy = state.occupancy[attempt.pool]
    occupancy.vacate(attempt.spans)
    accounts.post(state.books[attempt.pool], job.owner, attempt.charges, -1)
    if occupancy.node_states:
        state.share_out(attempt.pool)
    state.use(job.spec.queue, attempt.pool, -attempt.gpus, event.at_ms)
    del state.active[attempt.pool][job.id]
    state.guests[attempt.pool].pop(job.id, None)
    state.changes.stir(attempt.pool)
    state.changes.move(attempt.pool, job.id)
    attempt.state, attempt.outcome, attempt.ended_ms = AttemptState.ENDED, event.outcome, event.at_ms
    attempt.exit_code, attempt.signal, attempt.detail = event.exit_code, event.signal, event.detail
    if state.strikes or event.outcome is not Outcome.COMPLETED or event.exit_code or event.signal:
        count_end(state, job, attempt)
    job.state = event.job_state
    if event.job_state in TERMINAL_STATES:
        return state.finish(job, event.job_state, event.at_ms)
    if event.outcome is Outcome.REFUSED:
        job.spec = not_again(job.spec, attempt.pool)
    state.enter_waiting(job, event.at_ms)
    return None


def _allocation_recharged(state: FleetState, event: facts.AllocationRecharged) -> None:
    job, attempt = _live(state, event.job, event.attempt)
    state.charge(job, attempt, event.charges, event.at_ms)


def _reservation_made(state: FleetState, event: facts.ReservationMade) -> None:
    RESERVATION.check(event.job, None, "ReservationMade", ReservationState.HELD)
    if event.job in state.reservations:
        raise IllegalTransition(f"job {event.job} has a reservation already")
    reservation = Reservation(event.job, event.pool, event.spans, event.charges, event.at_ms, event.due_ms)
    state.reservations[event.job] = reservation
    state.hold(reservation)


def _start_planned(state: FleetState, event: facts.StartPlanned) -> None:
    job = _known(state, event.job)
    if job.state is not JobState.WAITING or event.job in state.planned:
        raise IllegalTransition(f"job {event.job} is {job.state}, or its start is planned already")
    state.planned[event.job] = PlannedStart(event.job, event.pool, event.spans, event.at_ms, event.start_ms)


def _start_given_up(state: FleetState, event: facts.StartGivenUp) -> None:
    if event.job not in state.planned:
        raise IllegalTransition(f"no start of job {event.job} is planned")
    state.unplan(event.job)


def _advance_reservation_made(state: FleetState, event: facts.AdvanceReservationMade) -> None:
    made = event.reservation
    ADVANCE_RESERVATION.check(made.id, None, "AdvanceReservationMade", AdvanceReservationState.SCHEDULED)
    if made.id in state.advance_reservations:
        raise IllegalTransition(f"there is a reservation {made.id} already")
    state.advance_reservations[made.id] = AdvanceRecord(made, AdvanceReservationState.SCHEDULED)
    state.changes.stir(made.pool)  # planned starts may be in its way


def _advance_reservation_began(state: FleetState, event: facts.AdvanceReservationBegan) -> None:
    record = _advance_record(state, event.reservation)
    target = AdvanceReservationState.ACTIVE
    ADVANCE_RESERVATION.check(event.reservation, record.state, "AdvanceReservationBegan", target)
    record.state, record.job = target, event.job
    state.changes.stir(record.declared.pool)  # a job now stands for what is handed over


def _advance_reservation_ended(state: FleetState, event: facts.AdvanceReservationEnded) -> None:
    record = _advance_record(state, event.reservation)
    ADVANCE_RESERVATION.check(event.reservation, record.state, "AdvanceReservationEnded", event.state)
    del state.advance_reservations[event.reservation]
    state.changes.stir(record.declared.pool)


def _advance_record(state: FleetState, name: ReservationId) -> AdvanceRecord:
    record = state.advance_reservations.get(name)
    if record is None:
        raise IllegalTransition(f"there is no reservation {name}")
    return record


def _reservation_ended(state: FleetState, event: facts.ReservationEnded) -> None:
    reservation = state.reservations.get(event.job)
    if reservation is None:
        raise IllegalTransition(f"job {event.job} has no reservation")
    RESERVATION.check(event.job, reservation.state, "ReservationEnded", event.state)
    del state.reservations[event.job]
    state.let_go(reservation, event.state)


def _known(state: FleetState, job: JobId) -> Job:
    record = state.jobs.get(job)
    if record is None:
        raise IllegalTransition(f"job {job} is terminal or was never submitted")
    return state.own(record) if state.shared else record


def _live(state: FleetState, job: JobId, attempt: int) -> tuple[Job, Attempt]:
    record = _known(state, job)
    live = record.live
    if live is None or live.number != attempt:
        raise IllegalTransition(f"attempt {attempt} of job {job} is not live")
    return record, live


# --- people and their tokens -----------------------------------------------------------------------------------------


def _principal_declared(state: FleetState, event: facts.PrincipalDeclared) -> None:
    state.principals[event.principal.id] = event.principal


def _token_issued(state: FleetState, event: facts.TokenIssued) -> None:
    for digest in [token.digest for token in state.tokens.values() if token.expires_at_ms < event.at_ms]:
        del state.tokens[digest]  # worth nothing any more, and nobody revokes what has expired
    state.tokens[event.token.digest] = event.token


def _token_revoked(state: FleetState, event: facts.TokenRevoked) -> None:
    if state.tokens.pop(event.digest, None) is None:
        raise IllegalTransition("a token that does not exist was revoked")


_HANDLERS: dict[type, Callable[[FleetState, Any], Job | None]] = {
    facts.PlanApplied: _plan_applied,
    facts.PolicyDeclared: _policy_declared,
    facts.GpuModelDeclared: _gpu_model_declared,
    facts.OwnerDeclared: _owner_declared,
    facts.SiteDeclared: _site_declared,
    facts.PoolDeclared: _pool_declared,
    facts.QueueDeclared: _queue_declared,
    facts.SiteEnrolled: _site_enrolled,
    facts.SiteConnected: _link_changed,
    facts.SiteSilent: _link_changed,
    facts.PowerCapSet: _power_cap_set,
    facts.NodeChanged: _node_changed,
    facts.JobSubmitted: _job_submitted,
    facts.JobHeld: _job_held,
    facts.JobReleased: _job_released,
    facts.JobCancelled: _job_cancelled,
    facts.AttemptPlaced: _attempt_placed,
    facts.AttemptStarted: _attempt_started,
    facts.StopOrdered: _stop_ordered,
    facts.AttemptEnded: _attempt_ended,
    facts.AllocationRecharged: _allocation_recharged,
    facts.ReservationMade: _reservation_made,
    facts.StartPlanned: _start_planned,
    facts.StartGivenUp: _start_given_up,
    facts.ReservationEnded: _reservation_ended,
    facts.AdvanceReservationMade: _advance_reservation_made,
    facts.AdvanceReservationBegan: _advance_reservation_began,
    facts.AdvanceReservationEnded: _advance_reservation_ended,
    facts.PrincipalDeclared: _principal_declared,
    facts.TokenIssued: _token_issued,
    facts.TokenRevoked: _token_revoked,
}
