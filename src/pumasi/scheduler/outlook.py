"""What comes free in a pool, and when: by the time limits of what runs there, counted and never searched.

A planner keeps an outlook of each pool from cycle to cycle and follows what changed; a cycle branches it.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import Charge, Level, Span
from pumasi.scheduler.shapes import Need
from pumasi.state.fleet_state import FleetState
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Attempt, Job

NEVER_MS = 1 << 62
_FIRST_SLOTS = 64

Moments = NDArray[np.int64]
Run = tuple[int, tuple[Span, ...]]  # where a run stands in the arrays of an outlook, and on what GPUs
_NO_RUN: Run = (-1, ())


class Outlook:
    """The ends of one pool. `gpu_ends_ms[node, gpu]`: when the GPU is given back at the latest; 0 if nobody uses it."""

    def __init__(self, nodes: int, gpus_per_node: int) -> None:
        self.gpu_ends_ms: Moments = np.zeros((nodes, gpus_per_node), np.int64)
        self._before: Outlook | None = None
        self._runs: dict[JobId, Run] = {}
        self._vacant = list(range(_FIRST_SLOTS))
        self._ends_ms: Moments = np.zeros(_FIRST_SLOTS, np.int64)
        self._charged: dict[OwnerId, Moments] = {}  # GPUs each run returns to an owner's entitlement

    def branch(self) -> "Outlook":
        """A copy that can be changed without changing this one, which must stay as it is as long as the copy is used.

        Where the runs stand is not copied, only what changes: to touch thousands of them takes longer than all else.
        """
        twin = Outlook.__new__(Outlook)
        twin.gpu_ends_ms = self.gpu_ends_ms.copy()
        twin._before = self
        twin._runs = {}
        twin._vacant = self._vacant[-_FIRST_SLOTS:]
        twin._ends_ms = self._ends_ms.copy()
        twin._charged = {owner: gpus.copy() for owner, gpus in self._charged.items()}
        return twin

    def enter(self, job: JobId, run_end_ms: int, spans: tuple[Span, ...], charges: tuple[Charge, ...]) -> None:
        """A run holds GPUs and entitlements until then, and nobody longer."""
        if not self._vacant:
            self._grow()
        slot = self._vacant.pop()
        self._runs[job] = (slot, spans)
        self._ends_ms[slot] = run_end_ms
        for charge in charges:
            self._charges_of(charge.owner)[slot] = charge.gpus
        self._mark(spans, run_end_ms)

    def enter_all(self, jobs: list[Job], holders: Sequence[JobId]) -> None:
        """All runs of a pool that has none yet. `holders`: GPU by GPU, the job that has it; 0: none."""
        if not jobs:
            return
        while len(self._ends_ms) < len(jobs):
            self._grow()
        attempts, slots = [job.attempts[-1] for job in jobs], len(self._ends_ms)
        self._runs = {job.id: (slot, attempts[slot].spans) for slot, job in enumerate(jobs)}
        self._vacant = list(range(len(jobs), slots))
        self._ends_ms[: len(jobs)] = [*map(end_ms, jobs, attempts)]
        charged: dict[OwnerId, list[int]] = {}
        for slot, attempt in enumerate(attempts):
            for charge in attempt.charges:
                if charge.owner not in charged:
                    charged[charge.owner] = [0] * slots
                charged[charge.owner][slot] = charge.gpus
        self._charged = {owner: np.array(gpus) for owner, gpus in charged.items()}
        self._mark_all(np.fromiter(self._runs, np.int32, len(jobs)), np.array(holders))

    def _mark_all(self, jobs: NDArray[np.int32], holders: NDArray[np.int32]) -> None:
        order = np.argsort(jobs)
        slots = order[np.searchsorted(jobs, holders, sorter=order) % len(jobs)]
        self.gpu_ends_ms = np.where(holders, self._ends_ms[slots], 0).reshape(self.gpu_ends_ms.shape)

    def leave(self, job: JobId) -> None:
        """Forget a run, if it is known."""
        slot, spans = self._run(job)
        if slot < 0:
            return
        if self._before is None:
            del self._runs[job]
        else:
            self._runs[job] = _NO_RUN
        for gpus in self._charged.values():
            gpus[slot] = 0
        self._vacant.append(slot)
        self._mark(spans, 0)

    def _run(self, job: JobId) -> Run:
        run = self._runs.get(job)
        if run is None:
            return _NO_RUN if self._before is None else self._before._run(job)
        return run

    def _all_runs(self) -> dict[JobId, Run]:
        return self._runs if self._before is None else {**self._before._all_runs(), **self._runs}

    def close(self, spans: tuple[Span, ...]) -> None:
        """These GPUs never come free."""
        self._mark(spans, NEVER_MS)

    def keep_rest(self, like: FreeMap) -> None:
        """Nodes where a run takes more than the share of its GPUs come free when it ends; its CPUs do no sooner."""
        for slot, spans in self._all_runs().values():
            for span in spans:
                if like.takes_more(span):
                    nodes = self.gpu_ends_ms[span.first : span.first + span.nodes]
                    np.maximum(nodes, self._ends_ms[slot], out=nodes)

    def returned_gpus(self, owner: OwnerId, by_ms: int) -> int:
        """GPUs of the owner's entitlement that come back until then."""
        gpus = self._charged.get(owner)
        return 0 if gpus is None else int(gpus[self._ends_ms <= by_ms].sum())

    def entitled_ms(self, owner: OwnerId, gpus: int) -> int:
        """When so many GPUs of the owner's entitlement have come back; 0 if none need to, NEVER_MS if they do not."""
        if gpus <= 0:
            return 0
        charged = self._charged.get(owner)
        if charged is None or int(charged.sum()) < gpus:
            return NEVER_MS
        slots = np.flatnonzero(charged)
        if len(slots) > gpus:  # each run gives back one at least
            slots = slots[np.argpartition(self._ends_ms[slots], gpus - 1)[:gpus]]
        order = slots[np.argsort(self._ends_ms[slots])]
        at = int(np.searchsorted(np.cumsum(charged[order]), gpus))
        return int(self._ends_ms[order[at]])

    def returns(self, owner: OwnerId = "") -> tuple[Moments, Moments]:
        """When runs end, the first first, and the GPUs each gives back: all, or those of an owner's entitlement."""
        known = list(self._charged.values()) if not owner else [self._charged.get(owner, self._ends_ms[:0])]
        charged = np.sum(known, axis=0) if known else self._ends_ms[:0]
        slots = np.flatnonzero(charged)
        order = slots[np.argsort(self._ends_ms[slots], kind="stable")]
        return self._ends_ms[order], charged[order]

    def _charges_of(self, owner: OwnerId) -> Moments:
        charged = self._charged.get(owner)
        if charged is None:
            charged = self._charged[owner] = np.zeros_like(self._ends_ms)
        return charged

    def _grow(self) -> None:
        slots = len(self._ends_ms)
        self._vacant = list(range(slots, 2 * slots))
        self._ends_ms = np.pad(self._ends_ms, (0, slots))
        self._charged = {owner: np.pad(gpus, (0, slots)) for owner, gpus in self._charged.items()}

    def _mark(self, spans: tuple[Span, ...], moment_ms: int) -> None:
        for span in spans:
            nodes = self.gpu_ends_ms[span.first : span.first + span.nodes]
            nodes[:, _gpus_of(span.gpu_mask)] = moment_ms


@lru_cache(maxsize=1 << 16)
def _gpus_of(mask: int) -> list[int]:
    return [gpu for gpu in range(mask.bit_length()) if mask >> gpu & 1]


def end_ms(job: Job, attempt: Attempt) -> int:
    """When a live attempt ends at the latest."""
    limit_ms = (attempt.started_ms or attempt.placed_ms) + job.spec.time_limit_seconds * 1000
    return min(limit_ms, attempt.stop.kill_at_ms) if attempt.stop else limit_ms


class Outlooks:
    """The outlooks of a state's pools as it stands, each read when first asked for and then kept up."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._by_pool: dict[PoolId, Outlook] = {}
        self._seen = 0

    def of(self, pool: PoolId) -> Outlook:
        """The outlook of a pool, to read."""
        self._catch_up()
        free, outlook = self._state.occupancy[pool].free, self._by_pool.get(pool)
        if outlook is None or outlook.gpu_ends_ms.shape != (free.nodes, free.gpus_per_node):
            outlook = self._by_pool[pool] = Outlook(free.nodes, free.gpus_per_node)
            jobs = self._state.jobs
            outlook.enter_all([jobs[job] for job in self._state.active[pool]], self._state.occupancy[pool].holders)
        return outlook

    def _catch_up(self) -> None:
        changes = self._state.changes
        end = changes.moved_before + len(changes.moved)
        if self._seen < changes.moved_before:
            self._by_pool.clear()
        for pool, jobs in changes.moved_since(self._seen).items() if self._by_pool and self._seen < end else ():
            outlook = self._by_pool.get(pool)
            if outlook is not None:
                self._follow(outlook, pool, jobs)
        self._seen = end

    def _follow(self, outlook: Outlook, pool: PoolId, jobs: dict[JobId, None]) -> None:
        for job in jobs:
            outlook.leave(job)
        for job in jobs:
            if job in self._state.active[pool]:
                record, attempt = self._state.jobs[job], self._state.jobs[job].attempts[-1]
                outlook.enter(job, end_ms(record, attempt), attempt.spans, attempt.charges)


# --- what fits when --------------------------------------------------------------------------------------------------


def shape_ms(gpu_ends_ms: Moments, need: Need, free: FreeMap) -> int:
    """The first moment at which a pool cut into racks and blocks like `free` has the gang's shape; NEVER_MS if none."""
    racks, width = len(free.rack_whole), len(free.rack_whole)
    if need.widest is not Level.POOL:
        width = 1 if need.widest is Level.RACK else free.racks_per_block
    by_rack = _cut(_roomy_ms(gpu_ends_ms, need.each, free), free.nodes_per_rack, racks)
    segments = np.sort(by_rack, axis=1)[:, need.segment - 1 :: need.segment]
    domains = _cut(segments.ravel(), width * segments.shape[1], -(-racks // width))
    wanted = need.nodes // need.segment
    if wanted > domains.shape[1]:
        return NEVER_MS
    return int(np.partition(domains, wanted - 1, axis=1)[:, wanted - 1].min())


def _roomy_ms(gpu_ends_ms: Moments, gpus: int, free: FreeMap) -> Moments:
    """When each node has so many GPUs free for one job."""
    if gpus == gpu_ends_ms.shape[1]:
        whole: Moments = gpu_ends_ms.max(axis=1)
        return whole
    if free.is_shared:
        by_gpu = gpu_ends_ms.reshape(len(gpu_ends_ms), -1, free.slices_per_gpu)
        on_one: Moments = np.partition(by_gpu, gpus - 1, axis=2)[:, :, gpus - 1].min(axis=1)
        return on_one
    return np.partition(gpu_ends_ms, gpus - 1, axis=1)[:, gpus - 1]


def _cut(moments: Moments, length: int, rows: int) -> Moments:
    """The moments in rows of one length; what is missing at the end never comes."""
    return np.pad(moments, (0, rows * length - len(moments)), constant_values=NEVER_MS).reshape(rows, length)


def map_at(gpu_ends_ms: Moments, at_ms: int, like: FreeMap) -> FreeMap:
    """The free GPUs of a pool at a moment, racks and blocks as in `like`."""
    free = like.emptied()
    is_free = gpu_ends_ms <= at_ms
    counts = is_free.sum(axis=1)
    free.free_gpus = int(counts.sum())
    free.masks[:] = type(free.masks)(free.masks.typecode, (is_free @ (1 << np.arange(like.gpus_per_node))).tolist())
    together = counts
    if like.is_shared:
        on_one = is_free.reshape(like.nodes, -1, like.slices_per_gpu).sum(axis=2).max(axis=1)
        together = np.where(counts == like.gpus_per_node, counts, on_one)
    for gpus in range(1, like.gpus_per_node + 1):
        free.by_free[gpus] = _bits(together == gpus)
    racks, blocks = len(free.rack_whole), len(free.block_whole)
    whole = _counts(counts == like.gpus_per_node, like.nodes_per_rack, racks)
    free.rack_whole[:] = type(free.rack_whole)("H", whole.tolist())
    free.racks_by_whole = [_bits(whole == nodes) for nodes in range(like.nodes_per_rack + 1)]
    free.block_whole[:] = type(free.block_whole)("L", _counts(whole, like.racks_per_block, blocks).tolist())
    return free


def _bits(is_set: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(is_set, bitorder="little").tobytes(), "little")


def _counts(each: NDArray[np.bool_] | Moments, length: int, rows: int) -> Moments:
    """The sums of neighbouring rows of one length."""
    sums: Moments = np.pad(each, (0, rows * length - len(each))).reshape(rows, length).sum(axis=1)
    return sums
