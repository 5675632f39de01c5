"""Times: RFC 3339 from the API, local time for people, Slurm's `--begin` forms into Unix milliseconds."""

import re
from datetime import UTC, datetime, timedelta

from pumasi.cli.durations import parse_duration

BEGIN_FORMS = "now, now+2h, HH:MM[:SS], YYYY-MM-DD[THH:MM[:SS]], today, tomorrow, midnight, noon"

_NOW_PLUS = re.compile(r"now\+(\d{1,9})(seconds?|minutes?|hours?|days?|weeks?)?", re.ASCII)
_UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_FIXED_HOURS = {"midnight": 0, "elevenses": 11, "noon": 12, "fika": 15, "teatime": 16}


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None for none."""
    return datetime.fromisoformat(text) if text else None


def format_time(text: str | None) -> str:
    """A time in the user's zone to the second, as sacct writes it; "-" for none."""
    time = parse_time(text)
    return time.astimezone().strftime("%Y-%m-%dT%H:%M:%S") if time else "-"


def seconds_between(since: str | None, until: str | None) -> int:
    """Whole seconds between two times, 0 if either is missing."""
    first, last = parse_time(since), parse_time(until)
    return int((last - first) / timedelta(seconds=1)) if first and last else 0


def parse_begin(text: str, now: datetime) -> int | None:
    """Unix milliseconds that `--begin=text` stands for at `now` (in the zone of `now`), or None if it is no time."""
    text = text.strip()
    try:
        moment = _relative(text, now) or _time_of_day(text, now) or _date(text, now)
    except OverflowError:  # a date beyond the calendar
        return None
    return None if moment is None else int((moment - datetime.fromtimestamp(0, UTC)) / timedelta(milliseconds=1))


def _relative(text: str, now: datetime) -> datetime | None:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"now": now, "today": midnight, "tomorrow": midnight + timedelta(days=1)}
    if text in words:
        return words[text]
    match = _NOW_PLUS.fullmatch(text)
    if match:
        unit = (match[2] or "second").removesuffix("s")
        return now + timedelta(seconds=int(match[1]) * _UNIT_SECONDS[unit])
    seconds = parse_duration(text.removeprefix("now+")) if text.startswith("now+") else None
    return None if seconds is None else now + timedelta(seconds=seconds)


def _time_of_day(text: str, now: datetime) -> datetime | None:
    """The next time the clock shows it."""
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", text, re.ASCII)
    if text in _FIXED_HOURS:
        hour, minute, second = _FIXED_HOURS[text], 0, 0
    elif match:
        hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    else:
        return None
    moment = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    return moment if moment > now else moment + timedelta(days=1)


def _date(text: str, now: datetime) -> datetime | None:
    if not re.match(r"\d{4}-\d{2}-\d{2}(T|$)", text, re.ASCII):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
