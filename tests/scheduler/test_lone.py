"""A lone job is placed without a pass exactly where a pass would place it: stories with and without the short way."""

import pytest
from msgspec import structs

from pumasi.events.facts import AllocationRecharged, AttemptPlaced, Event, StopOrdered
from pumasi.model.fleet import Policy, QueueOrder
from pumasi.scheduler import planner
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.fairshare import ShareTree, share_trees
from pumasi.twin.run import simulate
from tests.twin.fleets import MINUTE_MS, drawn_jobs, scenario, village
from tests.twin.test_faults import TERRIBLE


def story(seed: int, gap_minutes: int = 4) -> list[Event]:
    """Loans, claims, planned starts, faults and strict order; with the usual gap, on a fleet that is seldom full."""
    plan = village({"a": 64, "b": 64})
    orders = {"a": QueueOrder.STRICT if seed % 3 == 0 else QueueOrder.BEST_EFFORT}
    queues = tuple(structs.replace(queue, order=orders.get(queue.id, queue.order)) for queue in plan.queues)
    plan = structs.replace(plan, queues=queues, policy=Policy(planned_starts=seed % 3))
    jobs = drawn_jobs(200, ("a", "b"), seed, mean_gap_ms=(gap_minutes + seed % 4) * MINUTE_MS)
    outcome = simulate(plan, jobs, scenario(seed=seed, faults=TERRIBLE, check_every_cycles=50))
    assert outcome.finished and not outcome.violations
    return [event for _, event in outcome.log.read(0)]


@pytest.mark.parametrize("seed", range(6))
def test_the_short_way_leads_where_the_long_one_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given_turns = 0

    def counted(board: Board, demands: dict[Demand, None]) -> list[ShareTree]:
        nonlocal given_turns
        given_turns += 1
        return share_trees(board, demands)

    monkeypatch.setattr(planner, "share_trees", counted)
    quick = story(seed)
    quick_turns, given_turns = given_turns, 0
    monkeypatch.setattr(planner, "place_lone", lambda *_: None)
    assert story(seed) == quick
    assert quick_turns < given_turns * 2 / 3, "many cycles went the short way"
    assert {AttemptPlaced, AllocationRecharged, StopOrdered} <= {type(event) for event in quick}
