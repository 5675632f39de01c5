"""The shares of queues: what they are, that the order of placement tends to them, and that nothing stale is kept."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pumasi.events.facts import Event
from pumasi.model.fleet import BorrowOrder, Policy, Queue, Quota
from pumasi.scheduler.max_min import UNIT, Claims, divide
from pumasi.scheduler.shares import Shares
from pumasi.testing.builders import HOUR_SECONDS, fleet_facts, owner, pool
from pumasi.testing.harness import Harness
from tests.scheduler.fleets import Step, fleets, play, steps
from tests.scheduler.test_fairshare import harness


def shares_of(fleet: Harness, *queues: str) -> list[int]:
    """GPUs due to each queue in all pools."""
    shares = Shares(fleet.state)
    shares.refresh(fleet.now_ms)
    return [sum(shares.of(queue).values()) for queue in queues]


def test_a_queue_is_due_no_more_than_it_wants() -> None:
    fleet = harness(Queue(id="ant/x", weight=3), Queue(id="ant/y"), Queue(id="ant/z"))
    for queue, jobs in (("ant/x", 1), ("ant/y", 9), ("ant/z", 9)):
        for _ in range(jobs):
            fleet.submit(queue, 8)
    assert shares_of(fleet, "ant", "ant/x", "ant/y", "ant/z") == [64, 8, 28, 28]


def test_a_queues_own_jobs_are_one_more_child() -> None:
    fleet = harness(Queue(id="ant/x", weight=3), Queue(id="ant/x/a", weight=3), gpus=64)
    for queue in ("ant", "ant/x", "ant/x/a"):
        for _ in range(8):
            fleet.submit(queue, 8)
    assert shares_of(fleet, "ant", "ant/x", "ant/x/a") == [64, 48, 36]


def test_past_use_counts_and_what_runs_elsewhere_too() -> None:
    fleet = Harness(
        fleet_facts(
            [owner("ant")],
            [pool("p", {"ant": 32}), pool("q", {"ant": 32})],
            [Queue(id="ant/x"), Queue(id="ant/y")],
            policy=Policy(usage_half_life_seconds=HOUR_SECONDS),
        )
    )
    fleet.submit("ant/x", 16, pools=("q",))
    fleet.tick()
    for queue in ("ant/x", "ant/y"):
        for _ in range(4):
            fleet.submit(queue, 8, pools=("p",))
    shares = Shares(fleet.state)
    shares.refresh(fleet.now_ms)
    assert shares.of("ant/x") == {"p": 8, "q": 16}, "it has 16 in q: 24 and 24 in all"
    assert shares.of("ant/y") == {"p": 24}
    fleet.wait(HOUR_SECONDS)
    assert shares_of(fleet, "ant/x", "ant/y") == [8, 24], "16 GPUs for a half-life count like 16 GPUs"
    fleet.wait(HOUR_SECONDS)
    assert shares_of(fleet, "ant/x", "ant/y") == [12, 20], "and once halved like 8"


def test_quotas_hold() -> None:
    kept = {"p": Quota(nominal=40, lending_limit=0)}
    capped = {"p": Quota(nominal=8, borrowing_limit=4)}
    fleet = harness(Queue(id="ant/x", quotas=kept), Queue(id="ant/y", quotas=capped), Queue(id="ant/z"))
    for queue, jobs in (("ant/x", 1), ("ant/y", 9), ("ant/z", 9)):
        for _ in range(jobs):
            fleet.submit(queue, 4)
    assert shares_of(fleet, "ant/x", "ant/y", "ant/z") == [4, 12, 12], "36 of 64 are kept for x alone"


def test_work_that_may_run_in_several_pools_counts_in_each_for_its_part() -> None:
    fleet = Harness(fleet_facts([owner("ant")], [pool("p", {"ant": 96}), pool("q", {"ant": 32})]))
    for _ in range(4):
        fleet.submit("ant", 16)
    shares = Shares(fleet.state)
    shares.refresh(fleet.now_ms)
    assert shares.of("ant") == {"p": 48, "q": 16}


@st.composite
def trees(draw: st.DrawFn) -> list[Queue]:
    """Groups with projects, of all weights."""
    weights = st.sampled_from((1, 1, 2, 5, 100))
    names = [f"ant/{group}" for group in "xyz"[: draw(st.integers(1, 3))]]
    names += [f"{group}/{project}" for group in names for project in "abc"[: draw(st.integers(0, 3))]]
    return [Queue(id=name, weight=draw(weights)) for name in names]


@settings(max_examples=60, deadline=None)
@given(tree=trees(), size=st.sampled_from((1, 2, 4, 8)), data=st.data())
def test_what_is_placed_tends_to_the_shares(tree: list[Queue], size: int, data: st.DataObject) -> None:
    """Small jobs wait in the queues: nobody is given more than its share and one job for each level of the tree."""
    fleet = harness(*tree, gpus=128)
    for queue in tree:  # some have used more than others
        fleet.submit(queue.id, size, time_limit_seconds=data.draw(st.sampled_from((60, 600, 6000))))
    fleet.tick()
    fleet.wait(7200)
    for queue in tree:
        for _ in range(data.draw(st.sampled_from((0, 1, 3, 40)))):
            fleet.submit(queue.id, size)
    due = dict(zip((queue.id for queue in tree), shares_of(fleet, *(queue.id for queue in tree)), strict=True))
    wanted = sum(job.spec.gpus for job in fleet.state.jobs.values())
    fleet.tick()
    assert fleet.state.queues["ant"].gpus_in_use == min(128, wanted)
    for queue in tree:
        levels = queue.id.count("/")
        assert fleet.state.queues[queue.id].gpus_in_use <= due[queue.id] + levels * (size + 1)


@settings(max_examples=60, deadline=None)
@given(tree=trees(), data=st.data())
def test_work_that_is_split_makes_the_same_shares(tree: list[Queue], data: st.DataObject) -> None:
    """A queue is due no more and no less for sending many small jobs instead of a few large ones."""
    whole, split = harness(*tree, gpus=128), harness(*tree, gpus=128)
    for queue in tree:
        parts = data.draw(st.lists(st.sampled_from((1, 2, 4)), max_size=6))
        for _ in range(data.draw(st.sampled_from((0, 1, 1, 3))) if parts else 0):
            whole.submit(queue.id, 8 * len(parts))
            for part in parts:
                for _ in range(8 // part):
                    split.submit(queue.id, part)
    names = [queue.id for queue in tree]
    assert shares_of(split, *names) == shares_of(whole, *names)


@settings(max_examples=60, deadline=None)
@given(
    nodes=st.tuples(*[st.integers(1, 4)] * 3),
    balances=st.tuples(*[st.integers(-20, 20)] * 3),
    jobs=st.tuples(*[st.sampled_from((0, 2, 8, 30))] * 3),
    order=st.sampled_from(BorrowOrder),
)
def test_what_is_lent_is_shared_by_max_min_with_credit_as_past_use(
    nodes: tuple[int, ...], balances: tuple[int, ...], jobs: tuple[int, ...], order: BorrowOrder
) -> None:
    """No borrower is given more than one job above its share of 12 idle nodes; the level is what it owes."""
    names, half_life_ms = ("bee", "cat", "dog"), HOUR_SECONDS * 1000
    owners = [owner("ant", lends=100), *(owner(name) for name in names)]
    entitled = {"ant": 96} | {name: 8 * count for name, count in zip(names, nodes, strict=True)}
    policy = Policy(usage_half_life_seconds=HOUR_SECONDS, borrow_order=order)
    fleet = Harness(fleet_facts(owners, [pool("hall", entitled)], policy=policy))
    for name, credit, count in zip(names, balances, jobs, strict=True):
        fleet.state.owners[name].credit_gpu_milliseconds = 8 * credit * half_life_ms
        for _ in range(count):
            fleet.submit(name, 8)
    fleet.tick()
    owed = [-8 * credit * UNIT if order is BorrowOrder.CREDIT else 0 for credit in balances]
    most = [max(0, 8 * (count - home)) for home, count in zip(nodes, jobs, strict=True)]
    claims = Claims(np.array([0]), np.array(nodes), np.array(owed), np.zeros(3, np.int64), np.array(most))
    due = divide(np.array([min(96, sum(most))]), claims)
    borrowed = [fleet.state.books["hall"][name].borrowed for name in names]
    assert sum(borrowed) == int(due.sum())
    assert all(gpus <= int(share) + 8 for gpus, share in zip(borrowed, due, strict=True))


@settings(max_examples=40, deadline=None)
@given(fleet=fleets(), story=st.lists(steps(), min_size=5, max_size=12))
def test_shares_kept_are_shares_worked_out_anew(fleet: list[Event], story: list[Step]) -> None:
    told = Harness(fleet)
    kept = Shares(told.state)
    for step in story:
        play(told, step)
        kept.refresh(told.now_ms)
        anew = Shares(told.state)
        anew.refresh(told.now_ms)
        for queue in told.state.queues:
            assert kept.of(queue) == anew.of(queue)
        for pool_id, books in told.state.books.items():
            for name, account in books.items():
                assert kept.of(name).get(pool_id, 0) <= account.due
