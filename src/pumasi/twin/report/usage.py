"""Who used whose GPUs over time, read from the log: one level for every pair of lender and borrower."""

from collections import Counter

from pumasi.events.facts import (
    AllocationRecharged,
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    Event,
    NodeChanged,
    NodeState,
    PoolDeclared,
    PowerCapSet,
    SiteDeclared,
    StopOrdered,
)
from pumasi.model.fleet import PARTS_PER_GPU, FleetPlan, Pool, Stage
from pumasi.model.ids import JobId, OwnerId, PoolId, SiteId
from pumasi.model.jobs import Charge, StopCause
from pumasi.state.accounts import divide
from pumasi.state.power import powered_gpus
from pumasi.state.records import SiteRecord
from pumasi.twin.report.series import Level
from pumasi.twin.rules import ONE_OWNER, owner_of

HOUR_MS = 3_600_000
BUCKETS_MAX = 700
OWNERS_FINE = 20  # so many owners get the finest intervals
Pair = tuple[OwnerId, OwnerId]


class Usage:
    """A fold over the log. Levels count from `from_ms` to `until_ms`, in intervals of `bucket_ms`, parts of a GPU."""

    def __init__(self, plan: FleetPlan, from_ms: int, until_ms: int) -> None:
        buckets = BUCKETS_MAX // max(1, len(plan.owners) // OWNERS_FINE)  # pairs of owners grow with their square
        self.bucket_ms = max(1, -(-(until_ms - from_ms) // (HOUR_MS * buckets))) * HOUR_MS
        self.stops: Counter[StopCause] = Counter()
        self.ran_ms: dict[JobId, int] = {}
        self._from_ms = from_ms
        self._until_ms = until_ms
        self._owners = [owner.id for owner in plan.owners]
        self._pairs: dict[Pair, Level] = {}
        self._due: dict[OwnerId, Level] = {owner: self._level() for owner in self._owners}
        self._down: dict[OwnerId, Level] = {owner: self._level() for owner in self._owners}
        self._open: dict[JobId, tuple[OwnerId, Pool, tuple[Charge, ...]]] = {}
        self._began_ms: dict[JobId, int] = {}
        self._watts = {model.id: model.planning_watts for model in plan.gpu_models}
        self._sites: dict[SiteId, SiteRecord] = {}
        self._pools: dict[PoolId, Pool] = {}
        self._in_service: set[PoolId] = set()
        self._out: dict[PoolId, set[int]] = {}
        self._due_now: dict[PoolId, dict[OwnerId, int]] = {}
        self._down_now: dict[PoolId, dict[OwnerId, int]] = {}

    def _level(self) -> Level:
        return Level(self._from_ms, self._until_ms, self.bucket_ms)

    # --- facts -------------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Fold one fact."""
        kind = type(event)
        if kind is AttemptPlaced or kind is AllocationRecharged or kind is AttemptEnded:
            self._charge(event)
        elif kind is AttemptStarted:
            self._began_ms[event.job] = event.at_ms  # type: ignore[union-attr]
        elif isinstance(event, StopOrdered):
            self.stops[event.cause] += event.at_ms >= self._from_ms
        elif isinstance(event, NodeChanged):
            self._node(event)
        elif isinstance(event, PoolDeclared):
            self._declare(event)
        elif isinstance(event, SiteDeclared | PowerCapSet):
            self._site(event)

    def _charge(self, event: Event) -> None:
        assert isinstance(event, AttemptPlaced | AllocationRecharged | AttemptEnded)
        at_ms = event.at_ms
        if isinstance(event, AttemptPlaced):
            borrower, pool, charges = owner_of(event.queue), self._pools[event.pool], event.charges
        else:
            borrower, pool, before = self._open.pop(event.job)
            self._move(borrower, pool, before, -1, at_ms)
            charges = event.charges if isinstance(event, AllocationRecharged) else ()
        if isinstance(event, AttemptEnded):
            began_ms = self._began_ms.pop(event.job, at_ms)
            self.ran_ms[event.job] = self.ran_ms.get(event.job, 0) + at_ms - began_ms
            return
        self._open[event.job] = (borrower, pool, charges)
        self._move(borrower, pool, charges, 1, at_ms)

    def _move(self, borrower: OwnerId, pool: Pool, charges: tuple[Charge, ...], sign: int, at_ms: int) -> None:
        at_ms = max(at_ms, self._from_ms)
        for charge in charges:
            pair = (charge.owner, borrower)
            level = self._pairs.get(pair)
            if level is None:
                level = self._pairs[pair] = self._level()
            level.add(sign * pool.parts(charge.gpus), at_ms)

    def _declare(self, event: PoolDeclared) -> None:
        pool = event.pool
        self._pools[pool.id] = pool
        (self._in_service.add if event.stage is Stage.IN_SERVICE else self._in_service.discard)(pool.id)
        self._share(pool.site, event.at_ms)

    def _site(self, event: SiteDeclared | PowerCapSet) -> None:
        if isinstance(event, PowerCapSet):
            self._sites[event.site].power_cap_kilowatts = event.kilowatts
            self._share(event.site, event.at_ms)
        elif event.site.id in self._sites:
            self._sites[event.site.id].declared = event.site
            self._share(event.site.id, event.at_ms)
        else:
            self._sites[event.site.id] = SiteRecord(event.site)

    def _node(self, event: NodeChanged) -> None:
        out = self._out.setdefault(event.pool, set())
        (out.add if event.state is NodeState.DOWN else out.discard)(event.node)
        self._share(self._pools[event.pool].site, event.at_ms)

    def _share(self, site: SiteId, at_ms: int) -> None:
        """Work out anew what of a site's pools runs."""
        pools = {pool.id: pool for pool in self._pools.values() if pool.site == site}
        draws = {
            name: (pool.gpus, pool.whole_gpus * self._watts[pool.model])
            for name, pool in pools.items()
            if name in self._in_service
        }
        powered = powered_gpus(self._sites[site].power_limit_kilowatts * 1000, draws)
        for name, pool in pools.items():
            healthy = pool.gpus - len(self._out.get(name, ())) * pool.gpus_per_node
            self._share_pool(pool, min(healthy, powered.get(name, healthy)), max(at_ms, self._from_ms))

    def _share_pool(self, pool: Pool, usable: int, at_ms: int) -> None:
        """What each owner is due of a pool, and what of that is down, as it is broken or without power."""
        name, in_service = pool.id, pool.id in self._in_service
        due = pool.entitlements if in_service else dict.fromkeys(pool.entitlements, 0)
        up = divide(usable, pool.entitlements) if in_service else due
        down = {owner: gpus - up[owner] for owner, gpus in due.items()}
        for now, before, levels in (
            (due, self._due_now.get(name, {}), self._due),
            (down, self._down_now.get(name, {}), self._down),
        ):
            for owner, gpus in now.items():
                levels[owner].add(pool.parts(gpus - before.get(owner, 0)), at_ms)
        self._due_now[name], self._down_now[name] = dict(due), down

    def close(self) -> None:
        """Add everything up to the end."""
        for levels in (self._pairs, self._due, self._down):
            for level in levels.values():
                level.settle(self._until_ms)

    # --- sums --------------------------------------------------------------------------------------------------------

    def capacity(self) -> int:
        """GPU-milliseconds in service, healthy or not."""
        return sum(sum(level.totals) for level in self._due.values()) // PARTS_PER_GPU

    def busy(self) -> int:
        """GPU-milliseconds allocated to jobs."""
        return sum(sum(level.totals) for level in self._pairs.values()) // PARTS_PER_GPU

    def loans(self) -> dict[OwnerId, dict[OwnerId, int]]:
        """GPU-milliseconds by lender and borrower; what owners use of their own is not among them."""
        found: dict[OwnerId, dict[OwnerId, int]] = {}
        for (lender, borrower), level in sorted(self._pairs.items()):
            if lender not in (borrower, ONE_OWNER) and any(level.totals):
                found.setdefault(lender, {})[borrower] = sum(level.totals) // PARTS_PER_GPU
        return found

    def series(self) -> dict[OwnerId, dict[str, list[int]]]:
        """For each owner of the plan: GPU-milliseconds per interval at home, lent, idle, down, borrowed; and credit."""
        zero = [0] * len(self._level().totals)
        made = {}
        for owner in self._owners:
            home, lent, borrowed = list(zero), list(zero), list(zero)
            for (lender, borrower), level in self._pairs.items():
                if owner == lender:
                    _add(home if lender in (borrower, ONE_OWNER) else lent, level.totals)
                elif owner == borrower:
                    _add(borrowed, level.totals)
            due, down = self._due[owner].totals, self._down[owner].totals
            idle = [max(0, d - x - h - a) for d, x, h, a in zip(due, down, home, lent, strict=True)]
            kinds = {"home": home, "lent": lent, "idle": idle, "down": down, "borrowed": borrowed}
            gpus = {name: [parts // PARTS_PER_GPU for parts in totals] for name, totals in kinds.items()}
            made[owner] = gpus | {"credit": _running(gpus["lent"], gpus["borrowed"])}
        return made


def _add(into: list[int], totals: list[int]) -> None:
    for index, total in enumerate(totals):
        into[index] += total


def _running(lent: list[int], borrowed: list[int]) -> list[int]:
    total, found = 0, []
    for given, taken in zip(lent, borrowed, strict=True):
        total += given - taken
        found.append(total)
    return found
