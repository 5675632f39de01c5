"""Cycle after cycle on one state, each as quick as what changed is small.

A planner remembers which demands found no room. They sleep until something can give them room: a change in a pool that
could run them, a declaration, a window that opens, a moment that was noted. All that is remembered could be found out
again: a planner decides exactly what one without memory decides.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from pumasi.events.facts import Event
from pumasi.model.ids import PoolId
from pumasi.scheduler.backfill import may_plan_start, settle_planned, start_planned
from pumasi.scheduler.board import Board
from pumasi.scheduler.borrow import borrow_pass
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.explain import WhyWaiting
from pumasi.scheduler.fairshare import ShareTree, share_trees
from pumasi.scheduler.home import home_pass
from pumasi.scheduler.loans import bring_loans_home, end_forbidden_loans, may_come_home
from pumasi.scheduler.lone import place_lone
from pumasi.scheduler.outlook import NEVER_MS, Outlooks
from pumasi.scheduler.power import settle_power
from pumasi.scheduler.preempt import preempt_pass
from pumasi.scheduler.reservations import settle_reservations
from pumasi.scheduler.rooms import may_have_room
from pumasi.scheduler.rules import Rules
from pumasi.scheduler.shapes import Fit
from pumasi.state.fleet_state import FleetState

DEMANDS_KNOWN_MAX = 1 << 17
_NOBODY: dict[Demand, Fit] = {}


class _Pass(NamedTuple):
    """What a pass came to: of each demand worth a try, how many jobs found a place, and the trees of their turns."""

    placed: dict[Demand, int]
    trees: list[ShareTree]


class Planner:
    """Makes the plans for one state. Every plan must be folded into the state before the next is made."""

    def __init__(self, state: FleetState) -> None:
        self.state = state
        self._outlooks = Outlooks(state)
        self._asleep: dict[Demand, bool] = {}  # False: no job of it was refused, all had a reservation or a begin time
        self._awake: dict[Demand, None] = {}
        self._look_again_ms = 0  # it knows nothing until it first decides
        self._reopened: dict[PoolId, None] = {}
        self._renew_rules(state.at_ms)

    def decide(self, now_ms: int) -> Board:
        """Decide one cycle; the board holds what was decided. The state is not changed."""
        return self._decide(now_ms) or Board(self.state, now_ms, self._rules, self._outlooks)

    def next_events(self, now_ms: int) -> Sequence[Event]:
        """The same, if only the facts are wanted: in an order the fold accepts."""
        board = self._decide(now_ms)
        return () if board is None else board.events

    def _decide(self, now_ms: int) -> Board | None:
        """None: nothing has changed on which a decision hangs."""
        stirred = self._notice(now_ms)
        if not self._awake and self._is_settled(stirred):
            return None
        whole: dict[PoolId, None] = {}
        while True:
            board = Board(self.state, now_ms, self._rules, self._outlooks)
            made = self._pass(board, stirred, whole)
            late = self._stirred_late(board, made, whole)
            if not late:
                break
            whole.update(dict.fromkeys(late))
        self._look_again_ms = min(self._look_again_ms, board.look_again_ms)
        self._reopened = board.reopened
        self._remember(made)
        self._has_new_rules = False
        return board

    def look_ahead(self) -> None:
        """Read now when everything that runs will end, so that no decision has to stop for it.

        Without this, a pool is read when a decision first asks about it. What has been read is then kept up.
        """
        for pool in self.state.pools:
            self._outlooks.of(pool)

    def why_waiting(self, now_ms: int) -> WhyWaiting:
        """Reasons for every waiting job that a cycle has looked at, as the state stands now."""
        rules = self._rules
        if rules.declarations != self.state.changes.declarations or rules.in_force(now_ms) != self._in_force:
            rules = Rules(self.state, now_ms)
        return WhyWaiting(Board(self.state, now_ms, rules, self._outlooks))

    # --- what changed ------------------------------------------------------------------------------------------------

    def _renew_rules(self, now_ms: int) -> None:
        self._rules = Rules(self.state, now_ms)
        self._has_new_rules = True
        self._in_force = self._rules.in_force(now_ms)

    def _forget(self) -> None:
        """Know nothing of what found no room: everything that waits is worth a look."""
        self._stirs_seen = 0
        self._asleep = {}
        self._by_pool: dict[PoolId, dict[Demand, Fit]] = {pool: {} for pool in self.state.pools}
        self._begins: list[tuple[int, int, Demand]] = []  # (when, running number, what)
        self._began = 0
        self._look_again_ms = NEVER_MS
        backlogs = self.state.backlogs
        self._arrived = backlogs.forgotten + len(backlogs.arrived)
        self._awake = {self._rules.demand(key, log.spec): None for key, log in backlogs.by_need.items()}
        for demand in self._awake:
            demand.only_in = None

    def _notice(self, now_ms: int) -> list[PoolId]:
        """Wake who has reason to; returns the pools in which something changed since the last cycle."""
        changes, rules = self.state.changes, self._rules
        if (
            rules.declarations != changes.declarations
            or rules.in_force(now_ms) != self._in_force
            or rules.demands_known > DEMANDS_KNOWN_MAX
        ):
            self._renew_rules(now_ms)
            self._forget()
        elif now_ms >= self._look_again_ms or self._arrived < self.state.backlogs.forgotten:
            self._forget()
        else:
            self._notice_arrivals()
        while self._begins and self._begins[0][0] <= now_ms:
            self._wake(heappop(self._begins)[2])
        if self._stirs_seen == changes.stirs and not self._reopened:
            return []
        stirred = list(dict.fromkeys((*changes.since(self._stirs_seen), *self._reopened)))
        self._stirs_seen, self._reopened = changes.stirs, {}
        if len(stirred) > 1:
            stirred.sort(key=self._rules.pool_position.__getitem__)
        return stirred

    def _notice_arrivals(self) -> None:
        by_need, awake = self.state.backlogs.by_need, self._awake
        for demand in [demand for demand in awake if demand.key not in by_need]:
            del awake[demand]
        has_holds = bool(self.state.planned or self.state.advance_reservations)
        arrived, forgotten = self.state.backlogs.arrived, self.state.backlogs.forgotten
        for backlog in arrived[self._arrived - forgotten :] if self._arrived < forgotten + len(arrived) else ():
            if backlog.key in by_need:
                demand = self._rules.demand(backlog.key, backlog.spec)
                if demand not in self._asleep:
                    awake[demand] = None
                elif has_holds or demand.has_quotas or not self._asleep[demand]:
                    self._wake(demand)
        self._arrived = forgotten + len(arrived)

    def _wake(self, demand: Demand) -> None:
        demand.only_in = None
        if self._asleep.pop(demand, None) is not None:
            for fit in demand.fits:
                del self._by_pool[fit.pool][demand]
        if demand.key in self.state.backlogs.by_need:
            self._awake[demand] = None

    def _sleep(self, demand: Demand) -> None:
        self._awake.pop(demand, None)
        self._asleep[demand] = demand.is_refused
        for fit in demand.fits:
            self._by_pool[fit.pool][demand] = fit

    def _is_settled(self, stirred: list[PoolId]) -> bool:
        """True if nobody waits for room where something changed, and nothing promised or lent there can move."""
        state = self.state
        if stirred and (state.reservations or state.planned or state.powered):
            return False
        if self._has_new_rules and any(state.guests[pool] for pool in stirred):
            return False
        return not any(
            self._by_pool[pool] or (state.guests[pool] and may_come_home(state.books[pool])) for pool in stirred
        )

    # --- one cycle ---------------------------------------------------------------------------------------------------

    def _pass(self, board: Board, stirred: list[PoolId], whole: dict[PoolId, None]) -> "_Pass":
        """Settle what is promised and lent, then place: home work of every owner before any borrowed work."""
        changed = dict.fromkeys(stirred)
        settle_reservations(board, changed)
        settle_planned(board, changed)
        settle_power(board)
        bring_loans_home(board, stirred)
        if self._has_new_rules:
            end_forbidden_loans(board)
        if len(board.reserved) < len(self.state.reservations):
            self._wake_let_go(board)
        worth = self._worth_a_try(board, dict.fromkeys((*stirred, *board.stirred)), whole)
        board.stirred, board.gone, board.again = {}, {}, {}
        placed = None if self._rules.preempting else place_lone(board, worth)
        if placed is not None:
            bring_loans_home(board, board.gone)
            return _Pass(placed, [])
        trees = share_trees(board, worth)
        _take_turns(board, trees)
        return _Pass({demand: count for tree in trees for demand, count in tree.placed.items()}, trees)

    def _wake_let_go(self, board: Board) -> None:
        """Whose reservation was let go asks anew in every pool: while it was held, nothing woke its need."""
        jobs = self.state.jobs
        for job in (jobs[number] for number in self.state.reservations if number not in board.reserved):
            if job.id not in board.placed:
                self._wake(self._rules.demand_of(job.owner, job.spec))

    def _worth_a_try(self, board: Board, stirred: dict[PoolId, None], whole: dict[PoolId, None]) -> dict[Demand, None]:
        """Who is awake, and the sleepers that may have room where something changed."""
        worth, by_need = dict(self._awake), self.state.backlogs.by_need
        for pool in stirred:
            for demand, fit in list(self._by_pool.get(pool, _NOBODY).items()):
                if demand.key not in by_need:
                    self._wake(demand)
                elif demand not in worth and (
                    pool in whole or may_have_room(board, demand, fit) or may_plan_start(board, demand)
                ):
                    worth[demand] = None
        for pool in whole:
            worth.update((demand, None) for demand in self._by_pool[pool] if demand.key in by_need)
        for demand in worth:
            demand.only_in = {**stirred, **whole} if demand in self._asleep else None
        return worth

    def _stirred_late(self, board: Board, made: "_Pass", whole: dict[PoolId, None]) -> list[PoolId]:
        """Pools in which a decision of this cycle may have given room to a sleeper that had no turn there."""
        return [
            pool
            for pool in board.stirred
            if pool not in whole
            and any(demand not in made.placed or not demand.looks_in(pool) for demand in self._by_pool[pool])
        ]

    def _remember(self, made: "_Pass") -> None:
        """Put to sleep who found no room; who was placed to the last job is forgotten when the plan is folded."""
        for demand, placed in made.placed.items():
            if placed >= self.state.backlogs.by_need[demand.key].jobs or self._may_stand_behind(demand):
                self._wake(demand)
            elif demand in self._asleep:
                self._asleep[demand] &= demand.is_refused  # no job of it may have had a turn this time
            else:
                self._sleep(demand)
        for tree in made.trees:
            for demand in tree.blocked():
                if not demand.has_quotas and demand not in self._asleep:
                    self._sleep(demand)
            for begin_ms, demand in tree.begins():
                self._began += 1
                heappush(self._begins, (begin_ms, self._began, demand))

    def _may_stand_behind(self, demand: Demand) -> bool:
        """True if some of its jobs had no turn because they stand behind another in a queue of strict order."""
        strict = self._rules.strict
        return bool(strict) and not strict.isdisjoint(self.state.backlogs.by_need[demand.key].lines)


def _take_turns(board: Board, trees: list[ShareTree]) -> None:
    """Home, on loan, by preemption; and again while a planned start is gone for whose sake somebody was refused.

    Where it held nobody back, only another start may be planned in its place.
    """
    passing, has_room = trees, True
    while True:
        while passing:
            for tree in passing:
                home_pass(board, tree)
            has_room = has_room or bool(board.gone)
            passing = _passing_again(board, trees)
        if has_room:
            settle_power(board)
            borrow_pass(board, trees)
            board.reopened.update(board.gone)
            if not board.gone:
                preempt_pass(board)
        if not board.again:
            return
        has_room = bool(board.gone)
        passing = _passing_again(board, trees)


def _passing_again(board: Board, trees: list[ShareTree]) -> list[ShareTree]:
    """Whose work has another pass at home, once what was planned or lent where a start is gone has come forward."""
    gone, again, board.gone, board.again = board.gone, board.again, {}, {}
    start_planned(board, gone)
    bring_loans_home(board, gone)
    return [tree for tree in trees if tree.owner in again]
