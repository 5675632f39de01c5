"""The borrow pass: what is idle after all home work goes to whoever has lent most for what it owns."""

from math import lcm

from pumasi.model.fleet import PARTS_PER_GPU, BorrowOrder
from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import Charge
from pumasi.scheduler.backfill import find_around, unpromised
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.fairshare import ShareTree
from pumasi.scheduler.home import refuse
from pumasi.scheduler.rooms import may_be_lent
from pumasi.scheduler.shapes import Fit
from pumasi.state.records import Job


def borrow_pass(board: Board, trees: list[ShareTree]) -> None:
    """Lend what is idle, one job at a time: to the owner with the best standing, to the queue whose turn it is.

    Stops when a planned start is gone, as its job borrows: home work that it held back goes before the next loan.
    """
    for tree in trees:
        tree.begin(may_be_lent, _is_new)
    trees = [tree for tree in trees if tree.has_work]
    standing = Standing(board, [tree.owner for tree in trees])
    while trees and not board.gone:
        tree = max(trees, key=lambda tree: standing.of(tree.owner)) if len(trees) > 1 else trees[0]
        turn = tree.next()
        if turn is None:
            trees = [other for other in trees if other is not tree]
            continue
        leaf, (job, demand) = turn
        if demand.may_borrow and place_borrowed(board, job, demand):
            tree.used(job, demand)
        else:
            refuse(board, tree, leaf, job, demand)


def _is_new(_: Board, demand: Demand) -> bool:
    """True if none of its jobs has been refused at home; whether one is now decides how it sleeps."""
    return not demand.is_refused


class Standing:
    """Owners' credit per entitled GPU, with what they lend and borrow now counted as if for one half-life.

    Under a policy of max-min, what they lend and borrow now is all that counts. Numbers of different owners compare
    exactly: each is scaled by the least common multiple of all entitlements.
    """

    def __init__(self, board: Board, owners: list[OwnerId]) -> None:
        self._board = board
        self._half_life_ms = board.rules.half_life_ms
        self._counts_credit = board.state.policy.borrow_order is BorrowOrder.CREDIT
        if len(owners) < 2:
            return
        entitled = {owner: max(1, board.rules.entitled_parts[owner]) for owner in owners}
        common = lcm(*entitled.values())
        self._scale = {owner: common // parts for owner, parts in entitled.items()}

    def of(self, owner: OwnerId) -> int:
        """The higher, the sooner it may borrow."""
        credit = self._board.state.owners[owner].credit_gpu_milliseconds if self._counts_credit else 0
        surplus = self._board.surplus_parts(owner) * self._half_life_ms // PARTS_PER_GPU
        return (credit + surplus) * self._scale[owner]


def place_borrowed(board: Board, job: Job, demand: Demand) -> bool:
    """Place a job on what its owner has idle and others lend it; True if done."""
    gpus = job.spec.gpus
    for fit in _by_rank(board, demand):
        if board.queue_room(job, fit.pool) < gpus or not board.takes(fit.pool, gpus):
            continue
        charges = borrow_charges(board, job, fit.pool)
        spans = find_around(board, job, fit, is_home=False) if charges else None
        if charges and spans:
            board.place(job, fit.pool, spans, charges)
            return True
    return False


def _by_rank(board: Board, demand: Demand) -> list[Fit]:
    """Pools with room at all: in the order of preference, among equals the most idle."""
    roomy = [(board.free(fit.pool).free_gpus, fit) for fit in demand.open_fits]
    order = sorted((fit.rank, -free, fit.position, fit) for free, fit in roomy if free >= fit.need.gpus)
    return [fit for _, _, _, fit in order]


def borrow_charges(board: Board, job: Job, pool: PoolId) -> tuple[Charge, ...] | None:
    """On whose entitlement the job would run: its own owner's as far as it goes, the rest from the idlest lenders.

    What a planned start or a reservation counts on is left to it. Notes who is held back by that.
    """
    own = min(board.account(job.owner, pool).idle, board.home_room(job, pool))
    rooms = [(max(0, own), job.owner), *board.lendable(job.owner, pool)]
    if sum(room for room, _ in rooms) < job.spec.gpus:
        return None
    if board.has_holds(pool):
        rooms = [(max(0, min(room, unpromised(board, job, pool, owner, board.now_ms))), owner) for room, owner in rooms]
    charges = _shared_out(job.spec.gpus, rooms)
    if charges is None:
        board.hold_back(job, pool)
    return charges


def _shared_out(gpus: int, rooms: list[tuple[int, OwnerId]]) -> tuple[Charge, ...] | None:
    """So many GPUs from the rooms in turn; None if they do not hold them."""
    charges = []
    for room, owner in rooms:
        taken = min(room, gpus)
        gpus -= taken
        if taken:
            charges.append(Charge(owner, taken))
    return None if gpus else tuple(charges)
