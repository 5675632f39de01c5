"""Fair share: least use for its weight goes first, at every level, and within a queue priority, then age."""

import gc

from pumasi.events.facts import AttemptPlaced
from pumasi.model.fleet import Policy, Queue
from pumasi.scheduler.fairshare import ShareNode
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness


def harness(*queues: Queue, gpus: int = 64, half_life_seconds: int = 3600) -> Harness:
    """Ant's GPUs, shared by these queues."""
    policy = Policy(usage_half_life_seconds=half_life_seconds)
    return Harness(fleet_facts([owner("ant")], [pool("p", {"ant": gpus})], queues, policy=policy))


def order(fleet: Harness) -> list[str]:
    """The queues of the jobs one cycle places, in order."""
    return [event.queue for event in fleet.tick().events if isinstance(event, AttemptPlaced)]


def test_equal_queues_take_turns() -> None:
    fleet = harness(Queue(id="ant/x"), Queue(id="ant/y"))
    for queue in ("ant/x", "ant/x", "ant/x", "ant/y", "ant/y"):
        fleet.submit(queue, 8)
    assert order(fleet) == ["ant/x", "ant/y", "ant/x", "ant/y", "ant/x"]


def test_weights_divide_what_there_is() -> None:
    fleet = harness(Queue(id="ant/x", weight=1), Queue(id="ant/y", weight=3))
    for queue in ("ant/x", "ant/y"):
        for _ in range(8):
            fleet.submit(queue, 8)
    placed = order(fleet)
    assert (placed.count("ant/x"), placed.count("ant/y")) == (2, 6)


def test_shares_are_hierarchical() -> None:
    """A group with two busy projects gets no more than a group with one."""
    fleet = harness(*(Queue(id=name) for name in ("ant/x", "ant/x/a", "ant/x/b", "ant/y", "ant/y/c")))
    for queue in ("ant/x/a", "ant/x/b", "ant/y/c"):
        for _ in range(8):
            fleet.submit(queue, 8)
    placed = order(fleet)
    assert [placed.count(queue) for queue in ("ant/x/a", "ant/x/b", "ant/y/c")] == [2, 2, 4]


def test_a_queue_s_own_work_is_one_more_child() -> None:
    fleet = harness(Queue(id="ant/x"), Queue(id="ant/x/a"), gpus=32)
    for queue in ("ant/x", "ant/x/a"):
        for _ in range(4):
            fleet.submit(queue, 8)
    placed = order(fleet)
    assert (placed.count("ant/x"), placed.count("ant/x/a")) == (2, 2)


def test_what_a_queue_got_at_home_counts_where_it_borrows_beside_the_queues_below_it() -> None:
    """Ant/x itself and ant/x/a both ask for the last GPUs that bee lends; ant/x has just got eight at home."""
    halls = [pool("p", {"ant": 8}), pool("q", {"bee": 16})]
    queues = [Queue(id="ant/x"), Queue(id="ant/x/a")]
    fleet = Harness(fleet_facts([owner("ant"), owner("bee", 100)], halls, queues))
    fleet.submit("ant/x/a", 4, pools=("q",))
    fleet.tick()
    fleet.submit("ant/x", 8)
    fleet.submit("ant/x", 8)
    fleet.submit("ant/x/a", 8, pools=("q",))
    assert order(fleet) == ["ant/x", "ant/x/a"]


def test_a_tree_is_gone_with_its_last_user() -> None:
    """A tree that only the garbage collector could free would make every few plans pause for it."""
    fleet = harness(*(Queue(id=name) for name in ("ant/x", "ant/x/a", "ant/x/b", "ant/y")))
    for queue in ("ant/x/a", "ant/x/b", "ant/x", "ant/y"):
        fleet.submit(queue, 8)
    gc.collect()
    gc.disable()
    try:
        assert order(fleet) == ["ant/x/a", "ant/y", "ant/x/b", "ant/x"]
        assert not any(isinstance(thing, ShareNode) for thing in gc.get_objects())
    finally:
        gc.enable()


def test_priority_goes_first_within_a_queue_only() -> None:
    fleet = harness(Queue(id="ant/x"), Queue(id="ant/y"), gpus=16)
    fleet.submit("ant/x", 8)
    urgent = fleet.submit("ant/x", 8, priority=9)
    fleet.submit("ant/y", 8)
    placed = [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)]
    assert placed == [urgent, 3]


def test_past_use_counts_and_fades() -> None:
    fleet = harness(Queue(id="ant/x"), Queue(id="ant/y"), gpus=8)
    fleet.submit("ant/x", 8)
    fleet.tick()
    fleet.wait(3600)
    first, second = fleet.submit("ant/x", 8), fleet.submit("ant/y", 8)
    assert order(fleet) == ["ant/y"]
    fleet.wait(100 * 3600)
    record = fleet.state.queues["ant/y"]
    assert record.past_at(fleet.now_ms, 3600 * 1000) == 0
    assert (first, second) == (2, 3)


def test_a_blocked_gang_lets_others_pass() -> None:
    fleet = harness(Queue(id="ant/x"), gpus=64)
    fleet.submit("ant/x", 8)
    fleet.tick()
    gang, small = fleet.submit("ant/x", 64), fleet.submit("ant/x", 8)
    plan = fleet.tick()
    assert [event.job for event in plan.events if isinstance(event, AttemptPlaced)] == [small]
    assert gang in plan.reasons


def test_a_job_waits_for_its_begin_time() -> None:
    fleet = harness(Queue(id="ant/x"))
    job = fleet.submit("ant/x", 8, begin_at_ms=fleet.now_ms + 60_000)
    plan = fleet.tick()
    assert plan.reasons[job].first.code == "begin_time"
    assert fleet.told_start_ms(job) == fleet.now_ms + 60_000
    fleet.wait(60)
    assert order(fleet) == ["ant/x"]


def test_weights_that_share_no_factor_compare_exactly() -> None:
    """997 and 991 GPU-shares: after many placements the counts are what exact arithmetic gives."""
    fleet = harness(Queue(id="ant/x", weight=997), Queue(id="ant/y", weight=991), gpus=800)
    for queue in ("ant/x", "ant/y"):
        for _ in range(100):
            fleet.submit(queue, 8)
    placed = order(fleet)
    assert (placed.count("ant/x"), placed.count("ant/y")) == (50, 50)
