"""The lending rules as questions with answers: may this owner borrow from that one now, and how much at most."""

from enum import StrEnum

from pumasi.model.fleet import CalendarWindow, LendingContract, Owner
from pumasi.model.ids import OwnerId, PoolId
from pumasi.state.fleet_state import FleetState

KOREA_OFFSET_MINUTES = 9 * 60
DAY_MINUTES = 24 * 60
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday; Monday is 0


class LendingRule(StrEnum):
    """The rule of a lending contract that says no."""

    OWNER = "owner"
    KIND = "kind"
    WINDOW = "window"


def refusal(contract: LendingContract, borrower: Owner) -> LendingRule | None:
    """The rule by which the contract never lends to this borrower, or None."""
    if borrower.id in contract.refuses_owners:
        return LendingRule.OWNER
    if borrower.kind in contract.refuses_kinds:
        return LendingRule.KIND
    return None


def refusal_now(contract: LendingContract, borrower: Owner, now_ms: int) -> LendingRule | None:
    """The rule by which the contract does not lend to this borrower at this time, or None."""
    rule = refusal(contract, borrower)
    if rule is None and contract.windows and not any(is_open(window, now_ms) for window in contract.windows):
        return LendingRule.WINDOW
    return rule


def is_open(window: CalendarWindow, now_ms: int) -> bool:
    """True if a moment lies in the weekly window, in Korean time."""
    days, minute = divmod(now_ms // 60_000 + KOREA_OFFSET_MINUTES, DAY_MINUTES)
    return (days + EPOCH_WEEKDAY) % 7 in window.days and window.from_minute <= minute < window.to_minute


def lending_limit(state: FleetState, owner: OwnerId, pool: PoolId) -> int:
    """GPUs of its entitlement in a pool that an owner lets others use; 0 is a ring-fence."""
    account = state.books[pool].get(owner)
    if account is None:
        return 0
    contract = state.owners[owner].declared.lending
    return min(
        account.entitled,
        contract.lending_limits.get(pool, account.entitled * contract.lendable_percent // 100),
    )
