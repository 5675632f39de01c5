"""Reclaim: an owner's own work gets lent GPUs back, with notice, in the shape it needs and at least lost work.

Only borrowers are stopped: first those on the claimant's own entitlement, others of the pool only if the shape needs
it, and each only if its lender's contract has it gone within the claimant's reclaim window. A job already told to stop
counts as coming free at its kill time and costs nothing. Home work is never stopped, except what faults have left above
its shrunken entitlement: that is borrowed in all but name.
"""

from collections.abc import Iterable

from msgspec import Struct

from pumasi.events.facts import NodeState
from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import Level, Span
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.loans import (
    Move,
    commit,
    kill_at_by_contract_ms,
    kill_at_ms,
    lost_gpu_milliseconds,
    relief,
)
from pumasi.scheduler.placement import find, roomy
from pumasi.scheduler.shapes import Fit, Need
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Job

# Costs compare first by how many victims are not on the claimant's own entitlement, only then by work lost.
OTHER_LENDERS_VICTIM = 1 << 70
OVER_DUE_VICTIM = 1 << 90


class Victim(Struct):
    """A job whose GPUs can come free in time. `returned`: what of them is charged to the claimant's owner."""

    job: Job
    pieces: list[Span]
    cost: int
    kill_at_ms: int
    returned: int = 0
    is_stopping: bool = False

    @property
    def nodes(self) -> int:
        """Nodes it sits on."""
        return max(1, sum(span.nodes for span in self.pieces))


Victims = dict[JobId, Victim]


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


def claim(board: Board, job: Job, demand: Demand) -> bool:
    """Reserve lent GPUs for a job that fits its owner's entitlement, and give their users notice; True if done."""
    due_ms = board.now_ms + board.state.owners[job.owner].declared.lending.reclaim_window_seconds * 1000
    options = [option for fit in demand.home_fits if (option := _option(board, job, fit, due_ms)) is not None]
    if not options:
        return False
    best = min(options, key=lambda option: option.cost)
    commit(board, best.moves)
    for victim in best.victims:
        if not victim.is_stopping:
            board.stop(victim.job, victim.kill_at_ms, job.id)
    board.reserve(job, best.pool, best.spans, due_ms)
    return True


def _option(board: Board, job: Job, fit: Fit, due_ms: int) -> Option | None:
    if not board.is_connected(fit.pool) or board.home_room(job, fit.pool) < job.spec.gpus:
        return None
    candidates = _candidates(board, job.owner, fit.pool, due_ms)
    if not candidates:
        return None
    chosen = _for_shape(board, fit, candidates)
    if chosen is None:
        return None
    spans, victims = chosen
    return _for_books(board, job, fit.pool, candidates, Option(fit.pool, spans, victims, []))


# --- who could go ----------------------------------------------------------------------------------------------------


def _candidates(board: Board, owner: OwnerId, pool: PoolId, due_ms: int) -> Victims:
    """Every job whose GPUs come free by `due_ms` if told now."""
    tenants = board.tenants(pool)
    found: Victims = {}
    for job_id in tenants.borrowers():
        job = board.state.jobs[job_id]
        if job.owner != owner and job_id not in tenants.stopping:
            returned = sum(charge.gpus for charge in tenants.charges(job) if charge.owner == owner)
            cost = job.spec.gpus + lost_gpu_milliseconds(board, job) + (0 if returned else OTHER_LENDERS_VICTIM)
            found[job_id] = Victim(job, _pieces(board, pool, job), cost, kill_at_ms(board, job), returned)
    for job_id, kill_ms in tenants.stopping.items():
        job = board.state.jobs[job_id]
        found[job_id] = Victim(job, _pieces(board, pool, job), 0, kill_ms, is_stopping=True)
    for job in _over_due(board, owner, pool):
        cost = job.spec.gpus + lost_gpu_milliseconds(board, job) + OVER_DUE_VICTIM
        kill_ms = kill_at_by_contract_ms(board, job.attempts[-1], owner)
        found[job.id] = Victim(job, _pieces(board, pool, job), cost, kill_ms)
    return {job_id: victim for job_id, victim in found.items() if victim.kill_at_ms <= due_ms}


def _over_due(board: Board, owner: OwnerId, pool: PoolId) -> list[Job]:
    """Home work that other owners run above what faults have left them due, the least lost first."""
    found: list[Job] = []
    for other, account in board.books(pool).items():
        over = account.home - account.due
        if other == owner or over <= 0:
            continue
        tenants, jobs = board.tenants(pool), board.state.jobs
        home = [jobs[job] for job in board.state.active[pool] if jobs[job].owner == other]
        home = [job for job in home if len(tenants.charges(job)) == 1 and tenants.charges(job)[0].owner == other]
        over -= sum(job.spec.gpus for job in home if job.id in tenants.stopping)
        for job in sorted(home, key=lambda job: (lost_gpu_milliseconds(board, job), job.id)):
            if over > 0 and job.id not in tenants.stopping:
                found.append(job)
                over -= job.spec.gpus
    return found


def _pieces(board: Board, pool: PoolId, job: Job) -> list[Span]:
    """The GPUs a job would leave to others: on nodes that are up, and not held by a reservation already."""
    tenants, states = board.tenants(pool), board.state.occupancy[pool].node_states
    pieces = []
    for span in job.attempts[-1].spans:
        for node in range(span.first, span.first + span.nodes):
            mask = span.gpu_mask & ~tenants.held(node)
            if mask and states.get(node, NodeState.UP) is NodeState.UP:
                pieces.append(Span(node, 1, mask))
    return pieces


# --- who must go for the shape ---------------------------------------------------------------------------------------


def _for_shape(board: Board, fit: Fit, candidates: Victims) -> tuple[tuple[Span, ...], list[Victim]] | None:
    """Exact spans and the victims that sit on them; no victims if free GPUs have the shape."""
    free = board.free(fit.pool)
    spans = find(free, fit.need)
    if spans is not None:
        return spans, []
    if find(_after(free, candidates.values()), fit.need) is None:
        return None
    chosen = _cheapest(free, fit.need, candidates)
    return _pruned(free, fit.need, chosen)


def _after(free: FreeMap, victims: Iterable[Victim]) -> FreeMap:
    """The free map when these have gone."""
    branch = free.branch()
    for victim in victims:
        for piece in victim.pieces:
            branch.give(piece)
    return branch


class _Opening(Struct, order=True):
    """A node (or a segment of nodes) that can be had: at what cost, where, and who must go for it."""

    cost: int
    first: int
    victims: tuple[JobId, ...]


def _cheapest(free: FreeMap, need: Need, candidates: Victims) -> list[Victim]:
    """The victims of the domain whose cheapest nodes cost least in all."""
    by_rack: dict[int, list[_Opening]] = {}
    for opening in _openings(free, need.each, candidates):
        by_rack.setdefault(opening.first // free.nodes_per_rack, []).append(opening)
    width = {Level.RACK: 1, Level.BLOCK: free.racks_per_block, Level.POOL: len(free.rack_whole)}[need.widest]
    domains: dict[int, list[_Opening]] = {}
    for rack, openings in by_rack.items():
        domains.setdefault(rack // width, []).extend(_segments(openings, need.segment))
    best: tuple[int, int, dict[JobId, None]] | None = None
    for domain, openings in sorted(domains.items()):
        taken = sorted(openings)[: need.nodes // need.segment]
        if len(taken) == need.nodes // need.segment:
            who = {job: None for opening in taken for job in opening.victims}
            cost = sum(candidates[job].cost for job in who)
            if best is None or cost < best[0]:
                best = (cost, domain, who)
    assert best is not None, "the shape fits once all candidates have gone, so some domain holds it"
    return [candidates[job] for job in best[2]]


def _openings(free: FreeMap, each: int, candidates: Victims) -> list[_Opening]:
    """Every node that has, or could have, `each` free GPUs, with the least that must go for it.

    A victim's cost is spread over its nodes: who frees four nodes costs a quarter on each.
    """
    on_node: dict[int, list[tuple[int, JobId, int]]] = {}
    for job, victim in candidates.items():
        for piece in victim.pieces:
            entry = (victim.cost // victim.nodes, job, piece.gpu_mask.bit_count())
            on_node.setdefault(piece.first, []).append(entry)
    found = [_Opening(0, node, ()) for node in _bits(roomy(free, each))]
    for node, tenants in on_node.items():
        missing, cost, victims = each - free.masks[node].bit_count(), 0, []
        if missing <= 0:
            continue
        for spread, job, gpus in sorted(tenants):
            cost, missing = cost + spread, missing - gpus
            victims.append(job)
            if missing <= 0:
                found.append(_Opening(cost, node, tuple(victims)))
                break
    return found


def _bits(bits: int) -> list[int]:
    return [node for node, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"]


def _segments(openings: list[_Opening], segment: int) -> list[_Opening]:
    """The openings of one rack in groups of `segment`, the cheapest first; the incomplete last group is left out."""
    if segment == 1:
        return openings
    openings = sorted(openings)
    groups = [openings[at : at + segment] for at in range(0, len(openings) - segment + 1, segment)]
    return [
        _Opening(
            sum(opening.cost for opening in group), group[0].first,
            tuple(job for opening in group for job in opening.victims),
        )
        for group in groups
    ]  # fmt: skip


def _pruned(free: FreeMap, need: Need, chosen: list[Victim]) -> tuple[tuple[Span, ...], list[Victim]] | None:
    """Spare everyone the shape does not need, the dearest first; then hold the spans that are left."""
    branch = _after(free, chosen)
    kept = []
    for victim in sorted(chosen, key=lambda victim: (-victim.cost, victim.job.id)):
        for piece in victim.pieces:
            branch.take(piece)
        if find(branch, need) is None:
            kept.append(victim)
            for piece in victim.pieces:
                branch.give(piece)
    spans = find(branch, need)
    return None if spans is None else (spans, [victim for victim in kept if _sits_on(victim, spans)])


def _sits_on(victim: Victim, spans: tuple[Span, ...]) -> bool:
    return any(
        span.first <= piece.first < span.first + span.nodes and span.gpu_mask & piece.gpu_mask
        for piece in victim.pieces
        for span in spans
    )


# --- who must go for the books ---------------------------------------------------------------------------------------


def _for_books(board: Board, job: Job, pool: PoolId, candidates: Victims, option: Option) -> Option | None:
    """Complete an option so that the owner's entitlement carries the job: recharge loans if possible, else end more."""
    account, tenants = board.account(job.owner, pool), board.tenants(pool)
    ending = sum(gpus for loan, gpus in tenants.loans.get(job.owner, {}).items() if loan in tenants.stopping)
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
    lenders = [victim for victim in candidates.values() if victim.returned and victim.job.id not in gone]
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
