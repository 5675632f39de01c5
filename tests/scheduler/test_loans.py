"""Loans: who lends to whom, in what order, and what happens when the borrower, the lender or the rules change."""

from pumasi.events.facts import AllocationRecharged, AttemptPlaced, OwnerDeclared, StopOrdered
from pumasi.model.fleet import CalendarWindow, Owner, OwnerKind
from pumasi.model.jobs import Charge
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness

MONDAY_NIGHT = CalendarWindow(days=(0,), from_minute=20 * 60, to_minute=24 * 60)


def charges(fleet: Harness) -> dict[int, tuple[Charge, ...]]:
    """What the running jobs are charged."""
    return {job.id: job.attempts[-1].charges for job in fleet.state.jobs.values() if job.live}


def test_the_idlest_lender_lends_first_and_equals_in_order() -> None:
    fleet = Harness(
        fleet_facts(
            [owner("ant", 100), owner("bee", 100), owner("cat")], [pool("p", {"ant": 16, "bee": 24})]
        )
    )  # fmt: skip
    for _ in range(3):
        fleet.submit("cat", 8)
    fleet.tick()
    assert list(charges(fleet).values()) == [(Charge("bee", 8),), (Charge("ant", 8),), (Charge("bee", 8),)]


def test_a_job_may_run_on_several_entitlements() -> None:
    fleet = Harness(fleet_facts([owner("ant"), owner("bee", 100)], [pool("p", {"ant": 16, "bee": 16})]))
    fleet.submit("ant", 24)
    fleet.tick()
    assert charges(fleet) == {1: (Charge("ant", 16), Charge("bee", 8))}


def test_who_lent_more_borrows_first() -> None:
    """Credit decides when two want the last of the surplus, whoever was declared first."""
    owners = [owner("ant", 100), owner("bee", 100), owner("cat", 100), owner("dog")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"cat": 16}), pool("q", {"ant": 8, "bee": 8})]))
    lent = fleet.submit("dog", 8, pools=("q",))
    fleet.tick()
    assert charges(fleet)[lent] == (Charge("ant", 8),)
    fleet.wait(600)
    fleet.end(lent)
    assert fleet.state.owners["ant"].credit_gpu_milliseconds == 600_000 * 8
    fleet.submit("bee", 16, pools=("p",))
    ant = fleet.submit("ant", 16, pools=("p",))
    placed = [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
    assert placed == [ant]


def test_borrowers_take_turns_by_what_they_borrow_now() -> None:
    fleet = Harness(fleet_facts([owner("ant"), owner("bee"), owner("cat", 100)], [pool("p", {"cat": 32})]))
    for name in ("ant", "ant", "ant", "bee", "bee", "bee"):
        fleet.submit(name, 8)
    placed = [event.queue for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
    assert placed == ["ant", "bee", "ant", "bee"]


def test_a_loan_comes_home_in_part_if_that_is_all_there_is() -> None:
    fleet = Harness(fleet_facts([owner("ant"), owner("bee", 100)], [pool("p", {"ant": 8, "bee": 16})]))
    first = fleet.submit("ant", 4)
    second = fleet.submit("ant", 16)
    fleet.tick()
    assert charges(fleet)[second] == (Charge("ant", 4), Charge("bee", 12))
    fleet.end(first)
    fleet.tick()
    assert charges(fleet)[second] == (Charge("ant", 8), Charge("bee", 8))


def test_a_loan_moves_to_another_lender_rather_than_cost_a_job() -> None:
    fleet = Harness(
        fleet_facts([owner("ant", 100), owner("bee", 100), owner("cat")], [pool("p", {"ant": 16, "bee": 16})])
    )
    fleet.submit("cat", 8)
    fleet.submit("ant", 16)
    fleet.tick()
    kinds = [type(event) for event in fleet.log]
    assert StopOrdered not in kinds
    assert charges(fleet)[1] == (Charge("bee", 8),)


def test_a_lowered_limit_takes_back_exactly_the_excess() -> None:
    fleet = Harness(fleet_facts([owner("ant", 100, notice_seconds=60), owner("bee")], [pool("p", {"ant": 32})]))
    for _ in range(4):
        fleet.submit("bee", 8)
    fleet.tick()
    declare(fleet, owner("ant", 50, notice_seconds=60))
    stops = [event for event in fleet.tick().events if isinstance(event, StopOrdered)]
    assert [stop.job for stop in stops] == [1, 2]
    assert {stop.claimant for stop in stops} == {0}
    assert fleet.tick().events == ()


def test_a_refused_borrower_s_loan_moves_if_another_lends() -> None:
    owners = [owner("ant", 100), owner("bee", 100), owner("cat", kind=OwnerKind.FOREIGN)]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 16, "bee": 16})]))
    fleet.submit("cat", 8)
    fleet.tick()
    assert charges(fleet)[1] == (Charge("ant", 8),)
    declare(fleet, owner("ant", 100, refuses_kinds=(OwnerKind.FOREIGN,)))
    assert [type(event) for event in fleet.tick().events] == [AllocationRecharged]
    assert charges(fleet)[1] == (Charge("bee", 8),)


def test_a_lending_window_opens_and_closes() -> None:
    """The clock starts on a Thursday; the window is on Monday from 20:00, Korean time."""
    fleet = Harness(
        fleet_facts(
            [owner("ant", 100, windows=(MONDAY_NIGHT,), notice_seconds=60), owner("bee")], [pool("p", {"ant": 8})]
        )
    )
    job = fleet.submit("bee", 8, time_limit_seconds=7 * 24 * 3600)
    assert fleet.tick().reasons[job].first.code == "outside_lending_window"
    fleet.wait(seconds_until_monday(fleet.now_ms, 20))
    assert [type(event) for event in fleet.tick().events] == [AttemptPlaced]
    fleet.wait(4 * 3600 - 1)
    assert fleet.tick().events == ()
    fleet.wait(1)
    assert [type(event) for event in fleet.tick().events] == [StopOrdered]


def seconds_until_monday(now_ms: int, hour: int) -> int:
    """Until the next Monday at an hour in Korean time; 5 January 1970 was one."""
    week, monday = 7 * 24 * 3600, 4 * 24 * 3600 + hour * 3600 - 9 * 3600
    return week - (now_ms // 1000 - monday) % week


def declare(fleet: Harness, changed: Owner) -> None:
    """An owner changes its contract."""
    fleet.record(OwnerDeclared(at_ms=fleet.now_ms, owner=changed))
