"""Metering as callers see it: GPU-milliseconds summed by any keys, and how the reclaims went."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from pumasi.control.access import site_scope
from pumasi.control.views.times import moment, rfc3339
from pumasi.ledger.ledger import TransferKey
from pumasi.ledger.reclaims import Reclaim
from pumasi.model.calendar import day_name
from pumasi.model.ids import queue_owner
from pumasi.state.fleet_state import FleetState

KEYS: dict[str, Callable[[TransferKey], str]] = {
    "owner": lambda key: queue_owner(key.debit),
    "queue": lambda key: key.debit,
    "pool": lambda key: key.pool,
    "day": lambda key: day_name(key.day),
    "lender": lambda key: key.credit,
}


class UsageRow(Struct, frozen=True, kw_only=True):
    """GPU time by the keys asked for: `home` on the owner's own entitlement, `borrowed` on another's; both together.

    A slice counts as its part of a GPU.
    """

    by: dict[str, str]
    gpu_milliseconds: int
    home_gpu_milliseconds: int
    borrowed_gpu_milliseconds: int


class UsageReport(Struct, frozen=True, kw_only=True):
    """Rows and their total, for whole Korean days from `from_day` until `until_day` (exclusive; null: up to now)."""

    until_at: str
    from_day: str | None
    until_day: str | None
    by: tuple[str, ...]
    items: tuple[UsageRow, ...]
    total: UsageRow


class ReclaimRow(Struct, frozen=True, kw_only=True):
    """One reclaim, from the claim to the start, against what the lending contract promised.

    `asked_at`: since when the job waited. `claimed_at`: when it was entitled to lent GPUs and claimed them; `took_*`
    count from then. `state`: open, fulfilled or released (no longer needed). `took_*` and `kept` are null until it is
    fulfilled. `evicted_gpus_max`: what the owner's contract allowed to be evicted for it; null if it sets no bound.
    """

    claimant: int
    owner: str
    pool: str
    state: str
    gpus: int
    requested_gpus: int
    evicted_gpus: int
    evicted_gpus_max: int | None
    asked_at: str
    claimed_at: str
    due_at: str
    settled_at: str | None
    promised_seconds: int
    took_seconds: int | None
    took_milliseconds: int | None
    kept: bool | None
    victims: tuple[int, ...]


def transfer_scopes(state: FleetState, key: TransferKey) -> tuple[str, ...]:
    """Who sees a transfer: both its sides, who used and whose GPUs they were, and the site where it happened."""
    return key.debit, key.credit, site_scope(state.pools[key.pool].declared.site)


def reclaim_scopes(state: FleetState, reclaim: Reclaim) -> tuple[str, ...]:
    """Who sees a reclaim: who asked for it, all who are due GPUs of the pool, and its site."""
    pool = state.pools[reclaim.pool].declared
    return (reclaim.owner, *pool.entitlements, site_scope(pool.site))


def in_gpus(state: FleetState, statement: Mapping[TransferKey, int]) -> dict[TransferKey, int]:
    """A statement with the time of slices as that of GPUs: each transfer rounded down, so any sum of them is the same
    however they are grouped.
    """
    slices = {pool: record.declared.slices_per_gpu for pool, record in state.pools.items()}
    return {key: amount // slices[key.pool] for key, amount in statement.items()}


def usage_report(
    statement: Mapping[TransferKey, int], by: tuple[str, ...], days: tuple[int | None, int | None], until_ms: int
) -> UsageReport:
    """Sum a statement by keys, over the days from the first until the second (exclusive)."""
    first, end = days
    sums: dict[tuple[str, ...], Counter[bool]] = {}
    for key, amount in statement.items():
        if (first is None or key.day >= first) and (end is None or key.day < end):
            group = tuple(KEYS[name](key) for name in by)
            sums.setdefault(group, Counter())[key.is_home] += amount
    items = tuple(_usage_row(by, group, sums[group]) for group in sorted(sums))
    total: Counter[bool] = Counter()
    for amounts in sums.values():
        total.update(amounts)
    return UsageReport(
        until_at=rfc3339(until_ms),
        from_day=None if first is None else day_name(first),
        until_day=None if end is None else day_name(end),
        by=by,
        items=items,
        total=_usage_row((), (), total),
    )


def _usage_row(by: tuple[str, ...], group: tuple[str, ...], amounts: Counter[bool]) -> UsageRow:
    home, borrowed = amounts[True], amounts[False]
    return UsageRow(
        by=dict(zip(by, group, strict=True)),
        gpu_milliseconds=home + borrowed,
        home_gpu_milliseconds=home,
        borrowed_gpu_milliseconds=borrowed,
    )


def reclaim_row(reclaim: Reclaim) -> ReclaimRow:
    """One reclaim. Seconds are rounded up, so that a promise never looks better kept than it was."""
    took = reclaim.took_milliseconds if reclaim.fulfilled else None
    settled = "fulfilled" if reclaim.fulfilled else "released"
    return ReclaimRow(
        claimant=reclaim.claimant,
        owner=reclaim.owner,
        pool=reclaim.pool,
        state=settled if reclaim.settled_ms else "open",
        gpus=reclaim.gpus,
        requested_gpus=reclaim.gpus,
        evicted_gpus=reclaim.evicted_gpus,
        evicted_gpus_max=reclaim.evicted_gpus_max or None,
        asked_at=rfc3339(reclaim.asked_ms),
        claimed_at=rfc3339(reclaim.made_ms),
        due_at=rfc3339(reclaim.due_ms),
        settled_at=moment(reclaim.settled_ms),
        promised_seconds=reclaim.promised_milliseconds // 1000,
        took_seconds=None if took is None else -(-took // 1000),
        took_milliseconds=took,
        kept=reclaim.kept if reclaim.fulfilled else None,
        victims=tuple(reclaim.victims),
    )


def newest_first(reclaims: Iterable[Reclaim]) -> list[Reclaim]:
    """Reclaims by when they were asked for, the newest first."""
    return sorted(reclaims, key=reclaim_key, reverse=True)


def reclaim_key(reclaim: Reclaim) -> tuple[int, int]:
    """What lists of reclaims are paged by: when it was asked for, and by which job."""
    return reclaim.asked_ms, reclaim.claimant
