"""A planner that remembers decides, in every cycle of a long story, what one that knows nothing decides."""

import pytest

from pumasi.scheduler.board import Board
from pumasi.scheduler.planner import Planner
from tests.scheduler.test_lone import story

# Seeds that once told the two apart: a start planned and broken within a cycle; a loan that left a planned start its
# entitlement only once somebody else had come home; a need of which every job had a reservation.
SEDATE = (8, 716)
BUSY = (22, 29, 44, 62, 156, 161, 173, 788, 825, 833)


@pytest.mark.parametrize(("seed", "gap_minutes"), [*((seed, 4) for seed in SEDATE), *((seed, 1) for seed in BUSY)])
def test_memory_changes_no_decision(seed: int, gap_minutes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decide, cycles = Planner.decide, 0

    def compared(planner: Planner, now_ms: int) -> Board:
        nonlocal cycles
        cycles += 1
        board = decide(planner, now_ms)
        assert board.events == decide(Planner(planner.state), now_ms).events
        return board

    monkeypatch.setattr(Planner, "decide", compared)
    story(seed, gap_minutes)
    assert cycles > 100
