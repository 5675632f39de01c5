"""The judge of plans is worth something only if it convicts: each way to spoil a good plan is found."""

from collections.abc import Callable

import msgspec
import pytest

from pumasi.events.facts import (
    AllocationRecharged,
    AttemptPlaced,
    Event,
    ReservationMade,
    StopOrdered,
)
from pumasi.model.jobs import Charge, Level, Span, Topology
from pumasi.scheduler.check import lint
from pumasi.scheduler.plan import Plan, plan
from pumasi.scheduler.reasons import ReasonCode
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness


def scene() -> Harness:
    """A cycle about to place a gang at home, lend to a borrower, recharge a loan and reclaim a node."""
    owners = [owner("ant", 100, notice_seconds=60), owner("bee", 100), owner("cat")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 32, "bee": 32}), pool("q", {"ant": 8})]))
    fleet.submit("cat", 8, pools=("q",))
    fleet.submit("cat", 8, pools=("p",))
    fleet.tick()
    fleet.wait(10)
    fleet.submit("ant", 8, pools=("q",))
    fleet.submit("ant", 32, pools=("p",), topology=Topology(level=Level.RACK, required=True))
    fleet.submit("cat", 8, pools=("p",))
    fleet.submit("cat", 64, pools=("p",))
    return fleet


def changed(made: Plan, kind: type, change: Callable[[Event], Event | None]) -> Plan:
    """The plan with every fact of a kind replaced, or left out."""
    events = [change(event) if isinstance(event, kind) else event for event in made.events]
    return Plan(tuple(event for event in events if event is not None), made.reasons)


def replaced(**fields: object) -> Callable[[Event], Event]:
    """A change of some fields."""
    return lambda event: msgspec.structs.replace(event, **fields)


def test_the_scene_has_all_kinds_and_is_good() -> None:
    fleet = scene()
    made = plan(fleet.state, fleet.now_ms)
    assert {type(event) for event in made.events} == {AttemptPlaced, AllocationRecharged, StopOrdered, ReservationMade}
    assert lint(fleet.state, made, fleet.now_ms) == []


SPOILED: dict[str, tuple[type, Callable[[Event], Event | None]]] = {
    "GPUs that are taken": (AttemptPlaced, replaced(spans=(Span(0, 4, 0xFF),))),
    "too few GPUs": (AttemptPlaced, replaced(spans=(Span(4, 1, 0x0F),))),
    "two racks instead of one": (AttemptPlaced, replaced(spans=(Span(2, 4, 0xFF),))),
    "a node that does not exist": (AttemptPlaced, replaced(spans=(Span(8, 1, 0xFF),))),
    "a pool not asked for": (AttemptPlaced, replaced(pool="q", spans=(Span(0, 1, 0xFF),))),
    "charges that do not add up": (AttemptPlaced, replaced(charges=(Charge("ant", 4),))),
    "charges on an owner that has nothing there": (AttemptPlaced, replaced(charges=(Charge("cat", 8),))),
    "another queue": (AttemptPlaced, replaced(queue="bee")),
    "a second attempt": (AttemptPlaced, replaced(attempt=2)),
    "somebody else's plan": (AttemptPlaced, replaced(by="user")),
    "another time": (AttemptPlaced, replaced(at_ms=1)),
    "too short a notice": (StopOrdered, lambda event: msgspec.structs.replace(event, kill_at_ms=event.at_ms + 59_000)),
    "a kill after the window": (
        StopOrdered,
        lambda event: msgspec.structs.replace(event, kill_at_ms=event.at_ms + 10**9),
    ),
    "a claimant that reserves nothing": (StopOrdered, replaced(claimant=6)),
    "another cause": (StopOrdered, replaced(cause="drain")),
    "a victim forgotten": (StopOrdered, lambda _: None),
    "a reservation forgotten": (ReservationMade, lambda _: None),
    "a reservation too long": (ReservationMade, replaced(due_ms=1)),
    "a reservation on the wrong account": (ReservationMade, replaced(charges=(Charge("bee", 8),))),
    "a recharge forgotten": (AllocationRecharged, lambda _: None),
    "a recharge to one who lends nothing": (AllocationRecharged, replaced(charges=(Charge("cat", 8),))),
    "a recharge of too much": (AllocationRecharged, replaced(charges=(Charge("bee", 16),))),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_plan_is_found_out(name: str) -> None:
    kind, change = SPOILED[name]
    fleet = scene()
    made = plan(fleet.state, fleet.now_ms)
    assert lint(fleet.state, changed(made, kind, change), fleet.now_ms) != []


def test_silence_about_a_waiting_job_is_found_out() -> None:
    fleet = scene()
    made = plan(fleet.state, fleet.now_ms)
    assert lint(fleet.state, Plan(made.events, {}), fleet.now_ms) != []


def test_an_idle_plan_is_found_out() -> None:
    fleet = scene()
    assert any("could start" in finding for finding in lint(fleet.state, Plan((), {}), fleet.now_ms))


def test_borrowing_before_home_work_is_found_out() -> None:
    fleet = scene()
    made = plan(fleet.state, fleet.now_ms)
    events = sorted(made.events, key=lambda event: not (isinstance(event, AttemptPlaced) and event.queue == "cat"))
    findings = lint(fleet.state, Plan(tuple(events), made.reasons), fleet.now_ms)
    assert any("after job 5 borrowed" in finding for finding in findings)


def test_nobody_is_said_to_idle_where_its_site_has_refused_it() -> None:
    fleet = Harness(fleet_facts([owner("ant")], [pool("p", {"ant": 32})]))
    job = fleet.submit("ant", 8, refused_by=("p",))
    fleet.tick()
    assert fleet.plan.reasons[job].first.code is ReasonCode.SITE_REFUSES
