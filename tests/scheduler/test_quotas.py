"""Quotas inside an owner: nominal, borrowing limit and lending limit, as Kueue means them."""

import pytest

from pumasi.events.facts import AttemptPlaced
from pumasi.model.fleet import Queue, Quota
from pumasi.scheduler.board import Board
from pumasi.scheduler.plan import plan
from pumasi.scheduler.quotas import QuotaTree
from pumasi.scheduler.rules import Rules
from pumasi.state.records import Job
from pumasi.testing.builders import START_MS, fleet_facts, owner, pool
from pumasi.testing.harness import Harness

DUE = 64


def harness(*queues: Queue) -> Harness:
    """Ant's 64 GPUs and these queues."""
    return Harness(fleet_facts([owner("ant"), owner("bee", 100)], [pool("p", {"ant": DUE, "bee": 64})], queues))


def tree(*queues: Queue) -> QuotaTree:
    """The quotas while nothing runs."""
    return QuotaTree(Rules(harness(*queues).state, START_MS).quotas("ant", "p"))


def quota(nominal: int, borrowing: int | None = None, lending: int | None = None) -> dict[str, Quota]:
    """A quota in the only pool."""
    return {"p": Quota(nominal=nominal, borrowing_limit=borrowing, lending_limit=lending)}


def test_a_queue_without_quota_may_use_what_nobody_is_guaranteed() -> None:
    quotas = tree(Queue(id="ant/x"), Queue(id="ant/y", quotas=quota(16, lending=0)))
    assert quotas.home_room("ant/x", DUE) == 48
    assert quotas.home_room("ant/y", DUE) == 64
    assert quotas.kept_back == 16


def test_a_lending_limit_keeps_the_rest_back() -> None:
    quotas = tree(Queue(id="ant/x"), Queue(id="ant/y", quotas=quota(16, lending=4)))
    assert quotas.home_room("ant/x", DUE) == 52


def test_a_borrowing_limit_caps_a_queue_and_all_below_it() -> None:
    quotas = tree(Queue(id="ant/x", quotas=quota(8, borrowing=4)), Queue(id="ant/x/z"), Queue(id="ant/y"))
    assert quotas.home_room("ant/x/z", DUE) == 12
    assert quotas.most("ant/x/z") == 12
    quotas.take("ant/x/z", 8)
    assert quotas.home_room("ant/x", DUE) == 4
    assert quotas.home_room("ant/y", DUE) == 56


def test_use_within_a_guarantee_costs_the_others_nothing() -> None:
    quotas = tree(Queue(id="ant/x"), Queue(id="ant/y", quotas=quota(16, lending=0)))
    quotas.take("ant/y", 16)
    assert (quotas.home_room("ant/x", DUE), quotas.kept_back) == (48, 0)
    quotas.take("ant/y", 8)
    assert quotas.home_room("ant/x", DUE) == 40


def test_guarantees_nest() -> None:
    quotas = tree(
        Queue(id="ant/x", quotas=quota(8, lending=0)),
        Queue(id="ant/x/z", quotas=quota(8, lending=4)),
        Queue(id="ant/y"),
    )
    assert quotas.guaranteed == 4 + 12
    assert quotas.home_room("ant/x/z", DUE) == 64
    assert quotas.home_room("ant/x", DUE) == 60
    assert quotas.home_room("ant/y", DUE) == 48


def test_use_is_read_from_the_running_jobs() -> None:
    fleet = harness(Queue(id="ant/x"), Queue(id="ant/y", quotas=quota(16, lending=0)), Queue(id="ant/y/z"))
    fleet.submit("ant/y/z", 24)
    fleet.submit("ant/x", 8)
    fleet.tick()
    quotas = QuotaTree(Rules(fleet.state, START_MS).quotas("ant", "p"))
    assert quotas.quota("ant/y").used == 24
    assert quotas.quota("ant").used == 16
    assert quotas.home_room("ant/x", DUE) == 32


def test_guarantees_beyond_the_entitlement_leave_nothing_to_share() -> None:
    quotas = tree(Queue(id="ant/x"), Queue(id="ant/y", quotas=quota(80, lending=0)))
    assert quotas.home_room("ant/x", DUE) == 0


def test_the_plan_keeps_a_sibling_out_of_a_ring_fence_even_on_loan() -> None:
    fleet = harness(Queue(id="ant/x"), Queue(id="ant/y", quotas=quota(32, lending=0)))
    for _ in range(10):
        fleet.submit("ant/x", 8)
    fleet.tick()
    account = fleet.state.books["p"]["ant"]
    assert (account.home, account.borrowed) == (32, 48)
    fleet.submit("ant/y", 32)
    fleet.tick()
    assert fleet.plan.events[-1].job == 11  # type: ignore[union-attr]


def test_a_borrowing_limit_at_the_root_caps_what_the_owner_borrows() -> None:
    fleet = harness(Queue(id="ant", quotas=quota(0, borrowing=8)), Queue(id="ant/x"))
    for _ in range(12):
        fleet.submit("ant/x", 8)
    fleet.tick()
    assert fleet.state.books["p"]["ant"].borrowed == 8


def test_what_a_quota_refuses_is_not_tried_again_for_the_queues_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty projects below a full quota cost one try; the queue with a quota of its own still has its turn."""
    projects = [Queue(id=f"ant/x/p{number}") for number in range(40)]
    queues = [Queue(id="ant/x", quotas=quota(8, borrowing=0)), *projects, Queue(id="ant/y", quotas=quota(8))]
    fleet = harness(*queues)
    fleet.submit("ant/x/p0", 8)
    fleet.tick()
    tried: list[str] = []
    room = Board.home_room

    def spy(board: Board, job: Job, pool: str) -> int:
        tried.append(job.spec.queue)
        return room(board, job, pool)

    monkeypatch.setattr(Board, "home_room", spy)
    for project in projects:
        fleet.submit(project.id, 8, pools=("p",))
    last = fleet.submit("ant/y", 8, pools=("p",))
    made = plan(fleet.state, fleet.now_ms)
    assert [event.job for event in made.events if isinstance(event, AttemptPlaced)] == [last]
    assert len(set(tried) - {"ant/y"}) == 1
