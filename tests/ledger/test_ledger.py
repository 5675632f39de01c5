"""The ledger: every GPU-millisecond once, from the queue that used it to the owner whose it was, on its Korean day."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.events.facts import (
    AllocationRecharged,
    AttemptEnded,
    AttemptPlaced,
    ReservationEnded,
    ReservationMade,
    ReservationState,
    StopOrdered,
)
from pumasi.ledger import ledger as ledgers
from pumasi.ledger import reclaims
from pumasi.ledger.ledger import Ledger, OpenAllocation, TransferKey, transfers
from pumasi.model.calendar import DAY_MS, KOREA_OFFSET_MS
from pumasi.model.jobs import Charge, JobState, Outcome, Span, StopCause
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness

MIDNIGHT = 20_000 * DAY_MS - KOREA_OFFSET_MS  # in Korea


def placed(at_ms: int, *charges: Charge) -> AttemptPlaced:
    """Job 1 of bee gets a node."""
    return AttemptPlaced(
        at_ms=at_ms, job=1, attempt=1, queue="bee/x", pool="p", spans=(Span(0, 1, 0xFF),), charges=charges
    )


def ended(at_ms: int) -> AttemptEnded:
    """Job 1 ends."""
    return AttemptEnded(at_ms=at_ms, job=1, attempt=1, outcome=Outcome.COMPLETED, job_state=JobState.SUCCEEDED)


def test_a_loan_and_its_return_go_to_their_owners() -> None:
    ledger = Ledger()
    ledger.apply(placed(MIDNIGHT, Charge("ant", 6), Charge("bee", 2)))
    ledger.apply(AllocationRecharged(at_ms=MIDNIGHT + 100, job=1, attempt=1, charges=(Charge("bee", 8),)))
    ledger.apply(ended(MIDNIGHT + 150))
    ant, bee = (TransferKey(20_000, "p", "bee/x", owner) for owner in ("ant", "bee"))
    assert ledger.posted == {ant: 600, bee: 200 + 400}
    assert (ant.is_home, bee.is_home) == (False, True)


def test_days_are_korean() -> None:
    ledger = Ledger()
    ledger.apply(placed(MIDNIGHT - 10, Charge("bee", 8)))
    ledger.apply(ended(MIDNIGHT + 20))
    assert {key.day: amount for key, amount in ledger.posted.items()} == {19_999: 80, 20_000: 160}


def test_what_runs_is_in_the_statement_and_not_yet_posted() -> None:
    ledger = Ledger()
    ledger.apply(placed(MIDNIGHT, Charge("bee", 8)))
    assert sum(ledger.statement(MIDNIGHT + 5).values()) == 40
    assert ledger.posted == {}


def test_a_ledger_survives_saving() -> None:
    ledger = Ledger()
    ledger.apply(placed(MIDNIGHT, Charge("ant", 8)))
    loaded = ledgers.load(ledgers.save(ledger))
    for each in (ledger, loaded):
        each.apply(ended(MIDNIGHT + 1))
    assert loaded == ledger


charges = st.lists(st.builds(Charge, st.sampled_from(("ant", "bee")), st.integers(1, 64)), min_size=1, max_size=3)


@given(st.integers(0, 10 * DAY_MS), st.integers(0, 5 * DAY_MS), charges)
def test_cutting_at_midnights_loses_nothing(since_ms: int, passed_ms: int, some: list[Charge]) -> None:
    allocation = OpenAllocation("bee", "p", tuple(some), since_ms)
    entries = list(transfers(allocation, since_ms + passed_ms))
    assert sum(amount for _, amount in entries) == passed_ms * sum(charge.gpus for charge in some)
    days = {key.day for key, _ in entries}
    assert len(days) <= passed_ms // DAY_MS + 2


def test_a_reclaim_is_recorded_with_its_victims_and_its_time() -> None:
    owners = [owner("ant", 100, notice_seconds=60, teardown_seconds=30), owner("bee")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 16})]))
    fleet.submit("bee", 8)
    fleet.submit("bee", 8)
    fleet.tick()
    claimant = fleet.submit("ant", 8)
    fleet.tick()
    assert list(fleet.ledger.reclaims.open) == [claimant]
    fleet.wait(60)
    fleet.tick()
    (reclaim,) = fleet.ledger.reclaims.settled
    assert (reclaim.claimant, reclaim.owner, reclaim.pool, reclaim.gpus) == (claimant, "ant", "p", 8)
    assert (reclaim.victims, reclaim.evicted_gpus) == ([1], 8)
    assert (reclaim.promised_milliseconds, reclaim.took_milliseconds, reclaim.kept) == (90_000, 60_000, True)


def stop_ordered(cause: StopCause) -> StopOrdered:
    """Job 1 is to make way for job 2."""
    return StopOrdered(at_ms=MIDNIGHT, job=1, attempt=1, cause=cause, kill_at_ms=MIDNIGHT + 1000, claimant=2)


def test_a_victim_that_its_user_cancels_is_counted_once_and_opens_no_claim_anew() -> None:
    ledger = Ledger()
    ledger.apply(placed(MIDNIGHT, Charge("ant", 8)))
    ledger.apply(stop_ordered(StopCause.RECLAIM))
    ledger.apply(stop_ordered(StopCause.CANCEL))
    assert (ledger.reclaims.open[2].victims, ledger.reclaims.open[2].evicted_gpus) == ([1], 8)
    ledger.apply(ReservationEnded(at_ms=MIDNIGHT, job=2, state=ReservationState.RELEASED))
    ledger.apply(stop_ordered(StopCause.CANCEL))
    assert not ledger.reclaims.open


def test_a_claim_given_up_is_no_kept_promise() -> None:
    fleet = Harness(fleet_facts([owner("ant", 100), owner("bee")], [pool("p", {"ant": 8})]))
    fleet.submit("bee", 8)
    fleet.tick()
    claimant = fleet.submit("ant", 8)
    fleet.tick()
    fleet.cancel(claimant)
    (reclaim,) = fleet.ledger.reclaims.settled
    assert (reclaim.fulfilled, reclaim.kept) == (False, False)


def test_what_a_job_waited_beyond_its_owners_entitlement_breaks_no_promise() -> None:
    owners = [owner("ant", 100, notice_seconds=60, teardown_seconds=30), owner("bee")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 16})]))
    home, _ = fleet.submit("ant", 8), fleet.submit("bee", 8)
    fleet.tick()
    claimant = fleet.submit("ant", 16)  # more than ant's other work leaves of its entitlement
    fleet.tick()
    fleet.wait(1000)
    assert not fleet.ledger.reclaims.open
    fleet.end(home)
    fleet.tick()
    fleet.wait(60)
    fleet.tick()
    (reclaim,) = fleet.ledger.reclaims.settled
    assert (reclaim.claimant, reclaim.made_ms - reclaim.asked_ms) == (claimant, 1_000_000)
    assert (reclaim.took_milliseconds, reclaim.kept) == (60_000, True)


def test_settled_reclaims_are_counted_for_ever_and_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaims, "SETTLED_KEPT", 4)
    records = reclaims.Reclaims()
    for number in range(1, 21):
        charges = (Charge("ant", 8),)
        made = ReservationMade(
            at_ms=number, job=number, pool="p", spans=(), charges=charges, asked_ms=0, due_ms=number + number % 2
        )
        records.apply(made, 0)
        records.apply(ReservationEnded(at_ms=number + 1, job=number, state=ReservationState.FULFILLED), 0)
    assert [each.claimant for each in records.settled] == list(range(20 - len(records.settled) + 1, 21))
    assert len(records.settled) < 8
    assert records.totals == {"ant": reclaims.Compliance(fulfilled=20, kept=10, requested_gpus=160)}
    assert records.branch() == records
