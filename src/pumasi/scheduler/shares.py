"""The fair share each queue is due of its owner's GPUs, pool by pool: what the order of placement tends to.

In each pool the owner's entitlement is divided by exact max-min (`max_min`): by weight at every level of the tree, no
queue gets more than it wants, guarantees and borrowing limits hold, and what a queue used in the past and uses in other
pools counts as if it had that already. A queue wants what it has and what it has waiting. A job that may run in several
of its owner's pools counts in each for the part the pool is of what the owner is due in them all.
"""

from collections.abc import Container, Sequence

import numpy as np
from msgspec import Struct

from pumasi.model.calendar import day_of
from pumasi.model.fleet import PARTS_PER_GPU
from pumasi.model.ids import OwnerId, PoolId, QueueId
from pumasi.scheduler.eligibility import verdict_on
from pumasi.scheduler.max_min import UNIT, Array, Caps, Tree
from pumasi.scheduler.quotas import NO_LIMIT, QuotaRules
from pumasi.state.backlog import Backlog, DemandKey
from pumasi.state.fleet_state import FleetState
from pumasi.state.placement_rules import rules_about

PAST_STEP_MS = 60_000  # past use is counted up to the last full minute: within it only what changes is worked out again


class Shares:
    """The shares of one state, kept from call to call: `refresh`, then read."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._built_for = (-1, -1)  # the state's counter of declarations, and the day
        self._stirs_seen = 0
        self._moves_seen = 0
        self._arrivals_seen = -1
        self._owners: dict[OwnerId, OwnerShares] = {}

    def of(self, queue: QueueId) -> dict[PoolId, int]:
        """GPUs due to a queue and those below it, in every pool where it is due any."""
        owner = self._owners[queue.partition("/")[0]]
        column = owner.shares[:, owner.place[queue]].tolist()
        return {pool: gpus for pool, gpus in zip(owner.pools, column, strict=True) if gpus}

    def refresh(self, now_ms: int) -> None:
        """Work out again what may have changed since the last time."""
        built_for = (self._state.changes.declarations, day_of(now_ms))
        if built_for != self._built_for:
            self._built_for = built_for
            self._arrivals_seen = -1
            self._owners = {owner: OwnerShares(self._state, owner, now_ms) for owner in self._state.owners}
        for owner in self._owners_with_changes():
            self._owners[owner].note_change()
        arrived = self._arrived()
        for name, backlogs in self._backlogs().items():
            self._owners[name].refresh(backlogs, arrived, now_ms - now_ms % PAST_STEP_MS)

    def _backlogs(self) -> dict[OwnerId, list[Backlog]]:
        found: dict[OwnerId, list[Backlog]] = {owner: [] for owner in self._owners}
        for backlog in self._state.backlogs.by_need.values():
            found[backlog.owner].append(backlog)
        return found

    def _owners_with_changes(self) -> set[OwnerId]:
        """The owners with books in a pool where a run has moved, or something else happened."""
        changes, moves_seen = self._state.changes, self._moves_seen
        stirred, self._stirs_seen = changes.since(self._stirs_seen), changes.stirs
        self._moves_seen = changes.moved_before + len(changes.moved)
        if moves_seen < changes.moved_before:
            return set(self._owners)
        return {owner for pool in (*stirred, *changes.moved_since(moves_seen)) for owner in self._state.books[pool]}

    def _arrived(self) -> set[Backlog]:
        """The backlogs to which jobs have come since the last time; all of them, if not all is remembered."""
        backlogs, seen = self._state.backlogs, self._arrivals_seen
        self._arrivals_seen = backlogs.forgotten + len(backlogs.arrived)
        if seen < backlogs.forgotten:
            return set(backlogs.by_need.values())
        return set(backlogs.arrived[seen - backlogs.forgotten :])


class Waiting(Struct, frozen=True):
    """Waiting jobs with one need: how many, the pools of their owner that may run them, and GPUs by queue."""

    jobs: int
    rows: tuple[int, ...]
    places: Array
    gpus: Array


class OwnerShares:
    """The shares of one owner's queues. `pools`: a row for each pool it is entitled in. `place`: each queue's column.

    A queue with queues below it has another column, of weight 1, for its own jobs.
    """

    def __init__(self, state: FleetState, owner: OwnerId, now_ms: int) -> None:
        self._state = state
        self._built_ms = now_ms
        self._owner = owner
        self.pools = [pool for pool, books in state.books.items() if owner in books and books[owner].entitled]
        self._row = {pool: row for row, pool in enumerate(self.pools)}
        self._grow()
        self.shares = np.zeros((len(self.pools), self.columns), np.int64)
        self._caps = self._read_caps()
        self._waiting: dict[DemandKey, Waiting] = {}
        self._past_ms = -1
        self._past = np.zeros((1, self.columns), np.int64)
        self._slices = np.array([[state.pools[pool].declared.slices_per_gpu] for pool in self.pools], np.int64)
        self._in_use: tuple[Array, Array] | None = None  # in each of the pools; in all of the fleet, in parts of a GPU

    def _grow(self) -> None:
        """Lay out the tree: parents before their children, the children of one together and its own jobs the last."""
        queues = self._state.queues
        self.place: dict[QueueId, int] = {}
        self._own: dict[QueueId, int] = {}  # where the own jobs of a queue count
        parents, weights = [0], [1]
        names: list[QueueId | None] = [self._owner]
        for place, name in enumerate(names):
            if name is None:
                continue
            self.place[name] = self._own[name] = place
            children = queues[name].children
            if children:
                names += [*children, None]
                parents += [place] * (len(children) + 1)
                weights += [*(max(1, queues[child].declared.weight) for child in children), 1]
                self._own[name] = len(names) - 1
        self.columns = len(parents)
        self._inner = np.array([place for name, place in self.place.items() if self._own[name] != place], np.int64)
        self._own_columns = np.array([own for name, own in self._own.items() if self.place[name] != own], np.int64)
        self._first_children = np.searchsorted(parents[1:], self._inner)
        self._tree = Tree(parents, weights)

    def _read_caps(self) -> Caps | None:
        """The guarantees and limits that quotas set, if any do."""
        caps = Caps(np.zeros_like(self.shares), np.full_like(self.shares, NO_LIMIT))
        declared: dict[PoolId, list[QueueId]] = {}
        limited: dict[PoolId, None] = {}
        for name in self.place:
            for pool, quota in self._state.queues[name].declared.quotas.items():
                declared.setdefault(pool, []).append(name)
                if quota.lending_limit is not None or quota.borrowing_limit is not None:
                    limited[pool] = None
        for pool in limited:
            if pool in self._row:
                for name, rule in QuotaRules(self._state, self._owner, pool, declared[pool]).queues.items():
                    caps.guaranteed[self._row[pool], self.place[name]] = rule.guaranteed
                    if rule.borrowing_limit < NO_LIMIT:
                        caps.above[self._row[pool], self.place[name]] = rule.shared + rule.borrowing_limit
        return caps if limited else None

    def note_change(self) -> None:
        """Other GPUs than before are in use."""
        self._in_use = None

    def refresh(self, backlogs: Sequence[Backlog], arrived: Container[Backlog], past_ms: int) -> None:
        """Work the shares out again if what they rest on has changed.

        :param backlogs: all of this owner's. To those among `arrived`, jobs have come since the last time.
        :param past_ms: the moment up to which past use counts.
        """
        has_changed = self._read_waiting(backlogs, arrived)
        if self._in_use is None or past_ms != self._past_ms:
            self._past_ms = past_ms
            self._past, self._in_use = self._read_past(), self._read_in_use()
            has_changed = True
        if has_changed and self.pools:
            self._divide(*self._in_use)

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def _read_waiting(self, backlogs: Sequence[Backlog], arrived: Container[Backlog]) -> bool:
        """Read the backlogs that have changed; False if none has."""
        has_changed = False
        for backlog in backlogs:
            known = self._waiting.get(backlog.key)
            if known is None or backlog in arrived or known.jobs != backlog.jobs:
                self._waiting[backlog.key] = self._read(backlog)
                has_changed = True
        if len(self._waiting) > len(backlogs):
            waiting = {backlog.key for backlog in backlogs}
            self._waiting = {key: found for key, found in self._waiting.items() if key in waiting}
            has_changed = True
        return has_changed

    def _read(self, backlog: Backlog) -> Waiting:
        state, spec, lines = self._state, backlog.spec, backlog.lines
        rules = rules_about(state, spec, self._built_ms)
        places = np.fromiter(map(self._own.__getitem__, lines), np.int64, len(lines))
        jobs = np.fromiter(map(len, lines.values()), np.int64, len(lines))
        return Waiting(
            jobs=backlog.jobs,
            rows=tuple(row for pool, row in self._row.items() if verdict_on(state, spec, pool, rules) is None),
            places=places,
            gpus=jobs * spec.gpus,
        )

    def _wanted(self, in_use: Array, due: Array) -> Array:
        """GPUs each column wants for itself in each pool: what it has there, and its part of what it has waiting."""
        wanted = in_use.copy()
        wanted[:, self._inner] = 0
        for rows, gpus in self._waiting_by_pools().items():
            parts = np.cumsum(due[list(rows)])
            if parts[-1]:
                upto = gpus * parts[:, None] // parts[-1]
                wanted[list(rows)] += np.diff(upto, axis=0, prepend=0)
        return wanted

    def _waiting_by_pools(self) -> dict[tuple[int, ...], Array]:
        """Waiting GPUs by column, for each set of pools that may run them."""
        found: dict[tuple[int, ...], Array] = {}
        for waiting in self._waiting.values():
            if waiting.rows:
                gpus = found.setdefault(waiting.rows, np.zeros(self.columns, np.int64))
                gpus[waiting.places] += waiting.gpus
        return found

    # --- what is due -------------------------------------------------------------------------------------------------

    def _divide(self, in_use: Array, parts_in_all_pools: Array) -> None:
        """What is used elsewhere counts in each pool as so many of its slices, if it is cut."""
        due = np.array([self._state.books[pool][self._owner].due for pool in self.pools], np.int64)
        used = self._past * self._slices - in_use * UNIT
        used += parts_in_all_pools * self._slices * UNIT // PARTS_PER_GPU
        self.shares = self._tree.shares(due, self._wanted(in_use, due), used, self._caps)

    def _read_in_use(self) -> tuple[Array, Array]:
        queues, row = self._state.queues, self._row
        in_use, parts_in_all_pools = np.zeros_like(self.shares), np.zeros((1, self.columns), np.int64)
        for name, place in self.place.items():
            record = queues[name]
            if record.parts_in_use:
                parts_in_all_pools[0, place] = record.parts_in_use
                for pool, gpus in record.in_use.items():
                    if pool in row:
                        in_use[row[pool], place] = gpus
        return self._with_own(in_use), self._with_own(parts_in_all_pools)

    def _read_past(self) -> Array:
        """Past use by column, in parts of a GPU that is held for one half-life."""
        queues, half_life_ms = self._state.queues, self._state.policy.usage_half_life_seconds * 1000
        past = np.zeros((1, self.columns), np.int64)
        for name, place in self.place.items():
            past[0, place] = queues[name].past_at(self._past_ms, half_life_ms) * UNIT // half_life_ms
        return self._with_own(past)

    def _with_own(self, values: Array) -> Array:
        """Fill in the columns of queues' own jobs: what is theirs and of none below."""
        if len(self._inner):
            below = np.add.reduceat(values[:, 1:], self._first_children, axis=1)
            values[:, self._own_columns] = np.maximum(0, values[:, self._inner] - below)
        return values
