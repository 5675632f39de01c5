"""The home pass: work within an owner's entitlement, first in free GPUs, else by asking lent ones back."""

from pumasi.model.jobs import Charge
from pumasi.scheduler.backfill import find_around, may_plan_start, plan_start, unpromised
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.fairshare import ShareNode, ShareTree
from pumasi.scheduler.loans import commit, relief
from pumasi.scheduler.reclaim import Claims
from pumasi.scheduler.rooms import may_be_home
from pumasi.scheduler.shapes import Fit
from pumasi.state.records import Job


def home_pass(board: Board, tree: ShareTree) -> None:
    """Place an owner's work at home in the order of fair share, or reserve lent GPUs for it."""
    claims = Claims(board)
    tree.begin(may_be_home, may_plan_start)
    while (turn := tree.next()) is not None:
        leaf, (job, demand) = turn
        if place_home(board, job, demand) or claims.claim(job, demand):
            tree.used(job, demand)
        else:
            plan_start(board, job, demand)
            refuse(board, tree, leaf, job, demand)


def refuse(board: Board, tree: ShareTree, leaf: ShareNode, job: Job, demand: Demand) -> None:
    """Remember that the demand finds no room: in queues that share these quotas; for the owner, if no quota is why."""
    if leaf.queue in board.rules.strict:
        leaf.heads.clear()
    if job.id in board.held_back:
        _hold_back(board, leaf, job, demand)
        return
    leaf.refused.add(demand)
    if demand.has_quotas:
        tree.narrow(demand)
    demand.is_refused = not demand.has_quotas or not any(
        board.is_queue_bound(job, fit.pool) for fit in demand.open_fits
    )


def _hold_back(board: Board, leaf: ShareNode, job: Job, demand: Demand) -> None:
    """Whoever takes as long is held back as well: in this queue, or in all if quotas and awards make none different."""
    seconds = job.spec.time_limit_seconds
    if demand.has_quotas or board.state.advance_reservations:
        leaf.held_back = {**leaf.held_back, demand: min(seconds, leaf.held_back.get(demand, seconds))}
    else:
        demand.held_back_seconds = min(demand.held_back_seconds, seconds)


def place_home(board: Board, job: Job, demand: Demand) -> bool:
    """Place a job on free GPUs within its owner's entitlement; True if done."""
    for fit in _by_rank(board, demand):
        has_room = board.home_room(job, fit.pool) >= job.spec.gpus and board.takes(fit.pool, job.spec.gpus)
        if has_room and _place_in(board, job, demand, fit):
            return True
    return False


def _by_rank(board: Board, demand: Demand) -> tuple[Fit, ...] | list[Fit]:
    """The owner's pools in the order of preference. Among equals the fullest that has room, so that large gangs find an
    empty one; last those where loans would have to move.
    """
    fits = demand.free_home_fits
    if len(fits) < 2:
        return fits
    owner, gpus = demand.owner, demand.spec.gpus
    accounts = [(board.account(owner, fit.pool), fit) for fit in fits]
    idle = [(account.idle, fit) for account, fit in accounts if account.due - account.home - account.promised >= gpus]
    order = sorted([(fit.rank, room < gpus, room, fit.position, fit) for room, fit in idle])
    return [fit for _, _, _, _, fit in order]


def _place_in(board: Board, job: Job, demand: Demand, fit: Fit) -> bool:
    """Place the job on free GPUs; loans that take up its owner's entitlement go to other lenders, nobody is evicted."""
    spans = find_around(board, job, fit, is_home=True)
    if spans is None:
        if job.id not in board.held_back:
            demand.not_free(fit)
        return False
    if unpromised(board, job, fit.pool, job.owner, board.now_ms) < job.spec.gpus:
        board.hold_back(job, fit.pool)
        return False
    missing = job.spec.gpus - board.books(fit.pool)[job.owner].idle
    if missing > 0:
        moves = relief(board, job.owner, fit.pool, missing)
        if sum(move.gpus for move in moves) < missing:
            demand.not_free(fit)  # while the owner's home work is placed, no other lender gets more idle
            return False
        commit(board, moves)
    board.place(job, fit.pool, spans, (Charge(job.owner, job.spec.gpus),))
    return True
