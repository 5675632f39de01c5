"""Where a need could be met if some jobs ended: the price of each node that lacks GPUs, and the cheapest place.

Who frees many nodes has one price for all of them. As long as the claims to come can use them all, each node bears its
part; where they could use two nodes of a gang of eight, each bears half.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace

from msgspec import Struct

from pumasi.model.ids import JobId
from pumasi.model.jobs import Level
from pumasi.scheduler.placement import roomy, short
from pumasi.scheduler.shapes import Need
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Job

# A node (or the first of a segment of nodes) that can be had: at what cost, where, and who must go for it.
Opening = tuple[int, int, tuple[JobId, ...]]


class Victim(Struct, gc=False):
    """A job whose GPUs can come free in time: `pieces`, masks by node. `returned`: charged to the claimant's owner."""

    job: Job
    pieces: dict[int, int]
    cost: int
    kill_at_ms: int
    returned: int = 0
    is_stopping: bool = False

    @property
    def evicted_gpus(self) -> int:
        """GPUs that are evicted if it has to go."""
        return 0 if self.is_stopping else self.job.spec.gpus

    def share(self, nodes: int, spare_nodes: int, *, by_size: bool) -> int:
        """What so many of its nodes bear of its cost (or size), if other claims can use `spare_nodes` more of them."""
        whole = self.evicted_gpus if by_size else self.cost
        return whole * nodes // (nodes + max(0, min(len(self.pieces) - nodes, spare_nodes)))


class Openings:
    """The cheapest places for one need in a pool, among free nodes and those that `victims` could leave.

    `free`: gives the free GPUs as they are now; `jobs_on`: who could leave GPUs of a node.
    `by_size`: what counts is how many GPUs are evicted, whatever work is lost.
    """

    def __init__(
        self,
        need: Need,
        victims: dict[JobId, Victim],
        free: Callable[[], FreeMap],
        jobs_on: Callable[[int], list[JobId]],
        *,
        by_size: bool,
    ) -> None:
        self._by_size = by_size
        self._need = need
        self._victims = victims
        self._free = free
        self._jobs_on = jobs_on
        self._wanted_nodes = need.nodes
        self._widest = 0
        self._by_node: dict[int, Opening] = {}
        shape = free()
        racks = {Level.RACK: 1, Level.BLOCK: shape.racks_per_block, Level.POOL: len(shape.rack_whole)}[need.widest]
        self._width = racks * shape.nodes_per_rack
        self._is_loose = need.segment == 1 and need.widest is Level.POOL
        self._heap: list[Opening] = []
        self._domains: dict[int, Opening] = {}
        self._stale: dict[int, None] = {}
        self._noted: list[int] = []
        self._shown: list[Opening] = []
        self._is_new = True

    def cheapest(self, wanted_nodes: int) -> list[Opening] | None:
        """The nodes (or segments) that can be had at least cost, all in one domain; None if none can hold the need.

        `wanted_nodes`: how many the claims to come could use in all, this one included. It only falls.
        """
        self._catch_up(wanted_nodes)
        return self._cheapest_nodes(self._need.nodes) if self._is_loose else self._cheapest_domain()

    def in_turn(self, wanted_nodes: int, claims: int) -> list[Opening]:
        """The nodes that up to so many claims of the need would take in turn; none if they had better ask one by one.

        Prices must not rise while they are served: the claims after them could still use all nodes of any victim.
        """
        self._catch_up(wanted_nodes)
        claims = min(claims, (wanted_nodes - self._widest) // self._need.nodes)
        found = self._cheapest_nodes(claims * self._need.nodes) if self._is_loose and claims > 1 else None
        return found or []

    def _catch_up(self, wanted_nodes: int) -> None:
        if self._is_new:
            self._wanted_nodes = wanted_nodes
            self._price_all()
        self._wanted_nodes = min(self._wanted_nodes, wanted_nodes)
        if self._noted:
            self._price(dict.fromkeys(self._noted))
            self._noted = []

    # --- prices of nodes ---------------------------------------------------------------------------------------------

    def note(self, nodes: Iterable[int]) -> None:
        """Something has changed on these nodes."""
        if not self._is_new:
            self._noted += nodes

    def _price(self, nodes: Iterable[int]) -> None:
        """Work out the price of these nodes anew."""
        free, by_node, is_loose = self._free(), self._by_node, self._is_loose
        for node in nodes:
            by_node.pop(node, None)
            opening = self._opening(node, free)
            if opening is not None:
                by_node[node] = opening
            if not is_loose:
                self._stale[node // self._width] = None
            elif opening is not None:
                heappush(self._heap, opening)

    def _price_all(self) -> None:
        """Every node that is free or could be; those that one victim has to itself are most, and need no search."""
        self._is_new, free, each = False, self._free(), self._need.each
        found, victims, full_mask = self._by_node, self._victims, free.full_mask
        self._widest = max((len(victim.pieces) for victim in victims.values()), default=0)
        nodes = dict.fromkeys(_bits(roomy(free, each)))
        for job, victim in victims.items():
            share, alone, pieces = self._share(victim), (job,), victim.pieces
            if full_mask not in pieces.values():
                nodes.update(dict.fromkeys(pieces))
            else:
                found.update({node: (share, node, alone) for node, mask in pieces.items() if mask == full_mask})
                nodes.update(dict.fromkeys([node for node, mask in pieces.items() if mask != full_mask]))
        for node in nodes:
            opening = self._opening(node, free)
            if opening is not None:
                found[node] = opening
        if self._is_loose:
            self._heap = list(found.values())
            heapify(self._heap)
        else:
            self._stale = dict.fromkeys(node // self._width for node in found)

    def _share(self, victim: Victim) -> int:
        return victim.share(1, self._wanted_nodes - 1, by_size=self._by_size)

    def _opening(self, node: int, free: FreeMap) -> Opening | None:
        """The least that must go for a node that lacks GPUs; None if all that could go do not do."""
        mask = free.masks[node]
        if (free.together(mask) if free.is_shared else mask.bit_count()) >= self._need.each:
            return None if free.tight and short(free, self._need, 1 << node) else (0, node, ())
        jobs_on = self._jobs_on(node)
        if not jobs_on:
            return None
        if not free.is_shared:
            return self._cleared(node, mask, -1, jobs_on)
        return min(filter(None, (self._cleared(node, mask, gpu, jobs_on) for gpu in free.each_gpu())), default=None)

    def _cleared(self, node: int, mask: int, among: int, jobs_on: list[JobId]) -> Opening | None:
        """The least that must go for GPUs that are all in the mask `among`."""
        missing = self._need.each - (mask & among).bit_count()
        entries = sorted(self._on(node, among, jobs_on))
        if len(entries) > 1 and len({gpus for _, _, gpus in entries}) == 1:
            entries = entries[: -(-missing // entries[0][2])]
        if sum([gpus for _, _, gpus in entries]) < missing:
            return None
        cost, _, jobs = _least(entries, missing)
        return (cost, node, jobs)

    def _on(self, node: int, among: int, jobs_on: list[JobId]) -> list[tuple[int, JobId, int]]:
        """The victims on a node: what it bears of the cost, the job, its GPUs."""
        found = []
        for job in jobs_on:
            victim = self._victims.get(job)
            mask = 0 if victim is None else victim.pieces.get(node, 0) & among
            if victim is not None and mask:
                found.append((self._share(victim), job, mask.bit_count()))
        return found

    # --- nodes anywhere in the pool ----------------------------------------------------------------------------------

    def _cheapest_nodes(self, nodes: int) -> list[Opening] | None:
        found: list[Opening] = []
        heap, current = self._heap, self._by_node
        for opening in self._shown:
            if current.get(opening[1]) is opening:
                heappush(heap, opening)
        while heap and len(found) < nodes:
            opening = heap[0]
            if current.get(opening[1]) is not opening:
                heappop(heap)
            elif not self._has_risen(opening):
                found.append(heappop(heap))
        self._shown = found  # most are taken before the next look
        return found if len(found) == nodes else None

    def _has_risen(self, opening: Opening) -> bool:
        """True if the claims to come can use less of its victims now; it then stands where its new price puts it."""
        if self._wanted_nodes >= self._widest:
            return False
        again = self._opening(opening[1], self._free())
        if again is None or again[0] <= opening[0]:
            return False
        self._by_node[opening[1]] = again
        heapreplace(self._heap, again)
        return True

    # --- nodes within a domain ---------------------------------------------------------------------------------------

    def _cheapest_domain(self) -> list[Opening] | None:
        for domain in self._stale:
            self._price_domain(domain)
        self._stale = {}
        while self._heap:
            cost, domain, _ = found = self._heap[0]
            if self._domains.get(domain) is not found:
                heappop(self._heap)
            elif self._wanted_nodes >= self._widest + self._need.nodes or self._price_domain(domain) == cost:
                break
        return self._chosen(self._heap[0][1]) if self._heap else None

    def _price_domain(self, domain: int) -> int | None:
        """What the cheapest way in a domain costs; None if it does not hold the need."""
        self._domains.pop(domain, None)
        units = self._chosen(domain)
        if units is None:
            return None
        cost, spare_nodes = 0, self._wanted_nodes - self._need.nodes
        for job, nodes in counted(units).items():
            cost += self._victims[job].share(nodes, spare_nodes, by_size=self._by_size)
        self._domains[domain] = found = (cost, domain, ())
        heappush(self._heap, found)
        return cost

    def _chosen(self, domain: int) -> list[Opening] | None:
        """The cheapest nodes (or segments) of a domain; None if it does not hold the need."""
        wanted, segment, by_node = self._need.nodes // self._need.segment, self._need.segment, self._by_node
        first, last = domain * self._width, (domain + 1) * self._width
        if segment == 1:
            units = [by_node[node] for node in range(first, last) if node in by_node]
        else:
            per_rack = self._free().nodes_per_rack
            racks = ([by_node[node] for node in range(at, at + per_rack) if node in by_node]
                     for at in range(first, last, per_rack))  # fmt: skip
            units = [unit for rack in racks for unit in _segments(rack, segment)]
        return sorted(units)[:wanted] if len(units) >= wanted else None


def counted(chosen: list[Opening]) -> dict[JobId, int]:
    """Who must go for the chosen nodes: on how many of them each is."""
    nodes: dict[JobId, int] = {}
    for _, _, who in chosen:
        for job in who:
            nodes[job] = nodes.get(job, 0) + 1
    return nodes


def _least(entries: list[tuple[int, JobId, int]], missing: int) -> tuple[int, int, tuple[JobId, ...]]:
    """The entries (cost, job, GPUs) that have the missing GPUs at least cost, then the fewest: cost, count, jobs."""
    if len(entries) == 1:
        return (entries[0][0], 1, (entries[0][1],))
    best: dict[int, tuple[int, int, tuple[JobId, ...]]] = {0: (0, 0, ())}  # by how many GPUs are had
    for cost, job, gpus in entries:
        for had, (spent, count, jobs) in list(best.items()):
            now = min(missing, had + gpus)
            found = (spent + cost, count + 1, (*jobs, job))
            if had < missing and (now not in best or found < best[now]):
                best[now] = found
    return best[missing]


def _segments(openings: list[Opening], segment: int) -> list[Opening]:
    """The openings of one rack in groups of `segment`, the cheapest first; the incomplete last group is left out."""
    openings = sorted(openings)
    groups = [openings[at : at + segment] for at in range(0, len(openings) - segment + 1, segment)]
    return [_joined(group) for group in groups]


def _joined(group: list[Opening]) -> Opening:
    victims = tuple(job for opening in group for job in opening[2])
    return (sum(opening[0] for opening in group), group[0][1], victims)


def _bits(bits: int) -> Iterable[int]:
    return (node for node, bit in enumerate(reversed(f"{bits:b}")) if bit == "1")
