"""Whether a pool may have room for a demand: counts first, so that most questions never reach the search."""

from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.placement import find
from pumasi.scheduler.shapes import Fit


def may_have_room(board: Board, demand: Demand, fit: Fit) -> bool:
    """False only if the demand surely finds no room in the pool in this cycle, whatever queue asks."""
    pool, gpus = fit.pool, demand.spec.gpus
    free, account = board.free(pool), board.account(demand.owner, pool)
    is_home = account.due - account.home - account.promised >= gpus
    if is_home and board.has_victims(pool):
        return True
    if free.free_gpus < gpus or not board.takes(pool, gpus):
        return False
    if not is_home:
        lent = sum(room for room, _ in board.lendable(demand.owner, pool)) if demand.may_borrow else 0
        if max(0, account.idle) + lent < gpus:
            return False
    return find(free, fit.need) is not None
