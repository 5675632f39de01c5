"""Fast failures by node: what it takes to tell a node that fails everything from work that fails everywhere.

An attempt on a single node that fails within the policy's `fast_failure_seconds` is a strike against the node; one that
does well there clears it of all. Gangs of several nodes strike none: nobody knows which of their nodes it was. Nor does
a run that an agent could not hand to its engine, or lost: that speaks of the site.
"""

from hashlib import sha256

from pumasi.model.jobs import Outcome
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Attempt, Job, Strike

STRIKES_ENOUGH = 3  # in a row; from then on the node is to be judged after each
STRIKES_KEPT = 8  # the first and the last ones

_FAILED = frozenset({Outcome.COMPLETED, Outcome.NODE_FAILED})


def count_end(state: FleetState, job: Job, attempt: Attempt) -> None:
    """Count an attempt that has ended for or against the nodes it was on."""
    is_good = attempt.outcome is Outcome.COMPLETED and not (attempt.exit_code or attempt.signal)
    if is_good or attempt.ended_ms - attempt.began_ms >= state.policy.fast_failure_seconds * 1000:
        _clear(state, attempt)
    elif attempt.outcome in _FAILED and attempt.stop is None and sum(span.nodes for span in attempt.spans) == 1:
        _strike(state, job, attempt)


def _clear(state: FleetState, attempt: Attempt) -> None:
    for span in attempt.spans if state.strikes else ():
        for node in range(span.first, span.first + span.nodes):
            state.strikes.pop((attempt.pool, node), None)


def _strike(state: FleetState, job: Job, attempt: Attempt) -> None:
    place = (attempt.pool, attempt.spans[0].first)
    by_itself = attempt.outcome is Outcome.COMPLETED
    source, script = (source_of(job), digest_of(job)) if by_itself else (f"job {job.id}", None)
    before = state.strikes.get(place, ())
    kept = (*before[:1], *before[1:][2 - STRIKES_KEPT :])
    state.strikes[place] = (*kept, Strike(job.id, source, script, attempt.began_ms))
    if len(before) + 1 >= STRIKES_ENOUGH:
        state.changes.struck[place] = None


def source_of(job: Job) -> str:
    """Whom a job's failure may be blamed on: its user, in its queue."""
    return f"{job.by} in {job.spec.queue}"


def digest_of(job: Job) -> str:
    """What tells its script from others, however long it is."""
    return sha256(job.spec.script.encode()).hexdigest()
