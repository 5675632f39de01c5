"""Commands on jobs."""

from pumasi.control.commands import CancelJob, HoldJob, ReleaseJob, SubmitJobs
from pumasi.control.decisions import Answer, Decision
from pumasi.control.refusals import FieldProblem, Refusal, RefusalKind, not_found
from pumasi.events.facts import (
    JobCancelled,
    JobHeld,
    JobReleased,
    JobSubmitted,
    ReservationEnded,
    ReservationState,
    StopOrdered,
)
from pumasi.model.calendar import day_of
from pumasi.model.fleet import PlacementRule
from pumasi.model.ids import JobId, QueueId
from pumasi.model.jobs import JobSpec, JobState, StopCause
from pumasi.scheduler.eligibility import never_admissible
from pumasi.state.backlog import ShapeKey, shape_key
from pumasi.state.fleet_state import FleetState
from pumasi.state.placement_rules import rules_in_force
from pumasi.state.records import Job

CANCEL_GRACE_SECONDS = 30  # Slurm's KillWait
JUDGEMENTS_MAX = 10_000  # more different jobs than that are judged anew, so that memory stays bounded
BEGIN_PAST_TOLERANCE_MS = 24 * 3600 * 1000  # clocks and queued scripts drift; older than a day is a mistake
REQUEST_SEPARATOR = "\n"  # cannot occur in a principal's name, so keys of two principals never meet


def request_name(command: SubmitJobs) -> str:
    """What an idempotent call is remembered by; "" if it has no key."""
    return f"{command.by}{REQUEST_SEPARATOR}{command.request}" if command.request else ""


Errors = list[tuple[str, FieldProblem]]  # (refusal code, where and what)


class Judgements:
    """What is wrong with jobs of equal requirements, on a fleet as it is declared: make new ones when that changes."""

    def __init__(self) -> None:
        self._day = 0
        self._in_force: tuple[PlacementRule, ...] = ()
        self._found: dict[tuple[QueueId, ShapeKey], Errors] = {}

    def of(self, state: FleetState, spec: JobSpec, now_ms: int) -> Errors:
        """What is wrong with such a job, by the placement rules of the day."""
        if self._day != day_of(now_ms):
            self._begin_day(state, now_ms)
        key = (spec.queue, shape_key(spec))
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= JUDGEMENTS_MAX:
                self._found.clear()
            found = self._found[key] = _judge(state, spec, now_ms)
        return found

    def _begin_day(self, state: FleetState, now_ms: int) -> None:
        in_force = rules_in_force(state, now_ms)
        if in_force != self._in_force:
            self._found.clear()
        self._day, self._in_force = day_of(now_ms), in_force


def submit(state: FleetState, command: SubmitJobs, now_ms: int, first_job: JobId, judgements: Judgements) -> Answer:
    """All jobs or none, numbered from `first_job`; a repeat of an idempotent call gets the first answer.

    `judgements`: earlier ones on this fleet as it is declared; new ones are added.
    """
    request = request_name(command)
    if request in state.requests:
        return _repeated(state, command, request)
    errors = _spec_errors(state, command.specs, now_ms, judgements)
    if errors:
        return _refuse_specs(errors)
    events = tuple(
        JobSubmitted(
            at_ms=now_ms,
            by=command.by,
            job=number,
            spec=spec,
            held=command.held,
            request=request,
            request_hash=command.request_hash,
        )
        for number, spec in enumerate(command.specs, first_job)
    )
    return Decision(events, [event.job for event in events])


def _repeated(state: FleetState, command: SubmitJobs, request: str) -> Answer:
    known = state.requests[request]
    if known.body_hash != command.request_hash:
        return Refusal(
            kind=RefusalKind.REFUSED,
            code="idempotency-key-reused",
            detail="this idempotency key was used with another body; a new request needs a new key",
        )
    return Decision((), list(known.jobs))


def _spec_errors(state: FleetState, specs: tuple[JobSpec, ...], now_ms: int, judgements: Judgements) -> Errors:
    """Everything wrong with any of the jobs; equal requirements are judged once."""
    errors: Errors = []
    for index, spec in enumerate(specs):
        found = judgements.of(state, spec, now_ms)
        if spec.begin_at_ms:
            found = found + _begin_errors(spec, now_ms)
        if not found:
            continue
        prefix = f"jobs.{index}." if len(specs) > 1 else ""
        errors += [(code, FieldProblem(prefix + problem.path, problem.problem)) for code, problem in found]
    return errors


def _judge(state: FleetState, spec: JobSpec, now_ms: int) -> Errors:
    if spec.queue not in state.queues:
        return [("queue-unknown", FieldProblem("queue", f"there is no queue {spec.queue}"))]
    unknown = (
        [("gpu-model-unknown", "gpu_models", name) for name in spec.gpu_models if name not in state.gpu_models]
        + [("site-unknown", "sites", name) for name in spec.sites if name not in state.sites]
        + [("pool-unknown", "pools", name) for name in spec.pools if name not in state.pools]
        + [("pool-unknown", "prefers", name) for name in spec.prefers if name not in {*state.pools, *state.sites}]
    )
    if unknown:
        return [(code, FieldProblem(path, f"{name} is not known to this fleet")) for code, path, name in unknown]
    cut = sorted({record.declared.slice for record in state.pools.values()} - {""})
    if spec.slice and spec.slice not in cut:
        detail = f"no pool is cut into {spec.slice}; there are {', '.join(cut) or 'no slices'}"
        return [("slice-unknown", FieldProblem("slice", detail))]
    return [
        ("never-admissible", FieldProblem("gpus", f"{verdict.pool}: {verdict.detail}"))
        for verdict in never_admissible(state, spec, now_ms)
    ]


def _begin_errors(spec: JobSpec, now_ms: int) -> Errors:
    if spec.begin_at_ms < now_ms - BEGIN_PAST_TOLERANCE_MS:
        return [("begin-in-the-past", FieldProblem("begin_at_ms", "the begin time is more than a day in the past"))]
    return []


def _refuse_specs(errors: Errors) -> Refusal:
    code, first = errors[0]
    never = code == "never-admissible"
    detail = f"no pool of this fleet can ever run it: {first.problem}" if never else first.problem
    kind = RefusalKind.REFUSED if never else RefusalKind.INVALID
    return Refusal(kind=kind, code=code, detail=detail, errors=tuple(problem for _, problem in errors[:100]))


def cancel(state: FleetState, command: CancelJob, now_ms: int) -> Answer:
    """A waiting or held job ends at once; an active one is told to stop. Cancelling twice is no error."""
    job = state.jobs.get(command.job)
    if job is None:
        return _gone(state, command.job)
    if job.live is None:
        return Decision((*_let_go(state, job, now_ms), JobCancelled(at_ms=now_ms, by=command.by, job=job.id)))
    stop = job.live.stop
    if stop is not None and stop.cause is StopCause.CANCEL:
        return Decision()
    kill_at_ms = now_ms + CANCEL_GRACE_SECONDS * 1000
    order = StopOrdered(
        at_ms=now_ms,
        by=command.by,
        job=job.id,
        attempt=job.live.number,
        cause=StopCause.CANCEL,
        kill_at_ms=min(kill_at_ms, stop.kill_at_ms) if stop else kill_at_ms,
        claimant=stop.claimant if stop else 0,
    )
    return Decision((order,))


def hold(state: FleetState, command: HoldJob, now_ms: int) -> Answer:
    """Only a waiting job can be held; holding a held one is no error."""
    job = state.jobs.get(command.job)
    if job is None:
        return _gone(state, command.job)
    if job.state is JobState.HELD:
        return Decision()
    if job.state is not JobState.WAITING:
        return _wrong_state(job, "held")
    return Decision((*_let_go(state, job, now_ms), JobHeld(at_ms=now_ms, by=command.by, job=job.id)))


def release(state: FleetState, command: ReleaseJob, now_ms: int) -> Answer:
    """Only a held job can be released; releasing a waiting one is no error."""
    job = state.jobs.get(command.job)
    if job is None:
        return _gone(state, command.job)
    if job.state is JobState.WAITING:
        return Decision()
    if job.state is not JobState.HELD:
        return _wrong_state(job, "released")
    return Decision((JobReleased(at_ms=now_ms, by=command.by, job=job.id),))


def _let_go(state: FleetState, job: Job, now_ms: int) -> tuple[ReservationEnded, ...]:
    """A job that will not start now needs no GPUs held for it."""
    if job.id not in state.reservations:
        return ()
    return (ReservationEnded(at_ms=now_ms, job=job.id, state=ReservationState.RELEASED),)


def _gone(state: FleetState, job: int) -> Refusal:
    if 0 < job < state.next_job:
        return Refusal(kind=RefusalKind.CONFLICT, code="job-ended", detail=f"job {job} has already ended")
    return not_found("job", job)


def _wrong_state(job: Job, wanted: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.CONFLICT, code="job-not-waiting", detail=f"job {job.id} is {job.state} and cannot be {wanted}"
    )
