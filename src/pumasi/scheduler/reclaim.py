"""Reclaim: an owner's own work gets lent GPUs back, with notice, in the shape it needs and at least lost work.

Only borrowers are stopped: first those on the claimant's own entitlement, others of the pool only if the shape needs
it, and each only if its lender's contract has it gone within the claimant's reclaim window. A job already told to stop
counts as coming free at its kill time and costs nothing. Home work is never stopped, except what faults have left above
its shrunken entitlement: that is borrowed in all but name. Where the owner's contract bounds what one claim may evict,
the way that evicts fewest GPUs is taken if the cheapest is beyond that; if that is too, the job waits.
"""

from collections.abc import Iterable
from operator import attrgetter, itemgetter

from msgspec import Struct

from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import Span, overlap
from pumasi.model.reservations import AdvanceReservation
from pumasi.scheduler.backfill import Hold, unpromised
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.loans import Move, commit, relief
from pumasi.scheduler.openings import Opening, Victim, counted
from pumasi.scheduler.placement import asking, find, merged, pick_gpus, takes_more
from pumasi.scheduler.quotas import NO_LIMIT
from pumasi.scheduler.reservations import start_if_carried
from pumasi.scheduler.shapes import Fit, Need
from pumasi.scheduler.tenants import Tenants
from pumasi.scheduler.victims import Candidates, Kept
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Job, PlannedStart


class Option(Struct):
    """One way to make room: stop these, recharge those, and hold these spans.

    `cost`: what of the victims' cost this claim bears, where later ones can use what else they leave.
    """

    pool: PoolId
    spans: tuple[Span, ...]
    victims: list[Victim]
    cost: int
    moves: list[Move]

    @property
    def evicted_gpus(self) -> int:
        """GPUs of the jobs that are stopped for it."""
        return sum([victim.evicted_gpus for victim in self.victims])

    @property
    def returned_gpus(self) -> int:
        """GPUs of the claimant's entitlement that these jobs give back."""
        return sum([victim.returned for victim in self.victims])


AHEAD_MAX = 64

Found = tuple[tuple[Span, ...], list[Victim], int]  # exact spans, who must go for them, and what of the cost they bear

_by_cost = attrgetter("option.cost")
_by_node = itemgetter(1)


class Offer(Struct):
    """What a pool has to offer a demand, as it was when `changes` things had happened there; None: nothing.

    `ready`: what the claims after the next would get, the last first, if nothing but they changes the pool. `ahead`:
    how many are worked out at once; twice as many each time that all of them were taken.
    """

    fit: Fit
    tenants: Tenants
    candidates: Candidates
    changes: int = -1
    option: Option | None = None
    ready: list[Option] = []
    ahead: int = 1


class Claims:
    """The claims of one cycle. Remembers who could go in which pool, and what that offers whom."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._candidates: dict[tuple[OwnerId, PoolId, Kept], Candidates] = {}
        self._offers: dict[tuple[Demand, tuple[Hold, ...]], list[Offer]] = {}
        self._waiting: dict[OwnerId, dict[PoolId, int]] = {}

    def claim(self, job: Job, demand: Demand) -> bool:
        """Reserve lent GPUs for a job that fits its owner's entitlement, and tell their users; True if done."""
        board, gpus = self._board, demand.spec.gpus
        most = evicted_gpus_max(board, demand)
        offer = self._best(job, demand, most)
        if offer is None or offer.option is None:
            return False
        best = offer.option
        commit(board, best.moves)
        for victim in best.victims:
            if not victim.is_stopping:
                board.stop(victim.job, victim.kill_at_ms, job.id)
        is_free = not best.victims and all(map(board.free(best.pool).free_in, best.spans))  # or told for another claim
        board.reserve(job, best.pool, best.spans, self._due_ms(demand.owner), 0 if most == NO_LIMIT else most)
        waiting = self._waiting[demand.owner]
        for fit in demand.home_fits:
            waiting[fit.pool] -= gpus
        if is_free:
            start_if_carried(board, board.reserved[job.id])
        self._go_on(demand, offer)
        return True

    def _go_on(self, demand: Demand, offer: Offer) -> None:
        """An offer was taken, and nothing else has changed: what was worked out for the next claim still holds."""
        if offer.ready:
            self._show_ready(demand, offer)
        else:
            offer.ahead = min(2 * offer.ahead, AHEAD_MAX)

    def _show_ready(self, demand: Demand, offer: Offer) -> bool:
        """Offer the next of what is ready, if its owner's entitlement carries that as it is."""
        option, account = offer.ready.pop(), self._board.account(demand.owner, offer.fit.pool)
        carried_gpus = account.idle + offer.tenants.ending.get(demand.owner, 0) + option.returned_gpus
        if min(carried_gpus, self._room(demand.owner, offer.fit.pool)) >= demand.spec.gpus:
            offer.changes, offer.option = offer.tenants.changes, option
            return True
        offer.ready, offer.ahead = [], 1
        return False

    def _due_ms(self, owner: OwnerId) -> int:
        return self._board.now_ms + self._board.state.owners[owner].declared.lending.reclaim_window_seconds * 1000

    def _best(self, job: Job, demand: Demand, most: int) -> Offer | None:
        """The way that costs least, with `most` GPUs evicted for it; another if that would break a planned start of the
        same owner.
        """
        reserved = self._reserved(job, demand)
        best = self._cheapest(job, demand, reserved, most)
        if best is None or best.option is None or not self._board.has_holds(best.fit.pool):
            return best
        pool, spans, starts = best.fit.pool, best.option.spans, self._own_starts(job, demand)
        if not any(start.pool == pool and overlap(start.spans, spans) for start in starts):
            return best
        return self._cheapest(job, demand, (*reserved, *starts), most)

    def _cheapest(self, job: Job, demand: Demand, kept: tuple[Hold, ...], most: int) -> Offer | None:
        """The way that costs least and takes nothing of what is kept; as equals, that in the first pool."""
        offers = self._offers.get((demand, kept))
        if offers is None:
            offers = self._offers[demand, kept] = self._opened(demand, kept)
        for offer in offers:
            if offer.changes != offer.tenants.changes:
                self._renew(job, demand, offer, most)
        options = [offer for offer in offers if offer.option is not None]
        while options:
            best = min(options, key=_by_cost)
            pool = best.fit.pool
            if self._board.home_room(job, pool) >= job.spec.gpus and self._leaves_promised(job, pool):
                return best
            options.remove(best)
        if kept:
            self._board.held_back[job.id] = None
        return None

    def _reserved(self, job: Job, demand: Demand) -> tuple[AdvanceReservation, ...]:
        """What is reserved for others before the job, claiming now, would be over."""
        board = self._board
        if not board.state.advance_reservations:
            return ()
        until_ms = self._due_ms(job.owner) + job.spec.time_limit_seconds * 1000
        return tuple(made for fit in demand.home_fits for made in board.barring(job.spec.queue, until_ms, fit.pool))

    def _own_starts(self, job: Job, demand: Demand) -> list[PlannedStart]:
        """The starts of other jobs of its owner that are planned before the job, claiming now, would be over."""
        board, until_ms = self._board, self._due_ms(job.owner) + job.spec.time_limit_seconds * 1000
        return [
            start
            for fit in demand.home_fits
            for start in board.planned_in(fit.pool)
            if start.job != job.id and start.start_ms < until_ms and board.state.jobs[start.job].owner == job.owner
        ]

    def _leaves_promised(self, job: Job, pool: PoolId) -> bool:
        if not self._board.has_holds(pool):
            return True
        is_so = unpromised(self._board, job, pool, job.owner, self._due_ms(job.owner)) >= job.spec.gpus
        if not is_so:
            self._board.hold_back(job, pool)
        return is_so

    def _opened(self, demand: Demand, kept: tuple[Hold, ...]) -> list[Offer]:
        """The pools where a demand may claim, in the order it prefers them.

        Within a cycle an entitlement only fills: where it does not carry the demand now, nobody need be priced.
        """
        board, owner, found = self._board, demand.owner, []
        for fit in demand.open_home_fits:
            if not board.is_connected(fit.pool) or self._room(owner, fit.pool) < fit.need.gpus:
                continue
            if takes_more(board.free(fit.pool), fit.need):
                continue  # what is promised to a claim is GPUs with their share of the rest
            key = (owner, fit.pool, tuple(hold.spans for hold in kept if hold.pool == fit.pool))
            if key not in self._candidates:
                self._candidates[key] = Candidates(board, owner, fit.pool, self._due_ms(owner), kept=key[2])
            found.append(Offer(fit, board.tenants(fit.pool), self._candidates[key]))
        if found and owner not in self._waiting:
            self._waiting[owner] = self._waiting_gpus(owner)
        return found

    def _waiting_gpus(self, owner: OwnerId) -> dict[PoolId, int]:
        """GPUs that an owner's waiting jobs without a reservation ask for, in each pool where they could be home."""
        rules, jobs, found = self._board.rules, self._board.state.jobs, dict.fromkeys(self._board.state.pools, 0)
        reserved = [jobs[job] for job in self._board.reserved if jobs[job].owner == owner]
        waiting = [(rules.demand_of(owner, job.spec), -1) for job in reserved]
        for key, backlog in self._board.state.backlogs.by_need.items():
            if backlog.owner == owner:
                waiting.append((rules.demand(key, backlog.spec), backlog.jobs))
        for demand, count in waiting:
            for fit in demand.home_fits:
                found[fit.pool] += count * demand.spec.gpus
        return found

    def _renew(self, job: Job, demand: Demand, offer: Offer, most: int) -> None:
        """Look again at a pool where something has changed."""
        board, fit, candidates = self._board, offer.fit, offer.candidates
        candidates.refresh()
        offer.changes, offer.option = offer.tenants.changes, None
        if offer.ready:
            offer.ready, offer.ahead = [], 1  # others claim here as well
        room = self._room(demand.owner, fit.pool)
        if room < fit.need.gpus or not (candidates.victims or offer.tenants.stopping):
            return
        wanted_nodes = max(fit.need.nodes, min(room, self._waiting[demand.owner][fit.pool]) // fit.need.each)
        if offer.ahead > 1 and most == NO_LIMIT:
            offer.ready = _options(fit, candidates, wanted_nodes, offer.ahead)
            if offer.ready and self._show_ready(demand, offer):
                return
        offer.option = _option(board, job, fit, candidates, wanted_nodes)
        if most < NO_LIMIT and offer.option is not None and offer.option.evicted_gpus > most:
            offer.option = _option(board, job, fit, candidates, fit.need.nodes, by_size=True)
            if offer.option is not None and offer.option.evicted_gpus > most:
                offer.option = None
                board.look_again_ms = board.now_ms  # it hangs on who is cheapest, which time changes

    def _room(self, owner: OwnerId, pool: PoolId) -> int:
        """GPUs of the owner's entitlement that none of its own work uses or is promised."""
        account = self._board.account(owner, pool)
        return account.due - account.home - account.promised


def evicted_gpus_max(board: Board, demand: Demand) -> int:
    """GPUs of the jobs that its owner's contract lets be stopped for a claim."""
    percent = board.state.owners[demand.owner].declared.lending.evicted_percent_max
    return demand.spec.gpus * percent // 100 if percent else NO_LIMIT


def _option(
    board: Board, job: Job, fit: Fit, candidates: Candidates, wanted_nodes: int, *, by_size: bool = False
) -> Option | None:
    """The best that a pool can do; None if it can do nothing. `wanted_nodes`: what claims could use, this included."""
    found = _for_shape(candidates.free, fit.need.with_share, candidates, wanted_nodes, by_size=by_size)
    if found is None:
        return None
    spans, victims, cost = found
    option = _for_books(board, job, candidates, Option(fit.pool, asking(spans, fit.need), victims, cost, []))
    if option is None:
        board.look_again_ms = board.now_ms  # it hangs on who is cheapest, which time changes
    return option


# --- who must go for the shape ---------------------------------------------------------------------------------------


def _for_shape(free: FreeMap, need: Need, candidates: Candidates, wanted_nodes: int, *, by_size: bool) -> Found | None:
    """Exact spans and the victims that sit on them; no victims if free GPUs have the shape."""
    spans = find(free, need) if free.free_gpus >= need.gpus else None
    if spans is not None:
        return spans, [], 0
    chosen = candidates.openings(need, by_size=by_size).cheapest(wanted_nodes)
    if chosen is None:
        return None
    nodes = counted(chosen)
    victims, spare_nodes = _by_dearness(candidates, nodes, by_size=by_size), wanted_nodes - need.nodes
    if need.segment > 1 or _may_be_spared(need, nodes, victims, spare_nodes):
        return _pruned(free, need, victims, spare_nodes)
    return _on(free, need, chosen, candidates.victims), victims, _borne(victims, nodes, spare_nodes)


def _options(fit: Fit, candidates: Candidates, wanted_nodes: int, claims: int) -> list[Option]:
    """What so many claims of one need would get in turn, the last first; nothing if they had better ask one by one.

    They take the cheapest nodes in turn, and whoever has to go is stopped for the first that sits on one of his.
    """
    need, free = fit.need.with_share, candidates.free
    if free.free_gpus >= need.each:
        return []
    chosen = candidates.openings(need, by_size=False).in_turn(wanted_nodes, claims)
    nodes, told, found = counted(chosen), set[JobId](), []
    if _may_be_spared(need, nodes, [candidates.victims[job] for job in nodes], wanted_nodes - len(chosen)):
        return []
    for first in range(0, len(chosen), need.nodes):
        taken, wanted_nodes = chosen[first : first + need.nodes], wanted_nodes - need.nodes
        nodes = {job: count for job, count in counted(taken).items() if job not in told}
        told.update(nodes)
        victims = _by_dearness(candidates, nodes, by_size=False)
        spans, cost = _on(free, need, taken, candidates.victims), _borne(victims, nodes, wanted_nodes)
        found.append(Option(fit.pool, asking(spans, fit.need), victims, cost, []))
    return found[::-1]


def _by_dearness(candidates: Candidates, jobs: Iterable[JobId], *, by_size: bool) -> list[Victim]:
    """The victims, the dearest (or largest) first."""
    victims = [candidates.victims[job] for job in jobs]
    if len(victims) > 1:
        victims.sort(key=lambda victim: (-victim.evicted_gpus if by_size else -victim.cost, victim.job.id))
    return victims


def _borne(victims: list[Victim], nodes: dict[JobId, int], spare_nodes: int) -> int:
    """What so many of their nodes bear of the victims' cost, if other claims can use so many more."""
    return sum([victim.share(nodes[victim.job.id], spare_nodes, by_size=False) for victim in victims])


def _may_be_spared(need: Need, nodes: dict[JobId, int], victims: list[Victim], spare_nodes: int) -> bool:
    """False if the claims to come can use all nodes that the victims leave beside the chosen ones; then it is right to
    stop those that cost least for each node. `nodes`: how many of the chosen ones each is on.
    """
    left = [len(victim.pieces) - nodes[victim.job.id] for victim in victims if not victim.is_stopping]
    return need.nodes > 1 and sum(left) > spare_nodes


def _on(free: FreeMap, need: Need, chosen: list[Opening], victims: dict[JobId, Victim]) -> tuple[Span, ...]:
    """GPUs of the chosen nodes that are free or left by who must go for them."""
    spans = []
    for _, node, who in chosen if need.nodes == 1 else sorted(chosen, key=_by_node):
        mask = free.masks[node]
        for job in who:
            mask |= victims[job].pieces[node]
        spans.append(Span(node, 1, pick_gpus(mask, need.each, free.slices_per_gpu)))
    return asking(merged(spans), need)


def _pruned(free: FreeMap, need: Need, chosen: list[Victim], spare_nodes: int) -> Found | None:
    """Spare everyone the shape does not need, the dearest first, as they come; then hold the spans that are left."""
    branch = free.branch()
    for victim in chosen:
        _give(branch, victim)
    kept = []
    for victim in chosen:
        for node, mask in victim.pieces.items():
            branch.take(Span(node, 1, mask))
        if find(branch, need) is None:
            kept.append(victim)
            _give(branch, victim)
    spans = find(branch, need)
    if spans is None:
        return None
    victims = [victim for victim in kept if _sits_on(victim, spans)]
    return spans, victims, _cost(victims, spans, spare_nodes)


def _cost(victims: list[Victim], spans: tuple[Span, ...], spare_nodes: int) -> int:
    """What the spans bear of the victims' cost, if other claims can use so many more of their nodes."""
    nodes = {node: None for span in spans for node in range(span.first, span.first + span.nodes)}
    return sum(
        [victim.share(len(victim.pieces.keys() & nodes.keys()), spare_nodes, by_size=False) for victim in victims]
    )


def _give(branch: FreeMap, victim: Victim) -> None:
    for node, mask in victim.pieces.items():
        branch.give(Span(node, 1, mask))


def _sits_on(victim: Victim, spans: tuple[Span, ...]) -> bool:
    return any(
        victim.pieces.get(node, 0) & span.gpu_mask
        for span in spans
        for node in range(span.first, span.first + span.nodes)
    )  # fmt: skip


# --- who must go for the books ---------------------------------------------------------------------------------------


def _for_books(board: Board, job: Job, candidates: Candidates, option: Option) -> Option | None:
    """Complete an option so that the owner's entitlement carries the job: recharge loans if possible, else end more."""
    pool, owner = option.pool, job.owner
    missing = job.spec.gpus - board.account(owner, pool).idle - option.returned_gpus
    if missing > 0:
        missing -= board.tenants(pool).ending.get(owner, 0)
    if missing <= 0:
        return option
    gone = {victim.job.id: None for victim in option.victims}
    option.moves = relief(board, owner, pool, missing, spared=gone)
    missing -= sum(move.gpus for move in option.moves)
    if missing <= 0:
        return option
    moved: dict[JobId, int] = {}
    for move in option.moves:
        moved[move.job] = moved.get(move.job, 0) + move.gpus
    lenders = [victim for victim in candidates.victims.values() if victim.returned and victim.job.id not in gone]
    lenders.sort(key=lambda victim: (victim.job.id in moved, victim.cost, victim.job.id))
    return _end_more(option, [(victim, victim.returned - moved.get(victim.job.id, 0)) for victim in lenders], missing)


def _end_more(option: Option, candidates: list[tuple[Victim, int]], missing: int) -> Option | None:
    """Add victims, each with what its end returns, until nothing is missing; then spare those that are not needed."""
    added: list[tuple[Victim, int]] = []
    for victim, gain in candidates:
        if missing > 0:
            added.append((victim, gain))
            missing -= gain
    if missing > 0:
        return None
    for victim, gain in sorted(added, key=lambda entry: (-entry[0].cost, entry[0].job.id)):
        if missing + gain <= 0:
            added.remove((victim, gain))
            missing += gain
    gone = {victim.job.id: None for victim, _ in added}
    option.moves = [move for move in option.moves if move.job not in gone]
    option.victims += [victim for victim, _ in added]
    option.cost += sum(victim.cost for victim, _ in added)
    return option
