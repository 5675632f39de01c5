"""Reclaim: who is stopped, for how long the notice is, what is reserved, and when the claimant starts."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumasi.events.facts import (
    AttemptPlaced,
    NodeState,
    ReservationEnded,
    ReservationMade,
    ReservationState,
    SiteConnected,
    SiteSilent,
    StopOrdered,
)
from pumasi.model.jobs import Level, Span, Topology
from pumasi.scheduler import reclaim
from pumasi.scheduler.reclaim import AHEAD_MAX
from pumasi.testing.builders import NVL72, fleet_facts, owner, pool
from pumasi.testing.harness import Harness

RACK = Topology(level=Level.RACK, required=True)


def lent_out(jobs: list[dict[str, Any]], gpus: int = 32, **contract: Any) -> Harness:
    """Ant's pool, all lent to bee's jobs; each entry gives a job's fields and how long before the next it starts."""
    fleet = Harness(fleet_facts([owner("ant", 100, **contract), owner("bee")], [pool("p", {"ant": gpus})]))
    for fields in jobs:
        age = fields.pop("then_wait", 0)
        fleet.submit("bee", **({"gpus": 8, "time_limit_seconds": 86400} | fields))
        fleet.tick()
        fleet.wait(age)
    return fleet


def stopped(fleet: Harness) -> list[int]:
    """The victims of one cycle."""
    return [event.job for event in fleet.tick().events if isinstance(event, StopOrdered)]


def made(fleet: Harness) -> ReservationMade:
    """The one reservation of the last cycle."""
    (event,) = [event for event in fleet.plan.events if isinstance(event, ReservationMade)]
    return event


def test_the_youngest_work_is_lost_first() -> None:
    fleet = lent_out([{"then_wait": 100}, {"then_wait": 100}, {"then_wait": 100}, {"then_wait": 100}])
    fleet.submit("ant", 16)
    assert stopped(fleet) == [3, 4]


def test_work_since_the_last_checkpoint_is_what_is_lost() -> None:
    fleet = lent_out([{"checkpoint_seconds": 350}, {}, {}, {"then_wait": 360}])
    fleet.submit("ant", 8)
    assert stopped(fleet) == [1]


def test_notice_and_protected_time_are_kept() -> None:
    fleet = lent_out([{}, {}, {}, {"then_wait": 100}], notice_seconds=60, protected_seconds=600, teardown_seconds=30)
    fleet.submit("ant", 8)
    stopped(fleet)
    stop = next(event for event in fleet.plan.events if isinstance(event, StopOrdered))
    assert stop.kill_at_ms == fleet.now_ms + 500_000
    assert made(fleet).due_ms == fleet.now_ms + 630_000


def test_no_more_is_evicted_than_the_job_needs() -> None:
    fleet = lent_out([{"gpus": 1} for _ in range(32)])
    fleet.submit("ant", 3, gpus_per_node=3)
    assert len(stopped(fleet)) == 3


def test_a_rack_is_freed_as_a_whole_at_least_loss() -> None:
    fleet = lent_out([{"then_wait": 50} for _ in range(8)], gpus=64)
    fleet.end(2)
    fleet.end(6)
    fleet.submit("ant", 32, topology=RACK)
    assert stopped(fleet) == [5, 7, 8]
    assert made(fleet).spans == (Span(4, 4, 0xFF),)


def test_a_gang_of_victims_counts_once() -> None:
    """Four nodes of one gang cost its work once; two old single jobs would cost more."""
    fleet = lent_out([{"gpus": 32, "then_wait": 10}, {"then_wait": 90}, {}, {}, {}], gpus=64)
    fleet.submit("ant", 32, topology=RACK)
    victims = stopped(fleet)
    assert victims == [2, 3, 4, 5]
    fleet = lent_out([{"then_wait": 900}, {}, {}, {}, {"gpus": 32, "then_wait": 10}], gpus=64)
    fleet.submit("ant", 32, topology=RACK)
    assert stopped(fleet) == [5]


@pytest.mark.parametrize(("claims", "victims"), [(1, [2]), (8, [1]), (9, [1, 2])])
def test_a_gang_is_stopped_only_where_the_claims_can_use_it(claims: int, victims: list[int]) -> None:
    """Node for node the gang of eight has lost least, but a single claim does not bring it down."""
    fleet = lent_out([{"gpus": 64, "checkpoint_seconds": 50}, *({} for _ in range(8))], gpus=128)
    fleet.wait(60)
    for _ in range(claims):
        fleet.submit("ant", 8)
    assert sorted(stopped(fleet)) == victims


@pytest.mark.parametrize(("claims", "told"), [(1, {1: 3}), (2, {1: 3, 2: 3})])
def test_who_costs_least_is_spared_only_where_no_claim_can_use_the_rest_of_a_gang(
    claims: int, told: dict[int, int]
) -> None:
    """Job 1 holds three nodes, job 2 the fourth and has less to lose; a lone claim of two nodes needs only the gang."""
    fleet = lent_out([{"gpus": 24, "then_wait": 100}, {"then_wait": 10}])
    for _ in range(claims):
        fleet.submit("ant", 16)
    assert {event.job: event.claimant for event in fleet.tick().events if isinstance(event, StopOrdered)} == told


@given(
    st.lists(st.tuples(st.sampled_from((4, 8, 8, 16, 24)), st.integers(1, 500)), min_size=4, max_size=7),
    st.lists(st.sampled_from((8, 8, 8, 16)), min_size=4, max_size=8),
)
@settings(max_examples=20)
def test_claims_served_in_one_go_get_what_they_would_get_one_by_one(
    borrowers: list[tuple[int, int]], claims: list[int]
) -> None:
    plans = []
    for ahead in (1, AHEAD_MAX):
        fleet = lent_out([{"gpus": gpus, "then_wait": age} for gpus, age in borrowers], gpus=64)
        for gpus in claims:
            fleet.submit("ant", gpus)
        with patch.object(reclaim, "AHEAD_MAX", ahead):
            plans.append(fleet.tick().events)
    assert plans[0] == plans[1]


@pytest.mark.parametrize(("percent", "victims"), [(0, [1]), (800, [1]), (799, [])])
def test_a_claim_evicts_no_more_than_its_owner_allows(percent: int, victims: list[int]) -> None:
    """Only a gang of eight nodes could make room for one: it does, unless the owner bounds what may go for a claim."""
    fleet = lent_out([{"gpus": 64}], gpus=64, evicted_percent_max=percent)
    claimant = fleet.submit("ant", 8)
    assert stopped(fleet) == victims
    assert victims or "799 %" in fleet.plan.reasons[claimant].reasons[0].detail


def test_a_bound_takes_the_way_that_evicts_least_and_is_recorded() -> None:
    """The gang has just saved its work and would lose nothing; the single job loses a minute."""
    jobs: list[dict[str, Any]] = [{"gpus": 64, "checkpoint_seconds": 60}, {"then_wait": 60}]
    fleet = lent_out(jobs, gpus=72, evicted_percent_max=100)
    fleet.submit("ant", 8)
    assert stopped(fleet) == [2]
    reclaim = fleet.ledger.reclaims.open[3]
    assert (reclaim.gpus, reclaim.evicted_gpus, reclaim.evicted_gpus_max) == (8, 8, 8)
    fleet = lent_out([dict(job) for job in ({"gpus": 64, "checkpoint_seconds": 60}, {"then_wait": 60})], gpus=72)
    fleet.submit("ant", 8)
    assert stopped(fleet) == [1]


@given(
    borrowers=st.lists(
        st.tuples(st.integers(1, 8), st.integers(0, 9), st.sampled_from((0, 70))), min_size=1, max_size=9
    ),
    gpus=st.integers(1, 8),
)
@settings(max_examples=25, deadline=None)
def test_a_node_is_cleared_at_the_least_loss_there_is(borrowers: list[tuple[int, int, int]], gpus: int) -> None:
    """Against all sets of jobs on any one node."""
    fleet = lent_out(
        [{"gpus": size, "then_wait": age, "checkpoint_seconds": period} for size, age, period in borrowers],
    )
    occupancy, jobs = fleet.state.occupancy["p"], fleet.state.jobs
    least = min(
        (
            lost(fleet, chosen)
            for node in range(4)
            for count in range(len(occupancy.jobs_on(node)) + 1)
            for chosen in combinations(occupancy.jobs_on(node), count)
            if sum(jobs[job].spec.gpus for job in chosen) + occupancy.free.masks[node].bit_count() >= gpus
        ),
        default=0,
    )
    fleet.submit("ant", gpus, gpus_per_node=gpus)
    assert lost(fleet, stopped(fleet)) == least


def lost(fleet: Harness, jobs: Iterable[int]) -> int:
    """GPU-milliseconds of work that go with jobs, and a little for each GPU."""
    total = 0
    for job in (fleet.state.jobs[number] for number in jobs):
        ran_ms, period_ms = fleet.now_ms - job.attempts[-1].started_ms, job.spec.checkpoint_seconds * 1000
        total += job.spec.gpus * (1 + (ran_ms % period_ms if period_ms else ran_ms))
    return total


def test_segments_are_freed_within_racks() -> None:
    fleet = Harness(
        fleet_facts([owner("ant", 100), owner("bee")], [pool("p", {"ant": 48}, model=NVL72, nodes_per_rack=6)])
    )
    for _ in range(12):
        fleet.submit("bee", 4)
    fleet.tick()
    fleet.submit("ant", 32, gpus_per_node=4, segment_nodes=4)
    victims = stopped(fleet)
    assert len(victims) == 8
    assert [sum(node // 6 == rack for node in nodes(made(fleet))) for rack in (0, 1)] == [4, 4]


def nodes(event: ReservationMade) -> list[int]:
    """The nodes a reservation holds."""
    return [node for span in event.spans for node in range(span.first, span.first + span.nodes)]


def test_others_loans_are_only_touched_if_the_shape_needs_it() -> None:
    """Half of each rack is on ant's entitlement, half on bee's: ant's own loans suffice unless it needs a rack."""
    fleet = Harness(
        fleet_facts(
            [owner("ant", 100), owner("bee", 100), owner("cat")], [pool("p", {"ant": 32, "bee": 32})]
        )
    )  # fmt: skip
    for _ in range(8):
        fleet.submit("cat", 8)
    fleet.tick()
    on_ant = {job.id for job in fleet.state.jobs.values() if job.attempts[-1].charges[0].owner == "ant"}
    fleet.submit("ant", 16)
    assert set(stopped(fleet)) <= on_ant
    fleet.wait(300)
    fleet.tick()
    fleet.submit("ant", 16, topology=RACK)
    assert len(stopped(fleet)) == 2


def test_a_lender_with_a_longer_notice_is_left_alone() -> None:
    """Bee's contract gives its borrowers an hour; ant promised its own work three minutes."""
    fleet = Harness(
        fleet_facts(
            [owner("ant", 100, notice_seconds=60), owner("bee", 100, notice_seconds=3600), owner("cat")],
            [pool("p", {"ant": 16, "bee": 16})],
        )
    )
    for _ in range(4):
        fleet.submit("cat", 8)
    fleet.tick()
    fleet.submit("ant", 16)
    victims = stopped(fleet)
    assert {fleet.state.jobs[job].attempts[-1].charges[0].owner for job in victims} == {"ant"}


def test_the_pool_with_the_least_loss_is_chosen() -> None:
    fleet = Harness(
        fleet_facts([owner("ant", 100), owner("bee")], [pool("p", {"ant": 8}), pool("q", {"ant": 8})])
    )  # fmt: skip
    fleet.submit("bee", 8, pools=("p",))
    fleet.tick()
    fleet.wait(60)
    fleet.submit("bee", 8, pools=("q",))
    fleet.tick()
    fleet.submit("ant", 8)
    assert stopped(fleet) == [2]


def test_a_reservation_is_sticky_and_starts_on_exactly_its_gpus() -> None:
    fleet = lent_out([{}, {}, {}, {}], notice_seconds=60)
    fleet.submit("ant", 16)
    victims = stopped(fleet)
    spans = made(fleet).spans
    fleet.wait(30)
    assert fleet.tick().events == ()
    fleet.wait(30)
    started = [event for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
    assert victims == [1, 2]
    assert [(event.job, event.spans) for event in started] == [(5, spans)]


def test_two_claims_do_not_share_a_victim() -> None:
    fleet = lent_out([{}, {}, {}, {}])
    fleet.submit("ant", 8)
    fleet.submit("ant", 8)
    assert len(set(stopped(fleet))) == 2


def test_a_job_that_is_stopping_anyway_is_used_first() -> None:
    fleet = lent_out([{}, {}, {}, {}])
    fleet.cancel(3)
    fleet.submit("ant", 8)
    assert stopped(fleet) == []
    assert made(fleet).spans == (Span(2, 1, 0xFF),)


def test_a_claim_is_let_go_when_a_node_of_it_fails_and_made_anew() -> None:
    fleet = lent_out([{}, {}, {}, {}])
    fleet.submit("ant", 8)
    assert stopped(fleet) == [1]
    fleet.set_node("p", 0, NodeState.DOWN)
    events = fleet.tick().events
    assert isinstance(events[0], ReservationEnded)
    assert events[0].state is ReservationState.RELEASED
    assert any(isinstance(event, ReservationMade) for event in events)


def test_a_cancelled_claimant_leaves_nothing_reserved() -> None:
    fleet = lent_out([{}, {}, {}, {}], notice_seconds=60)
    claimant = fleet.submit("ant", 8)
    stopped(fleet)
    fleet.cancel(claimant)
    fleet.wait(60)
    fleet.tick()
    assert fleet.state.occupancy["p"].used_gpus == 32


def test_work_that_does_not_fit_its_entitlement_evicts_nobody() -> None:
    fleet = Harness(
        fleet_facts([owner("ant", 100), owner("bee", 100), owner("cat")], [pool("p", {"ant": 16, "bee": 16})])
    )
    for _ in range(4):
        fleet.submit("cat", 8)
    fleet.tick()
    fleet.submit("ant", 24)
    assert stopped(fleet) == []


def test_what_faults_leave_above_the_entitlement_counts_as_borrowed() -> None:
    """Two of eight nodes fail: ant is due 24 and uses 32, so bee, due 24, may have one of ant's nodes."""
    fleet = Harness(
        fleet_facts(
            [owner("ant", notice_seconds=60), owner("bee", notice_seconds=60)], [pool("p", {"ant": 32, "bee": 32})]
        )
    )
    for _ in range(4):
        fleet.submit("ant", 8)
    fleet.tick()
    fleet.set_node("p", 6, NodeState.DOWN)
    fleet.set_node("p", 7, NodeState.DOWN)
    for _ in range(3):
        fleet.submit("bee", 8)
    assert len(stopped(fleet)) == 1
    fleet.wait(60)
    fleet.tick()
    assert fleet.state.books["p"]["bee"].home == 24


def test_an_owner_gives_no_notice_to_itself() -> None:
    fleet = Harness(fleet_facts([owner("ant", 100), owner("bee", 100)], [pool("p", {"ant": 16, "bee": 16})]))
    fleet.submit("ant", 32)
    fleet.tick()
    fleet.submit("ant", 8)
    assert stopped(fleet) == []


def test_a_claim_that_is_ready_does_not_wait_for_another() -> None:
    """Two claims; the first one's borrower ends early, and the other's promise does not hold it back."""
    fleet = lent_out([{}, {}, {}, {}])
    first, second = fleet.submit("ant", 8), fleet.submit("ant", 8)
    assert stopped(fleet) == [1, 2]
    fleet.end(1)
    placed = [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
    assert (placed, list(fleet.state.reservations)) == ([first], [second])


def test_a_claim_waits_for_its_entitlement_though_its_gpus_are_free() -> None:
    """Enough nodes are free, but a loan takes up the entitlement and nobody else carries it: they are held."""
    owners = [owner("ant", 100, notice_seconds=60), owner("bee"), owner("cat")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 16, "bee": 16})]))
    fleet.submit("cat", 8)
    fleet.tick()
    claimant = fleet.submit("ant", 16)
    assert stopped(fleet) == [1]
    assert fleet.tick().events == ()
    fleet.wait(60)
    assert [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)] == [claimant]


def test_a_later_claim_does_not_start_on_what_an_earlier_one_counts_on() -> None:
    """Its GPUs are free before its borrower is gone, and 4 of ant's GPUs idle: they are promised to the first claim."""
    owners = [owner("ant", 100, notice_seconds=60, teardown_seconds=0), owner("bee", 50), owner("cat")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 16, "bee": 16})]))
    for queue, gpus in (("cat", 4), ("cat", 8), ("cat", 8), ("bee", 5)):
        fleet.submit(queue, gpus)
        fleet.tick()
        fleet.wait(10)
    first = fleet.submit("ant", 8)
    assert stopped(fleet) == [1]
    fleet.wait(30)
    second = fleet.submit("ant", 3)
    assert stopped(fleet) == [2]
    starts: dict[int, int] = {}
    for at_seconds in (30, 60, 90):
        placed = [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
        starts |= dict.fromkeys(placed, at_seconds)
        fleet.wait(30)
    assert (starts[first], starts[second]) == (60, 90)


def test_a_claim_whose_entitlement_is_lent_for_good_asks_anew() -> None:
    """A fault takes from what ant is due while it waits, so that one more loan must end."""
    owners = [owner("ant", 100, notice_seconds=60), owner("bee", notice_seconds=60), owner("cat")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 32, "bee": 32})]))
    for _ in range(4):
        fleet.submit("cat", 8)
    fleet.tick()
    fleet.submit("ant", 8)
    assert stopped(fleet) == [1]
    fleet.set_node("p", 6, NodeState.DOWN)
    fleet.set_node("p", 7, NodeState.DOWN)
    fleet.wait(60)
    events = fleet.tick().events
    assert [type(event) for event in events[:1]] == [ReservationEnded]
    assert [event.job for event in events if isinstance(event, StopOrdered)] == [2]
    fleet.wait(60)
    fleet.tick()
    assert fleet.state.books["p"]["ant"].home == 8


def test_a_claim_lost_with_its_site_is_made_anew_without_new_victims() -> None:
    fleet = lent_out([{}, {}, {}, {}], notice_seconds=60)
    fleet.submit("ant", 8)
    assert stopped(fleet) == [1]
    fleet.record(SiteSilent(at_ms=fleet.now_ms, site="p-site"))
    assert [type(event) for event in fleet.tick().events] == [ReservationEnded]
    fleet.record(SiteConnected(at_ms=fleet.now_ms, site="p-site"))
    assert [type(event) for event in fleet.tick().events] == [ReservationMade]
    assert made(fleet).spans == (Span(0, 1, 0xFF),)
