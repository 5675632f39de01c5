"""A queue of strict order: the first job that cannot start blocks those behind it, and nobody else."""

from pumasi.events.facts import AttemptPlaced
from pumasi.model.fleet import Queue, QueueOrder
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness


def harness() -> Harness:
    queues = [Queue(id="ant/x", order=QueueOrder.STRICT), Queue(id="ant/y")]
    return Harness(fleet_facts([owner("ant")], [pool("p", {"ant": 64})], queues))


def placed(fleet: Harness) -> list[int]:
    return [event.job for event in fleet.tick().events if isinstance(event, AttemptPlaced)]


def test_the_first_that_cannot_start_blocks_its_queue_alone() -> None:
    fleet = harness()
    running = fleet.submit("ant/x", 8)
    assert placed(fleet) == [running]
    gang, behind, other = fleet.submit("ant/x", 64), fleet.submit("ant/x", 8), fleet.submit("ant/y", 8)
    assert placed(fleet) == [other]
    assert fleet.plan.reasons[behind].first.code == "queue_order"
    assert f"job {gang}" in fleet.plan.reasons[behind].first.detail
    fleet.end(running)
    assert placed(fleet) == []
    fleet.end(other)
    assert placed(fleet) == [gang]


def test_whoever_stood_behind_a_blocker_goes_when_it_is_cancelled() -> None:
    fleet = harness()
    fleet.submit("ant/y", 8)
    fleet.tick()
    gang, behind = fleet.submit("ant/x", 64), fleet.submit("ant/x", 8)
    assert placed(fleet) == []
    fleet.cancel(gang)
    assert placed(fleet) == [behind]


def test_a_job_whose_begin_time_has_not_come_blocks_nobody() -> None:
    fleet = harness()
    later = fleet.submit("ant/x", 8, begin_at_ms=fleet.now_ms + 60_000)
    behind = fleet.submit("ant/x", 8)
    assert placed(fleet) == [behind]
    fleet.wait(60)
    assert placed(fleet) == [later]


def test_who_stands_behind_a_cancelled_head_has_its_turn_at_once() -> None:
    """Also beside a job of the same need that has a reservation; each tick is held against one without memory."""
    fleet = Harness(
        fleet_facts(
            [owner("ant", 100), owner("bee")],
            [pool("p", {"ant": 24, "bee": 8})],
            [Queue(id="ant", order=QueueOrder.STRICT)],
        )
    )
    for _ in range(4):
        fleet.submit("bee", 8)
    fleet.tick()
    first, head, behind = (fleet.submit("ant", gpus, gpus_per_node=8) for gpus in (16, 16, 8))
    fleet.tick()
    fleet.tick()
    assert set(fleet.state.reservations) == {first}
    fleet.cancel(head)
    fleet.tick()
    assert set(fleet.state.reservations) == {first, behind}
