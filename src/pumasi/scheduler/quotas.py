"""Quotas inside an owner, as in Kueue: nominal quota, borrowing limit and lending limit in a tree of queues.

What a queue's lending limit keeps back is *guaranteed*: nobody else may use it. The rest of its quota goes up to its
parent, where all below may use it. The root shares out the owner's entitlement.
"""

from collections.abc import Container, Iterable

from msgspec import Struct

from pumasi.model.fleet import Quota
from pumasi.model.ids import OwnerId, PoolId, QueueId, queue_parent
from pumasi.state.fleet_state import FleetState

NO_LIMIT = 1 << 60


def nearest(queue: QueueId, names: Container[QueueId]) -> QueueId:
    """The queue itself or the nearest above it that is among `names`; the root must be."""
    while queue not in names:
        queue = queue.rpartition("/")[0]
    return queue


class QuotaRule(Struct, frozen=True):
    """What is declared for a queue in a pool, worked out for the tree.

    `guaranteed`: what its lending limit keeps back. `shared`: what it passes up to its parent. `guarantors`: its
    children with guarantees in them or below them.
    """

    parent: QueueId | None
    guaranteed: int
    shared: int
    borrowing_limit: int
    guarantors: tuple[QueueId, ...]


class QuotaRules:
    """The declared quotas of an owner's queues in one pool. `guaranteed`: all guarantees together.

    `declared`: the queues with a quota there, every queue before those below it. The others have the room of the
    nearest of these above them, so only these and the root are kept. `telling`: those by whose quotas rooms differ;
    where none below the root guarantees anything or limits borrowing, all have the room of the root.
    """

    def __init__(self, state: FleetState, owner: OwnerId, pool: PoolId, declared: Iterable[QueueId]) -> None:
        self._state = state
        self.pool = pool
        self.owner = owner
        self.queues: dict[QueueId, QuotaRule] = {}
        names = dict.fromkeys((owner, *declared))
        below: dict[QueueId, dict[QueueId, QuotaRule]] = {name: {} for name in names}
        for name in reversed(names):
            parent = None if name == owner else nearest(queue_parent(name) or owner, names)
            rule = self.queues[name] = self._rule(name, parent, below[name])
            if parent is not None:
                below[parent][name] = rule
        self.guaranteeing = tuple(name for name, rule in self.queues.items() if rule.guaranteed)
        self.guaranteed = sum(rule.guaranteed for rule in self.queues.values())
        below_root = [rule for rule in self.queues.values() if rule.parent is not None]
        is_even = not any(rule.guaranteed or rule.borrowing_limit < NO_LIMIT for rule in below_root)
        self.telling = dict.fromkeys((owner,) if is_even else self.queues)
        self._heads: dict[QueueId, QueueId] = {}

    def head(self, queue: QueueId) -> QueueId:
        """The queue by whose quota the room of a queue goes."""
        head = self._heads.get(queue)
        if head is None:
            head = self._heads[queue] = nearest(queue, self.telling)
        return head

    def _rule(self, queue: QueueId, parent: QueueId | None, below: dict[QueueId, QuotaRule]) -> QuotaRule:
        declared = self._state.queues[queue].declared.quotas.get(self.pool, Quota())
        whole = declared.nominal + sum(rule.shared for rule in below.values())
        is_shared = parent is None or declared.lending_limit is None
        keeps = 0 if is_shared else max(0, whole - (declared.lending_limit or 0))
        limit = NO_LIMIT if declared.borrowing_limit is None else declared.borrowing_limit
        guarantors = tuple(child for child, rule in below.items() if rule.guaranteed or rule.guarantors)
        return QuotaRule(parent, keeps, whole - keeps, limit, guarantors)

    def used(self, queue: QueueId) -> int:
        """GPUs in use by a queue, and by those below it above their guarantees."""
        in_use = self._state.queues[queue].in_use.get(self.pool, 0)
        return in_use - self._absorbed(queue) if self.queues[queue].guarantors else in_use

    def _absorbed(self, queue: QueueId) -> int:
        """What of the use below a queue the guarantees there absorb."""
        return sum(
            self._absorbed(child) + min(self.used(child), self.queues[child].guaranteed)
            for child in self.queues[queue].guarantors
        )


class QueueQuota(Struct):
    """A queue's quota in a pool. `used`: by it, and by those below it above their guarantees."""

    rule: QuotaRule
    used: int

    @property
    def above(self) -> int:
        """What it uses above its guarantee, so at its parent's cost."""
        return max(0, self.used - self.rule.guaranteed)

    @property
    def idle_guarantee(self) -> int:
        """What of its guarantee it does not use."""
        return max(0, self.rule.guaranteed - self.used)


class QuotaTree:
    """What of an owner's quotas in one pool is used; moves along with a cycle's placements.

    Queues are read from the state when first asked for. `kept_back`: what of all guarantees is idle; nobody else may
    use it.
    """

    def __init__(self, rules: QuotaRules) -> None:
        self._rules = rules
        self._queues: dict[QueueId, QueueQuota] = {}
        self.guaranteed = rules.guaranteed
        self.kept_back = sum(self.quota(queue).idle_guarantee for queue in rules.guaranteeing)

    @property
    def declaring(self) -> Iterable[QueueId]:
        """The root and the queues with a quota in the pool: all others have the room of the nearest of these above."""
        return self._rules.queues

    def quota(self, queue: QueueId) -> QueueQuota:
        """What is used of a queue's quota; of the nearest above it, if it has none."""
        name = self._rules.head(queue)
        quota = self._queues.get(name)
        if quota is None:
            quota = self._queues[name] = QueueQuota(self._rules.queues[name], self._rules.used(name))
        return quota

    def home_room(self, queue: QueueId, due: int) -> int:
        """GPUs the queue may still use of the owner's entitlement of `due` GPUs."""
        return self._room(queue, due - self.guaranteed - self.quota(self._rules.owner).used)

    def home_most(self, queue: QueueId, due: int) -> int:
        """GPUs the queue may use of the owner's entitlement of `due` GPUs when nothing else of the owner runs."""
        most, rule = due - self.guaranteed, self.quota(queue).rule
        most += rule.guaranteed
        while rule.parent is not None:
            rule = self._rules.queues[rule.parent]
            most += rule.guaranteed
        return max(0, most)

    def most(self, queue: QueueId) -> int:
        """GPUs the queue may still use if its owner can borrow without end."""
        return self._room(queue, NO_LIMIT)

    def _room(self, queue: QueueId, at_root: int) -> int:
        quota = self.quota(queue)
        rule = quota.rule
        if rule.parent is None:
            return max(0, at_root)
        above = self._room(rule.parent, at_root)
        if rule.borrowing_limit < NO_LIMIT:
            above = min(above, rule.shared - quota.above + rule.borrowing_limit)
        return quota.idle_guarantee + max(0, above)

    def take(self, queue: QueueId, gpus: int) -> None:
        """Count GPUs placed or reserved for a job of the queue."""
        name: QueueId | None = queue
        while name is not None and gpus:
            quota = self.quota(name)
            name = quota.rule.parent
            if not quota.rule.guaranteed:
                quota.used += gpus
                continue
            above, idle = quota.above, quota.idle_guarantee
            quota.used += gpus
            self.kept_back += quota.idle_guarantee - idle
            gpus = quota.above - above
