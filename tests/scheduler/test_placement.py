"""Placement: a gang goes where it fits tightest, and finds a place exactly if there is one."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pumasi.model.jobs import Level, Span
from pumasi.scheduler.placement import find
from pumasi.scheduler.shapes import Need
from pumasi.state.freemap import Beyond, FreeMap


def free_map(
    masks: list[int],
    gpus_per_node: int = 8,
    nodes_per_rack: int = 4,
    racks_per_block: int = 2,
    cpus: int = 0,
    memory_mib: int = 0,
) -> FreeMap:
    """A map with these GPUs free, and with so many CPUs and MiB on each node."""
    free = FreeMap(len(masks), gpus_per_node, nodes_per_rack, racks_per_block, 1, cpus, memory_mib)
    for node, mask in enumerate(masks):
        if mask:
            free.give(Span(node, 1, mask))
    return free


WHOLE = 0xFF


def test_a_small_job_takes_the_fullest_node_that_holds_it() -> None:
    assert find(free_map([WHOLE, 0x0F, 0x07, WHOLE]), Need(1, 2)) == (Span(2, 1, 0x03),)


def test_a_small_job_opens_a_whole_node_in_the_most_broken_rack() -> None:
    masks = [WHOLE] * 4 + [0, 0, WHOLE, WHOLE] + [0, WHOLE, WHOLE, WHOLE]
    assert find(free_map(masks), Need(1, 4)) == (Span(6, 1, 0x0F),)


def test_a_node_job_leaves_whole_racks_whole() -> None:
    masks = [WHOLE] * 4 + [0, WHOLE, WHOLE, WHOLE]
    assert find(free_map(masks), Need(1, 8)) == (Span(5, 1, WHOLE),)


def test_the_lowest_free_gpus_of_a_node_are_taken() -> None:
    assert find(free_map([0b10110100]), Need(1, 3)) == (Span(0, 1, 0b00110100),)


def test_a_gang_takes_the_tightest_rack() -> None:
    masks = [WHOLE] * 4 + [0, WHOLE, WHOLE, 0]
    assert find(free_map(masks), Need(2, 8)) == (Span(5, 2, WHOLE),)


def test_a_gang_beyond_a_rack_takes_the_fewest_racks_of_one_block() -> None:
    masks = [0, WHOLE, WHOLE, WHOLE] * 2 + [WHOLE] * 4 + [0, 0, WHOLE, WHOLE]
    assert find(free_map(masks), Need(6, 8)) == (Span(1, 3, WHOLE), Span(5, 3, WHOLE))
    assert find(free_map([0, 0, 0, WHOLE] + [WHOLE] * 4 + [WHOLE] * 8), Need(5, 8)) == (Span(3, 5, WHOLE),)


def test_a_gang_beyond_a_block_takes_whole_blocks_and_the_tightest_rest() -> None:
    masks = [WHOLE] * 8 + [WHOLE] * 8 + [0] * 6 + [WHOLE] * 2
    assert find(free_map(masks), Need(10, 8)) == (Span(0, 8, WHOLE), Span(22, 2, WHOLE))


def test_a_required_rack_is_kept() -> None:
    masks = [0, WHOLE, WHOLE, WHOLE] * 2
    assert find(free_map(masks), Need(4, 8, Level.RACK, required=True)) is None
    assert find(free_map(masks), Need(4, 8, Level.RACK)) is not None


def test_a_required_block_is_kept() -> None:
    masks = [0, WHOLE, WHOLE, WHOLE] * 4
    assert find(free_map(masks), Need(7, 8, Level.BLOCK, required=True)) is None
    assert find(free_map(masks), Need(6, 8, Level.BLOCK, required=True)) == (Span(1, 3, WHOLE), Span(5, 3, WHOLE))


def test_segments_stay_in_one_rack() -> None:
    masks = [WHOLE, WHOLE, WHOLE, 0] * 2
    assert find(free_map(masks), Need(6, 8, segment=2)) is None
    assert find(free_map(masks), Need(4, 8, segment=2)) == (Span(0, 2, WHOLE), Span(4, 2, WHOLE))


def test_a_gang_of_broken_nodes_prefers_the_fullest() -> None:
    assert find(free_map([WHOLE, 0x3F, 0x7F, WHOLE]), Need(2, 6)) == (Span(1, 2, 0x3F),)


def test_nothing_is_found_where_nothing_fits() -> None:
    assert find(free_map([0x7F] * 8), Need(1, 8)) is None
    assert find(free_map([0x0F] * 4), Need(5, 4)) is None


CPUS, MEMORY_MIB = 12, 100  # of a node: neither divides by its GPUs


def test_a_job_that_takes_more_than_its_share_looks_for_a_node_that_has_it() -> None:
    free = free_map([0x0F, WHOLE, WHOLE], cpus=CPUS)
    assert find(free, Need(1, 4)) == (Span(0, 1, 0x0F),), "its share comes with every free GPU"
    assert find(free, Need(1, 4, cpus=7)) == (Span(1, 1, 0x0F, 7),), "four GPUs of a broken node come with six CPUs"
    assert find(free, Need(1, 1, cpus=CPUS)) == (Span(1, 1, 0x01, CPUS),)
    assert find(free, Need(1, 1, cpus=CPUS + 1)) is None
    assert find(free, Need(2, 4, cpus=7)) == (Span(1, 2, 0x0F, 7),)
    assert find(free, Need(3, 4, cpus=7)) is None


def test_what_a_job_leaves_of_its_share_is_for_others_on_its_node() -> None:
    free = free_map([WHOLE], cpus=CPUS)
    free.take(Span(0, 1, 0x0F, cpus=2))
    assert find(free, Need(1, 4, cpus=11)) is None
    assert find(free, Need(1, 4, cpus=10)) == (Span(0, 1, 0xF0, 10),)


def test_free_gpus_without_their_share_are_as_good_as_taken() -> None:
    free = free_map([WHOLE] * 4, memory_mib=MEMORY_MIB)
    free.take(Span(1, 1, 0x01, memory_mib=90))
    assert find(free, Need(1, 1)) == (Span(0, 1, 0x01),), "a GPU's share is 12.5 MiB, and 10 are left"
    assert find(free, Need(1, 1, memory_mib=10)) == (Span(1, 1, 0x02, 0, 10),)
    assert find(free, Need(4, 1)) is None
    assert find(free, Need(3, 1)) == (Span(0, 1, 0x01), Span(2, 2, 0x01))


def test_a_need_of_cpus_alone_goes_where_the_fewest_gpus_are_free() -> None:
    free = free_map([WHOLE, 0x0F, WHOLE], cpus=CPUS)
    assert find(free, Need(1, 0, cpus=1)) == (Span(1, 1, 0, 1),)
    free.take(Span(1, 1, 0x0F, cpus=1))
    assert find(free, Need(1, 0, cpus=5)) == (Span(1, 1, 0, 5),), "what its neighbour leaves of its share"
    assert find(free, Need(1, 0, cpus=6)) == (Span(0, 1, 0, 6),)
    assert find(free, Need(1, 0, cpus=CPUS + 1)) is None


@st.composite
def maps(draw: st.DrawFn) -> FreeMap:
    """A pool of odd size, broken in all ways; on some nodes somebody has more or less than the share of its GPUs."""
    gpus = draw(st.sampled_from((4, 8)))
    masks = draw(st.lists(st.sampled_from((0, (1 << gpus) - 1, 1, 3, 6)), min_size=1, max_size=14))
    free = free_map(masks, gpus, draw(st.integers(1, 4)), draw(st.integers(1, 3)), CPUS, MEMORY_MIB)
    for node, cpus, memory_mib in draw(st.lists(st.tuples(st.integers(0, 13), st.integers(0, 8), st.integers(0, 90)))):
        span = Span(node, 1, free.masks[node] & -free.masks[node], cpus, memory_mib) if node < free.nodes else None
        if span is not None and free.free_in(span):
            free.take(span)
    return free


@st.composite
def needs(draw: st.DrawFn) -> Need:
    """Any gang."""
    segment = draw(st.integers(1, 3))
    nodes = segment * draw(st.integers(1, 5))
    level, required, spread = draw(st.sampled_from(tuple(Level))), draw(st.booleans()), draw(st.booleans())
    each, cpus, memory_mib = draw(st.integers(1, 8)), draw(st.integers(0, CPUS)), draw(st.integers(0, MEMORY_MIB))
    cpus, memory_mib = draw(st.sampled_from(((0, 0), (cpus, 0), (0, memory_mib), (cpus, memory_mib))))
    return Need(nodes, each, level, required, segment, spread, cpus, memory_mib)


@settings(max_examples=200)
@given(free=maps(), need=needs())
def test_no_place_is_spread_over_more_racks_than_the_one_found(free: FreeMap, need: Need) -> None:
    need = replace(need, spread=True, level=Level.POOL)
    spans = find(free, need) if need.each <= free.gpus_per_node and need.nodes > 1 else None
    if spans is not None:
        nodes = [node for span in spans for node in range(span.first, span.first + span.nodes)]
        used = len({node // free.nodes_per_rack for node in nodes})
        roomy = sum(groups_in(free, need, range(rack, rack + 1)) > 0 for rack in range(len(free.rack_whole)))
        assert used == min(roomy, need.nodes // need.segment)


def test_a_gang_that_is_spread_takes_about_the_same_from_each_rack() -> None:
    masks = [WHOLE] * 4 + [0, 0, 0, WHOLE] + [WHOLE] * 8
    spread = Need(7, 8, spread=True)
    assert find(free_map(masks), spread) == (Span(0, 2, WHOLE), Span(7, 3, WHOLE), Span(12, 2, WHOLE))
    assert find(free_map(masks), Need(4, 8, Level.BLOCK, required=True, spread=True)) == (
        Span(8, 2, WHOLE),
        Span(12, 2, WHOLE),
    )
    assert find(free_map(masks), Need(14, 8, spread=True)) is None


def groups_in(free: FreeMap, need: Need, domain: range) -> int:
    """Segments that fit the racks of a domain, node by node, with CPUs and memory for them."""
    total = 0
    for rack in domain:
        nodes = range(rack * free.nodes_per_rack, min((rack + 1) * free.nodes_per_rack, free.nodes))
        total += sum(holds(free, need, node) for node in nodes) // need.segment
    return total


def holds(free: FreeMap, need: Need, node: int) -> bool:
    """True if a node has the GPUs, and the rest beside what its other free GPUs come with."""
    others = free.masks[node].bit_count() - need.each
    noted = free.beyond.get(node, Beyond())
    has_rest = True
    for asked, per_node, parts in (
        (need.cpus, free.cpus_per_node, noted.cpu_parts),
        (need.memory_mib, free.memory_mib_per_node, noted.memory_parts),
    ):
        taken = Fraction(free.gpus_per_node - need.each - others, free.gpus_per_node) * per_node
        taken += Fraction(parts, free.gpus_per_node) + (asked or Fraction(need.each * per_node, free.gpus_per_node))
        has_rest &= taken <= per_node
    return others >= 0 and has_rest


@settings(max_examples=400)
@given(free=maps(), need=needs())
def test_a_place_is_found_exactly_if_there_is_one(free: FreeMap, need: Need) -> None:
    assume(need.each <= free.gpus_per_node)  # what no node holds is never searched for
    before, racks = list(free.masks), len(free.rack_whole)
    width = {Level.RACK: 1, Level.BLOCK: free.racks_per_block, Level.POOL: racks}[need.widest]
    domains = [range(first, min(first + width, racks)) for first in range(0, racks, width)]
    exists = any(groups_in(free, need, domain) * need.segment >= need.nodes for domain in domains)
    spans = find(free, need)
    assert list(free.masks) == before
    assert (spans is not None) == exists
    if spans is not None:
        assert_is_place(free, need, spans)


def assert_is_place(free: FreeMap, need: Need, spans: tuple[Span, ...]) -> None:
    """The spans are free, whole, together and in order."""
    nodes = [node for span in spans for node in range(span.first, span.first + span.nodes)]
    assert nodes == sorted(set(nodes))
    assert len(nodes) == need.nodes
    assert all(span.gpu_mask.bit_count() == need.each and free.free_in(span) for span in spans)
    assert all((span.cpus, span.memory_mib) == (need.cpus, need.memory_mib) for span in spans)
    racks = [node // free.nodes_per_rack for node in nodes]
    assert all(racks.count(rack) % need.segment == 0 for rack in racks)
    if need.widest is Level.RACK:
        assert len(set(racks)) == 1
    if need.widest is Level.BLOCK:
        assert len({rack // free.racks_per_block for rack in racks}) == 1


@pytest.mark.parametrize("nodes", [2, 5, 9])
def test_spans_are_merged(nodes: int) -> None:
    assert find(free_map([WHOLE] * 16), Need(nodes, 8)) == (Span(0, nodes, WHOLE),)
