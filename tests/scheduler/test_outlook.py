"""Outlooks: when what runs gives back what it holds."""

from hypothesis import given
from hypothesis import strategies as st

from pumasi.model.jobs import Charge, Span
from pumasi.scheduler.outlook import NEVER_MS, Outlook

RUNS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8), st.sampled_from(("ant", "bee"))), max_size=12)


@given(RUNS, st.integers(1, 30))
def test_an_entitlement_carries_so_many_gpus_as_soon_as_enough_runs_have_ended(
    runs: list[tuple[int, int, str]], gpus: int
) -> None:
    outlook = Outlook(len(runs) or 1, 8)
    for node, (run_end_ms, taken, owner) in enumerate(runs):
        outlook.enter(node + 1, run_end_ms, (Span(node, 1, (1 << taken) - 1),), (Charge(owner, taken),))
    returned, found_ms = 0, NEVER_MS
    for run_end_ms, taken, _ in sorted(run for run in runs if run[2] == "ant"):
        returned += taken
        if returned >= gpus:
            found_ms = run_end_ms
            break
    assert outlook.entitled_ms("ant", gpus) == found_ms
    assert outlook.entitled_ms("ant", 0) == 0
