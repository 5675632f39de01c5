"""Which GPUs of a pool are free: the one structure placement searches, cheap to update and cheap to branch.

Nodes are filed by how many free GPUs they have, each file an integer used as a bitset (bit i = node i). Integers are
immutable, so a branch shares them, and marking a thousand neighbouring whole nodes is one operation. Racks and blocks
keep a count of wholly free nodes; racks are filed by it. What the counts cannot hold is never searched.
"""

from array import array
from collections.abc import Iterable, Iterator

from pumasi.model.jobs import Span

_NARROW_GPUS = 16  # a node with more has wide masks


class FreeMap:
    """Free GPUs of one pool. `masks[i]`: free GPUs of node i (bit j = GPU j); GPUs out of service count as not free.

    In a pool that is cut they are slices, `slices_per_gpu` neighbours on each GPU.
    """

    __slots__ = (
        "block_whole",
        "by_free",
        "free_gpus",
        "gpus_per_node",
        "masks",
        "nodes",
        "nodes_per_rack",
        "rack_whole",
        "racks_by_whole",
        "racks_per_block",
        "slices_per_gpu",
    )

    def __init__(
        self, nodes: int, gpus_per_node: int, nodes_per_rack: int, racks_per_block: int, slices_per_gpu: int = 1
    ) -> None:
        racks = -(-nodes // nodes_per_rack)
        self.nodes = nodes
        self.gpus_per_node = gpus_per_node
        self.nodes_per_rack = nodes_per_rack
        self.racks_per_block = racks_per_block
        self.slices_per_gpu = slices_per_gpu
        self.free_gpus = 0
        self.masks = no_masks(nodes, gpus_per_node)
        self.by_free = [0] * (gpus_per_node + 1)
        self.rack_whole = array("H", bytes(2 * racks))
        self.racks_by_whole = [(1 << racks) - 1] + [0] * nodes_per_rack
        self.block_whole = array("L", [0] * -(-racks // racks_per_block))

    @property
    def full_mask(self) -> int:
        """The mask of a node all of whose GPUs are free."""
        return (1 << self.gpus_per_node) - 1

    def branch(self) -> "FreeMap":
        """A copy that can be changed without changing this one; a few microseconds for ten thousand nodes."""
        twin = FreeMap.__new__(FreeMap)
        twin.nodes = self.nodes
        twin.gpus_per_node = self.gpus_per_node
        twin.nodes_per_rack = self.nodes_per_rack
        twin.racks_per_block = self.racks_per_block
        twin.slices_per_gpu = self.slices_per_gpu
        twin.free_gpus = self.free_gpus
        twin.masks = self.masks[:]
        twin.by_free = self.by_free[:]
        twin.rack_whole = self.rack_whole[:]
        twin.racks_by_whole = self.racks_by_whole[:]
        twin.block_whole = self.block_whole[:]
        return twin

    def take(self, span: Span) -> None:
        """Mark the span's GPUs as not free. All of them must be free."""
        wanted = span.gpu_mask
        if span.nodes == 1:
            mask = self.masks[span.first]
            assert mask & wanted == wanted, f"node {span.first}: GPUs {wanted:b} asked, {mask:b} free"
            self._refile(span.first, 1, mask, mask & ~wanted)
            return
        for first, nodes, mask in self._runs(span):
            assert mask & wanted == wanted, f"node {first}: GPUs {wanted:b} asked, {mask:b} free"
            self._refile(first, nodes, mask, mask & ~wanted)

    def take_free(self, spans: Iterable[Span]) -> None:
        """Mark what is free of these GPUs as not free."""
        for span in spans:
            if self.free_in(span):
                self.take(span)
                continue
            for node in range(span.first, span.first + span.nodes):
                if mask := span.gpu_mask & self.masks[node]:
                    self.take(Span(node, 1, mask))

    def give(self, span: Span) -> None:
        """Mark the span's GPUs as free. None of them may be free already."""
        given = span.gpu_mask
        if span.nodes == 1:
            mask = self.masks[span.first]
            assert not mask & given, f"node {span.first}: GPUs {given:b} given back, {mask:b} free"
            self._refile(span.first, 1, mask, mask | given)
            return
        for first, nodes, mask in self._runs(span):
            assert not mask & given, f"node {first}: GPUs {given:b} given back, {mask:b} free"
            self._refile(first, nodes, mask, mask | given)

    def free_in(self, span: Span) -> bool:
        """True if the span lies in the pool and every GPU of it is free."""
        wanted = span.gpu_mask
        if span.first < 0 or span.first + span.nodes > self.nodes:
            return False
        if span.nodes == 1:
            return self.masks[span.first] & wanted == wanted
        return all(mask & wanted == wanted for _, _, mask in self._runs(span))

    def _runs(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """The span cut into runs of nodes with equal masks: (first, nodes, mask)."""
        first, end = span.first, span.first + span.nodes
        masks = self.masks[first:end]
        start = 0
        while start < len(masks):
            stop = _run_end(masks, start)
            yield first + start, stop - start, masks[start]
            start = stop

    def _refile(self, first: int, nodes: int, old: int, new: int) -> None:
        """Move neighbouring nodes that all had mask `old` to mask `new`, with every counter."""
        was, now, bits = old.bit_count(), new.bit_count(), ((1 << nodes) - 1) << first
        if was:
            self.by_free[was] ^= bits
        if now:
            self.by_free[now] ^= bits
        if nodes == 1:
            self.masks[first] = new
        else:
            self.masks[first : first + nodes] = array(self.masks.typecode, (new,)) * nodes
        self.free_gpus += (now - was) * nodes
        if was == self.gpus_per_node:
            self._count_whole(first, nodes, -1)
        elif now == self.gpus_per_node:
            self._count_whole(first, nodes, 1)

    def _count_whole(self, first: int, nodes: int, sign: int) -> None:
        """Add `sign` per node to the counts of wholly free nodes of the racks and blocks they stand in."""
        end = first + nodes
        while first < end:
            rack = first // self.nodes_per_rack
            here = min(end, (rack + 1) * self.nodes_per_rack) - first
            was = self.rack_whole[rack]
            self.rack_whole[rack] = now = was + sign * here
            self.racks_by_whole[was] ^= 1 << rack
            self.racks_by_whole[now] ^= 1 << rack
            self.block_whole[rack // self.racks_per_block] += sign * here
            first += here


def no_masks(nodes: int, gpus_per_node: int) -> "array[int]":
    """A mask of no GPUs for each node, with room for all of them."""
    return array("H" if gpus_per_node <= _NARROW_GPUS else "Q", (0,)) * nodes


def _run_end(masks: "array[int]", start: int) -> int:
    """The end of the run of equal masks that begins at `start`."""
    value, count = masks[start], len(masks)
    if masks[-1] == value and masks.count(value) == count:
        return count
    stop = start + 1
    while stop < count and masks[stop] == value:
        stop += 1
    return stop


def lowest(bits: int) -> int:
    """The index of the lowest set bit; -1 if there is none."""
    return (bits & -bits).bit_length() - 1
