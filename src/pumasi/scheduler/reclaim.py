"""Reclaim: an owner's own work gets lent GPUs back, with notice, in the shape it needs and at least lost work.

Only borrowers are stopped: first those on the claimant's own entitlement, others of the pool only if the shape needs
it, and each only if its lender's contract has it gone within the claimant's reclaim window. A job already told to stop
counts as coming free at its kill time and costs nothing. Home work is never stopped, except what faults have left above
its shrunken entitlement: that is borrowed in all but name.
"""

from msgspec import Struct

from pumasi.model.ids import JobId, PoolId
from pumasi.model.jobs import Level, Span
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.loans import Move, commit, relief
from pumasi.scheduler.placement import find, low_gpus, roomy
from pumasi.scheduler.shapes import Fit, Need
from pumasi.scheduler.victims import Candidates, Opening, Victim
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Job


class Option(Struct):
    """One way to make room: stop these, recharge those, and hold these spans."""

    pool: PoolId
    spans: tuple[Span, ...]
    victims: list[Victim]
    moves: list[Move]

    @property
    def cost(self) -> int:
        """What it costs, in the order options compare."""
        return sum(victim.cost for victim in self.victims)


Room = tuple[tuple[Span, ...], list[Victim]]  # exact spans, and who must go for them


class Claims:
    """The claims of one cycle. Remembers who could go in which pool, owner by owner."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._known: dict[tuple[str, PoolId], Candidates] = {}

    def claim(self, job: Job, demand: Demand) -> bool:
        """Reserve lent GPUs for a job that fits its owner's entitlement, and tell their users; True if done."""
        board = self._board
        due_ms = board.now_ms + board.state.owners[job.owner].declared.lending.reclaim_window_seconds * 1000
        options = [option for fit in demand.open_home_fits if (option := self._option(job, fit, due_ms)) is not None]
        if not options:
            return False
        best = min(options, key=lambda option: option.cost)
        commit(board, best.moves)
        for victim in best.victims:
            if not victim.is_stopping:
                board.stop(victim.job, victim.kill_at_ms, job.id)
        board.reserve(job, best.pool, best.spans, due_ms)
        return True

    def _option(self, job: Job, fit: Fit, due_ms: int) -> Option | None:
        board = self._board
        if not board.is_connected(fit.pool) or board.home_room(job, fit.pool) < job.spec.gpus:
            return None
        candidates = self._candidates(job.owner, fit.pool, due_ms)
        room = _for_shape(board.free(fit.pool), fit.need, candidates) if candidates.victims else None
        if room is None:
            return None
        option = _for_books(board, job, candidates, Option(fit.pool, *room, []))
        if option is None:
            board.look_again_ms = board.now_ms  # it hangs on who is cheapest, which time changes
        return option

    def _candidates(self, owner: str, pool: PoolId, due_ms: int) -> Candidates:
        known = self._known.get((owner, pool))
        if known is None:
            known = self._known[owner, pool] = Candidates(self._board, owner, pool, due_ms)
        known.refresh()
        return known


# --- who must go for the shape ---------------------------------------------------------------------------------------


def _for_shape(free: FreeMap, need: Need, candidates: Candidates) -> Room | None:
    """Exact spans and the victims that sit on them; no victims if free GPUs have the shape."""
    spans = find(free, need)
    if spans is not None:
        return spans, []
    if need.nodes == 1:
        return _one_node(free, need, candidates)
    chosen = _cheapest(free, need, candidates)
    return None if chosen is None else _pruned(free, need, chosen)


def _one_node(free: FreeMap, need: Need, candidates: Candidates) -> Room | None:
    opening = candidates.openings(need.each).cheapest()
    if opening is None:
        return None
    victims = [candidates.victims[job] for job in opening.victims]
    mask = free.masks[opening.first]
    for victim in victims:
        mask |= victim.pieces[opening.first]
    return (Span(opening.first, 1, low_gpus(mask, need.each)),), victims


def _cheapest(free: FreeMap, need: Need, candidates: Candidates) -> list[Victim] | None:
    """The victims of the domain whose cheapest nodes cost least in all; None if no domain can hold the gang."""
    by_rack: dict[int, list[Opening]] = {}
    for opening in (*_free_nodes(free, need.each), *candidates.openings(need.each).by_node.values()):
        by_rack.setdefault(opening.first // free.nodes_per_rack, []).append(opening)
    width = {Level.RACK: 1, Level.BLOCK: free.racks_per_block, Level.POOL: len(free.rack_whole)}[need.widest]
    domains: dict[int, list[Opening]] = {}
    for rack, openings in by_rack.items():
        domains.setdefault(rack // width, []).extend(_segments(openings, need.segment))
    wanted, best = need.nodes // need.segment, None
    for _, openings in sorted(domains.items()):
        if len(openings) >= wanted:
            who = {job: None for opening in sorted(openings)[:wanted] for job in opening.victims}
            cost = sum(candidates.victims[job].cost for job in who)
            if best is None or cost < best[0]:
                best = (cost, who)
    return None if best is None else [candidates.victims[job] for job in best[1]]


def _free_nodes(free: FreeMap, each: int) -> list[Opening]:
    bits = f"{roomy(free, each):b}"
    return [Opening(0, node, ()) for node, bit in enumerate(reversed(bits)) if bit == "1"]


def _segments(openings: list[Opening], segment: int) -> list[Opening]:
    """The openings of one rack in groups of `segment`, the cheapest first; the incomplete last group is left out."""
    if segment == 1:
        return openings
    openings = sorted(openings)
    groups = [openings[at : at + segment] for at in range(0, len(openings) - segment + 1, segment)]
    return [_joined(group) for group in groups]


def _joined(group: list[Opening]) -> Opening:
    victims = tuple(job for opening in group for job in opening.victims)
    return Opening(sum(opening.cost for opening in group), group[0].first, victims)


def _pruned(free: FreeMap, need: Need, chosen: list[Victim]) -> Room | None:
    """Spare everyone the shape does not need, the dearest first; then hold the spans that are left."""
    branch = free.branch()
    for victim in chosen:
        _give(branch, victim)
    kept = []
    for victim in sorted(chosen, key=lambda victim: (-victim.cost, victim.job.id)):
        for node, mask in victim.pieces.items():
            branch.take(Span(node, 1, mask))
        if find(branch, need) is None:
            kept.append(victim)
            _give(branch, victim)
    spans = find(branch, need)
    return None if spans is None else (spans, [victim for victim in kept if _sits_on(victim, spans)])


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
    pool, account = option.pool, board.account(job.owner, option.pool)
    ending = board.tenants(pool).ending.get(job.owner, 0)
    missing = job.spec.gpus - account.idle - ending - sum(victim.returned for victim in option.victims)
    if missing <= 0:
        return option
    gone = {victim.job.id: None for victim in option.victims}
    option.moves = relief(board, job.owner, pool, missing, spared=gone)
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
    return option
