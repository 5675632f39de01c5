"""Begin times as sbatch reads them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pumasi.cli.times import format_time, parse_begin, seconds_between

SEOUL = timezone(timedelta(hours=9))
NOW = datetime(2027, 1, 31, 10, 0, tzinfo=SEOUL)


def _at(text: str) -> datetime | None:
    begin_at_ms = parse_begin(text, NOW)
    return None if begin_at_ms is None else datetime.fromtimestamp(begin_at_ms / 1000, UTC).astimezone(SEOUL)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("now+60", NOW + timedelta(seconds=60)),
        ("now+2hours", NOW + timedelta(hours=2)),
        ("now+1week", NOW + timedelta(weeks=1)),
        ("now+90m", NOW + timedelta(minutes=90)),
        ("16:00", NOW.replace(hour=16)),
        ("09:30", datetime(2027, 2, 1, 9, 30, tzinfo=SEOUL)),
        ("noon", NOW.replace(hour=12)),
        ("midnight", datetime(2027, 2, 1, tzinfo=SEOUL)),
        ("tomorrow", datetime(2027, 2, 1, tzinfo=SEOUL)),
        ("2027-03-01", datetime(2027, 3, 1, tzinfo=SEOUL)),
        ("2027-03-01T08:30", datetime(2027, 3, 1, 8, 30, tzinfo=SEOUL)),
        ("2027-03-01T08:30:00Z", datetime(2027, 3, 1, 17, 30, tzinfo=SEOUL)),
    ],
)
def test_reads_begin_times(text: str, moment: datetime) -> None:
    assert _at(text) == moment


@pytest.mark.parametrize("text", ["", "soon", "25:00", "now+", "now-1", "2027-02-30", "now+999999999weeks", "1e9"])
def test_refuses_what_is_no_time(text: str) -> None:
    assert _at(text) is None


def test_no_time_is_a_dash() -> None:
    assert format_time(None) == "-"
    assert seconds_between(None, "2027-01-31T00:00:00.000Z") == 0
