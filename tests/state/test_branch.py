"""A branch starts as its state is, and neither notices what the other does."""

import pytest

from pumasi.control.commands import CancelJob
from pumasi.state import snapshot
from pumasi.state.branch import branch
from pumasi.state.invariants import violations
from pumasi.testing.builders import START_MS
from pumasi.twin.run import look_ahead, simulate
from tests.twin.fleets import HOUR_MS, drawn_jobs, scenario, village
from tests.twin.test_faults import TERRIBLE


def busy_state(seed: int):
    """A state in the midst of things: running, waiting and borrowing jobs, broken nodes, reservations."""
    until_ms = START_MS + (6 + seed) * HOUR_MS
    jobs = drawn_jobs(600, ("a", "b"), seed, mean_gap_ms=60_000)
    world = scenario(seed=seed, faults=TERRIBLE, until_ms=until_ms)
    return simulate(village({"a": 64, "b": 64}, pools=2), jobs, world)


@pytest.mark.parametrize("seed", range(3))
def test_a_branch_is_equal_and_sound(seed):
    state = busy_state(seed).state
    twin = branch(state)
    assert len(state.jobs) > 20
    assert snapshot.digest(twin) == snapshot.digest(state)
    assert not violations(twin)


@pytest.mark.parametrize("seed", range(3))
def test_neither_notices_the_other(seed):
    """Both go on with other jobs and other faults: the one that stood still is as it was, and both stay sound."""
    outcome = busy_state(seed)
    plane = outcome.plane
    before, ledger = snapshot.digest(plane.state), plane.ledger.statement(plane.state.at_ms)
    day = scenario(seed=9, until_ms=plane.now_ms() + 24 * HOUR_MS, check_every_cycles=1)
    first = look_ahead(plane, [], day)
    assert snapshot.digest(plane.state) == before and plane.ledger.statement(plane.state.at_ms) == ledger
    assert not first.violations and snapshot.digest(first.state) != before
    assert len(first.state.jobs) < len(plane.state.jobs)
    second = look_ahead(plane, [], day)
    assert snapshot.digest(second.state) == snapshot.digest(first.state)
    for job in list(plane.state.jobs)[::2]:
        plane.execute(CancelJob(by="test", job=job))
    assert not violations(plane.state)
    assert snapshot.digest(second.state) == snapshot.digest(first.state)
