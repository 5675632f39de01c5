"""Outlooks: when what runs gives back what it holds."""

from hypothesis import given
from hypothesis import strategies as st

from pumasi.model.jobs import Charge, Span
from pumasi.scheduler.outlook import NEVER_MS, Outlook

RUNS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8), st.sampled_from(("ant", "bee"))), max_size=12)


def outlook_of(runs: dict[int, tuple[int, int, str]], nodes: int) -> Outlook:
    """An outlook of these runs, each on a node of its own: when it ends, its GPUs, and whose entitlement they are."""
    outlook = Outlook(nodes or 1, 8)
    for job, run in runs.items():
        enter(outlook, job, run)
    return outlook


def enter(outlook: Outlook, job: int, run: tuple[int, int, str]) -> None:
    """A run enters on the node of its number."""
    run_end_ms, taken, owner = run
    outlook.enter(job, run_end_ms, (Span(job - 1, 1, (1 << taken) - 1),), (Charge(owner, taken),))


@given(RUNS, st.integers(1, 30))
def test_an_entitlement_carries_so_many_gpus_as_soon_as_enough_runs_have_ended(
    runs: list[tuple[int, int, str]], gpus: int
) -> None:
    outlook = outlook_of(dict(enumerate(runs, 1)), len(runs))
    returned, found_ms = 0, NEVER_MS
    for run_end_ms, taken, _ in sorted(run for run in runs if run[2] == "ant"):
        returned += taken
        if returned >= gpus:
            found_ms = run_end_ms
            break
    assert outlook.entitled_ms("ant", gpus) == found_ms
    assert outlook.entitled_ms("ant", 0) == 0


@given(RUNS, st.data())
def test_a_branch_goes_its_own_way(runs: list[tuple[int, int, str]], data: st.DataObject) -> None:
    """A branch of a branch, with runs that leave and enter, shows what one made anew shows; the first is as it was."""
    first = outlook_of(dict(enumerate(runs, 1)), len(runs))
    branch, left = first.branch(), dict(enumerate(runs, 1))
    for job in data.draw(st.permutations(list(left))) if left else ():
        branch.leave(job)
        run = left.pop(job)
        if data.draw(st.booleans()):
            left[job] = (run[0] + 1, *run[1:])
            enter(branch, job, left[job])
        if data.draw(st.booleans()):
            branch = branch.branch()
    for outlook, known in ((first, dict(enumerate(runs, 1))), (branch, left)):
        anew = outlook_of(known, len(runs))
        assert (outlook.gpu_ends_ms == anew.gpu_ends_ms).all()
        for at_ms in range(11):
            assert outlook.returned_gpus("ant", at_ms) == anew.returned_gpus("ant", at_ms)
