"""Moments as callers read and write them: RFC 3339 in UTC with milliseconds."""

from datetime import UTC, date, datetime, timedelta

from pumasi.model.calendar import day_begins_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1)
_LAST_MS = 253_402_300_799_999  # the end of the year 9999


def rfc3339(at_ms: int) -> str:
    """Unix milliseconds as `2026-11-25T03:04:05.678Z`."""
    moment = _EPOCH + timedelta(milliseconds=min(max(at_ms, 0), _LAST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(at_ms: int) -> str | None:
    """As `rfc3339`; None for 0, which stands for "not yet"."""
    return rfc3339(at_ms) if at_ms else None


def parse_moment(text: str) -> int | None:
    """Unix milliseconds of an RFC 3339 moment, or of the Korean midnight a bare date begins at; None if neither."""
    try:
        if len(text) == len("2026-11-25"):
            return day_begins_ms((date.fromisoformat(text) - _EPOCH_DAY).days)
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        return None
    return (parsed - _EPOCH) // timedelta(milliseconds=1)
