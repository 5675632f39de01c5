"""Jobs: submit, list, show, control, and why they wait."""

import asyncio
import hashlib
import re
from collections import Counter
from heapq import merge
from itertools import islice

from msgspec import Struct

from pumasi.api.bodies import BatchBody, JobBody, JobsQuery, spec_of
from pumasi.api.call import Call, not_authorised
from pumasi.api.finding import job_resource
from pumasi.api.paging import Page, after, page
from pumasi.api.problems import Problem, problem_of
from pumasi.api.routing import BodySize, Reach, Table
from pumasi.control import job_commands
from pumasi.control.access import Action, Resource, readable_queue
from pumasi.control.commands import CancelJob, HoldJob, ReleaseJob, SubmitJobs
from pumasi.control.refusals import FieldProblem, Refusal
from pumasi.control.views.jobs import (
    JobDetail,
    JobFilterRow,
    JobRow,
    ReasonsRow,
    job_detail,
    job_row,
    live_jobs,
    matches,
    reasons_row,
)
from pumasi.control.views.verdicts import PoolVerdict, pool_verdicts
from pumasi.model.jobs import TERMINAL_STATES, JobSpec, JobState
from pumasi.ports.event_log import JobFilter
from pumasi.state.records import Job

TABLE = Table("jobs")

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LIVE_STATES = frozenset(JobState) - TERMINAL_STATES
_STATE_NAMES = frozenset(state.value for state in JobState)
_ARCHIVE_ROWS = 500
_ARCHIVE_PAGES_MAX = 20  # how far a filter that the archive does not know is searched in one call


class SubmittedOne(Struct, frozen=True):
    """The number of the job."""

    id: int


class SubmittedMany(Struct, frozen=True):
    """The numbers of the jobs, in the order they were sent."""

    jobs: tuple[int, ...]


class CheckRow(Struct, frozen=True):
    """A dry run. `admissible`: some pool could run the job. Nothing was submitted."""

    admissible: bool
    detail: str
    pools: tuple[PoolVerdict, ...]


@TABLE.route("POST", "/v1/jobs", Action.JOB_SUBMIT, Reach.ROWS, body=JobBody, answer=SubmittedOne, status=201)
async def submit(call: Call) -> SubmittedOne:
    """Submit a job."""
    jobs = await _submit(call, (call.body,))
    return SubmittedOne(jobs[0])


@TABLE.route(
    "POST",
    "/v1/jobs/batch",
    Action.JOB_SUBMIT,
    Reach.ROWS,
    body=BatchBody,
    body_size=BodySize.BATCH,
    answer=SubmittedMany,
    status=201,
)
async def submit_batch(call: Call) -> SubmittedMany:
    """Submit up to 10,000 jobs, all or none."""
    return SubmittedMany(tuple(await _submit(call, call.body.jobs)))


async def _submit(call: Call, bodies: tuple[JobBody, ...]) -> list[int]:
    _check_queues(call, bodies)
    if len({body.held for body in bodies}) > 1:
        problem = FieldProblem("jobs", "either all jobs of a batch are held, or none is")
        raise Problem(422, "body-invalid", problem.problem, [problem])
    key = _idempotency_key(call)
    command = SubmitJobs(
        by=call.principal.id,
        specs=_specs(call, bodies),
        held=bodies[0].held,
        request=key,
        request_hash=hashlib.sha256(call.raw_body).hexdigest() if key else "",
    )
    jobs: list[int] = await call.do(command)
    return jobs


def _specs(call: Call, bodies: tuple[JobBody, ...]) -> tuple[JobSpec, ...]:
    default_seconds = call.state.policy.default_time_limit_seconds
    return tuple(spec_of(body, default_seconds) for body in bodies)


def _check_queues(call: Call, bodies: tuple[JobBody, ...]) -> None:
    """A queue the caller may not know of is answered like one that does not exist."""
    for queue in dict.fromkeys(body.queue for body in bodies):
        if queue not in call.state.queues or not call.may(Action.QUEUE_READ, Resource((queue,))):
            index = next(index for index, body in enumerate(bodies) if body.queue == queue)
            path = f"jobs.{index}.queue" if len(bodies) > 1 else "queue"
            detail = f"there is no queue {queue}"
            raise Problem(422, "queue-unknown", detail, [FieldProblem(path, detail)])
        if not call.may(Action.JOB_SUBMIT, Resource((queue,))):
            raise not_authorised(f"{call.principal.id} may not submit to {queue}")


def _idempotency_key(call: Call) -> str:
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not _KEY.fullmatch(key):
        raise Problem(422, "idempotency-key-invalid", "a key is 1 to 255 visible ASCII characters")
    return key


@TABLE.route("POST", "/v1/jobs/check", Action.JOB_SUBMIT, Reach.ROWS, body=JobBody, answer=CheckRow)
async def check(call: Call) -> CheckRow:
    """Say where a job could run, and submit nothing."""
    _check_queues(call, (call.body,))
    spec = _specs(call, (call.body,))[0]
    command = SubmitJobs(by=call.principal.id, specs=(spec,))
    now_ms = call.service.plane.now_ms()
    answer = job_commands.submit(call.state, command, now_ms, call.state.next_job, job_commands.Judgements())
    if isinstance(answer, Refusal) and answer.code != "never-admissible":
        raise problem_of(answer)
    verdicts = pool_verdicts(call.state, spec, now_ms)
    if isinstance(answer, Refusal):
        return CheckRow(False, answer.detail, verdicts)
    fitting = sum(verdict.admissible for verdict in verdicts)
    return CheckRow(True, f"{fitting} of {len(verdicts)} pools could run it", verdicts)


@TABLE.route("GET", "/v1/jobs", Action.JOB_READ, Reach.ROWS, query=JobsQuery, answer=Page[JobRow])
async def jobs(call: Call) -> Page[JobRow]:
    """List jobs, live and ended, newest first."""
    query: JobsQuery = call.query
    before = after(query.cursor, int)
    states = _states(query.state)
    wanted = JobFilterRow(states=states, queues=query.queue, user=query.user, site=query.site)
    newest, readable = call.service.plane.newest_jobs(), _Readable(call)
    live = live_jobs(call.state, newest, wanted, before, readable) if states & _LIVE_STATES else iter(())
    found = list(islice(live, query.limit + 1))
    seen_to = None
    if states & TERMINAL_STATES:
        await call.service.archived()
        ended, seen_to = await _ended(call, wanted, before, query.limit + 1)
        merged = merge(found, ended, key=lambda job: job.id, reverse=True)
        found = list({job.id: job for job in merged}.values())  # one may have ended since it was found live
    return page(found, query.limit, lambda job: job.id, lambda job: _row(call, job), seen_to=seen_to)


def _row(call: Call, job: Job) -> JobRow:
    plane = call.service.plane
    return job_row(plane.state, job, plane.reasons, plane.silent_since_ms(job))


def _states(names: tuple[str, ...]) -> frozenset[JobState]:
    states: set[JobState] = set()
    for name in names:
        if name == "live":
            states |= _LIVE_STATES
        elif name == "ended":
            states |= TERMINAL_STATES
        elif name in _STATE_NAMES:
            states.add(JobState(name))
        else:
            known = ", ".join(("live", "ended", *JobState))
            raise Problem(422, "query-invalid", f"state: it is one of {known}")
    return frozenset(states or JobState)


class _Readable:
    """Whether the caller may read a job; asked once per queue where the queue alone decides."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._queues: dict[str, bool] = {}

    def __call__(self, job: Job) -> bool:
        queue = job.spec.queue
        if queue not in self._queues:
            self._queues[queue] = readable_queue(self._call.principal, queue)
        return self._queues[queue] or _may_read(self._call, job)


def _may_read(call: Call, job: Job) -> bool:
    return call.may(Action.JOB_READ, job_resource(call.state, job, Action.JOB_READ))


async def _ended(call: Call, wanted: JobFilterRow, before: int | None, limit: int) -> tuple[list[Job], int | None]:
    """Ended jobs from the archive, newest first, that match and that the caller may read.

    The archive does not know every filter, so it may have to be searched for long. The second value is where the search
    was left off: jobs below that number have not been looked at.
    """
    may_read, found = _Readable(call), list[Job]()
    archive_filter = _archive_filter(call, wanted)
    for _ in range(_ARCHIVE_PAGES_MAX):
        rows = await asyncio.to_thread(call.service.store.page, archive_filter, before, max(limit, _ARCHIVE_ROWS))
        found += [job for job in rows if matches(call.state, job, wanted) and may_read(job)]
        if len(found) >= limit or len(rows) < max(limit, _ARCHIVE_ROWS):
            return found[:limit], None
        before = rows[-1].id
    return found, before


def _archive_filter(call: Call, wanted: JobFilterRow) -> JobFilter:
    """What the archive can do of the filter; the queues one may read are its indexes' business, not a search."""
    states = tuple(state for state in JobState if state in wanted.states & TERMINAL_STATES)
    scopes = tuple(binding.scope for binding in call.principal.bindings)
    by_queue_alone = all(scope in call.state.queues for scope in scopes)
    queues = wanted.queues or (scopes if by_queue_alone else ())
    return JobFilter(queues=queues, states=states, by=wanted.user)


@TABLE.route("GET", "/v1/jobs/{job}", Action.JOB_READ, Reach.JOB, answer=JobDetail)
async def show(call: Call) -> JobDetail:
    """Show a job, its attempts and what was asked for."""
    private = call.may(Action.JOB_LOGS, job_resource(call.state, call.job, Action.JOB_LOGS))
    return job_detail(_row(call, call.job), call.job, private=private)


@TABLE.route("POST", "/v1/jobs/{job}/cancel", Action.JOB_CONTROL, Reach.JOB, answer=JobRow)
async def cancel(call: Call) -> JobRow:
    """Cancel a job: at once if it waits; if it runs, it is told to stop."""
    await call.do(CancelJob(by=call.principal.id, job=call.job.id))
    return _row(call, call.job)


@TABLE.route("POST", "/v1/jobs/{job}/hold", Action.JOB_CONTROL, Reach.JOB, answer=JobRow)
async def hold(call: Call) -> JobRow:
    """Keep a waiting job from starting."""
    await call.do(HoldJob(by=call.principal.id, job=call.job.id))
    return _row(call, call.job)


@TABLE.route("POST", "/v1/jobs/{job}/release", Action.JOB_CONTROL, Reach.JOB, answer=JobRow)
async def release(call: Call) -> JobRow:
    """Let a held job wait for its turn again."""
    await call.do(ReleaseJob(by=call.principal.id, job=call.job.id))
    return _row(call, call.job)


@TABLE.route("GET", "/v1/jobs/{job}/reasons", Action.JOB_READ, Reach.JOB, answer=ReasonsRow)
async def why(call: Call) -> ReasonsRow:
    """Say why a job waits, what would start it, and when."""
    return reasons_row(call.job, call.service.plane.reasons)


@TABLE.route("GET", "/v1/reasons", Action.JOB_READ, Reach.ROWS, answer=dict[str, int])
async def reasons(call: Call) -> dict[str, int]:
    """Count the waiting jobs by their most decisive reason."""
    may_read, plane = _Readable(call), call.service.plane
    counts: Counter[str] = Counter()
    for number, known in plane.reasons.items():
        job = plane.state.jobs.get(number)
        if job is not None and job.state is JobState.WAITING and known.reasons and may_read(job):
            counts[known.first.code] += 1
    return dict(counts.most_common())
