"""The books of a pool and the lending rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.model.fleet import CalendarWindow, LendingContract, Owner, OwnerKind
from pumasi.model.jobs import Charge
from pumasi.state.accounts import Accounts, divide, post, promise
from pumasi.state.lending import LendingRule, is_open, lending_limit, refusal, refusal_now
from pumasi.state.records import Account
from pumasi.testing.builders import fleet_facts, owner, pool, state_of

entitlements = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 200), min_size=1)


@given(entitlements, st.integers(0, 1500))
def test_shares_add_up_to_the_capacity_and_nobody_gets_more_than_due(due: dict[str, int], capacity: int) -> None:
    shares = divide(capacity, due)
    total = sum(due.values())
    assert sum(shares.values()) == min(capacity, total)
    for name, gpus in due.items():
        assert shares[name] <= gpus
        if total:
            exact = min(capacity, total) * gpus
            assert exact // total <= shares[name] <= -(-exact // total)


def test_odd_gpus_go_by_largest_remainder_then_by_name() -> None:
    assert divide(10, {"b": 8, "a": 8}) == {"b": 5, "a": 5}
    assert divide(11, {"b": 8, "a": 8}) == {"b": 5, "a": 6}
    assert divide(7, {"a": 2, "b": 8}) == {"a": 1, "b": 6}


def test_posting_and_taking_back_leaves_the_books_as_they_were() -> None:
    books: Accounts = {"a": Account(entitled=8, due=8), "b": Account(entitled=8, due=8)}
    post(books, "a", (Charge("a", 3), Charge("b", 5)), 1)
    promise(books, (Charge("b", 2),), 1)
    assert books["a"] == Account(entitled=8, due=8, home=3, borrowed=5)
    assert books["b"] == Account(entitled=8, due=8, lent=5, promised=2)
    assert (books["a"].idle, books["b"].idle) == (5, 1)
    post(books, "a", (Charge("a", 3), Charge("b", 5)), -1)
    promise(books, (Charge("b", 2),), -1)
    assert books == {"a": Account(entitled=8, due=8), "b": Account(entitled=8, due=8)}


def test_the_limit_is_by_pool_or_by_percent_and_never_more_than_the_entitlement() -> None:
    state = state_of(
        fleet_facts(
            [owner("ant", 50, lending_limits={"p": 3, "r": 99}), owner("bee")],
            [pool(name, {"ant": 24, "bee": 8}) for name in ("p", "q", "r")],
        )
    )
    assert [lending_limit(state, "ant", name) for name in ("p", "q", "r")] == [3, 12, 24]
    assert lending_limit(state, "bee", "p") == 0
    assert lending_limit(state, "cat", "p") == 0


def test_a_contract_refuses_by_name_and_by_kind() -> None:
    contract = LendingContract(refuses_owners=("rival",), refuses_kinds=(OwnerKind.FOREIGN,))
    kinds = {"rival": OwnerKind.COMMERCIAL, "lab": OwnerKind.FOREIGN, "state": OwnerKind.PUBLIC}
    answers = {name: refusal(contract, Owner(id=name, title="", kind=kind)) for name, kind in kinds.items()}
    assert answers == {"rival": LendingRule.OWNER, "lab": LendingRule.KIND, "state": None}


MONDAY = 4 * 24 * 3600  # 5 January 1970
KOREAN = -9 * 3600


@pytest.mark.parametrize(
    ("seconds", "is_lent"),
    [
        (MONDAY + KOREAN + 20 * 3600, True),
        (MONDAY + KOREAN + 20 * 3600 - 1, False),
        (MONDAY + KOREAN + 22 * 3600 - 1, True),
        (MONDAY + KOREAN + 22 * 3600, False),
        (MONDAY + KOREAN + 24 * 3600 + 21 * 3600, False),
        (MONDAY + KOREAN + 7 * 24 * 3600 + 21 * 3600, True),
    ],
)
def test_windows_are_in_korean_time_and_end_exclusively(seconds: int, is_lent: bool) -> None:
    window = CalendarWindow(days=(0,), from_minute=20 * 60, to_minute=22 * 60)
    borrower = Owner(id="x", title="", kind=OwnerKind.PUBLIC)
    assert is_open(window, seconds * 1000) == is_lent
    rule = refusal_now(LendingContract(windows=(window,)), borrower, seconds * 1000)
    assert rule == (None if is_lent else LendingRule.WINDOW)
    assert refusal_now(LendingContract(), borrower, seconds * 1000) is None
