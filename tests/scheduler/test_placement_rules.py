"""Placement rules are data: dated, told by name, and changed without a change of code."""

from typing import Any

import pytest

from pumasi.events import facts
from pumasi.model.calendar import day_begins_ms, day_name, day_of
from pumasi.model.fleet import OwnerKind, Place, PlacementRule, Policy, Site, Work
from pumasi.model.jobs import JobState
from pumasi.scheduler.eligibility import eligible, never_admissible
from pumasi.scheduler.reasons import ReasonCode
from pumasi.state.fleet_state import FleetState
from pumasi.testing.builders import START_MS, fleet_facts, owner, pool, spec, state_of
from pumasi.testing.harness import Harness

TODAY = day_of(START_MS)
HOME = Place(home=True)


def fleet(*rules: PlacementRule) -> list[facts.Event]:
    """Pool p at ant's site, q at the foreign elk's; ant and elk lend everything, bee's is little."""
    return fleet_facts(
        [owner("ant", 100), owner("elk", 100, OwnerKind.FOREIGN), owner("bee", 100)],
        [pool("p", {"ant": 32, "bee": 8}, site="here"), pool("q", {"elk": 32}, site="there")],
        sites=[
            Site(id="here", title="", operator="ant", region="Sejong", clearances=("secret",)),
            Site(id="there", title="", operator="elk", region="Haenam", clearances=("secret",)),
        ],
        policy=Policy(version="7", rules=rules),
    )


def pools_for(rule: PlacementRule, **asked: Any) -> list[str]:
    """Where a job of bee's may run under the rule."""
    plain: dict[str, Any] = {"queue": "bee", "gpus": 8}
    fits, _ = eligible(state_of(fleet(rule)), spec(**(plain | asked)), START_MS)
    return [fit.pool for fit in fits]


@pytest.mark.parametrize(
    ("work", "is_about"),
    [
        (Work(), True),
        (Work(data_classes=("secret",)), True),
        (Work(data_classes=("health",)), False),
        (Work(owners=("bee",)), True),
        (Work(owners=("ant",)), False),
        (Work(owner_kinds=(OwnerKind.COMMERCIAL,)), True),
        (Work(owner_kinds=(OwnerKind.FOREIGN,)), False),
        (Work(queues=("bee",)), True),
        (Work(queues=("be",)), False),
        (Work(data_classes=("secret",), owners=("ant",)), False),
    ],
)
def test_a_rule_is_about_work_of_which_all_holds(work: Work, is_about: bool) -> None:
    rule = PlacementRule(id="r", title="", work=work, not_at=Place(pools=("p", "q")))
    assert pools_for(rule, data_class="secret") == ([] if is_about else ["p", "q"])


@pytest.mark.parametrize(
    ("place", "there"),
    [
        (Place(pools=("q",)), ["q"]),
        (Place(sites=("here",)), ["p"]),
        (Place(regions=("Sejong", "Busan")), ["p"]),
        (Place(operators=("elk",)), ["q"]),
        (Place(operator_kinds=(OwnerKind.FOREIGN,)), ["q"]),
        (Place(home=True), ["p"]),
        (Place(home=False), ["q"]),
        (Place(home=True, operators=("elk",)), []),
    ],
)
def test_a_rule_keeps_work_at_a_place_or_away_from_it(place: Place, there: list[str]) -> None:
    assert pools_for(PlacementRule(id="r", title="", only_at=place)) == there
    assert pools_for(PlacementRule(id="r", title="", not_at=place)) == [pool for pool in "pq" if pool not in there]


def test_a_job_that_no_rule_lets_run_is_told_which_by_its_name_and_version() -> None:
    rule = PlacementRule(id="rivals", title="no rival of ours", work=Work(owners=("bee",)), only_at=Place(sites=("x",)))
    verdicts = never_admissible(state_of(fleet(rule)), spec("bee", 8), START_MS)
    assert [(verdict.code, verdict.pool) for verdict in verdicts] == [
        (ReasonCode.PLACEMENT_RULE, "p"),
        (ReasonCode.PLACEMENT_RULE, "q"),
    ]
    assert verdicts[0].detail == "rule rivals of policy 7: no rival of ours"


@pytest.mark.parametrize(
    ("from_day", "until_day", "holds"),
    [(0, 1, True), (-9, 9, True), (1, 9, False), (-9, 0, False), (0, None, True), (None, 0, False), (None, None, True)],
)
def test_a_rule_holds_from_a_day_until_before_another(from_day: int | None, until_day: int | None, holds: bool) -> None:
    first, last = ("" if day is None else day_name(TODAY + day) for day in (from_day, until_day))
    rule = PlacementRule(id="r", title="", not_at=Place(pools=("q",)), from_day=first, until_day=last)
    assert ("q" in pools_for(rule)) is not holds


def until_midnight_seconds(harness: Harness) -> int:
    """Seconds to the next midnight in Korea."""
    return (day_begins_ms(day_of(harness.now_ms) + 1) - harness.now_ms) // 1000


def test_work_starts_on_the_day_its_rule_ends() -> None:
    rule = PlacementRule(id="r", title="", not_at=Place(home=False), until_day=day_name(TODAY + 1))
    harness = Harness(fleet(rule))
    job = harness.submit("bee", 16, pools=("q",))
    harness.tick()
    assert ReasonCode.PLACEMENT_RULE in {reason.code for reason in harness.plan.reasons[job].reasons}
    harness.wait(until_midnight_seconds(harness) - 1)
    harness.tick()
    assert harness.state.jobs[job].state is JobState.WAITING
    harness.wait(1)
    harness.tick()
    assert harness.state.jobs[job].attempts[-1].pool == "q"


def test_what_runs_when_a_rule_comes_runs_on_and_nothing_more_starts() -> None:
    rule = PlacementRule(id="r", title="", not_at=Place(pools=("q",)), from_day=day_name(TODAY + 1))
    harness = Harness(fleet(rule))
    day_seconds = 24 * 3600
    first = harness.submit("elk", 8, time_limit_seconds=2 * day_seconds)
    harness.tick()
    harness.wait(until_midnight_seconds(harness))
    second = harness.submit("elk", 8, time_limit_seconds=2 * day_seconds)
    harness.tick()
    assert harness.state.jobs[first].state is JobState.ACTIVE
    assert [attempt.pool for attempt in harness.state.jobs[second].attempts] == ["p"]


def test_a_reservation_that_a_new_rule_forbids_is_let_go() -> None:
    harness = Harness(fleet())
    for _ in range(5):
        harness.submit("bee", 8, pools=("p",), time_limit_seconds=24 * 3600)
    harness.tick()
    claimant = harness.submit("ant", 16, pools=("p",))
    harness.tick()
    assert claimant in harness.state.reservations
    forbidden = Policy(version="8", rules=(PlacementRule(id="r", title="", not_at=Place(pools=("p",))),))
    harness.record(facts.PolicyDeclared(at_ms=harness.now_ms, policy=forbidden))
    harness.tick()
    assert claimant not in harness.state.reservations
    assert harness.plan.reasons[claimant].reasons[0].code is ReasonCode.PLACEMENT_RULE


def test_a_new_version_of_the_rules_changes_decisions() -> None:
    """The story of the grade that foreign operators may hold: one declaration, no other change."""
    strict = PlacementRule(
        id="grade", title="", work=Work(data_classes=("secret",)), not_at=Place(operator_kinds=(OwnerKind.FOREIGN,))
    )
    state: FleetState = state_of(fleet(strict))
    asked = spec("bee", 16, data_class="secret", pools=("q",))
    assert [verdict.code for verdict in never_admissible(state, asked, START_MS)][1] is ReasonCode.PLACEMENT_RULE
    reformed = state_of([*fleet(strict), facts.PolicyDeclared(at_ms=START_MS, policy=Policy(version="8"))])
    assert never_admissible(reformed, asked, START_MS) == []
