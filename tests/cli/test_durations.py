"""Durations and GPU-hours, exactly."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.cli.durations import (
    GPU_MILLISECONDS_PER_HOUR,
    format_elapsed,
    format_gpu_hours,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30 * 60),
        ("30:15", 30 * 60 + 15),
        ("02:30:15", 2 * 3600 + 30 * 60 + 15),
        ("1-12", 36 * 3600),
        ("1-12:30", 36 * 3600 + 30 * 60),
        ("1-12:30:15", 36 * 3600 + 30 * 60 + 15),
        ("90m", 5400),
        ("2h", 7200),
        ("1d12h", 36 * 3600),
        ("45s", 45),
        (" 10 ", 600),
    ],
)
def test_reads_every_form_of_slurm(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1:2:3:4", "1-2:3:4:5", "-5", "1.5h", "2 h", "h", "1_0", "٣", "5w", "1-", "nan"])
def test_reads_nothing_else(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(min_value=0, max_value=10**8))
def test_what_is_written_reads_back(seconds: int) -> None:
    text = format_elapsed(seconds)
    assert parse_duration(text) == seconds


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_gpu_hours_are_off_by_at_most_half_a_hundredth(gpu_milliseconds: int) -> None:
    shown = Fraction(format_gpu_hours(gpu_milliseconds).replace(",", ""))
    assert abs(shown - Fraction(gpu_milliseconds, GPU_MILLISECONDS_PER_HOUR)) <= Fraction(1, 200)


@pytest.mark.parametrize(
    ("gpu_milliseconds", "text"),
    [
        (0, "0.00"),
        (3_600_000, "1.00"),
        (4_500_000_000_000, "1,250,000.00"),
        (18_000, "0.01"),
        (17_999, "0.00"),
        (-1, "0.00"),
    ],
)
def test_gpu_hours_for_people(gpu_milliseconds: int, text: str) -> None:
    assert format_gpu_hours(gpu_milliseconds) == text
