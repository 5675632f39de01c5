"""What only declarations change: worked out once, and kept by a planner until something is declared."""

from collections.abc import Iterator
from math import lcm

from pumasi.model.calendar import day_name, day_of
from pumasi.model.fleet import Preemption, QueueOrder
from pumasi.model.ids import OwnerId, PoolId, QueueId, queue_owner, queue_parent
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.quotas import QuotaRules, nearest
from pumasi.state.backlog import DemandKey, shape_key
from pumasi.state.fleet_state import FleetState
from pumasi.state.lending import is_open

_NEVER = Preemption.NEVER
_STRICT = QueueOrder.STRICT


def queues_above(queue: QueueId) -> Iterator[QueueId]:
    """The queues above this one, the nearest first."""
    while (parent := queue_parent(queue)) is not None:
        queue = parent
        yield queue


MINUTE_MS = 60_000
Lenders = dict[tuple[OwnerId, PoolId], list[tuple[OwnerId, int]]]


class Rules:
    """The declared side of the fleet, as cycles need it.

    `preempting`: the queues whose waiting work may stop other work of theirs. `strict`: those whose first job blocks
    the rest. `with_quotas`: which of an owner's queues have quotas in a pool. `declaring`: the queues with a quota
    anywhere, and the roots; `divided`: those with such a queue, or one of strict order, below them. `position`: each
    queue's place in the order of declaration. `entitled`: GPUs each owner is entitled to in all. `declarations`: the
    state's counter when this was worked out, at `now_ms`. `lenders`: what boards found out about who may lend to whom;
    it holds from cycle to cycle, as whoever keeps rules makes new ones when a window opens or closes.
    """

    def __init__(self, state: FleetState, now_ms: int) -> None:
        self._state = state
        self.now_ms = now_ms
        self.declarations = state.changes.declarations
        self.half_life_ms = state.policy.usage_half_life_seconds * 1000
        self.position: dict[QueueId, int] = {name: place for place, name in enumerate(state.queues)}
        self.pool_position: dict[PoolId, int] = {pool: place for place, pool in enumerate(state.pools)}
        self.strict = frozenset(name for name, queue in state.queues.items() if queue.declared.order is _STRICT)
        self.with_quotas: dict[tuple[OwnerId, PoolId], list[QueueId]] = {}
        self.declaring: dict[QueueId, None] = dict.fromkeys(state.owners)
        for name, queue in state.queues.items():
            for pool in queue.declared.quotas:
                self.declaring[name] = None
                self.with_quotas.setdefault((queue_owner(name), pool), []).append(name)
        self.divided = {above for name in self.declaring for above in queues_above(name)}
        self.divided.update(name for strict in self.strict for name in (strict, *queues_above(strict)))
        preempting = {name: queue for name, queue in state.queues.items() if queue.declared.preemption is not _NEVER}
        self.preempting = tuple(preempting)
        self._preempting_owners = frozenset(queue_owner(name) for name in preempting)
        self.entitled_parts: dict[OwnerId, int] = dict.fromkeys(state.owners, 0)
        for pool, books in state.books.items():
            for owner, account in books.items():
                self.entitled_parts[owner] += state.pools[pool].declared.parts(account.entitled)
        self._windows = [window for owner in state.owners.values() for window in owner.declared.lending.windows]
        self._placement_rules = state.policy.rules
        self._minute = -1
        self._in_force: tuple[bool, ...] = ()
        self.lenders: Lenders = {}
        self._demands: dict[DemandKey, Demand] = {}
        self._quotas: dict[tuple[OwnerId, PoolId], QuotaRules] = {}
        self._common_weights: dict[QueueId, int] = {}

    @property
    def demands_known(self) -> int:
        """How many demands have been judged."""
        return len(self._demands)

    def demand(self, key: DemandKey, spec: JobSpec) -> Demand:
        """The demand of all jobs with this need, judged once."""
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = Demand(self._state, key, spec, self.now_ms)
            demand.has_quotas = demand.owner in self._preempting_owners or any(
                (demand.owner, fit.pool) in self.with_quotas for fit in demand.fits
            )
        return demand

    def demand_of(self, owner: OwnerId, spec: JobSpec) -> Demand:
        """The demand a job belongs to."""
        return self.demand((owner, shape_key(spec)), spec)

    def in_force(self, now_ms: int) -> tuple[bool, ...]:
        """Which lending windows are open and which placement rules hold; decisions can change when this does.

        Windows open and close at whole minutes, rules begin and end at midnight.
        """
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self._in_force = minute, self._in_force_at(now_ms)
        return self._in_force

    def _in_force_at(self, now_ms: int) -> tuple[bool, ...]:
        open_now = tuple(is_open(window, now_ms) for window in self._windows) if self._windows else ()
        if not self._placement_rules:
            return open_now
        today = day_name(day_of(now_ms))
        return (*open_now, *(rule.is_in_force(today) for rule in self._placement_rules))

    def room_class(self, queue: QueueId) -> QueueId:
        """Queues of the same class have the same room in every pool: whose quota they share."""
        return nearest(queue, self.declaring)

    def common_weight(self, queue: QueueId) -> int:
        """The least common multiple of the weights of the queues right below this one, where use compares exactly."""
        common = self._common_weights.get(queue)
        if common is None:
            queues = self._state.queues
            common = lcm(*{max(1, queues[child].declared.weight) for child in queues[queue].children})
            self._common_weights[queue] = common
        return common

    def quotas(self, owner: OwnerId, pool: PoolId) -> QuotaRules:
        """The quotas of an owner's queues in a pool."""
        key = (owner, pool)
        rules = self._quotas.get(key)
        if rules is None:
            rules = self._quotas[key] = QuotaRules(self._state, owner, pool, self.with_quotas.get(key, ()))
        return rules
