"""Whether a pool may have room for a demand: counts first, so that most questions never reach the search."""

from pumasi.model.ids import PoolId
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.placement import find
from pumasi.scheduler.shapes import Fit


def may_have_room(board: Board, demand: Demand, fit: Fit) -> bool:
    """False only if the demand surely finds no room in the pool in this cycle, whatever queue asks."""
    return may_be_home(board, demand, fit) or may_be_lent(board, demand, fit)


def may_be_home(board: Board, demand: Demand, fit: Fit) -> bool:
    """The same of room within its owner's entitlement, free or to be asked back."""
    account, gpus = board.account(demand.owner, fit.pool), demand.spec.gpus
    if account.due - account.home - account.promised < gpus:
        return False
    has_place = board.has_victims(fit.pool) or _has_shape(board, fit)
    return has_place and _most_at_home(board, demand, fit.pool) >= gpus


def may_be_lent(board: Board, demand: Demand, fit: Fit) -> bool:
    """The same of room in free GPUs that its owner has idle or that others lend it."""
    pool, gpus = fit.pool, demand.spec.gpus
    if not demand.may_borrow or board.free(pool).free_gpus < gpus:
        return False
    own = min(board.account(demand.owner, pool).idle, _most_at_home(board, demand, pool))
    missing = gpus - max(0, own)
    if missing > 0 and sum([room for room, _ in board.lendable(demand.owner, pool)]) < missing:
        return False
    return _has_shape(board, fit)


def _most_at_home(board: Board, demand: Demand, pool: PoolId) -> int:
    """GPUs of the owner's entitlement that some queue in which the demand waits may use, by its quotas."""
    tree, due = board.quotas(demand.owner, pool), board.account(demand.owner, pool).due
    if tree is None:
        return due
    backlog = board.state.backlogs.by_need[demand.key]
    return max(tree.home_room(queue, due) for queue in tree.declaring if backlog.has(queue))


def _has_shape(board: Board, fit: Fit) -> bool:
    free, gpus = board.free(fit.pool), fit.need.gpus
    return free.free_gpus >= gpus and board.takes(fit.pool, gpus) and find(free, fit.need) is not None
