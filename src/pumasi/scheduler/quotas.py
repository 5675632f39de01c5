"""Quotas inside an owner, as in Kueue: nominal quota, borrowing limit and lending limit in a tree of queues.

What a queue's lending limit keeps back is *guaranteed*: nobody else may use it. The rest of its quota goes up to its
parent, where all below may use it. The root shares out the owner's entitlement.
"""

from msgspec import Struct

from pumasi.model.fleet import Quota
from pumasi.model.ids import OwnerId, PoolId, QueueId
from pumasi.state.fleet_state import FleetState

NO_LIMIT = 1 << 60


class QueueQuota(Struct):
    """A queue's quota in a pool.

    `shared`: what it passes up to its parent. `used`: by it, and by those below it above their guarantees.
    """

    parent: QueueId | None
    guaranteed: int
    shared: int
    borrowing_limit: int
    used: int

    @property
    def above(self) -> int:
        """What it uses above its guarantee, so at its parent's cost."""
        return max(0, self.used - self.guaranteed)

    @property
    def idle_guarantee(self) -> int:
        """What of its guarantee it does not use."""
        return max(0, self.guaranteed - self.used)


class QuotaTree:
    """The quotas of an owner's queues in one pool, and what is used of them; moves along with a cycle's placements.

    `guaranteed`: all guarantees together. `kept_back`: what of them is idle; nobody else may use it.
    """

    def __init__(self, state: FleetState, owner: OwnerId, pool: PoolId) -> None:
        self._state = state
        self._pool = pool
        self.owner = owner
        self.queues: dict[QueueId, QueueQuota] = {}
        self._grow(owner)
        self.guaranteed = sum(quota.guaranteed for quota in self.queues.values())
        self.kept_back = sum(quota.idle_guarantee for quota in self.queues.values())

    def _grow(self, queue: QueueId) -> tuple[int, int]:
        """Enter the queue and all below it; returns what it shares, and what of its use guarantees in it absorb."""
        record = self._state.queues[queue]
        below = [self._grow(child) for child in record.children]
        declared = record.declared.quotas.get(self._pool, Quota())
        whole = declared.nominal + sum(shared for shared, _ in below)
        is_root = record.parent is None
        keeps = 0 if is_root or declared.lending_limit is None else max(0, whole - declared.lending_limit)
        limit = NO_LIMIT if declared.borrowing_limit is None else declared.borrowing_limit
        absorbed = sum(gpus for _, gpus in below)
        used = record.in_use.get(self._pool, 0) - absorbed
        self.queues[queue] = QueueQuota(record.parent, keeps, whole - keeps, limit, used)
        return whole - keeps, absorbed + min(used, keeps)

    def home_room(self, queue: QueueId, due: int) -> int:
        """GPUs the queue may still use of the owner's entitlement of `due` GPUs."""
        return self._room(queue, due - self.guaranteed - self.queues[self.owner].used)

    def most(self, queue: QueueId) -> int:
        """GPUs the queue may still use if its owner can borrow without end."""
        return self._room(queue, NO_LIMIT)

    def _room(self, queue: QueueId, at_root: int) -> int:
        quota = self.queues[queue]
        if quota.parent is None:
            return max(0, at_root)
        above = self._room(quota.parent, at_root)
        if quota.borrowing_limit < NO_LIMIT:
            above = min(above, quota.shared - quota.above + quota.borrowing_limit)
        return quota.idle_guarantee + max(0, above)

    def take(self, queue: QueueId, gpus: int) -> None:
        """Count GPUs placed or reserved for a job of the queue."""
        name: QueueId | None = queue
        while name is not None and gpus:
            quota = self.queues[name]
            above, idle = quota.above, quota.idle_guarantee
            quota.used += gpus
            self.kept_back += quota.idle_guarantee - idle
            gpus, name = quota.above - above, quota.parent
