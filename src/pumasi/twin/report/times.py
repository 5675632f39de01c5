"""Ticks of time axes, and times in words. Days are those of Korea."""

from datetime import date, datetime, timedelta, timezone

KOREA = timezone(timedelta(hours=9))
DAY_MS = 86_400_000
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
SHORT_DAYS = 365
SHORT_SECONDS = 600  # below that, minutes are told with their seconds

DayTick = tuple[float, str, str]  # place, ISO day, label ("" for none)


def wait_ticks() -> list[tuple[float, str]]:
    """Round waits on a logarithmic axis."""
    named = ((SECOND, "1 s"), (MINUTE, "1 min"), (HOUR, "1 h"), (DAY_MS, "1 d"), (7 * DAY_MS, "7 d"))
    return [(float(at), name) for at, name in named]


def day_ticks(from_ms: int, until_ms: int, about: int = 6) -> list[tuple[float, str]]:
    """Midnights, at most about so many."""
    days = max(1, -(-(until_ms - from_ms) // DAY_MS))
    step = -(-days // about)
    return [(float(at), f"{_day(at):%d %b}") for at in range(from_ms, until_ms + 1, step * DAY_MS)]


def month_ticks(first: str, last: str) -> list[DayTick]:
    """The first of every month from one ISO day to past another; years are labelled, of a short time months too."""
    day = date.fromisoformat(first).replace(day=1)
    end = date.fromisoformat(last) + timedelta(days=62)
    is_short = (end - day).days < SHORT_DAYS
    found: list[DayTick] = []
    while day <= end:
        label = f"{day:%b %Y}" if is_short else str(day.year) if day.month == 1 else ""
        found.append((float(day.toordinal()), day.isoformat(), label))
        day = (day + timedelta(days=32)).replace(day=1)
    return found


def _day(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, KOREA)


def in_words(milliseconds: int) -> str:
    """A length of time, with two units at most: `4 d 3 h`, `12 min`, `5 min 20 s`, `35 s`."""
    seconds = abs(milliseconds) // 1000
    sign = "−" if milliseconds < 0 and seconds else ""
    for size, name, smaller, smaller_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = 0 if size == 60 and seconds >= SHORT_SECONDS else seconds % size // smaller
            return f"{sign}{seconds // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{sign}{seconds} s"
