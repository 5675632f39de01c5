"""Metering and compliance."""

from pumasi.api.bodies import ReclaimsQuery, UsageQuery
from pumasi.api.call import Call
from pumasi.api.paging import Page, after, page
from pumasi.api.problems import Problem
from pumasi.api.routing import Reach, Table
from pumasi.control.access import Action, Resource
from pumasi.control.views.times import parse_moment
from pumasi.control.views.usage import (
    KEYS,
    ReclaimRow,
    UsageReport,
    in_gpus,
    newest_first,
    reclaim_key,
    reclaim_row,
    reclaim_scopes,
    transfer_scopes,
    usage_report,
)
from pumasi.model.calendar import day_begins_ms, day_of

TABLE = Table("usage")


@TABLE.route("GET", "/v1/usage", Action.USAGE_READ, Reach.ROWS, query=UsageQuery, answer=UsageReport)
async def usage(call: Call) -> UsageReport:
    """Show GPU time from the ledger, summed by any keys."""
    query: UsageQuery = call.query
    by = _keys(query.by)
    now_ms = call.service.plane.now_ms()
    days = _day("from", query.from_, now_ms), _day("until", query.until, now_ms)
    statement = in_gpus(call.state, call.service.plane.ledger.statement(now_ms))
    visible = {key: amount for key, amount in statement.items() if _may_see(call, transfer_scopes(call.state, key))}
    return usage_report(visible, by, days, now_ms)


def _keys(text: str) -> tuple[str, ...]:
    by = tuple(part.strip() for part in text.split(","))
    if not set(by) <= set(KEYS) or len(set(by)) != len(by):
        raise Problem(422, "query-invalid", f"by: a list of different ones of {', '.join(KEYS)}")
    return by


def _day(name: str, text: str, now_ms: int) -> int | None:
    """The Korean day that begins at a moment; the ledger keeps whole days. A moment to come is as good as none."""
    if not text:
        return None
    at_ms = parse_moment(text)
    if at_ms is None:
        raise Problem(422, "query-invalid", f"{name}: write it as 2026-11-25 or 2026-11-25T00:00:00+09:00")
    if name == "until" and at_ms >= now_ms:
        return None
    if day_begins_ms(day_of(at_ms)) != at_ms:
        raise Problem(422, "query-invalid", f"{name}: the ledger keeps whole days; give a midnight in Korea")
    return day_of(at_ms)


@TABLE.route("GET", "/v1/reclaims", Action.USAGE_READ, Reach.ROWS, query=ReclaimsQuery, answer=Page[ReclaimRow])
async def reclaims(call: Call) -> Page[ReclaimRow]:
    """List reclaims, newest first: what was promised and how long it took."""
    query: ReclaimsQuery = call.query
    before = after(query.cursor, tuple[int, int])
    records = call.service.plane.ledger.reclaims
    made = [each for each in (*records.settled, *records.open.values()) if each.pool]
    found = [
        each
        for each in newest_first(made)
        if (before is None or reclaim_key(each) < before)
        and query.owner in ("", each.owner)
        and query.pool in ("", each.pool)
        and _may_see(call, reclaim_scopes(call.state, each))
    ]
    return page(found, query.limit, reclaim_key, reclaim_row)


def _may_see(call: Call, scopes: tuple[str, ...]) -> bool:
    return call.may(Action.USAGE_READ, Resource(scopes))
