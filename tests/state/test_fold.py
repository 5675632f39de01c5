"""The fold: what cannot follow is refused and changes nothing; what follows is counted right, whatever the order."""

from collections.abc import Callable
from typing import Any

import pytest

from pumasi.events import facts
from pumasi.events.facts import Event, LinkState, NodeState, ReservationState
from pumasi.model.fleet import Queue, Stage
from pumasi.model.jobs import AttemptState, Charge, JobState, Outcome, Span, StopCause
from pumasi.state import snapshot
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import REQUEST_MEMORY_MS, apply
from pumasi.state.invariants import violations
from pumasi.state.machines import IllegalTransition
from pumasi.testing.builders import START_MS, fleet_facts, owner, pool, spec, state_of

FULL = 0xFF


def fleet() -> FleetState:
    """Ant and bee share a pool of 8 nodes."""
    return state_of(
        fleet_facts([owner("ant", 100), owner("bee")], [pool("p", {"ant": 32, "bee": 32})], [Queue(id="ant/x")])
    )


def submitted(job: int = 1, gpus: int = 16, **fields: Any) -> facts.JobSubmitted:
    """A job arrives."""
    return facts.JobSubmitted(at_ms=START_MS, by="user", job=job, spec=spec("ant/x", gpus), **fields)


def placed(job: int = 1, first: int = 0, nodes: int = 2, attempt: int = 1) -> facts.AttemptPlaced:
    """A job gets whole nodes of its owner's."""
    return facts.AttemptPlaced(
        at_ms=START_MS + 10,
        job=job,
        attempt=attempt,
        queue="ant/x",
        pool="p",
        spans=(Span(first, nodes, FULL),),
        charges=(Charge("ant", 8 * nodes),),
    )


def ended(becomes: JobState, job: int = 1, attempt: int = 1, at_ms: int = START_MS + 1010) -> facts.AttemptEnded:
    """A run is over."""
    return facts.AttemptEnded(at_ms=at_ms, job=job, attempt=attempt, outcome=Outcome.COMPLETED, job_state=becomes)


def reserved(job: int = 1, first: int = 0) -> facts.ReservationMade:
    """Two nodes are held for a job."""
    return facts.ReservationMade(
        at_ms=START_MS,
        job=job,
        pool="p",
        spans=(Span(first, 2, FULL),),
        charges=(Charge("ant", 16),),
        asked_ms=START_MS,
        due_ms=START_MS + 1,
    )


def told(*events: Event) -> FleetState:
    """The fleet after these facts."""
    state = fleet()
    for event in events:
        apply(state, event)
        assert violations(state) == []
    return state


RELEASED = facts.ReservationEnded(at_ms=START_MS, job=1, state=ReservationState.RELEASED)
STARTED = facts.AttemptStarted(at_ms=START_MS + 20, job=1, attempt=1)
STOPPED = facts.StopOrdered(at_ms=START_MS + 30, job=1, attempt=1, cause=StopCause.RECLAIM, kill_at_ms=START_MS + 90)

REFUSED: dict[str, tuple[tuple[Event, ...], Event]] = {
    "a job number skipped": ((), submitted(2)),
    "a job number twice": ((submitted(),), submitted(1)),
    "a placement of a job never submitted": ((), placed()),
    "a placement of a held job": ((submitted(held=True),), placed()),
    "a placement on used GPUs": ((submitted(), submitted(2), placed()), placed(2)),
    "a placement on GPUs used in part": ((submitted(), submitted(2), placed()), placed(2, first=1)),
    "a placement on reserved GPUs": ((submitted(), submitted(2), reserved()), placed(2)),
    "a placement beyond the pool": ((submitted(),), placed(first=7)),
    "a placement before the pool": ((submitted(),), placed(first=-1)),
    "a second first attempt": ((submitted(), placed()), placed(first=4)),
    "attempt 2 without attempt 1": ((submitted(),), placed(attempt=2)),
    "a start without a placement": ((submitted(),), STARTED),
    "a second start": ((submitted(), placed(), STARTED), STARTED),
    "a stop of what does not run": ((submitted(),), STOPPED),
    "an end of an old attempt": ((submitted(), placed()), ended(JobState.SUCCEEDED, attempt=2)),
    "an end that leads nowhere": ((submitted(), placed()), ended(JobState.HELD)),
    "a second end": ((submitted(), placed(), ended(JobState.SUCCEEDED)), ended(JobState.SUCCEEDED)),
    "a cancel of a running job": ((submitted(), placed()), facts.JobCancelled(at_ms=START_MS, job=1)),
    "a hold of a held job": ((submitted(held=True),), facts.JobHeld(at_ms=START_MS, job=1)),
    "a release of a waiting job": ((submitted(),), facts.JobReleased(at_ms=START_MS, job=1)),
    "a second reservation": ((submitted(), reserved()), reserved(first=4)),
    "an end of no reservation": ((submitted(),), RELEASED),
    "a node that stays up": ((), facts.NodeChanged(at_ms=START_MS, pool="p", node=0, state=NodeState.UP)),
    "a site that connects twice": ((), facts.SiteConnected(at_ms=START_MS, site="p-site")),
    "a token nobody issued": ((), facts.TokenRevoked(at_ms=START_MS, digest="none")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_follow_is_refused_and_changes_nothing(name: str) -> None:
    before, event = REFUSED[name]
    state = told(*before)
    digest = snapshot.digest(state)
    with pytest.raises(IllegalTransition):
        apply(state, event)
    assert snapshot.digest(state) == digest
    assert violations(state) == []


def test_a_job_from_submission_to_its_end() -> None:
    state = told(submitted(), placed(), STARTED)
    job = state.jobs[1]
    assert (job.state, job.live and job.live.state) == (JobState.ACTIVE, AttemptState.RUNNING)
    assert state.queues["ant"].in_use == {"p": 16}
    assert state.books["p"]["ant"].home == 16
    apply(state, ended(JobState.SUCCEEDED))
    assert job.is_terminal
    assert job.ended_ms == START_MS + 1010
    assert (state.jobs, state.active["p"], state.queues["ant"].in_use) == ({}, {}, {})
    assert state.queues["ant"].past_gpu_milliseconds == 16 * 1000
    assert state.occupancy["p"].free.free_gpus == 64


def test_a_requeued_job_waits_from_when_it_was_evicted() -> None:
    state = told(submitted(), placed(), STOPPED, ended(JobState.WAITING))
    assert state.jobs[1].waiting_since_ms == START_MS + 1010
    assert state.queues["ant/x"].waiting == [(0, 1)]
    apply(state, placed(attempt=2))
    assert len(state.jobs[1].attempts) == 2


def test_a_start_reported_after_the_stop_order_is_noted() -> None:
    state = told(submitted(), placed(), STOPPED, STARTED)
    assert state.jobs[1].attempts[-1].state is AttemptState.STOPPING
    assert state.jobs[1].attempts[-1].started_ms == START_MS + 20


def test_lending_earns_credit_that_borrowing_spends() -> None:
    state = told(submitted())
    apply(state, facts.JobSubmitted(at_ms=START_MS, job=2, spec=spec("bee", 16)))
    loan = facts.AttemptPlaced(
        at_ms=START_MS, job=2, attempt=1, queue="bee", pool="p", spans=(Span(0, 2, FULL),), charges=(Charge("ant", 16),)
    )
    apply(state, loan)
    returned = facts.AllocationRecharged(at_ms=START_MS + 500, job=2, attempt=1, charges=(Charge("bee", 16),))
    apply(state, returned)
    apply(state, ended(JobState.SUCCEEDED, job=2))
    credit = {name: record.credit_gpu_milliseconds for name, record in state.owners.items()}
    assert credit == {"ant": 8000, "bee": -8000}


def test_past_use_is_halved_at_each_half_life() -> None:
    state = told(submitted(), placed(), ended(JobState.SUCCEEDED))
    record, half_life_ms = state.queues["ant"], 1000
    past = record.past_gpu_milliseconds
    now_ms = record.past_until_ms
    next_ms = (now_ms // half_life_ms + 1) * half_life_ms
    assert record.past_at(next_ms - 1, half_life_ms) == past
    assert record.past_at(next_ms, half_life_ms) == past // 2
    assert record.past_at(next_ms + 2000, half_life_ms) == past // 8
    assert record.past_at(now_ms - 5000, half_life_ms) == past


def test_a_reservation_holds_gpus_back_and_lets_them_go() -> None:
    state = told(submitted(), reserved())
    assert state.books["p"]["ant"].promised == 16
    assert state.occupancy["p"].free.free_gpus == 48
    apply(state, RELEASED)
    assert state.books["p"]["ant"].promised == 0
    assert state.occupancy["p"].free.free_gpus == 64


def test_a_reservation_of_busy_gpus_keeps_them_when_they_come_free() -> None:
    state = told(submitted(), placed(), submitted(2), reserved(2), ended(JobState.SUCCEEDED))
    assert state.occupancy["p"].free.free_gpus == 48
    apply(state, facts.ReservationEnded(at_ms=START_MS, job=2, state=ReservationState.FULFILLED))
    apply(state, placed(2))
    assert violations(state) == []


def test_an_idempotency_key_is_remembered_for_a_day() -> None:
    state = told(submitted(request="key", request_hash="hash"), submitted(2, request="key", request_hash="hash"))
    assert state.requests["key"].jobs == [1, 2]
    later = facts.JobSubmitted(at_ms=START_MS + REQUEST_MEMORY_MS + 1, job=3, spec=spec("ant", 1), request="other")
    apply(state, later)
    assert list(state.requests) == ["other"]


def test_a_pool_declared_anew_keeps_what_runs_and_what_is_held() -> None:
    state = told(
        submitted(), placed(), submitted(2), reserved(2, first=4),
        facts.NodeChanged(at_ms=START_MS, pool="p", node=7, state=NodeState.DRAINED, reason="fans"),
    )  # fmt: skip
    larger = pool("p", {"ant": 32, "bee": 64})
    apply(state, facts.PoolDeclared(at_ms=START_MS, pool=larger, stage=Stage.IN_SERVICE))
    assert violations(state) == []
    assert state.books["p"]["ant"].home == 16
    assert state.occupancy["p"].node_state(7) is NodeState.DRAINED
    assert state.occupancy["p"].free.free_gpus == 96 - 16 - 16 - 8


def test_a_site_s_link_follows_its_agent() -> None:
    state = told(facts.SiteSilent(at_ms=START_MS + 1, site="p-site"))
    assert state.sites["p-site"].link is LinkState.SILENT
    apply(state, facts.SiteConnected(at_ms=START_MS + 2, site="p-site"))
    assert (state.sites["p-site"].link, state.sites["p-site"].since_ms) == (LinkState.CONNECTED, START_MS + 2)


CHANGES: tuple[Callable[[FleetState], Any], ...] = (
    lambda state: state.books["p"]["ant"].__setattr__("home", 1),
    lambda state: state.books["p"]["ant"].__setattr__("due", 1),
    lambda state: state.queues["ant"].in_use.__setitem__("p", 3),
    lambda state: state.queues["ant/x"].waiting.append((0, 9)),
    lambda state: state.occupancy["p"].free.give(Span(0, 1, 1)),
    lambda state: state.occupancy["p"].free.take(Span(7, 1, FULL)),
    lambda state: state.occupancy["p"].free.rack_whole.__setitem__(0, 4),
    lambda state: state.occupancy["p"].free.block_whole.__setitem__(0, 9),
    lambda state: state.occupancy["p"].vacate((Span(0, 1, FULL),)),
    lambda state: state.jobs[1].attempts[-1].__setattr__("charges", (Charge("ant", 8),)),
    lambda state: state.jobs[1].attempts[-1].__setattr__("spans", (Span(0, 1, FULL),)),
    lambda state: state.reservations.pop(2),
    lambda state: state.jobs.pop(2),
)


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_the_invariants_find_what_is_spoiled(change: Callable[[FleetState], Any]) -> None:
    state = told(submitted(), placed(), submitted(2), reserved(2, first=4))
    change(state)
    assert violations(state) != []
