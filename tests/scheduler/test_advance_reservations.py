"""Reservations made in advance: nothing reaches into their time, and what they are for happens in it."""

from typing import Any

from pumasi.control.commands import MakeReservation
from pumasi.events.facts import AttemptPlaced, NodeState, StopOrdered
from pumasi.model.fleet import Preemption, Queue
from pumasi.model.reservations import ReservationPurpose
from pumasi.scheduler.explain import WhyWaiting
from pumasi.scheduler.planner import Planner
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness

MAINTENANCE, AWARD, HAND_OVER = ReservationPurpose


def harness() -> Harness:
    queues = [Queue(id="ant/x"), Queue(id="ant/y"), Queue(id="bee")]
    return Harness(fleet_facts([owner("ant", 100), owner("bee")], [pool("p", {"ant": 32})], queues))


def reserve(
    fleet: Harness, purpose: ReservationPurpose, nodes: int, queue: str = "", start: int = 1000, **fields: Any
) -> str:
    """Reserve for 2,000 seconds from `start` seconds on; returns why not, or ""."""
    refusal = fleet.reserve(
        MakeReservation(
            by="op", name="r", purpose=purpose, pool="p", nodes=nodes, queue=queue,
            start_ms=fleet.now_ms + start * 1000, duration_seconds=2000, **fields,
        )
    )  # fmt: skip
    return refusal.detail if refusal else ""


def placed(fleet: Harness) -> dict[int, list[int]]:
    """What a cycle places: the first nodes of each job."""
    events = [event for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
    return {event.job: [span.first for span in event.spans] for event in events}


def test_nothing_reaches_into_a_maintenance_and_the_reason_names_it() -> None:
    fleet = harness()
    assert reserve(fleet, MAINTENANCE, 4) == ""
    long, short = fleet.submit("ant/x", 8, time_limit_seconds=1001), fleet.submit("ant/x", 8, time_limit_seconds=1000)
    loan = fleet.submit("bee", 8, time_limit_seconds=1001)
    assert list(placed(fleet)) == [short]
    assert fleet.plan.reasons[long].first.code == fleet.plan.reasons[loan].first.code == "reserved"
    assert "reservation r begins, in 1000 seconds" in fleet.plan.reasons[long].first.detail
    fleet.wait(1000)
    assert placed(fleet) == {}
    assert fleet.state.occupancy["p"].node_states == dict.fromkeys(range(4), NodeState.DRAINED)
    fleet.wait(2000)
    assert list(placed(fleet)) == [long, loan]
    assert fleet.state.occupancy["p"].node_states == {} and not fleet.state.advance_reservations


def test_nodes_in_use_by_then_are_not_reserved() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1500)
    fleet.tick()
    assert reserve(fleet, MAINTENANCE, 3) == (
        "2 of 4 nodes of p are free for all of that time, 3 are asked for; they are 500 seconds later"
    )
    assert reserve(fleet, MAINTENANCE, 2) == ""


def test_in_an_award_the_queue_runs_and_the_others_do_not() -> None:
    fleet = harness()
    assert reserve(fleet, AWARD, 2, "ant/x", start=0) == ""
    others = [fleet.submit("ant/y", 8, time_limit_seconds=60) for _ in range(3)]
    loan, own = fleet.submit("bee", 8, time_limit_seconds=60), fleet.submit("ant/x", 16, time_limit_seconds=9999)
    started = placed(fleet)
    assert sorted(started) == [*others[:2], own], "the award's GPUs and entitlement are kept for its queue"
    assert fleet.plan.reasons[loan].first.code == "entitlement_used" or loan in fleet.plan.reasons


def test_an_award_may_be_over_nodes_where_jobs_of_its_queue_run() -> None:
    fleet = harness()
    own, other = fleet.submit("ant/x", 16, time_limit_seconds=9999), fleet.submit("ant/y", 16, time_limit_seconds=9999)
    nodes = placed(fleet)
    mine, others = ((nodes[job][0], nodes[job][0] + 1) for job in (own, other))
    assert reserve(fleet, AWARD, 0, "ant/y", node_indices=mine) == "p-00001 may be in use in that time, or is promised"
    assert reserve(fleet, HAND_OVER, 0, "ant/x", node_indices=mine).endswith("or is promised")
    assert reserve(fleet, AWARD, 0, "ant/x", node_indices=(*mine, others[0])).endswith("or is promised")
    assert reserve(fleet, AWARD, 2, "ant/x") == "", "its owner has nothing idle, and the award needs nothing"
    (award,) = fleet.state.advance_reservations.values()
    assert [span.first for span in award.declared.spans] == [mine[0]]
    fleet.end(own)
    fleet.wait(1000)
    fleet.submit("ant/y", 8, time_limit_seconds=60)
    again = fleet.submit("ant/x", 8, time_limit_seconds=60)
    assert list(placed(fleet)) == [again]


def test_a_hand_over_ends_at_once_when_its_job_is_cancelled() -> None:
    fleet = harness()
    assert reserve(fleet, HAND_OVER, 2, "ant/x", start=0) == ""
    fleet.tick()
    (job,) = fleet.state.handed_over()
    fleet.cancel(job)
    waiting = fleet.submit("ant/y", 32)
    assert list(placed(fleet)) == [waiting]
    assert not fleet.state.advance_reservations and job not in fleet.state.jobs


def test_handed_over_gpus_are_counted_and_come_back() -> None:
    fleet = harness()
    assert reserve(fleet, HAND_OVER, 2, "ant/x") == ""
    fleet.wait(1000)
    fleet.tick()
    (job,) = fleet.state.handed_over()
    assert fleet.state.jobs[job].spec.gpus == 16 and fleet.state.books["p"]["ant"].home == 16
    fleet.wait(2000)
    fleet.tick()
    assert fleet.state.books["p"]["ant"].home == 0 and job not in fleet.state.jobs
    statement = fleet.ledger.statement(fleet.now_ms)
    assert {(key.debit, key.credit): amount for key, amount in statement.items()} == {("ant/x", "ant"): 16 * 2_000_000}


def test_a_hand_over_needs_the_entitlement() -> None:
    fleet = harness()
    assert "bee has 0 GPUs of its entitlement in p free then" in reserve(fleet, HAND_OVER, 1, "bee")


def test_what_is_planned_makes_way_for_no_reservation() -> None:
    fleet = harness()
    fleet.submit("ant/x", 16, time_limit_seconds=1000)
    fleet.tick()
    fleet.submit("ant/x", 32, time_limit_seconds=500)
    fleet.tick()
    assert reserve(fleet, MAINTENANCE, 1).startswith("0 of 4 nodes of p are free for all of that time")


def test_an_award_is_used_before_what_is_anybodys() -> None:
    fleet = harness()
    assert reserve(fleet, AWARD, 0, "ant/x", start=0, node_indices=(2, 3)) == ""
    outside = fleet.submit("ant/y", 4, time_limit_seconds=9999)
    assert placed(fleet) == {outside: [0]}
    within = [fleet.submit("ant/x", gpus, time_limit_seconds=9999) for gpus in (4, 8, 8)]
    assert placed(fleet) == {within[0]: [2], within[1]: [3], within[2]: [1]}


def test_nobody_runs_under_maintenance_even_if_a_node_is_put_back_to_work() -> None:
    fleet = harness()
    assert reserve(fleet, MAINTENANCE, 4, start=0) == ""
    fleet.tick()
    fleet.set_node("p", 0, NodeState.UP)
    job = fleet.submit("ant/x", 8, time_limit_seconds=60)
    assert placed(fleet) == {} and fleet.plan.reasons[job].first.code == "reserved"


def test_maintenance_may_ignore_what_runs_and_waits_for_it_to_end() -> None:
    fleet = harness()
    job = fleet.submit("ant/x", 8, time_limit_seconds=5000)
    (first,) = placed(fleet)[job]
    assert "may be in use" in reserve(fleet, MAINTENANCE, 0, node_indices=(first,))
    assert reserve(fleet, MAINTENANCE, 0, node_indices=(first,), ignore_running=True) == ""
    fleet.wait(1000)
    fleet.tick()
    assert fleet.state.jobs[job].live is not None, "what runs is drained, not stopped"
    assert fleet.state.occupancy["p"].node_states == {first: NodeState.DRAINED}


def test_a_maintenance_that_follows_another_has_its_nodes_drained() -> None:
    fleet = harness()
    at_ms = fleet.now_ms
    for name, start_ms in (("later", at_ms + 1_000_000), ("sooner", at_ms)):
        made = MakeReservation(
            by="op", name=name, purpose=MAINTENANCE, pool="p", node_indices=(0,), start_ms=start_ms,
            duration_seconds=1000,
        )  # fmt: skip
        assert fleet.reserve(made) is None
    fleet.tick()
    fleet.wait(1000)
    fleet.tick()
    assert list(fleet.state.advance_reservations) == ["later"]
    assert fleet.state.occupancy["p"].node_states == {0: NodeState.DRAINED}


def test_a_node_out_of_work_can_be_under_maintenance_and_stays_out_after_it() -> None:
    fleet = harness()
    fleet.set_node("p", 3, NodeState.DOWN)
    assert "promised" in reserve(fleet, AWARD, 0, "ant/x", node_indices=(3,))
    assert reserve(fleet, MAINTENANCE, 0, node_indices=(2, 3)) == ""
    fleet.wait(1000)
    fleet.tick()
    assert fleet.state.occupancy["p"].node_states == {2: NodeState.DRAINED, 3: NodeState.DOWN}
    fleet.wait(2000)
    fleet.tick()
    assert fleet.state.occupancy["p"].node_states == {3: NodeState.DOWN}


def test_a_hand_over_ends_with_a_node_that_fails() -> None:
    fleet = harness()
    assert reserve(fleet, HAND_OVER, 2, "ant/x", start=0) == ""
    fleet.tick()
    (job,) = fleet.state.handed_over()
    fleet.set_node("p", fleet.state.jobs[job].attempts[-1].spans[0].first, NodeState.DOWN)
    fleet.tick()
    assert not fleet.state.advance_reservations and job not in fleet.state.jobs


def test_no_work_of_its_owner_makes_a_hand_over_give_way_and_power_takes_it_last() -> None:
    queues = [Queue(id="ant", preemption=Preemption.LOWER_PRIORITY), Queue(id="ant/x"), Queue(id="bee")]
    fleet = Harness(fleet_facts([owner("ant", 100), owner("bee")], [pool("p", {"ant": 32})], queues))
    assert reserve(fleet, HAND_OVER, 2, "ant/x", start=0) == ""
    fleet.tick()
    own = fleet.submit("ant/x", 16, priority=1)
    fleet.tick()
    fleet.submit("ant", 32, priority=10**6)
    assert not any(isinstance(event, StopOrdered) for event in fleet.tick().events)
    fleet.set_power("p-site", 30)
    stopped = [event.job for event in fleet.tick().events if isinstance(event, StopOrdered)]
    assert stopped == [own]


def test_a_claim_goes_around_what_is_reserved() -> None:
    fleet = harness()
    loans = [fleet.submit("bee", 8, time_limit_seconds=9999) for _ in range(3)]
    assert list(placed(fleet)) == loans
    assert reserve(fleet, MAINTENANCE, 1) == "", "the one node that is free"
    job = fleet.submit("ant/x", 8, time_limit_seconds=5000)
    fleet.tick()
    assert fleet.state.reservations[job].spans[0].first < 3, "its owner's entitlement is not kept waiting"


def test_claims_around_what_is_reserved_wait_for_a_borrower_who_was_told_for_another_of_them() -> None:
    """Their entitlement carries them at once, but the GPUs they are to have are in use until he is gone."""
    fleet = harness()
    loan = fleet.submit("bee", 24, time_limit_seconds=9999)
    assert list(placed(fleet)) == [loan]
    assert reserve(fleet, MAINTENANCE, 1) == ""
    claims = [fleet.submit("ant/x", 1, time_limit_seconds=5000) for _ in range(8)]
    assert placed(fleet) == {}
    assert list(fleet.state.reservations) == claims
    fleet.wait(fleet.state.owners["ant"].declared.lending.reclaim_window_seconds)
    assert list(placed(fleet)) == claims


def test_each_job_is_told_of_the_reservation_that_it_would_run_into_and_when_it_is_over() -> None:
    fleet = harness()
    begin_ms = fleet.now_ms + 1_000_000
    for name, purpose, queue, start_ms in (("r", AWARD, "ant/x", begin_ms), ("s", MAINTENANCE, "", begin_ms + 600_000)):
        command = MakeReservation(
            by="op", name=name, purpose=purpose, pool="p", nodes=4, queue=queue, start_ms=start_ms, duration_seconds=600
        )
        assert fleet.reserve(command) is None
    one, other = (fleet.submit(queue, 1, time_limit_seconds=5000) for queue in ("ant/x", "ant/y"))
    fleet.tick()
    why = WhyWaiting(Planner(fleet.state).decide(fleet.now_ms))
    assert "reservation s begins, in 1600 seconds" in why[one].first.detail
    assert "reservation r begins, in 1000 seconds" in why[other].first.detail
    assert why.start_ms(one) == why.start_ms(other) == begin_ms + 1_200_000
