"""Lending contracts as the plan file writes them, and their weekly windows."""

import re

from pumasi.model.fleet import CalendarWindow, LendingContract, OwnerKind
from pumasi.plans.problems import quoted, suggestion
from pumasi.plans.section import Section

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
RECLAIM_LIMIT_SECONDS = 30 * 24 * 3600
EVICTED_PERCENT_LIMIT = 1_000_000

_WINDOW = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_WINDOW_RULE = "a window looks like 'mon-fri 20:00-08:00' or 'sat 00:00-24:00', Korean time"


def read_lending(owner: Section) -> LendingContract:
    """The `lending` of an owner; the default lends nothing."""
    section = owner.section("lending")
    contract = LendingContract(
        lendable_percent=section.integer("lendable_percent", 0, maximum=100),
        lending_limits=section.integers("lending_limits"),
        refuses_owners=section.words("refuses_owners"),
        refuses_kinds=_kinds(section),
        windows=_windows(section),
        notice_seconds=section.integer("notice_seconds", 300, maximum=RECLAIM_LIMIT_SECONDS),
        protected_seconds=section.integer("protected_seconds", 0, maximum=RECLAIM_LIMIT_SECONDS),
        teardown_seconds=section.integer("teardown_seconds", 120, maximum=RECLAIM_LIMIT_SECONDS),
        evicted_percent_max=section.integer("evicted_percent_max", 0, maximum=EVICTED_PERCENT_LIMIT),
    )
    if 0 < contract.evicted_percent_max < 100:
        section.complain(
            "evicted_percent_max", "who claims GPUs may have as many evicted: 100 or more, or 0 for no bound"
        )
    section.finish()
    return contract


def _kinds(section: Section) -> tuple[OwnerKind, ...]:
    known = [kind.value for kind in OwnerKind]
    words = section.words("refuses_kinds")
    for word in words:
        if word not in known:
            section.complain("refuses_kinds", f"{quoted(word)} is no kind of owner{suggestion(word, known)}")
    return tuple(OwnerKind(word) for word in words if word in known)


def _windows(section: Section) -> tuple[CalendarWindow, ...]:
    found: list[CalendarWindow] = []
    for text in section.words("windows"):
        windows = parse_window(text)
        if not windows:
            section.complain("windows", f"{quoted(text)} is no window; {_WINDOW_RULE}")
        found.extend(windows)
    return tuple(found)


def parse_window(text: str) -> tuple[CalendarWindow, ...]:
    """`mon-fri 20:00-08:00` as windows within days (a night is two of them); none if `text` is no window."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        return ()
    days = _days(match[1], match[2] or match[1])
    from_minute, to_minute = _minute(match[3], match[4]), _minute(match[5], match[6])
    if not days or from_minute is None or to_minute is None or from_minute in {to_minute, DAY_MINUTES}:
        return ()
    if from_minute < to_minute:
        return (CalendarWindow(days=days, from_minute=from_minute, to_minute=to_minute),)
    evening = CalendarWindow(days=days, from_minute=from_minute, to_minute=DAY_MINUTES)
    next_days = tuple(sorted((day + 1) % 7 for day in days))
    morning = CalendarWindow(days=next_days, from_minute=0, to_minute=to_minute)
    return (evening, morning) if to_minute else (evening,)


def _days(first: str, last: str) -> tuple[int, ...]:
    if first not in DAYS or last not in DAYS:
        return ()
    start = DAYS.index(first)
    count = (DAYS.index(last) - start) % 7 + 1
    return tuple(sorted((start + step) % 7 for step in range(count)))


def _minute(hour: str, minute: str) -> int | None:
    total = int(hour) * 60 + int(minute)
    return total if int(minute) < 60 and total <= DAY_MINUTES else None
