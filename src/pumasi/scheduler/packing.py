"""Where work that shares nodes wastes least: the general score of a place, learned from what runs.

Three questions decide, each among the places that those before it leave equal. How much of the GPU will stay unused?
How much further are the node's free GPUs, CPUs and memory from the proportions in which they are taken? How much more
of its free GPUs is out of reach of such work as runs? Counts alone answer: no kind of node or job is named.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pumasi.model.ids import PoolId
from pumasi.model.jobs import Span
from pumasi.scheduler.shapes import Need
from pumasi.state.fleet_state import FleetState
from pumasi.state.freemap import FreeMap, lowest

Counts = NDArray[np.int64]

_DRAWS = 90  # jobs that are thought to come by a GPU; from 60 to 120 it makes little difference
_FEW = 10  # GPUs thought to be open to every size beside those that are, so that rare sizes do not seem common
_UNIT = 1 << 20  # of a part: what will be unused is an expectation
_FINE = 1 << 6  # of a CPU or a MiB: what comes with a part of a GPU
_FAR = 1 << 60


class Ask(NamedTuple):
    """What is taken of one node: so many parts of each of `gpus` GPUs, CPUs and memory beside them, in any units."""

    gpus: int
    parts: int
    cpus: int
    memory: int


class Rooms(NamedTuple):
    """What is free on nodes: parts of each GPU (a row for each node; 0 where it has no more GPUs), CPUs, memory."""

    parts: Counts
    cpus: Counts
    memory: Counts

    def at(self, nodes: Counts) -> "Rooms":
        """Some of the nodes."""
        return Rooms(self.parts[nodes], self.cpus[nodes], self.memory[nodes])

    def fit(self, ask: Ask) -> Counts:
        """The nodes that have room."""
        has_room = (self.cpus >= ask.cpus) & (self.memory >= ask.memory)
        if ask.gpus:
            has_room &= (self.parts >= ask.parts).sum(1) >= ask.gpus
        return np.flatnonzero(has_room)

    def without(self, ask: Ask, gpus: Counts) -> "Rooms":
        """What is left when every node gives such a job these of its GPUs (a row of indices for each node)."""
        parts = self.parts.copy()
        parts[np.arange(len(parts))[:, None], gpus] -= ask.parts
        return Rooms(parts, self.cpus - ask.cpus, self.memory - ask.memory)


class Mix:
    """What such work takes as runs on nodes, and what follows from it. `parts`: those of a whole GPU.

    `unused[n]`: what will stay unused of a GPU that has n parts free, in units.
    """

    def __init__(self, taken: Iterable[tuple[Ask, int]], parts: int, rooms: Rooms) -> None:
        rows = np.array([(*ask, count) for ask, count in taken], np.int64).reshape(-1, 5)
        sums = rows[:, 4] @ np.stack([rows[:, 0] * rows[:, 1], rows[:, 2], rows[:, 3]], 1)
        self._cpus, self._memory = (int(total) * _FINE // max(1, int(sums[0])) for total in sums[1:])  # with a part
        self._asks = rows[rows[:, 0] > 0]
        self._sizes, self._size_of = np.unique(self._asks[:, 1], return_inverse=True)
        self.unused = _unused(self._rates(parts, rooms), parts)

    def _rates(self, parts: int, rooms: Rooms) -> tuple[tuple[int, int], ...]:
        """How often each part of a GPU is taken, for each of the broken GPUs that could give it."""
        broken = np.bincount(rooms.parts[rooms.parts < parts], minlength=parts)
        counts = np.bincount(self._size_of, self._asks[:, 4], len(self._sizes)).astype(np.int64).tolist()
        return tuple(
            (size, count * _UNIT // (_FEW + int(broken[size:].sum())))
            for size, count in zip(self._sizes.tolist(), counts, strict=True)
            if size < parts
        )

    def imbalance(self, rooms: Rooms) -> Counts:
        """By node, how far free CPUs and memory are from what its free GPUs would come with."""
        parts, far = rooms.parts.sum(1), np.zeros(len(rooms.parts), np.int64)
        for free, each, other in ((rooms.cpus, self._cpus, self._memory), (rooms.memory, self._memory, self._cpus)):
            if each:
                far += np.abs(free * _FINE - parts * each) * max(1, other)
        return far

    def out_of_reach(self, rooms: Rooms) -> Counts:
        """By node, the parts of free GPUs that a job could not use, summed over those that run."""
        by_gpu = np.ascontiguousarray(rooms.parts.T)
        is_roomy = by_gpu >= self._sizes[:, None, None]
        roomy, too_small = is_roomy.sum(1)[self._size_of], np.where(is_roomy, 0, by_gpu).sum(1)[self._size_of]
        gpus, _, cpus, memory, counts = (column[:, None] for column in self._asks.T)
        fits = (roomy >= gpus) & (rooms.cpus >= cpus) & (rooms.memory >= memory)
        found: Counts = counts[:, 0] @ np.where(fits, too_small, by_gpu.sum(0))
        return found


@lru_cache(maxsize=64)
def _unused(rates: tuple[tuple[int, int], ...], parts: int) -> Counts:
    """By free parts, what will stay unused of a GPU: jobs come by, and it takes those that leave less unused so."""
    unused = np.arange(parts + 1, dtype=np.int64) * _UNIT
    if not rates:
        return unused
    sizes, weights = np.array(rates, np.int64).T
    rest = np.arange(parts + 1)[:, None] - sizes
    weights = np.where(rest >= 0, weights * _UNIT // max(1, int(weights.sum())), 0)
    for _ in range(_DRAWS):
        unused = unused - (np.maximum(0, unused[:, None] - unused[rest]) * weights >> 20).sum(1)
    unused[parts] = 0  # whole GPUs are always asked for
    return unused


def best_place(rooms: Rooms, ask: Ask, mix: Mix) -> tuple[int, tuple[int, ...]] | None:
    """The node and its GPUs where the job wastes least; None if it fits nowhere. Ties go to the lowest index."""
    nodes = rooms.fit(ask)
    if not nodes.size:
        return None
    here = rooms.at(nodes)
    gpus, more = _gpus(here, ask, mix)
    best = np.flatnonzero(more == more.min())
    for cost in (mix.imbalance, mix.out_of_reach):
        if best.size == 1:
            break
        nodes, here, gpus = nodes[best], here.at(best), gpus[best]
        more = cost(here.without(ask, gpus)) - cost(here)
        best = np.flatnonzero(more == more.min())
    return int(nodes[best[0]]), tuple(gpus[best[0]].tolist())


def _gpus(rooms: Rooms, ask: Ask, mix: Mix) -> tuple[Counts, Counts]:
    """The GPUs to take on each of these nodes, and how much more will stay unused then."""
    whole = len(mix.unused) - 1
    if ask.gpus != 1 or ask.parts == whole:
        lowest_first = np.argsort(rooms.parts < ask.parts, axis=1, kind="stable")
        return lowest_first[:, : ask.gpus], np.zeros(len(rooms.parts), np.int64)
    more = np.full(whole + 1, _FAR)
    more[ask.parts :] = (mix.unused[: whole + 1 - ask.parts] - mix.unused[ask.parts :]) * (whole + 1)
    more += np.arange(whole + 1)  # where nothing else tells GPUs apart, the fullest
    by_gpu = more[rooms.parts]
    gpus = by_gpu.argmin(1)[:, None]
    return gpus, np.take_along_axis(by_gpu, gpus, 1)[:, 0]


# --- the nodes of a pool ---------------------------------------------------------------------------------------------


def rooms_of(free: FreeMap) -> Rooms:
    """The nodes of a pool. A slice is a part; CPUs and MiB are in parts as well, as in its notes (`Beyond`)."""
    shifts = np.arange(0, free.gpus_per_node, free.slices_per_gpu, dtype=np.uint64)
    on_gpus = np.array(free.masks, np.uint64)[:, None] >> shifts & np.uint64((1 << free.slices_per_gpu) - 1)
    parts = np.bitwise_count(on_gpus).astype(np.int64)
    cpus, memory = (parts.sum(1) * each for each in (free.cpus_per_node, free.memory_mib_per_node))
    for node, beyond in free.beyond.items():
        cpus[node] -= beyond.cpu_parts
        memory[node] -= beyond.memory_parts
    return Rooms(parts, cpus, memory)


def ask_of(free: FreeMap, gpus: int, cpus: int, memory_mib: int) -> Ask | None:
    """What is taken of a node of the pool; None if the slices are those of several GPUs, not all of them whole."""
    per_gpu, per_node = free.slices_per_gpu, free.gpus_per_node
    if gpus > per_gpu and gpus % per_gpu:
        return None
    return Ask(
        -(-gpus // per_gpu),
        min(gpus, per_gpu),
        cpus * per_node if cpus and free.cpus_per_node else gpus * free.cpus_per_node,
        memory_mib * per_node if memory_mib and free.memory_mib_per_node else gpus * free.memory_mib_per_node,
    )


def mix_of(state: FleetState, pool: PoolId) -> Mix:
    """What runs in a pool."""
    free, taken = state.occupancy[pool].free, Counter[Ask]()
    for job in state.active[pool]:
        for span in state.jobs[job].attempts[-1].spans:
            ask = ask_of(free, span.gpu_mask.bit_count(), span.cpus, span.memory_mib)
            if ask is not None:
                taken[ask] += span.nodes
    return Mix(taken.items(), free.slices_per_gpu, rooms_of(free))


def best_span(free: FreeMap, need: Need, mix: Mix) -> Span | None:
    """Where a job of one node wastes least; None if it fits nowhere, or only on slices of several GPUs."""
    ask = ask_of(free, need.each, need.cpus, need.memory_mib)
    found = ask and best_place(rooms_of(free), ask, mix)
    if not found or ask is None:
        return None
    node, gpus = found
    mask = 0
    for gpu in gpus:
        bits = free.masks[node] >> gpu * free.slices_per_gpu & (1 << free.slices_per_gpu) - 1
        for _ in range(ask.parts):
            mask |= 1 << lowest(bits) + gpu * free.slices_per_gpu
            bits &= bits - 1
    return Span(node, 1, mask, need.cpus, need.memory_mib)
