"""Jobs as callers see them, live and ended, in our words and in Slurm's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from pumasi.control.quarantine import NODES_TAKEN_DOWN_MAX, nodes_taken_down
from pumasi.control.views.times import moment, rfc3339
from pumasi.model.hostlist import compress
from pumasi.model.ids import JobId
from pumasi.model.jobs import AttemptState, Charge, JobSpec, JobState, Outcome
from pumasi.scheduler.explain import WhyWaiting
from pumasi.scheduler.reasons import Reasons
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Attempt, Job

NOT_LOOKED_AT = "Priority"  # Slurm's word for a job the scheduler has yet to come to
HELD_WORD = "JobHeldUser"
SILENT_WORD = "silent"
HELD_BY_US_WORD = "JobHeldAdmin"

_ACTIVE_WORDS = {
    AttemptState.PLACED: ("starting", "CF"),
    AttemptState.RUNNING: ("running", "R"),
    AttemptState.STOPPING: ("stopping", "CG"),
}
_STATE_CODES = {
    JobState.HELD: "PD",
    JobState.WAITING: "PD",
    JobState.SUCCEEDED: "CD",
    JobState.FAILED: "F",
    JobState.CANCELLED: "CA",
    JobState.EXPIRED: "TO",
    JobState.UNKNOWN_OUTCOME: "NF",
}
_OUTCOME_CODES = {
    Outcome.TIME_LIMIT: "TO",
    Outcome.RECLAIMED: "PR",
    Outcome.CANCELLED: "CA",
    Outcome.DRAINED: "RQ",
    Outcome.PREEMPTED: "PR",
    Outcome.POWER_CUT: "RQ",
    Outcome.NODE_FAILED: "NF",
    Outcome.NEVER_STARTED: "BF",
    Outcome.REFUSED: "BF",
    Outcome.LOST: "NF",
}


# Of a job that ended so; its attempt alone could have been requeued.
_ENDED_CODES: dict[Outcome | None, str] = {
    Outcome.RECLAIMED: "PR",
    Outcome.PREEMPTED: "PR",
    Outcome.NODE_FAILED: "NF",
    Outcome.NEVER_STARTED: "BF",
    Outcome.REFUSED: "BF",
}


class ChargeRow(Struct, frozen=True):
    """Whose entitlement an allocation counts on, in GPUs."""

    owner: str
    gpus: int


class StopRow(Struct, frozen=True):
    """An order to stop: notice at `ordered_at`, killed at `kill_at`. `claimant`: the job that gets the GPUs."""

    cause: str
    ordered_at: str
    kill_at: str
    claimant: int | None


class AttemptRow(Struct, frozen=True, kw_only=True):
    """One attempt to run a job.

    `cpus_per_node`, `memory_mib_per_node`: what it has of each node beside its GPUs; 0 where its pool counts none.
    """

    number: int
    state: str
    slurm_state: str
    pool: str
    site: str
    node_list: str
    nodes: int
    gpus: int
    cpus_per_node: int
    memory_mib_per_node: int
    charges: tuple[ChargeRow, ...]
    placed_at: str
    started_at: str | None
    ended_at: str | None
    stop: StopRow | None
    outcome: str | None
    exit_code: int | None
    signal: int | None
    detail: str


class JobRow(Struct, frozen=True, kw_only=True):
    """A job. Where it runs, or ran last: `pool`, `site`, `node_list`; null while it waits. `reason`: Slurm's word.

    `slice`: the MIG profile its GPUs are slices of; empty if they are whole. `silent_since_at`: since when its site,
    although in touch, does not name it among its runs; null while it does.
    """

    id: int
    name: str
    queue: str
    owner: str
    user: str
    state: str
    display_state: str
    slurm_state: str
    priority: int
    gpus: int
    slice: str
    nodes: int | None
    pool: str | None
    site: str | None
    node_list: str | None
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    silent_since_at: str | None
    time_limit_seconds: int
    exit_code: int | None
    signal: int | None
    reason: str
    charges: tuple[ChargeRow, ...]
    attempts: tuple[AttemptRow, ...]


class JobDetail(JobRow, frozen=True, kw_only=True):
    """A job and what was asked for. `script` and `environment` are null for who may not read the job's output."""

    spec: dict[str, Any]
    script: str | None
    environment: dict[str, str] | None
    waiting_since_at: str | None


class ReasonRow(Struct, frozen=True):
    """One thing that keeps a job waiting."""

    code: str
    slurm: str
    pool: str
    detail: str
    would_start: str


class ReasonsRow(Struct, frozen=True, kw_only=True):
    """Why a job waits, most decisive first; `note` says so if it does not wait, or has not been looked at yet."""

    job: int
    state: str
    display_state: str
    reasons: tuple[ReasonRow, ...]
    would_start: str
    estimated_start_at: str | None
    note: str


class AllocationRow(Struct, frozen=True, kw_only=True):
    """A live allocation."""

    job: int
    attempt: int
    queue: str
    owner: str
    user: str
    state: str
    pool: str
    site: str
    node_list: str
    nodes: int
    gpus: int
    slice: str
    charges: tuple[ChargeRow, ...]
    since_at: str


class JobFilterRow(Struct, frozen=True, kw_only=True):
    """Which jobs a caller asks for; empty means any. `queues`: these and all below them."""

    states: frozenset[JobState] = frozenset()
    queues: tuple[str, ...] = ()
    user: str = ""
    site: str = ""


def job_row(state: FleetState, job: Job, reasons: Mapping[JobId, Reasons], silent_since_ms: int = 0) -> JobRow:
    """A job, live or ended. `silent_since_ms`: Unix milliseconds; 0: it gives signs of life."""
    last = job.attempts[-1] if job.attempts else None
    shown = last if last and (job.live or job.is_terminal) else None
    ended = shown if job.is_terminal else None
    display, slurm = display_state(job)
    return JobRow(
        id=job.id,
        name=job.spec.name,
        queue=job.spec.queue,
        owner=job.owner,
        user=job.by,
        state=job.state.value,
        display_state=display,
        slurm_state=slurm,
        priority=job.spec.priority,
        gpus=job.spec.gpus,
        slice=job.spec.slice,
        nodes=_node_count(shown) if shown else None,
        pool=shown.pool if shown else None,
        site=_site(state, shown) if shown else None,
        node_list=compress(shown.pool, shown.spans) if shown else None,
        submitted_at=rfc3339(job.submitted_ms),
        started_at=moment(shown.started_ms) if shown else None,
        ended_at=moment(job.ended_ms),
        silent_since_at=moment(silent_since_ms),
        time_limit_seconds=job.spec.time_limit_seconds,
        exit_code=ended.exit_code if ended else None,
        signal=ended.signal if ended else None,
        reason=SILENT_WORD if silent_since_ms else _reason(job, reasons),
        charges=_charges(shown.charges) if shown and job.live else (),
        attempts=tuple(attempt_row(state, attempt) for attempt in job.attempts),
    )


def job_detail(row: JobRow, job: Job, *, private: bool) -> JobDetail:
    """A job with its spec. `private`: the caller may see the script and the environment."""
    return JobDetail(
        **asdict(row),
        spec=_public_spec(job.spec),
        script=job.spec.script if private else None,
        environment=job.spec.environment if private else None,
        waiting_since_at=moment(job.waiting_since_ms) if job.state is JobState.WAITING else None,
    )


def _public_spec(spec: JobSpec) -> dict[str, Any]:
    return {
        name: _plain(getattr(spec, name)) for name in spec.__struct_fields__ if name not in ("script", "environment")
    }


def _plain(value: object) -> Any:
    if isinstance(value, Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    return value


def display_state(job: Job) -> tuple[str, str]:
    """The job's state in one word of ours and as Slurm's code."""
    live = job.live
    if live is not None:
        return _ACTIVE_WORDS[live.state]
    code = _STATE_CODES[job.state]
    last = job.attempts[-1] if job.attempts else None
    if job.is_terminal and last is not None and last.ended_ms == job.ended_ms:  # it ended with that attempt
        code = _ENDED_CODES.get(last.outcome, code)
    return job.state.value, code


def attempt_row(state: FleetState, attempt: Attempt) -> AttemptRow:
    """One attempt."""
    over = attempt.state is AttemptState.ENDED
    cpus, memory_mib = _beside_gpus(state, attempt)
    return AttemptRow(
        number=attempt.number,
        state=attempt.state,
        slurm_state=_attempt_code(attempt),
        pool=attempt.pool,
        site=_site(state, attempt),
        node_list=compress(attempt.pool, attempt.spans),
        nodes=_node_count(attempt),
        gpus=attempt.gpus,
        cpus_per_node=cpus,
        memory_mib_per_node=memory_mib,
        charges=_charges(attempt.charges),
        placed_at=rfc3339(attempt.placed_ms),
        started_at=moment(attempt.started_ms),
        ended_at=moment(attempt.ended_ms),
        stop=_stop_row(attempt),
        outcome=attempt.outcome,
        exit_code=attempt.exit_code if over else None,
        signal=attempt.signal if over else None,
        detail=attempt.detail,
    )


def _beside_gpus(state: FleetState, attempt: Attempt) -> tuple[int, int]:
    """CPUs and MiB that an attempt has of each of its nodes: what it asked for, or the whole part of its share."""
    pool, span = state.pools[attempt.pool].declared, attempt.spans[0]
    gpus = span.gpu_mask.bit_count()
    cpus, memory_mib = pool.cpus_per_node * gpus, pool.memory_mib_per_node * gpus
    return span.cpus or cpus // pool.gpus_per_node, span.memory_mib or memory_mib // pool.gpus_per_node


def _stop_row(attempt: Attempt) -> StopRow | None:
    stop = attempt.stop
    if stop is None:
        return None
    return StopRow(stop.cause, rfc3339(stop.ordered_ms), rfc3339(stop.kill_at_ms), stop.claimant or None)


def _attempt_code(attempt: Attempt) -> str:
    if attempt.outcome is None:
        return _ACTIVE_WORDS[attempt.state][1]
    clean = attempt.exit_code == 0 and attempt.signal == 0
    return _OUTCOME_CODES.get(attempt.outcome, "CD" if clean else "F")


def _reason(job: Job, reasons: Mapping[JobId, Reasons]) -> str:
    if job.state is JobState.HELD:
        return HELD_BY_US_WORD if nodes_taken_down(job) >= NODES_TAKEN_DOWN_MAX else HELD_WORD
    if job.state is JobState.WAITING:
        known = reasons.get(job.id)
        return known.first.slurm if known and known.reasons else NOT_LOOKED_AT
    last = job.attempts[-1] if job.attempts else None
    if last and last.stop and job.live:
        return last.stop.cause
    return last.detail if last and job.is_terminal else ""


def reasons_row(job: Job, reasons: WhyWaiting) -> ReasonsRow:
    """Why a job waits."""
    known = reasons.get(job.id) if job.state is JobState.WAITING else None
    return ReasonsRow(
        job=job.id,
        state=job.state,
        display_state=display_state(job)[0],
        reasons=tuple(
            ReasonRow(each.code, each.slurm, each.pool, each.detail, each.would_start)
            for each in (known.reasons if known else ())
        ),
        would_start=known.would_start if known else "",
        estimated_start_at=moment(reasons.start_ms(job.id) or 0) if known else None,
        note="" if known else _no_reasons(job),
    )


def _no_reasons(job: Job) -> str:
    match job.state:
        case JobState.WAITING:
            return "the scheduler has yet to look at it"
        case JobState.HELD if (nodes := nodes_taken_down(job)) >= NODES_TAKEN_DOWN_MAX:
            return f"it is held: {nodes} nodes failed soon after it had started on them; released, it tries one more"
        case JobState.HELD:
            return "it is held; release it and it waits for its turn"
        case JobState.ACTIVE:
            return "it does not wait: it has its GPUs"
    return "it has ended"


def allocation_row(state: FleetState, job: Job) -> AllocationRow:
    """The live allocation of an active job."""
    attempt = job.attempts[-1]
    return AllocationRow(
        job=job.id,
        attempt=attempt.number,
        queue=job.spec.queue,
        owner=job.owner,
        user=job.by,
        state=attempt.state,
        pool=attempt.pool,
        site=_site(state, attempt),
        node_list=compress(attempt.pool, attempt.spans),
        nodes=_node_count(attempt),
        gpus=attempt.gpus,
        slice=job.spec.slice,
        charges=_charges(attempt.charges),
        since_at=rfc3339(attempt.placed_ms),
    )


def live_jobs(
    state: FleetState,
    newest: Sequence[Job],
    wanted: JobFilterRow,
    before: JobId | None,
    may_read: Callable[[Job], bool],
) -> Iterator[Job]:
    """Jobs that have not ended, newest first below number `before`, that match and that the caller may read.

    `newest`: those that the state does not hold yet, in order of their numbers.
    """
    numbers = reversed(state.jobs)  # jobs come into the state in order of their numbers and never move
    for job in chain(reversed(newest), (state.jobs[number] for number in numbers)):
        if before is not None and job.id >= before:
            continue
        if matches(state, job, wanted) and may_read(job):
            yield job


def matches(state: FleetState, job: Job, wanted: JobFilterRow) -> bool:
    """True if the job is one of those wanted."""
    if wanted.states and job.state not in wanted.states:
        return False
    if wanted.user and job.by != wanted.user:
        return False
    queue = job.spec.queue
    if wanted.queues and not any(queue == each or queue.startswith(f"{each}/") for each in wanted.queues):
        return False
    return not wanted.site or (bool(job.attempts) and _site(state, job.attempts[-1]) == wanted.site)


def site_of(state: FleetState, job: Job) -> str | None:
    """The site an active job runs at, or an ended one ran at last."""
    if not job.attempts or not (job.live or job.is_terminal):
        return None
    return _site(state, job.attempts[-1])


def _site(state: FleetState, attempt: Attempt) -> str:
    return state.pools[attempt.pool].declared.site


def _node_count(attempt: Attempt) -> int:
    return len({node for span in attempt.spans for node in range(span.first, span.first + span.nodes)})


def _charges(charges: tuple[Charge, ...]) -> tuple[ChargeRow, ...]:
    return tuple(ChargeRow(charge.owner, charge.gpus) for charge in charges)
