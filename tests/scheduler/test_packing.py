"""The general score: what shares a node goes where it wastes least of what is asked for, and fits wherever it did."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pumasi.model.jobs import Span
from pumasi.scheduler.packing import Ask, Mix, Rooms, ask_of, best_place, best_span, rooms_of
from pumasi.scheduler.placement import find
from pumasi.scheduler.shapes import Need
from pumasi.state.freemap import FreeMap
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness
from tests.scheduler.test_placement import CPUS, MEMORY_MIB, assert_is_place, free_map, maps, needs

PARTS = 10


def rooms(*nodes: tuple[int, ...], cpus: tuple[int, ...] = (), memory: tuple[int, ...] = ()) -> Rooms:
    """Nodes with so many parts of each GPU free, and CPUs and memory."""
    nothing = (0,) * len(nodes)
    return Rooms(*(np.array(rows, np.int64) for rows in (nodes, cpus or nothing, memory or nothing)))


def mix(taken: dict[Ask, int], *nodes: tuple[int, ...]) -> Mix:
    """What runs, on these nodes."""
    return Mix(taken.items(), PARTS, rooms(*(nodes or ((0,),))))


def part(parts: int) -> Ask:
    """A part of one GPU and nothing else."""
    return Ask(1, parts, 0, 0)


def whole(gpus: int, cpus: int = 0, memory: int = 0) -> Ask:
    """Whole GPUs, with CPUs and memory."""
    return Ask(gpus, PARTS, cpus, memory)


def test_what_runs_says_which_rest_is_worth_keeping() -> None:
    halves = mix({part(5): 100, part(3): 1})
    assert best_place(rooms((5,), (8,)), part(3), halves) == (1, (0,)), "5 free parts are kept for one of the halves"
    large = mix({part(8): 100, part(3): 1})
    assert best_place(rooms((8,), (5,)), part(3), large) == (1, (0,)), "8 are"


def test_a_gpu_is_chosen_as_a_node_is() -> None:
    halves = mix({part(5): 100})
    assert best_place(rooms((10, 5, 8)), part(5), halves) == (0, (1,))
    assert best_place(rooms((10, 6, 10)), whole(2), halves) == (0, (0, 2))
    assert best_place(rooms((10, 6, 9)), whole(2), halves) is None


def test_a_part_that_many_could_give_is_not_counted_on() -> None:
    """What would fill the rest exactly is as rare in both mixes; here every GPU waits for it."""
    taken, few, many = {part(6): 50, part(3): 2, part(1): 5}, [(1,)], [(1,)] * 500
    unused = [int(mix(taken, *broken).unused[1]) for broken in (few, many)]
    assert unused[0] < unused[1]


def test_who_takes_many_cpus_goes_where_there_are_many() -> None:
    usual, nodes = mix({whole(1, cpus=10): 10}), rooms((10, 10), (10, 10), cpus=(20, 40))
    assert best_place(nodes, whole(1, cpus=14), usual) == (1, (0,))
    assert best_place(nodes, whole(1, cpus=10), usual) == (0, (0,)), "it is as good anywhere"
    assert best_place(nodes, Ask(0, 0, 5, 0), usual) == (1, ())
    scarce = rooms((10, 10), (10, 10), cpus=(15, 20))
    assert best_place(scarce, whole(1, cpus=5), usual) == (0, (0,)), "its GPUs lack CPUs anyway"


def test_memory_counts_as_cpus_do() -> None:
    usual, nodes = mix({whole(1, 10, 100): 10}), rooms((10, 10), (10, 10), cpus=(20, 20), memory=(200, 400))
    assert best_place(nodes, whole(1, 10, 150), usual) == (1, (0,))


def test_a_place_for_large_work_is_kept() -> None:
    large = mix({whole(4): 10, whole(1): 10})
    assert best_place(rooms((10,) * 4 + (0,), (10,) * 5), whole(1), large) == (1, (0,))


def test_where_nothing_runs_the_fullest_gpu_that_fits_is_taken() -> None:
    assert best_place(rooms((2, 3), (9, 4)), part(4), mix({})) == (1, (1,))
    assert best_place(rooms((2, 3), (3, 2)), part(4), mix({})) is None


def asks() -> st.SearchStrategy[Ask]:
    """Parts of a GPU, whole ones, or none, with CPUs and memory."""
    sizes = st.one_of(st.tuples(st.just(1), st.integers(1, PARTS)), st.tuples(st.integers(0, 3), st.just(PARTS)))
    return st.builds(
        lambda size, cpus, memory: Ask(size[0], size[1], cpus, memory), sizes, st.integers(0, 9), st.integers(0, 9)
    )


@settings(max_examples=200)
@given(
    nodes=st.lists(
        st.tuples(st.tuples(*[st.sampled_from((0, 2, 5, 8, 10))] * 3), st.integers(0, 20), st.integers(0, 20)),
        min_size=1,
        max_size=8,
    ),
    taken=st.dictionaries(asks(), st.integers(1, 50), max_size=6),
    ask=asks(),
)
def test_the_place_is_the_best_of_all_by_the_three_questions(
    nodes: list[tuple[tuple[int, ...], int, int]], taken: dict[Ask, int], ask: Ask
) -> None:
    free = rooms(*(gpus for gpus, _, _ in nodes), cpus=tuple(n[1] for n in nodes), memory=tuple(n[2] for n in nodes))
    running = Mix(taken.items(), PARTS, free)
    costs = {}
    for node, (gpus, cpus, memory) in enumerate(nodes):
        roomy = [gpu for gpu, parts in enumerate(gpus) if parts >= ask.parts]
        if cpus < ask.cpus or memory < ask.memory or (ask.gpus and len(roomy) < ask.gpus):
            continue
        for chosen in [[gpu] for gpu in roomy] if ask.gpus == 1 else [roomy[: ask.gpus]]:
            one = free.at(np.array([node]))
            after = one.without(ask, np.array([chosen], np.int64))
            unused = sum(int(running.unused[gpus[gpu] - ask.parts] - running.unused[gpus[gpu]]) for gpu in chosen)
            fullest = gpus[chosen[0]] if ask.gpus == 1 and ask.parts < PARTS else 0
            costs[node, tuple(chosen)] = (
                unused,
                fullest,
                *(int((cost(after) - cost(one))[0]) for cost in (running.imbalance, running.out_of_reach)),
            )
    found = best_place(free, ask, running)
    assert found == (min(costs, key=lambda place: (costs[place], place)) if costs else None)


@settings(max_examples=200)
@given(free=maps(), need=needs(), taken=st.dictionaries(asks(), st.integers(1, 50), max_size=4))
def test_a_score_never_decides_whether_there_is_a_place(free: FreeMap, need: Need, taken: dict[Ask, int]) -> None:
    assume(need.each <= free.gpus_per_node)
    need = replace(need, nodes=1, segment=1)
    scored = find(free, need, Mix(taken.items(), 1, rooms_of(free)))
    assert (scored is None) == (find(free, need) is None)
    if scored is not None:
        assert_is_place(free, need, scored)


@pytest.mark.parametrize(("each", "place"), [(2, 0b011_000), (3, 0b111), (4, None), (6, None)])
def test_slices_come_from_one_gpu_or_are_whole_gpus(each: int, place: int | None) -> None:
    free = FreeMap(1, 9, 1, 1, 3, CPUS, MEMORY_MIB)
    free.give(Span(0, 1, 0b000_011_111))
    assert rooms_of(free).parts.tolist() == [[3, 2, 0]]
    running = Mix({Ask(1, 2, 0, 0): 9, Ask(1, 1, 0, 0): 1}.items(), 3, rooms_of(free))
    span = best_span(free, Need(1, each, cpus=1), running)
    assert span == (None if place is None else Span(0, 1, place, 1))
    assert (ask_of(free, each, 1, 0) is None) == (each == 4)


def test_the_planner_asks_the_score_and_learns_from_what_runs() -> None:
    harness = Harness(fleet_facts([owner("ant", 100)], [pool("hall", {"ant": 16}, cpus=64)]))
    harness.submit("ant", 4, cpus_per_node=4)
    harness.submit("ant", 5)
    harness.tick()
    free, need = harness.state.occupancy["hall"].free, Need(1, 1, cpus=20)
    assert find(free, need) == (Span(1, 1, 0b100000, 20),), "by count, the fullest"
    greedy = harness.submit("ant", 1, cpus_per_node=20)
    harness.tick()
    assert harness.state.jobs[greedy].attempts[-1].spans == (Span(0, 1, 0b10000, 20),), "where CPUs are left over"


def test_pools_without_cpus_are_scored_by_gpus_alone() -> None:
    free = free_map([0xFF, 0x0F])
    span = best_span(free, Need(1, 2), Mix({Ask(4, 1, 0, 0): 3}.items(), 1, rooms_of(free)))
    assert span == Span(0, 1, 0x03), "of eight free GPUs six still hold a job of four"
