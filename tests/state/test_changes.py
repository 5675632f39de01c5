"""What a planner is told of changes: whoever looks often misses none, however many there have been."""

from pumasi.state.backlog import MOVES_KEPT, Changes


def test_of_very_many_moves_the_last_are_still_known() -> None:
    changes = Changes()
    for job in range(MOVES_KEPT + 1):
        changes.move("p", job)
    seen = MOVES_KEPT - 1
    assert changes.moved_before <= seen
    assert list(changes.moved_since(seen)["p"]) == [MOVES_KEPT - 1, MOVES_KEPT]
    assert len(changes.moved) <= MOVES_KEPT
