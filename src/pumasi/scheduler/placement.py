"""Exact nodes and GPUs for a gang: all of them or none, as tight as can be, whole racks kept whole for others.

A gang that asks to be spread stands in as many racks as can be instead.

Counts decide, nodes are only looked at once it is known that they fit. Ties go to the lowest index. Nodes that lack
CPUs or memory for the job are as good as full; unless somebody takes more than the share of its GPUs, none does. A job
of one node that takes other than that share, or a part of a shared GPU, goes where the general score says (`packing`).
"""

from collections.abc import Iterator
from functools import lru_cache

from pumasi.model.jobs import Level, Span
from pumasi.scheduler.packing import Mix, best_span
from pumasi.scheduler.shapes import Need
from pumasi.state.freemap import FreeMap, indices, lowest

Pick = tuple[int, int]  # a rack and how many segments are taken from it


def find(free: FreeMap, need: Need, mix: Mix | None = None) -> tuple[Span, ...] | None:
    """Where the gang sits best, or None if it fits nowhere. `free` is not changed.

    `mix`: what runs in the pool, if the place is to be scored by it. It never decides whether there is one.
    """
    if free.free_gpus < need.gpus:
        return None
    if mix is not None and need.nodes == 1 and (span := best_span(free, need, mix)) is not None:
        return (span,)
    if not (free.tight or need.cpus or need.memory_mib):
        return _one_node(free, need.each, 0) if need.nodes == 1 else _gang(free, need)
    if not need.each:
        return _beside_gpus(free, need)
    lacking = short(free, need, roomy(free, need.each))
    spans = _one_node(free, need.each, lacking) if need.nodes == 1 else _gang(_without(free, lacking), need)
    return None if spans is None else asking(spans, need)


def _without(free: FreeMap, nodes: int) -> FreeMap:
    """The free GPUs on others than these nodes, a bitset; to read."""
    if not nodes:
        return free
    others = free.branch()
    others.take_free(Span(node, 1, free.full_mask) for node in indices(nodes))
    return others


def short(free: FreeMap, need: Need, among: int) -> int:
    """Those of these nodes, bitsets, that have the free GPUs for the need and too few CPUs or too little memory."""
    return free.short(among, need.each, need.cpus, need.memory_mib)


def takes_more(free: FreeMap, need: Need) -> bool:
    """True if the job takes more CPUs or memory than the share of its GPUs."""
    asks = need.cpus or need.memory_mib
    return bool(asks and free.above_share(need.each, need.cpus, need.memory_mib).jobs)


def is_still_asked(free: FreeMap, spans: tuple[Span, ...], need: Need) -> bool:
    """True if what was promised to a need is what it takes beside its GPUs as the pool is declared now."""
    return (spans[0].cpus, spans[0].memory_mib) == (need.cpus, need.memory_mib) and not takes_more(free, need)


def asking(spans: tuple[Span, ...], need: Need) -> tuple[Span, ...]:
    """The spans with the CPUs and the memory that the job takes beside its GPUs."""
    if not (need.cpus or need.memory_mib):
        return spans
    return tuple([Span(span.first, span.nodes, span.gpu_mask, need.cpus, need.memory_mib) for span in spans])


def _beside_gpus(free: FreeMap, need: Need) -> tuple[Span, ...] | None:
    """A node for CPUs and memory alone: the one with the fewest free GPUs that has enough left beside their share."""
    everywhere = (1 << free.nodes) - 1
    node = min(
        indices(everywhere & ~short(free, need, everywhere)),
        key=lambda node: (free.masks[node].bit_count(), node),
        default=None,
    )
    return None if node is None else asking((Span(node, 1, 0),), need)


def _gang(free: FreeMap, need: Need) -> tuple[Span, ...] | None:
    if need.spread:
        picks = spread_racks(segment_counts(free, need), need, free.racks_per_block)
        return None if picks is None else _spans(free, need, picks, need.segment)
    rack = _one_whole_rack(free, need)
    if rack is not None:
        return _spans(free, need, [(rack, need.nodes)], 1)
    picks = pick_racks(segment_counts(free, need), need, free.racks_per_block)
    return None if picks is None else _spans(free, need, picks, need.segment)


# --- single nodes ----------------------------------------------------------------------------------------------------


def _one_node(free: FreeMap, each: int, lacking: int) -> tuple[Span, ...] | None:
    """The fullest broken node that still fits; failing that a whole one, in the rack that is most broken.

    `lacking`: nodes, a bitset, that do not count.
    """
    for bits in free.by_free[each : free.gpus_per_node]:
        usable = bits & ~lacking if lacking else bits
        if usable:
            node = lowest(usable)
            return (Span(node, 1, pick_gpus(free.masks[node], each, free.slices_per_gpu)),)
    node = _whole_node(_without(free, lacking & free.by_free[free.gpus_per_node]) if lacking else free)
    return None if node < 0 else (Span(node, 1, pick_gpus(free.full_mask, each, free.slices_per_gpu)),)


def _whole_node(free: FreeMap) -> int:
    for racks in free.racks_by_whole[1:]:
        if racks:
            first = lowest(racks) * free.nodes_per_rack
            return first + lowest(free.by_free[free.gpus_per_node] >> first)
    return -1


@lru_cache(maxsize=1 << 16)  # nodes that are cut have more masks than memory holds
def pick_gpus(mask: int, count: int, slices_per_gpu: int) -> int:
    """The GPUs of a node to take, `count` of those in `mask`: the lowest.

    Slices all come from the GPU with the fewest that has enough; if none has, those of the roomiest first.
    """
    gpu, whole = 0, (1 << slices_per_gpu) - 1
    pieces = []
    while mask >> gpu:
        pieces.append(mask & whole << gpu)
        gpu += slices_per_gpu
    roomy = [piece for piece in pieces if piece.bit_count() >= count]
    if roomy:
        return sum(1 << bit for bit in _low_bits(min(roomy, key=int.bit_count), count))
    roomiest = max(pieces, key=int.bit_count)
    return roomiest | pick_gpus(mask & ~roomiest, count - roomiest.bit_count(), slices_per_gpu)


# --- gangs: which racks ----------------------------------------------------------------------------------------------


def _one_whole_rack(free: FreeMap, need: Need) -> int | None:
    """The fullest rack that holds the whole gang on whole nodes, found by the files alone."""
    if need.each != free.gpus_per_node:
        return None
    for racks in free.racks_by_whole[need.nodes :]:
        if racks:
            return lowest(racks)
    return None


def segment_counts(free: FreeMap, need: Need) -> list[int]:
    """How many segments each rack has room for (nodes, if the gang has no segments)."""
    counts = list(free.rack_whole) if need.each == free.gpus_per_node else _nodes_with(free, need.each)
    return counts if need.segment == 1 else [count // need.segment for count in counts]


def _nodes_with(free: FreeMap, each: int) -> list[int]:
    """Per rack, the nodes with at least `each` free GPUs."""
    bits, in_rack, racks = roomy(free, each), (1 << free.nodes_per_rack) - 1, len(free.rack_whole)
    return [(bits >> rack * free.nodes_per_rack & in_rack).bit_count() for rack in range(racks)]


def roomy(free: FreeMap, each: int) -> int:
    """The nodes with at least `each` free GPUs, as a bitset."""
    bits = 0
    for file in free.by_free[each:]:
        bits |= file
    return bits


def pick_racks(counts: list[int], need: Need, racks_per_block: int) -> list[Pick] | None:
    """The racks for the gang in the narrowest level that holds it, fewest racks first; None if there are none."""
    wanted = need.nodes // need.segment
    tightest = min(((count, rack) for rack, count in enumerate(counts) if count >= wanted), default=None)
    if tightest is not None:
        return [(tightest[1], wanted)]
    if need.widest is Level.RACK or sum(counts) < wanted:
        return None
    picks = _one_block(counts, wanted, racks_per_block)
    if picks is None and need.widest is Level.POOL:
        picks = _many_blocks(counts, wanted, racks_per_block)
    return picks


def _blocks(counts: list[int], racks_per_block: int) -> Iterator[tuple[int, int]]:
    """Each block's first rack and the sum of its counts."""
    for first in range(0, len(counts), racks_per_block):
        yield first, sum(counts[first : first + racks_per_block])


def _one_block(counts: list[int], wanted: int, racks_per_block: int) -> list[Pick] | None:
    best: tuple[int, int, list[Pick]] | None = None
    for first, total in _blocks(counts, racks_per_block):
        if total < wanted:
            continue
        picks = _fewest(counts, range(first, min(first + racks_per_block, len(counts))), wanted)
        if best is None or (len(picks), total) < best[:2]:
            best = (len(picks), total, picks)
    return best[2] if best else None


def _many_blocks(counts: list[int], wanted: int, racks_per_block: int) -> list[Pick]:
    """Whole blocks, the roomiest first, and the rest from the tightest block that holds it."""
    blocks = sorted(_blocks(counts, racks_per_block), key=lambda block: (-block[1], block[0]))
    picks: list[Pick] = []
    for place, (first, total) in enumerate(blocks):
        if total >= wanted:
            chosen = min(blocks[place:], key=lambda block: (block[1] < wanted, block[1], block[0]))[0]
        else:
            chosen = first
        racks = range(chosen, min(chosen + racks_per_block, len(counts)))
        taken = _fewest(counts, racks, min(total, wanted))
        picks += taken
        wanted -= sum(count for _, count in taken)
        if not wanted:
            break
    return picks


def _fewest(counts: list[int], racks: range, wanted: int) -> list[Pick]:
    """The fewest racks that together hold `wanted`: the roomiest first, the rest from the tightest that holds it."""
    order = sorted(racks, key=lambda rack: (-counts[rack], rack))
    picks: list[Pick] = []
    for place, rack in enumerate(order):
        if counts[rack] >= wanted:
            last = min(order[place:], key=lambda each: (counts[each] < wanted, counts[each], each))
            picks.append((last, wanted))
            break
        picks.append((rack, counts[rack]))
        wanted -= counts[rack]
    return picks


def spread_racks(counts: list[int], need: Need, racks_per_block: int) -> list[Pick] | None:
    """The racks for the gang, as many as can be and evenly, within the level it must keep; None if there are none."""
    wanted = need.nodes // need.segment
    width = {Level.RACK: 1, Level.BLOCK: racks_per_block, Level.POOL: len(counts)}[need.widest]
    domains = (range(first, min(first + width, len(counts))) for first in range(0, len(counts), width))
    found = [picks for racks in domains if (picks := _evenly(counts, racks, wanted))]
    return max(found, key=lambda picks: (len(picks), -max(count for _, count in picks)), default=None)


def _evenly(counts: list[int], racks: range, wanted: int) -> list[Pick]:
    """About the same number from each rack; nothing if they do not hold `wanted` together."""
    left, picks = wanted, []
    order = sorted((rack for rack in racks if counts[rack]), key=lambda rack: (counts[rack], rack))
    for place, rack in enumerate(order):  # the tightest first: what one cannot hold, the roomier ones share
        taken = min(counts[rack], -(-left // (len(order) - place)))
        left -= taken
        if taken:
            picks.append((rack, taken))
    return [] if left else picks


# --- gangs: which nodes ----------------------------------------------------------------------------------------------


def _spans(free: FreeMap, need: Need, picks: list[Pick], segment: int) -> tuple[Span, ...]:
    """The nodes of the picked racks, neighbours with equal masks joined."""
    pieces: list[Span] = []
    for rack, segments in sorted(picks):
        pieces += _in_rack(free, need.each, rack, segments * segment)
    return merged(pieces)


def _in_rack(free: FreeMap, each: int, rack: int, nodes: int) -> list[Span]:
    first = rack * free.nodes_per_rack
    if each == free.gpus_per_node:
        if nodes == free.nodes_per_rack:
            return [Span(first, nodes, free.full_mask)]
        whole = free.by_free[each] >> first & (1 << free.nodes_per_rack) - 1
        return [Span(first + node, 1, free.full_mask) for node in _low_bits(whole, nodes)]
    fitting = [node for node in range(first, min(first + free.nodes_per_rack, free.nodes))
               if free.together(free.masks[node]) >= each]  # fmt: skip
    fitting.sort(key=lambda node: (free.masks[node].bit_count(), node))
    return [Span(node, 1, pick_gpus(free.masks[node], each, free.slices_per_gpu)) for node in sorted(fitting[:nodes])]


def _low_bits(bits: int, count: int) -> Iterator[int]:
    for _ in range(count):
        yield lowest(bits)
        bits &= bits - 1


def rest_of(free: FreeMap, spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """All nodes of a pool but these; `spans`: whole nodes, in order."""
    ends = [0, *[span.first + span.nodes for span in spans]]
    firsts = [*[span.first for span in spans], free.nodes]
    return tuple(Span(end, first - end, free.full_mask) for end, first in zip(ends, firsts, strict=True) if end < first)


def merged(pieces: list[Span]) -> tuple[Span, ...]:
    """Neighbouring spans with equal masks joined; `pieces` in order of nodes, with no more than their GPUs' share."""
    if len(pieces) == 1:
        return (pieces[0],)
    spans: list[Span] = []
    first = nodes = mask = 0
    for piece in pieces:
        if piece.first == first + nodes and piece.gpu_mask == mask:
            nodes += piece.nodes
            continue
        if nodes:
            spans.append(Span(first, nodes, mask))
        first, nodes, mask = piece.first, piece.nodes, piece.gpu_mask
    return (*spans, Span(first, nodes, mask))
