"""Slices of a GPU: who gets them, where they sit, and what they count for beside whole GPUs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.model.fleet import PARTS_PER_GPU, GpuModel, MigProfile, Queue, Site, is_slice, whole_gpus
from pumasi.model.jobs import JobState, Span
from pumasi.scheduler.eligibility import never_admissible
from pumasi.scheduler.placement import find
from pumasi.scheduler.reasons import ReasonCode
from pumasi.scheduler.shapes import Need
from pumasi.scheduler.shares import Shares
from pumasi.state.freemap import FreeMap
from pumasi.testing.builders import HGX, HOUR_SECONDS, START_MS, fleet_facts, owner, pool, spec
from pumasi.testing.harness import Harness

SLICE, PER_GPU, PER_NODE = "1g.23gb", 7, 56


def school(*queues: Queue, sites: tuple[Site, ...] = ()) -> Harness:
    """ant has two whole nodes and lends them; one node cut into 56 slices is ant's and bee's, half and half."""
    pools = [pool("whole", {"ant": 16}), pool("cut", {"ant": 28, "bee": 28}, cut=SLICE, site="school")]
    return Harness(fleet_facts([owner("ant", 100), owner("bee", 100)], pools, queues, sites=sites))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("1g.23gb", True), ("1g.24gb+gfx", True), ("1g.12gb+me.all", True), ("1g", False), ("8g.80gb ", False)],
)
def test_profiles_are_known_by_their_names(text: str, is_one: bool) -> None:
    assert is_slice(text) is is_one


def test_a_class_gets_its_slices_at_once_and_pays_for_its_part_of_the_gpus() -> None:
    fleet = school()
    students = [fleet.submit("bee", 1, slice=SLICE) for _ in range(20)]
    fleet.tick()
    assert all(fleet.state.jobs[job].state is JobState.ACTIVE for job in students)
    assert {span for job in students for span in fleet.state.jobs[job].attempts[-1].spans} == {
        Span(0, 1, 1 << index) for index in range(20)
    }
    assert fleet.state.queues["bee"].parts_in_use == 20 * PARTS_PER_GPU // PER_GPU
    fleet.wait(HOUR_SECONDS)
    assert sum(fleet.ledger.statement(fleet.now_ms).values()) == 20 * HOUR_SECONDS * 1000
    assert fleet.state.queues["bee"].past_at(fleet.now_ms, 10**12) == 20 * HOUR_SECONDS * 1000 // PER_GPU


def test_whole_gpus_and_slices_are_not_taken_for_each_other() -> None:
    fleet = school()
    fleet.submit("ant", 8), fleet.submit("ant", 8, slice=SLICE)
    fleet.tick()
    assert [fleet.state.jobs[job].attempts[-1].pool for job in (1, 2)] == ["whole", "cut"]
    (verdict, _) = never_admissible(fleet.state, spec("ant", 1, slice="3g.90gb"), START_MS)
    assert (verdict.code, verdict.detail) == (ReasonCode.SLICE, "its GPUs are not cut, the job asks for 3g.90gb")
    (_, verdict) = never_admissible(fleet.state, spec("ant", 1, pools=("cut",)), START_MS)
    assert verdict.detail == "its GPUs are cut into slices of 1g.23gb, the job asks for whole GPUs"


def test_a_slice_has_its_own_memory_and_part_of_the_node() -> None:
    fleet = school()
    assert never_admissible(fleet.state, spec("ant", 1, slice=SLICE, memory_gib_per_gpu=23), START_MS) == []
    (_, verdict) = never_admissible(fleet.state, spec("ant", 1, slice=SLICE, memory_gib_per_gpu=24), START_MS)
    assert verdict.detail == "its slices have 23 GiB each, the job asks for 24"


def test_slices_are_lent_and_taken_back_and_credit_counts_gpus() -> None:
    fleet = school()
    guest = fleet.submit("bee", 42, slice=SLICE, time_limit_seconds=10 * HOUR_SECONDS)
    fleet.tick()
    fleet.wait(HOUR_SECONDS)
    claimant = fleet.submit("ant", 28, slice=SLICE)
    fleet.tick()
    assert fleet.state.jobs[guest].live is not None and fleet.state.jobs[guest].attempts[-1].stop is not None
    fleet.wait(300)
    fleet.tick()
    assert fleet.state.jobs[claimant].state is JobState.ACTIVE
    lent_gpu_milliseconds = 14 * (HOUR_SECONDS + 300) * 1000 // PER_GPU
    assert fleet.state.owners["ant"].credit_gpu_milliseconds == lent_gpu_milliseconds
    assert fleet.state.owners["bee"].credit_gpu_milliseconds == -lent_gpu_milliseconds


def test_who_holds_seven_slices_holds_a_gpu_when_turns_are_taken() -> None:
    """x holds 14 slices, which is two GPUs, y holds four: the next node that comes free is x's."""
    fleet = school(Queue(id="ant/x"), Queue(id="ant/y"))
    fleet.submit("ant/x", 14, slice=SLICE, time_limit_seconds=100 * HOUR_SECONDS)
    fleet.submit("ant/y", 4, time_limit_seconds=100 * HOUR_SECONDS)
    ending = fleet.submit("ant", 8, time_limit_seconds=50 * HOUR_SECONDS)
    fleet.tick()
    y, x = fleet.submit("ant/y", 8), fleet.submit("ant/x", 8)
    fleet.end(ending)
    fleet.tick()
    assert [fleet.state.jobs[job].state for job in (x, y)] == [JobState.ACTIVE, JobState.WAITING]


def test_fair_shares_count_slices_used_elsewhere_as_their_part() -> None:
    fleet = school(Queue(id="ant/x"), Queue(id="ant/y"))
    fleet.submit("ant/x", 28, slice=SLICE, time_limit_seconds=100 * HOUR_SECONDS)
    fleet.tick()
    for queue in ("ant/x", "ant/y"):
        fleet.submit(queue, 16)
    shares = Shares(fleet.state)
    shares.refresh(fleet.now_ms)
    assert (shares.of("ant/x")["whole"], shares.of("ant/y")["whole"]) == (6, 10)  # and 4 GPUs' worth of slices


def test_a_slice_draws_its_part_of_the_power() -> None:
    fleet = school(sites=(Site(id="school", title="", operator="ant", power_cap_kilowatts=7),))
    assert fleet.state.usable_gpus("cut") == 7000 * PER_GPU // HGX.planning_watts


# --- where they sit --------------------------------------------------------------------------------------------------


def cut_map(masks: list[int], slices_per_gpu: int = PER_GPU) -> FreeMap:
    """Nodes of eight GPUs cut, each with the free slices of its mask."""
    free = FreeMap(len(masks), 8 * slices_per_gpu, 4, 2, slices_per_gpu)
    for node, mask in enumerate(masks):
        if mask:
            free.give(Span(node, 1, mask))
    return free


def test_slices_of_a_job_share_the_gpu_that_holds_them_tightest() -> None:
    two_gpus = 0b1111111_0001111  # GPU 0 has four slices free, GPU 1 all seven
    assert find(cut_map([two_gpus]), Need(1, 3)) == (Span(0, 1, 0b111),)
    assert find(cut_map([two_gpus]), Need(1, 5)) == (Span(0, 1, 0b0011111_0000000),)
    assert find(cut_map([two_gpus]), Need(1, 9)) == (Span(0, 1, 0b1111111_0000011),)


def test_broken_gpus_are_filled_first() -> None:
    three_gpus = 0b0000011_1111111_0000111
    assert find(cut_map([three_gpus]), Need(1, 1)) == (Span(0, 1, 1 << 14),)


@given(st.integers(1, (1 << PER_NODE) - 1), st.sampled_from((2, 4, 7)), st.data())
def test_slices_are_free_ones_on_as_few_gpus_as_can_be(mask: int, slices_per_gpu: int, data: st.DataObject) -> None:
    mask &= (1 << 8 * slices_per_gpu) - 1
    count = data.draw(st.integers(1, max(1, mask.bit_count())))
    spans = find(cut_map([mask], slices_per_gpu), Need(1, count))
    if not mask:
        assert spans is None
        return
    assert spans is not None
    (taken,) = (span.gpu_mask for span in spans)
    assert taken & mask == taken and taken.bit_count() == count
    free = sorted((gpu.bit_count() for gpu in gpus_of(mask, slices_per_gpu)), reverse=True)
    fewest = next(gpus for gpus in range(1, 9) if sum(free[:gpus]) >= count)
    assert sum(1 for gpu in gpus_of(taken, slices_per_gpu) if gpu) == fewest


def gpus_of(mask: int, slices_per_gpu: int) -> list[int]:
    """The mask of each of the node's GPUs."""
    return [mask >> gpu * slices_per_gpu & (1 << slices_per_gpu) - 1 for gpu in range(8)]


# --- counting --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_parts_become_gpus_without_loss(parts: list[int]) -> None:
    gpus = whole_gpus(parts)
    assert sum(gpus) == -(-sum(parts) // PARTS_PER_GPU)
    sums = [0, *(sum(parts[:place]) for place in range(1, len(parts) + 1))]
    for (before, after), found in zip(pairwise(sums), gpus, strict=True):
        assert abs(found * PARTS_PER_GPU - (after - before)) < PARTS_PER_GPU


def test_every_number_of_slices_divides_a_gpu() -> None:
    model = GpuModel(**{name: getattr(HGX, name) for name in HGX.__struct_fields__ if name != "mig_profiles"},
                     mig_profiles=tuple(MigProfile(f"{count}g.1gb", count) for count in range(1, 8)))  # fmt: skip
    for profile in model.mig_profiles:
        whole = pool("p", {"ant": 8 * profile.per_gpu}, model=model, cut=profile.name)
        assert (whole.parts(whole.gpus), whole.whole_gpus) == (8 * PARTS_PER_GPU, 8)
