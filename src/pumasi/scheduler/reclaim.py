"""Reclaim: an owner's own work gets lent GPUs back, with notice, in the shape it needs and at least lost work.

Only borrowers are stopped: first those on the claimant's own entitlement, others of the pool only if the shape needs
it, and each only if its lender's contract has it gone within the claimant's reclaim window. A job already told to stop
counts as coming free at its kill time and costs nothing. Home work is never stopped, except what faults have left above
its shrunken entitlement: that is borrowed in all but name.
"""

from collections.abc import Iterator

from msgspec import Struct

from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import Span
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.loans import Move, commit, relief
from pumasi.scheduler.openings import Opening, Victim
from pumasi.scheduler.placement import find, low_gpus, merged
from pumasi.scheduler.shapes import Fit, Need
from pumasi.scheduler.victims import Candidates
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
        return sum([victim.cost for victim in self.victims])


class Room(Struct, frozen=True):
    """Exact spans that can be had for a need, and who must go for them; neither if there are none."""

    spans: tuple[Span, ...] = ()
    victims: tuple[Victim, ...] = ()
    cost: int = 0


NO_ROOM = Room()
Found = tuple[tuple[Span, ...], list[Victim]]  # exact spans, and who must go for them


class Claims:
    """The claims of one cycle. Remembers who could go in which pool, and what room that would make for which need."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._candidates: dict[tuple[OwnerId, PoolId], Candidates] = {}
        self._rooms: dict[tuple[OwnerId, PoolId, Need], tuple[int, Room]] = {}
        self._left: dict[Demand, int] = {}

    def claim(self, job: Job, demand: Demand) -> bool:
        """Reserve lent GPUs for a job that fits its owner's entitlement, and tell their users; True if done."""
        board = self._board
        due_ms = board.now_ms + board.state.owners[job.owner].declared.lending.reclaim_window_seconds * 1000
        best = self._best(job, demand, due_ms)
        if best is None:
            return False
        commit(board, best.moves)
        for victim in best.victims:
            if not victim.is_stopping:
                board.stop(victim.job, victim.kill_at_ms, job.id)
        board.reserve(job, best.pool, best.spans, due_ms)
        self._left[demand] -= 1
        return True

    def _best(self, job: Job, demand: Demand, due_ms: int) -> Option | None:
        """The way that costs least; as equals, that in the first pool."""
        rooms = []
        for place, fit in enumerate(demand.open_home_fits):
            room = self._room(job, demand, fit, due_ms)
            if room.spans:
                rooms.append((room.cost, place, fit, room))
        best: Option | None = None
        for cost, _, fit, room in sorted(rooms, key=lambda entry: entry[:2]):
            if best is not None and cost >= best.cost:
                break
            option = self._option(job, fit, room)
            if option is not None and (best is None or option.cost < best.cost):
                best = option
        return best

    def _option(self, job: Job, fit: Fit, room: Room) -> Option | None:
        board = self._board
        if board.home_room(job, fit.pool) < job.spec.gpus:
            return None
        candidates = self._candidates[job.owner, fit.pool]
        option = _for_books(board, job, candidates, Option(fit.pool, room.spans, list(room.victims), []))
        if option is None:
            board.look_again_ms = board.now_ms  # it hangs on who is cheapest, which time changes
        return option

    def _room(self, job: Job, demand: Demand, fit: Fit, due_ms: int) -> Room:
        """What could be had in a pool; found again only when something has changed there."""
        board, key = self._board, (job.owner, fit.pool)
        if not board.is_connected(fit.pool):
            return NO_ROOM
        candidates = self._candidates.get(key)
        if candidates is None:
            candidates = self._candidates[key] = Candidates(board, job.owner, fit.pool, due_ms)
        candidates.refresh()
        known = self._rooms.get((*key, fit.need))
        if known is None or known[0] != candidates.changes:
            room = _for_shape(board.free(fit.pool), fit.need, candidates, self._wanted_nodes(job, demand, fit))
            known = self._rooms[*key, fit.need] = (candidates.changes, room)
        return known[1]

    def _wanted_nodes(self, job: Job, demand: Demand, fit: Fit) -> int:
        """How many nodes the jobs with this demand could claim in a pool, this one included."""
        board = self._board
        left = self._left.get(demand)
        if left is None:
            reserved = sum(board.rules.demand_of(demand.owner, other.spec) is demand for other in self._reserved(job))
            left = self._left[demand] = board.state.backlogs.by_need[demand.key].jobs - reserved
        account = board.account(job.owner, fit.pool)
        room = account.due - account.home - account.promised
        return max(fit.need.nodes, min(left * fit.need.nodes, room // fit.need.each))

    def _reserved(self, job: Job) -> Iterator[Job]:
        jobs = self._board.state.jobs
        return (jobs[other] for other in self._board.reserved if jobs[other].owner == job.owner)


# --- who must go for the shape ---------------------------------------------------------------------------------------


def _for_shape(free: FreeMap, need: Need, candidates: Candidates, wanted_nodes: int) -> Room:
    """Exact spans and the victims that sit on them; no victims if free GPUs have the shape."""
    if not candidates.victims:
        return NO_ROOM
    spans = find(free, need)
    if spans is not None:
        return Room(spans)
    chosen = candidates.openings(need).cheapest(wanted_nodes)
    if chosen is None:
        return NO_ROOM
    victims = [candidates.victims[job] for job in {job: None for _, _, who in chosen for job in who}]
    victims.sort(key=lambda victim: (-victim.cost, victim.job.id))
    found = _exact(free, need, chosen, victims) or _pruned(free, need, victims)
    if found is None:
        return NO_ROOM
    spans, victims = found
    return Room(spans, tuple(victims), sum([victim.cost for victim in victims]))


def _exact(free: FreeMap, need: Need, chosen: list[Opening], victims: list[Victim]) -> Found | None:
    """The chosen nodes, if their victims leave no others: then none of the victims can be spared."""
    nodes = {node: free.masks[node] for _, node, _ in chosen}
    if need.segment > 1:
        return None
    for victim in victims:
        if need.nodes > 1 and not victim.is_stopping and not victim.pieces.keys() <= nodes.keys():
            return None
        for node in victim.pieces.keys() & nodes.keys():
            nodes[node] |= victim.pieces[node]
    return merged([Span(node, 1, low_gpus(mask, need.each)) for node, mask in sorted(nodes.items())]), victims


def _pruned(free: FreeMap, need: Need, chosen: list[Victim]) -> Found | None:
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
