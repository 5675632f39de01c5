"""Taking out of work a node that fails whatever starts on it, and holding a job that takes nodes down (ADR 0022).

A node is suspect when all of this holds:

- the last attempts to end on it, three or more, each of one node, failed within `fast_failure_seconds` of their start,
  and nothing that started among them has stayed;
- its engine says of three of them that the node failed, or they are the work of three users that ended by itself, or a
  mixture; what has failed on other nodes too does not count. One user's is enough if the very script was started
  elsewhere since, and runs.

A suspect is drained with a reason that nobody else may use, and stays so until an operator resumes it. Beyond the bound
that the policy sets at each site it is only told of.
"""

from collections import Counter
from collections.abc import Iterator

from pumasi.events.facts import NodeChanged, NodeState
from pumasi.model.ids import PoolId, SiteId
from pumasi.model.jobs import Outcome
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Attempt, Job, Strike
from pumasi.state.strikes import STRIKES_ENOUGH, digest_of, source_of

QUARANTINED = "quarantined: "
NODES_TAKEN_DOWN_MAX = 2  # by one job
TAKEN_DOWN_MS = 3_600_000  # a node that fails sooner after a job's start may be that job's doing

Place = tuple[PoolId, int]


def quarantines(state: FleetState, now_ms: int) -> Iterator[NodeChanged]:
    """The nodes to take out among those struck since they were last looked at."""
    spread, room = _spread(state), dict[SiteId, int]()
    for pool, node in state.changes.struck:
        if is_suspect(state, (pool, node), spread):
            site = state.pools[pool].declared.site
            left = room.setdefault(site, _room(state, site))
            room[site] = left - 1
            if left > 0:
                reason = QUARANTINED + suspicion(state, (pool, node))
                yield NodeChanged(
                    at_ms=now_ms, by="control", pool=pool, node=node, state=NodeState.DRAINED, reason=reason
                )


def suspects(state: FleetState) -> list[Place]:
    """The nodes that take work although they are suspect: more than may be taken out without an operator."""
    spread = _spread(state)
    return [place for place in state.strikes if is_suspect(state, place, spread)]


def suspicion(state: FleetState, place: Place) -> str:
    """What makes a node suspect, in words."""
    strikes = state.strikes[place]
    jobs = ", ".join(str(strike.job) for strike in strikes)
    seconds = state.policy.fast_failure_seconds
    return f"{len(strikes)} attempts in a row failed within {seconds} s of their start (jobs {jobs})"


def is_suspect(state: FleetState, place: Place, spread: Counter[str] | None = None) -> bool:
    """True if the node is up and fails whatever starts on it. `spread`: on how many nodes each source has failed."""
    strikes = state.strikes.get(place, ())
    is_up = state.occupancy[place[0]].node_state(place[1]) is NodeState.UP
    if len(strikes) < STRIKES_ENOUGH or not is_up or _something_stayed(state, place, strikes):
        return False
    spread = _spread(state) if spread is None else spread
    here_alone = [strike for strike in strikes if spread[strike.source] == 1]
    by_engine = sum(strike.script is None for strike in here_alone)
    users = {strike.source for strike in here_alone if strike.script is not None}
    if by_engine + len(users) >= STRIKES_ENOUGH:
        return True
    last = strikes[-1]
    alike = [strike for strike in here_alone if (strike.source, strike.script) == (last.source, last.script)]
    return len(alike) >= STRIKES_ENOUGH and _runs_elsewhere(state, alike[0])


def _spread(state: FleetState) -> Counter[str]:
    """On how many nodes each source has failed. What failed by itself on a node in quarantine does not count."""
    spread: Counter[str] = Counter()
    for place, strikes in state.strikes.items():
        is_explained = state.node_reasons.get(place, "").startswith(QUARANTINED)
        spread.update({strike.source for strike in strikes if strike.script is None or not is_explained})
    return spread


def _room(state: FleetState, site: SiteId) -> int:
    """How many more nodes of the site may be taken out without an operator: one at least, if any may be."""
    percent, pools = state.policy.quarantine_percent_max, state.pools
    nodes = sum(record.declared.nodes for record in pools.values() if record.declared.site == site)
    out = sum(
        reason.startswith(QUARANTINED) and pools[pool].declared.site == site
        for (pool, _), reason in state.node_reasons.items()
    )
    return (max(1, nodes * percent // 100) if percent else 0) - out


def _something_stayed(state: FleetState, place: Place, strikes: tuple[Strike, ...]) -> bool:
    """True if something runs on the node that started among those that failed, or later and for long enough."""
    began = [strike.began_ms for strike in strikes]
    live = (state.jobs[job].attempts[-1] for job in state.occupancy[place[0]].jobs_on(place[1]))
    return any(
        each.began_ms >= min(began) and (each.began_ms <= max(began) or _has_lasted(state, each)) for each in live
    )


def _has_lasted(state: FleetState, attempt: Attempt) -> bool:
    lasted_ms = state.at_ms - attempt.started_ms
    return bool(attempt.started_ms) and lasted_ms >= state.policy.fast_failure_seconds * 1000


def _runs_elsewhere(state: FleetState, strike: Strike) -> bool:
    """True if the script that failed was started by the same user in the same queue since then, and has lasted."""
    active = (state.jobs[job] for jobs in state.active.values() for job in jobs)
    return any(
        source_of(job) == strike.source
        and job.attempts[-1].began_ms >= strike.began_ms
        and _has_lasted(state, job.attempts[-1])
        and digest_of(job) == strike.script
        for job in active
    )


# --- jobs that take nodes down ---------------------------------------------------------------------------------------


def nodes_taken_down(job: Job) -> int:
    """Nodes that failed under a job within an hour of its start; those of gangs do not count."""
    failed = [attempt for attempt in job.attempts if attempt.outcome is Outcome.NODE_FAILED]
    return len({_taken_down(attempt, attempt.ended_ms) for attempt in failed} - {None})


def takes_down_too_many(job: Job, now_ms: int) -> bool:
    """True if the live attempt, whose node fails now, is of a job that takes down one node after the other."""
    node = _taken_down(job.attempts[-1], now_ms)
    before = {
        _taken_down(attempt, attempt.ended_ms) for attempt in job.attempts if attempt.outcome is Outcome.NODE_FAILED
    }
    return node is not None and len(before - {None, node}) + 1 >= NODES_TAKEN_DOWN_MAX


def _taken_down(attempt: Attempt, ended_ms: int) -> Place | None:
    if sum(span.nodes for span in attempt.spans) > 1 or ended_ms - attempt.began_ms > TAKEN_DOWN_MS:
        return None
    return attempt.pool, attempt.spans[0].first
