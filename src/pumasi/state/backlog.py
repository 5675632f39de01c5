"""Waiting jobs gathered by what they need: what is found out for one of them holds for all.

A cycle looks at each need once, however many jobs share it; a need that found no room is not looked at again until
something has changed that could give it room (`Changes`).
"""

from bisect import bisect_left, insort
from operator import attrgetter
from typing import Any

from pumasi.model.ids import JobId, OwnerId, PoolId, QueueId
from pumasi.model.jobs import JobSpec
from pumasi.state.records import Job

ShapeKey = tuple[Any, ...]
DemandKey = tuple[OwnerId, ShapeKey]
Line = list[tuple[int, JobId]]  # the waiting jobs of one queue, in their order

ARRIVALS_KEPT = 1 << 16
MOVES_KEPT = 1 << 16

_FIELDS = (
    "gpus", "gpus_per_node", "slice", "gpu_models", "memory_gib_per_gpu", "cpus_per_gpu", "cpus_per_node",
    "host_memory_mib_per_gpu", "host_memory_mib_per_node", "cpu_arch", "sites", "pools", "prefers", "data_class",
    "stays_home", "may_borrow", "topology", "segment_nodes", "refused_by",
)  # fmt: skip

_key = attrgetter(*_FIELDS)


def shape_key(spec: JobSpec) -> ShapeKey:
    """Equal for two jobs of an owner that can sit in the same places."""
    key: ShapeKey = _key(spec)
    return key


class Backlog:
    """The waiting jobs of an owner that need the same, queue by queue. `spec`: that of any of them.

    `below`: the children with such jobs in them or below them, of each queue that has any. `jobs`: how many there are.
    """

    __slots__ = ("below", "jobs", "key", "lines", "owner", "spec")

    def __init__(self, key: DemandKey, spec: JobSpec) -> None:
        self.key = key
        self.owner = key[0]
        self.spec = spec
        self.jobs = 0
        self.lines: dict[QueueId, Line] = {}
        self.below: dict[QueueId, dict[QueueId, None]] = {}

    def branch(self) -> "Backlog":
        """A backlog that starts as this one and goes its own way."""
        twin = Backlog(self.key, self.spec)
        twin.jobs = self.jobs
        twin.lines = {queue: list(line) for queue, line in self.lines.items()}
        twin.below = {queue: dict(children) for queue, children in self.below.items()}
        return twin

    def has(self, queue: QueueId) -> bool:
        """True if such jobs wait in the queue or below it."""
        return queue in self.lines or queue in self.below

    def open(self, queue: QueueId, order: tuple[int, JobId]) -> None:
        """The first job of a queue enters."""
        self.lines[queue] = [order]
        parent, is_below, _ = queue.rpartition("/")
        while is_below:
            children = self.below.get(parent)
            if children is not None:
                children[queue] = None
                return
            self.below[parent] = {queue: None}
            queue, (parent, is_below, _) = parent, parent.rpartition("/")

    def close(self, queue: QueueId) -> None:
        """The last job of a queue has left."""
        del self.lines[queue]
        parent, is_below, _ = queue.rpartition("/")
        while is_below and queue not in self.lines and queue not in self.below:
            children = self.below[parent]
            del children[queue]
            if children:
                return
            del self.below[parent]
            queue, (parent, is_below, _) = parent, parent.rpartition("/")


class Backlogs:
    """All waiting jobs by need. `arrived`: the needs of the jobs that came last, after `forgotten` earlier ones."""

    __slots__ = ("_of_job", "arrived", "by_need", "forgotten")

    def __init__(self) -> None:
        self.by_need: dict[DemandKey, Backlog] = {}
        self._of_job: dict[JobId, Backlog] = {}
        self.arrived: list[Backlog] = []
        self.forgotten = 0

    def branch(self) -> "Backlogs":
        """Backlogs that start as these and go their own way."""
        twin = Backlogs()
        for key, backlog in self.by_need.items():
            mine = twin.by_need[key] = backlog.branch()
            twin._of_job.update((job, mine) for line in mine.lines.values() for _, job in line)
        twin.forgotten = self.forgotten + len(self.arrived)
        return twin

    def key_of(self, job: JobId) -> DemandKey:
        """The need of a waiting job."""
        return self._of_job[job].key

    def enter(self, job: Job) -> None:
        """A job begins to wait."""
        spec, order = job.spec, job.order
        key = (job.owner, _key(spec))
        backlog = self.by_need.get(key)
        if backlog is None:
            backlog = self.by_need[key] = Backlog(key, spec)
        line = backlog.lines.get(spec.queue)
        if line is None:
            backlog.open(spec.queue, order)
        else:
            insort(line, order)
        backlog.jobs += 1
        self._of_job[job.id] = backlog
        if len(self.arrived) >= ARRIVALS_KEPT:
            del self.arrived[: ARRIVALS_KEPT // 2]  # whoever looks often never misses one
            self.forgotten += ARRIVALS_KEPT // 2
        self.arrived.append(backlog)

    def leave(self, job: Job) -> None:
        """A job waits no more."""
        backlog, queue = self._of_job.pop(job.id), job.spec.queue
        line = backlog.lines[queue]
        del line[bisect_left(line, job.order)]
        backlog.jobs -= 1
        if not line:
            backlog.close(queue)
            if not backlog.jobs:
                del self.by_need[backlog.key]


class Changes:
    """Counters by which a planner sees what it must look at again.

    `declarations`: rises with every declaration. `pools`: when, by `stirs`, something last happened in a pool that may
    give a waiting job room there, the latest last. (Home use only takes room away; it does not count.) `moved`: the
    runs that were placed, started, told to stop, recharged or ended last, after `moved_before` earlier ones. `struck`:
    nodes with strikes enough and a new one, to be judged.
    """

    __slots__ = ("declarations", "moved", "moved_before", "pools", "stirs", "struck")

    def __init__(self) -> None:
        self.declarations = 0
        self.stirs = 0
        self.pools: dict[PoolId, int] = {}
        self.moved: list[tuple[PoolId, JobId]] = []
        self.moved_before = 0
        self.struck: dict[tuple[PoolId, int], None] = {}

    def branch(self) -> "Changes":
        """Counters that start as these and go their own way."""
        twin = Changes()
        twin.declarations, twin.stirs, twin.pools = self.declarations, self.stirs, dict(self.pools)
        twin.moved_before = self.moved_before + len(self.moved)
        twin.struck = dict(self.struck)
        return twin

    def stir(self, pool: PoolId) -> None:
        """Something changed in a pool."""
        self.stirs += 1
        self.pools.pop(pool, None)
        self.pools[pool] = self.stirs

    def move(self, pool: PoolId, job: JobId) -> None:
        """When a run ends, or what it gives back then, changed."""
        if len(self.moved) >= MOVES_KEPT:
            del self.moved[: MOVES_KEPT // 2]  # whoever looks often never misses one
            self.moved_before += MOVES_KEPT // 2
        self.moved.append((pool, job))

    def moved_since(self, seen: int) -> dict[PoolId, dict[JobId, None]]:
        """The runs that changed after the first `seen` changes, by pool; `seen` is `moved_before` or later."""
        found: dict[PoolId, dict[JobId, None]] = {}
        for pool, job in self.moved[seen - self.moved_before :]:
            found.setdefault(pool, {})[job] = None
        return found

    def since(self, stirs: int) -> list[PoolId]:
        """The pools in which something changed after `stirs`, the latest first."""
        changed = []
        for pool, last in reversed(self.pools.items()):
            if last <= stirs:
                break
            changed.append(pool)
        return changed
