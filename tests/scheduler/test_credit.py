"""Credit against max-min without memory, on demand that is equal in the long run and bursty at the moment."""

import pytest

from pumasi.model.fleet import BorrowOrder
from tests.scheduler.credit import run

TWO_MONTHS = 4 * 61


@pytest.mark.parametrize("seed", range(3))
def test_credit_narrows_what_owners_receive_in_the_long_run(seed: int) -> None:
    """The same GPUs are in use; who bursts rarely lent most of the time and is repaid when it does."""
    credit, max_min = run(BorrowOrder.CREDIT, seed, TWO_MONTHS), run(BorrowOrder.MAX_MIN, seed, TWO_MONTHS)
    assert credit.used == max_min.used
    assert credit.disparity < 0.9 * max_min.disparity
    assert min(credit.received.values()) > min(max_min.received.values())
