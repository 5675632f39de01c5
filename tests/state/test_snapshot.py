"""Snapshots: what is saved and loaded is the same state, and goes on the same way."""

import msgspec
import pytest

from pumasi.events.facts import NodeState
from pumasi.scheduler.plan import plan
from pumasi.state import snapshot
from pumasi.state.invariants import violations
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness


def busy_fleet() -> Harness:
    """Home work, loans, a reclaim under way, a drained node and a waiting job."""
    owners = [owner("ant", 100, notice_seconds=60), owner("bee")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 48, "bee": 16})]))
    for _ in range(8):
        fleet.submit("bee", 8)
    fleet.tick()
    fleet.set_node("p", 2, NodeState.DRAINED)
    fleet.submit("ant", 16)
    fleet.tick()
    assert fleet.state.reservations
    return fleet


def test_a_loaded_state_is_the_same_and_decides_the_same() -> None:
    fleet = busy_fleet()
    loaded = snapshot.load(snapshot.save(fleet.state))
    assert snapshot.digest(loaded) == snapshot.digest(fleet.state)
    assert violations(loaded) == []
    later_ms = fleet.now_ms + 60_000
    assert plan(loaded, later_ms) == plan(fleet.state, later_ms)


def test_loading_and_saving_is_stable() -> None:
    body = snapshot.save(busy_fleet().state)
    assert snapshot.save(snapshot.load(body)) == body


def test_a_damaged_snapshot_is_refused() -> None:
    body = snapshot.save(busy_fleet().state)
    with pytest.raises(msgspec.MsgspecError):
        snapshot.load(body[: len(body) // 2])
