"""Which GPUs of a pool are free: the one structure placement searches, cheap to update and cheap to branch.

Nodes are filed by how many free GPUs they have for one job, each file an integer used as a bitset (bit i = node i).
Integers are immutable, so a branch shares them, and marking a thousand neighbouring whole nodes is one operation.
Racks and blocks keep a count of wholly free nodes; racks are filed by it. What counts cannot hold is never searched.

A free GPU comes with its share of the node's CPUs and memory. Only where somebody takes more than the share of its
GPUs can they be short; what is taken above or below it is noted node by node, and nothing is noted of anybody else.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pumasi.model.jobs import Span

_NARROW_GPUS = 16  # a node with more has wide masks
_ASKS_KNOWN_MAX = 16  # more different ones than that are judged anew


class Beyond(NamedTuple):
    """What is taken above the share of GPUs, or below it if negative, in parts: of one CPU or MiB there are as many as
    a node has GPUs, so that the share of a GPU is a whole number of them. `jobs`: how many take more than their share.
    """

    cpu_parts: int = 0
    memory_parts: int = 0
    jobs: int = 0


_NOTHING = Beyond()


class FreeMap:
    """Free GPUs of one pool. `masks[i]`: free GPUs of node i (bit j = GPU j); GPUs out of service count as not free.

    In a pool that is cut they are slices, `slices_per_gpu` neighbours on each GPU; if `is_shared`, they are shards, and
    what one job has of a node comes from one GPU. `cpus_per_node` and `memory_mib_per_node`: 0 where they are not
    counted. `beyond`: by node, what is taken of them above or below the share of GPUs. `noted`: the nodes in it, and
    `tight`: those where a job takes more than its share, as bitsets. `judged`: by what is asked of a node, which of
    those have been looked at since they changed, and which lack it.
    """

    __slots__ = (
        "beyond",
        "block_whole",
        "by_free",
        "cpus_per_node",
        "free_gpus",
        "gpus_per_node",
        "is_shared",
        "judged",
        "masks",
        "memory_mib_per_node",
        "nodes",
        "nodes_per_rack",
        "noted",
        "rack_whole",
        "racks_by_whole",
        "racks_per_block",
        "slices_per_gpu",
        "tight",
    )

    def __init__(
        self,
        nodes: int,
        gpus_per_node: int,
        nodes_per_rack: int,
        racks_per_block: int,
        slices_per_gpu: int = 1,
        cpus_per_node: int = 0,
        memory_mib_per_node: int = 0,
        *,
        is_shared: bool = False,
    ) -> None:
        racks = -(-nodes // nodes_per_rack)
        self.nodes = nodes
        self.gpus_per_node = gpus_per_node
        self.nodes_per_rack = nodes_per_rack
        self.racks_per_block = racks_per_block
        self.slices_per_gpu = slices_per_gpu
        self.is_shared = is_shared
        self.cpus_per_node = cpus_per_node
        self.memory_mib_per_node = memory_mib_per_node
        self.beyond: dict[int, Beyond] = {}
        self.judged: dict[tuple[int, int, int], tuple[int, int]] = {}
        self.noted = 0
        self.tight = 0
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

    def emptied(self) -> "FreeMap":
        """A map of the same nodes in which nothing is free, and nothing noted."""
        return FreeMap(
            self.nodes,
            self.gpus_per_node,
            self.nodes_per_rack,
            self.racks_per_block,
            self.slices_per_gpu,
            self.cpus_per_node,
            self.memory_mib_per_node,
            is_shared=self.is_shared,
        )

    def branch(self) -> "FreeMap":
        """A copy that can be changed without changing this one; a few microseconds for ten thousand nodes."""
        twin = FreeMap.__new__(FreeMap)
        twin.nodes = self.nodes
        twin.gpus_per_node = self.gpus_per_node
        twin.nodes_per_rack = self.nodes_per_rack
        twin.racks_per_block = self.racks_per_block
        twin.slices_per_gpu = self.slices_per_gpu
        twin.is_shared = self.is_shared
        twin.cpus_per_node = self.cpus_per_node
        twin.memory_mib_per_node = self.memory_mib_per_node
        twin.beyond, twin.judged = self.beyond.copy(), self.judged.copy()
        twin.noted, twin.tight = self.noted, self.tight
        twin.free_gpus = self.free_gpus
        twin.masks = self.masks[:]
        twin.by_free = self.by_free[:]
        twin.rack_whole = self.rack_whole[:]
        twin.racks_by_whole = self.racks_by_whole[:]
        twin.block_whole = self.block_whole[:]
        return twin

    def take(self, span: Span) -> None:
        """Mark the span's GPUs as not free, and note what it has beside them. All of them must be free."""
        wanted = span.gpu_mask
        if span.cpus or span.memory_mib:
            self.note(span)
        if span.nodes == 1:
            mask = self.masks[span.first]
            assert mask & wanted == wanted, f"node {span.first}: GPUs {wanted:b} asked, {mask:b} free"
            self._refile(span.first, 1, mask, mask & ~wanted)
            return
        for first, nodes, mask in self._runs(span):
            assert mask & wanted == wanted, f"node {first}: GPUs {wanted:b} asked, {mask:b} free"
            self._refile(first, nodes, mask, mask & ~wanted)

    def take_free(self, spans: Iterable[Span]) -> None:
        """Mark what is free of these GPUs as not free, each with its share of the rest."""
        for span in spans if self.free_gpus else ():
            bare = Span(span.first, span.nodes, span.gpu_mask)
            if self.free_in(bare):
                self.take(bare)
                continue
            for node in range(span.first, span.first + span.nodes):
                if mask := span.gpu_mask & self.masks[node]:
                    self.take(Span(node, 1, mask))

    def give(self, span: Span) -> None:
        """Mark the span's GPUs as free, and forget what it had beside them. None of them may be free already."""
        given = span.gpu_mask
        if span.cpus or span.memory_mib:
            self.note(span, -1)
        if span.nodes == 1:
            mask = self.masks[span.first]
            assert not mask & given, f"node {span.first}: GPUs {given:b} given back, {mask:b} free"
            self._refile(span.first, 1, mask, mask | given)
            return
        for first, nodes, mask in self._runs(span):
            assert not mask & given, f"node {first}: GPUs {given:b} given back, {mask:b} free"
            self._refile(first, nodes, mask, mask | given)

    def free_in(self, span: Span) -> bool:
        """True if the span lies in the pool, and every GPU of it is free with what the span has beside it."""
        wanted = span.gpu_mask
        if span.first < 0 or span.first + span.nodes > self.nodes:
            return False
        if span.nodes == 1:
            are_free = self.masks[span.first] & wanted == wanted
        else:
            are_free = all(mask & wanted == wanted for _, _, mask in self._runs(span))
        if not (are_free and (self.tight or span.cpus or span.memory_mib)):
            return are_free
        nodes = ((1 << span.nodes) - 1) << span.first
        return not self.short(nodes, wanted.bit_count(), span.cpus, span.memory_mib)

    def _runs(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """The span cut into runs of nodes with equal masks: (first, nodes, mask)."""
        first, end = span.first, span.first + span.nodes
        masks = self.masks[first:end]
        start = 0
        while start < len(masks):
            stop = _run_end(masks, start)
            yield first + start, stop - start, masks[start]
            start = stop

    # --- CPUs and memory ---------------------------------------------------------------------------------------------

    def note(self, span: Span, sign: int = 1) -> None:
        """Note what a span takes above or below its share on each of its nodes or, with `sign` -1, forget it."""
        cpus, memory, _ = more = self.above_share(span.gpu_mask.bit_count(), span.cpus, span.memory_mib)
        for node in range(span.first, span.first + span.nodes) if more != _NOTHING else ():
            had = self.beyond.get(node, _NOTHING)
            now = Beyond(had.cpu_parts + sign * cpus, had.memory_parts + sign * memory, had.jobs + sign * more.jobs)
            self.beyond[node] = now
            self.noted |= 1 << node
            self.tight = self.tight | 1 << node if now.jobs else self.tight & ~(1 << node)
            if now == _NOTHING:
                del self.beyond[node]
                self.noted ^= 1 << node
            self._changed(1 << node)

    def left_on(self, node: int) -> tuple[int, int]:
        """Whole CPUs and MiB of a node that come with its free GPUs."""
        gpus, parts = self.masks[node].bit_count(), self.gpus_per_node
        cpu_parts, memory_parts, _ = self.beyond.get(node, _NOTHING)
        return (
            (gpus * self.cpus_per_node - cpu_parts) // parts,
            (gpus * self.memory_mib_per_node - memory_parts) // parts,
        )

    def takes_more(self, span: Span) -> bool:
        """True if the span takes more CPUs or memory than the share of its GPUs."""
        asks = span.cpus or span.memory_mib
        return bool(asks and self.above_share(span.gpu_mask.bit_count(), span.cpus, span.memory_mib).jobs)

    def above_share(self, gpus: int, cpus: int, memory_mib: int) -> Beyond:
        """What a job takes on a node beyond the share of its GPUs there; 0 CPUs or MiB: no more than that."""
        parts = self.gpus_per_node
        cpu_parts = cpus * parts - gpus * self.cpus_per_node if cpus and self.cpus_per_node else 0
        memory_parts = (
            memory_mib * parts - gpus * self.memory_mib_per_node if memory_mib and self.memory_mib_per_node else 0
        )
        return Beyond(cpu_parts, memory_parts, int(cpu_parts > 0 or memory_parts > 0))

    def short(self, among: int, gpus: int, cpus: int, memory_mib: int) -> int:
        """Those of some nodes that have too few CPUs or too little memory left for so much beside so many free GPUs.

        Nodes are bitsets. Few need be looked at: where all take their share at most, so can one more; and where nothing
        is noted, what is left goes by the count of free GPUs.
        """
        more, by_count, looked_at = self.above_share(gpus, cpus, memory_mib), 0, among & self.tight
        if more.jobs and self.is_shared:
            looked_at = among
        elif more.jobs:
            by_count, looked_at = self._short_by_count(among & ~self.noted, gpus, more), among & self.noted
        seen, found = self.judged.get((gpus, cpus, memory_mib), (0, 0))
        for node in indices(looked_at & ~seen):
            cpu_parts, memory_parts, _ = self.beyond.get(node, _NOTHING)
            others = self.masks[node].bit_count() - gpus  # what these come with can be taken
            if (
                cpu_parts + more.cpu_parts > others * self.cpus_per_node
                or memory_parts + more.memory_parts > others * self.memory_mib_per_node
            ):
                found |= 1 << node
        if len(self.judged) >= _ASKS_KNOWN_MAX:
            self.judged.clear()
        if looked_at & ~seen:
            self.judged[gpus, cpus, memory_mib] = (seen | looked_at, found)
        return by_count | found & looked_at

    def _changed(self, nodes: int) -> None:
        """What these nodes, a bitset, have left is to be judged anew."""
        for asked, (seen, found) in self.judged.items():
            self.judged[asked] = (seen & ~nodes, found & ~nodes)

    def _short_by_count(self, among: int, gpus: int, more: Beyond) -> int:
        """Those of some nodes on which nothing is noted that have too few free GPUs to take so much more from."""
        per_node = ((more.cpu_parts, self.cpus_per_node), (more.memory_parts, self.memory_mib_per_node))
        spared = max(-(-parts // each) for parts, each in per_node if each)
        for file in self.by_free[gpus + spared :]:
            among &= ~file
        return among

    # --- counts ------------------------------------------------------------------------------------------------------

    def _refile(self, first: int, nodes: int, old: int, new: int) -> None:
        """Move neighbouring nodes that all had mask `old` to mask `new`, with every counter."""
        was, now, bits = old.bit_count(), new.bit_count(), ((1 << nodes) - 1) << first
        if was == now:
            return  # CPUs and memory alone
        if self.judged:
            self._changed(bits)
        filed_was, filed_now = (self.together(old), self.together(new)) if self.is_shared else (was, now)
        if filed_was:
            self.by_free[filed_was] ^= bits
        if filed_now:
            self.by_free[filed_now] ^= bits
        if nodes == 1:
            self.masks[first] = new
        else:
            self.masks[first : first + nodes] = array(self.masks.typecode, (new,)) * nodes
        self.free_gpus += (now - was) * nodes
        if was == self.gpus_per_node:
            self._count_whole(first, nodes, -1)
        elif now == self.gpus_per_node:
            self._count_whole(first, nodes, 1)

    def together(self, mask: int) -> int:
        """GPUs of a node that one job can have, of those in `mask`: of shards those of one GPU, or the whole node."""
        if not self.is_shared or mask == self.full_mask:
            return mask.bit_count()
        return max((mask & gpu).bit_count() for gpu in self.each_gpu())

    def each_gpu(self) -> Iterator[int]:
        """The slices of every GPU of a node, as masks."""
        for first in range(0, self.gpus_per_node, self.slices_per_gpu):
            yield ((1 << self.slices_per_gpu) - 1) << first

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


def indices(bits: int) -> Iterator[int]:
    """The indices of all set bits, from the lowest."""
    while bits:
        yield lowest(bits)
        bits &= bits - 1


def lowest(bits: int) -> int:
    """The index of the lowest set bit; -1 if there is none."""
    return (bits & -bits).bit_length() - 1
