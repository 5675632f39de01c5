"""Clocks never run back."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pumasi.adapters.clocks import ScaledClock, SystemClock
from pumasi.testing.clocks import ManualClock


def _served(readings: list[int]) -> Iterator[int]:
    return iter([reading * 1_000_000 for reading in readings])


@given(some.lists(some.integers(0, 10**13), min_size=1))
def test_the_system_clock_stands_still_while_the_wall_clock_is_set_back(readings: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        wall = _served(readings)
        patch.setattr(time, "time_ns", lambda: next(wall))
        clock = SystemClock(not_before_ms=5)
        told = [clock.now_ms() for _ in readings]
    assert told == [max(5, *readings[: count + 1]) for count in range(len(readings))]


def test_the_system_clock_tells_the_time() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().now_ms() <= time.time_ns() // 1_000_000


def test_the_scaled_clock_runs_at_its_rate_from_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = _served([1000, 1000, 1001, 61_000])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(passed))
    clock = ScaledClock(rate=60, origin_ms=1_800_000_000_000)
    assert [clock.now_ms() - 1_800_000_000_000 for _ in range(3)] == [0, 60, 3_600_000]


@pytest.mark.parametrize("rate", [0, -1])
def test_a_clock_that_would_not_run_forward_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="must run forward"):
        ScaledClock(rate=rate, origin_ms=0)


def test_the_manual_clock_moves_when_told_and_only_forward() -> None:
    clock = ManualClock(100)
    assert (clock.now_ms(), clock.advance(50), clock.now_ms()) == (100, 150, 150)
    with pytest.raises(ValueError, match="never runs back"):
        clock.advance(-1)
