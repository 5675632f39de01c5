"""What only declarations change: worked out once, and kept by a planner until something is declared."""

from pumasi.model.fleet import Preemption, QueueOrder
from pumasi.model.ids import OwnerId, PoolId, QueueId, queue_owner
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.quotas import QuotaRules
from pumasi.state.backlog import DemandKey, shape_key
from pumasi.state.fleet_state import FleetState
from pumasi.state.lending import is_open

_NEVER = Preemption.NEVER
_STRICT = QueueOrder.STRICT

Lenders = dict[tuple[OwnerId, PoolId], list[tuple[OwnerId, int]]]


class Rules:
    """The declared side of the fleet, as cycles need it.

    `preempting`: the queues whose waiting work may stop other work of theirs. `strict`: those whose first job blocks
    the rest. `with_quotas`: where an owner's queues have quotas. `position`: each queue's place in the order of
    declaration. `entitled`: GPUs each owner is entitled to in all. `declarations`: the state's counter when this was
    worked out. `lenders`: what boards found out about who may lend to whom; it holds from cycle to cycle unless there
    are windows.
    """

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self.declarations = state.changes.declarations
        self.half_life_ms = state.policy.usage_half_life_seconds * 1000
        self.position: dict[QueueId, int] = {name: place for place, name in enumerate(state.queues)}
        self.pool_position: dict[PoolId, int] = {pool: place for place, pool in enumerate(state.pools)}
        self.strict = frozenset(name for name, queue in state.queues.items() if queue.declared.order is _STRICT)
        self.with_quotas = frozenset(
            (name.partition("/")[0], pool) for name, queue in state.queues.items() for pool in queue.declared.quotas
        )
        preempting = {name: queue for name, queue in state.queues.items() if queue.declared.preemption is not _NEVER}
        self.preempting = tuple(preempting)
        self._preempting_owners = frozenset(queue_owner(name) for name in preempting)
        self.entitled: dict[OwnerId, int] = dict.fromkeys(state.owners, 0)
        for books in state.books.values():
            for owner, account in books.items():
                self.entitled[owner] += account.entitled
        self._windows = [window for owner in state.owners.values() for window in owner.declared.lending.windows]
        self.has_windows = bool(self._windows)
        self.lenders: Lenders = {}
        self._demands: dict[DemandKey, Demand] = {}
        self._quotas: dict[tuple[OwnerId, PoolId], QuotaRules] = {}

    @property
    def demands_known(self) -> int:
        """How many demands have been judged."""
        return len(self._demands)

    def demand(self, key: DemandKey, spec: JobSpec) -> Demand:
        """The demand of all jobs with this need, judged once."""
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = Demand(self._state, key, spec)
            demand.has_quotas = demand.owner in self._preempting_owners or any(
                (demand.owner, fit.pool) in self.with_quotas for fit in demand.fits
            )
        return demand

    def demand_of(self, owner: OwnerId, spec: JobSpec) -> Demand:
        """The demand a job belongs to."""
        return self.demand((owner, shape_key(spec)), spec)

    def windows_open(self, now_ms: int) -> tuple[bool, ...]:
        """Which lending windows are open; decisions can change when this does."""
        return tuple(is_open(window, now_ms) for window in self._windows) if self._windows else ()

    def quotas(self, owner: OwnerId, pool: PoolId) -> QuotaRules:
        """The quotas of an owner's queues in a pool."""
        key = (owner, pool)
        rules = self._quotas.get(key)
        if rules is None:
            rules = self._quotas[key] = QuotaRules(self._state, owner, pool)
        return rules
