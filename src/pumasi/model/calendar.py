"""Days as the fleet counts them: those of the Korean calendar, whatever clock a machine shows."""

import re
from datetime import date

DAY_MS = 24 * 3600 * 1000
KOREA_OFFSET_MS = 9 * 3600 * 1000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date.max.toordinal() - _EPOCH_DAY


def day_of(at_ms: int) -> int:
    """The Korean day a moment (Unix milliseconds) falls in, in days since 1970-01-01."""
    return (at_ms + KOREA_OFFSET_MS) // DAY_MS


def day_begins_ms(day: int) -> int:
    """Unix milliseconds of the midnight in Korea at which a day begins."""
    return day * DAY_MS - KOREA_OFFSET_MS


def day_name(day: int) -> str:
    """A day as an ISO date, such as `2026-11-25`; a day beyond the calendar's end is its last."""
    return date.fromordinal(_EPOCH_DAY + min(day, _LAST_DAY)).isoformat()


def is_day(text: str) -> bool:
    """True if `text` is a day of the calendar in the form 2027-12-31."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is None:
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
