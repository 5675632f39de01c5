"""Shared GPUs: shards are counted as slices are; those of a job on a node are of one GPU, whoever has to go for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pumasi.control.plan_checks import plan_problems
from pumasi.model.fleet import PARTS_PER_GPU, SHARD, SHARDS_PER_GPU, FleetPlan
from pumasi.model.jobs import JobState, Span
from pumasi.scheduler.eligibility import never_admissible
from pumasi.scheduler.outlook import map_at, shape_ms
from pumasi.scheduler.placement import find
from pumasi.scheduler.reasons import ReasonCode
from pumasi.scheduler.shapes import Need
from pumasi.state.freemap import FreeMap
from pumasi.testing.builders import HGX, HOUR_SECONDS, SHARDS, START_MS, fleet_facts, owner, pool, spec
from pumasi.testing.harness import Harness


def lab() -> Harness:
    """ant has a node of whole GPUs; a node of eight shared ones is ant's and bee's, half and half, and lent."""
    pools = [pool("whole", {"ant": 8}), pool("lab", {"ant": 28, "bee": 28}, cut=SHARD)]
    return Harness(fleet_facts([owner("ant", 100, notice_seconds=60), owner("bee", 100)], pools))


def shared_map(masks: list[int], gpus: int = 8, shards: int = SHARDS) -> FreeMap:
    """Nodes of shared GPUs, each with the free shards of its mask."""
    free = FreeMap(len(masks), gpus * shards, 4, 2, shards, is_shared=True)
    for node, mask in enumerate(masks):
        if mask:
            free.give(Span(node, 1, mask))
    return free


def held(fleet: Harness, job: int) -> tuple[Span, ...]:
    """What a job runs on."""
    return fleet.state.jobs[job].attempts[-1].spans


def test_a_job_has_shards_of_one_gpu_and_pays_for_its_part() -> None:
    fleet = lab()
    jobs = [fleet.submit("bee", shards, slice=SHARD) for shards in (4, 4, 3, 3)]
    fleet.tick()
    gpus = {job: {bit // SHARDS for bit in range(56) if held(fleet, job)[0].gpu_mask >> bit & 1} for job in jobs}
    assert all(len(found) == 1 for found in gpus.values())
    assert len({*gpus[jobs[0]], *gpus[jobs[1]]}) == 2
    assert {*gpus[jobs[2]], *gpus[jobs[3]]} == {*gpus[jobs[0]], *gpus[jobs[1]]}, "what is left of a GPU is filled"
    assert fleet.state.queues["bee"].parts_in_use == 14 * PARTS_PER_GPU // SHARDS


def test_more_than_a_gpu_has_is_for_whole_gpus() -> None:
    fleet = lab()
    _, verdict = never_admissible(fleet.state, spec("ant", 8, slice=SHARD), START_MS)
    assert verdict.code is ReasonCode.SLICE
    assert verdict.detail == "shards of a node come from one of its GPUs, which have 7; the job asks for 8"
    whole, _ = never_admissible(fleet.state, spec("ant", 1, slice=SHARD, pools=("whole",)), START_MS)
    assert whole.detail == "its GPUs are not cut, the job asks for shards"
    _, shared = never_admissible(fleet.state, spec("ant", 1, pools=("lab",)), START_MS)
    assert shared.detail == "its GPUs are shared, 7 shards each, the job asks for whole GPUs"
    assert never_admissible(fleet.state, spec("ant", 7, slice=SHARD, memory_gib_per_gpu=HGX.memory_gib), START_MS) == []


def test_more_than_a_gpu_has_waits_for_good_even_where_whole_nodes_are_free() -> None:
    fleet = lab()
    job = fleet.submit("ant", 8, slice=SHARD)
    fleet.tick()
    assert fleet.state.jobs[job].state is JobState.WAITING
    assert fleet.plan.reasons[job].first.code is ReasonCode.SLICE


def test_a_claim_takes_back_shards_of_one_gpu() -> None:
    """bee fills the node with jobs of two GPUs' worth in threes and fours; ant's seven need one GPU to themselves."""
    fleet = lab()
    guests = [fleet.submit("bee", shards, slice=SHARD) for _ in range(8) for shards in (4, 3)]
    fleet.tick()
    assert all(fleet.state.jobs[job].state is JobState.ACTIVE for job in guests)
    claim = fleet.submit("ant", 7, slice=SHARD)
    fleet.tick()
    fleet.wait(200)
    fleet.tick()
    assert fleet.state.jobs[claim].state is JobState.ACTIVE
    stopped = [job for job in guests if fleet.state.jobs[job].state is JobState.WAITING]
    assert len(stopped) == 2, "the two that shared one GPU"


def test_shards_that_are_free_apart_are_no_place_and_the_reason_says_so() -> None:
    fleet = lab()
    for _ in range(8):
        fleet.submit("bee", 4, slice=SHARD, time_limit_seconds=10 * HOUR_SECONDS)
    fleet.tick()
    job = fleet.submit("bee", 4, slice=SHARD, may_borrow=True)
    fleet.tick()
    assert fleet.state.occupancy["lab"].free.free_gpus == 24
    assert fleet.plan.reasons[job].first.code is ReasonCode.NO_SHAPE


@given(masks=st.lists(st.integers(0, (1 << 12) - 1), min_size=1, max_size=6), each=st.integers(1, 4))
def test_a_place_is_found_exactly_if_a_gpu_has_it(masks: list[int], each: int) -> None:
    free = shared_map(masks, gpus=3, shards=4)
    pieces = [(node, mask >> 4 * gpu & 15) for node, mask in enumerate(masks) for gpu in range(3)]
    roomy = {node for node, piece in pieces if piece.bit_count() >= each}
    spans = find(free, Need(1, each))
    assert (spans is not None) == bool(roomy)
    if spans is not None:
        (span,) = spans
        assert span.first in roomy
        assert sum((span.gpu_mask >> 4 * gpu & 15) != 0 for gpu in range(3)) == 1
        assert span.gpu_mask.bit_count() == each
        assert free.free_in(span)
    gang = find(free, Need(2, each))
    assert (gang is not None) == (len(roomy) >= 2)


@given(
    ends=st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), min_size=1, max_size=6), each=st.integers(1, 4)
)
def test_what_comes_free_is_told_gpu_by_gpu(ends: list[list[int]], each: int) -> None:
    masks = [sum((end_ms == 0) << shard for shard, end_ms in enumerate(node)) for node in ends]
    free, needed, ends_ms = shared_map(masks, gpus=3, shards=4), Need(1, each), np.array(ends, np.int64)
    at_ms = shape_ms(ends_ms, needed, free)
    assert find(map_at(ends_ms, at_ms, free), needed) is not None
    if at_ms:
        assert find(map_at(ends_ms, at_ms - 1, free), needed) is None
    then = map_at(ends_ms, 0, free)
    assert (then.by_free, then.free_gpus) == (free.by_free, free.free_gpus)


def test_a_whole_node_of_shared_gpus_can_be_reserved() -> None:
    full = (1 << 56) - 1
    assert find(shared_map([1, full]), Need(1, 56)) == (Span(1, 1, full),)
    assert find(shared_map([full, full]), Need(2, 56)) == (Span(0, 2, full),)


@pytest.mark.parametrize(("shards", "others", "is_sound"), [(7, 7, True), (8, 8, False), (7, 4, False)])
def test_a_plan_has_one_kind_of_shard_that_a_gpu_divides_by(shards: int, others: int, is_sound: bool) -> None:
    like = pool("lab", {"ant": 56}, cut=SHARD)
    pools = tuple(
        replace(like, id=name, slices_per_gpu=count, gpus_per_node=count * 4, entitlements={"ant": count * 4})
        for name, count in (("one", shards), ("other", others))
    )
    plan = FleetPlan(name="p", gpu_models=(HGX,), owners=(owner("ant"),), sites=(), pools=pools, queues=())
    found = [problem for problem in plan_problems(plan) if "slices_per_gpu" in problem.path]
    assert (not found) == is_sound
    assert all(PARTS_PER_GPU % count == 0 for count in SHARDS_PER_GPU)
