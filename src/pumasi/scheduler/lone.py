"""A job that comes alone: with nobody to take turns with, it needs no tree of fair share to find its place.

Most cycles of a fleet that is not full are of this kind: one job has come, and nothing else could start.
"""

from collections.abc import Iterable

from pumasi.scheduler.board import Board
from pumasi.scheduler.borrow import place_borrowed
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.home import place_home
from pumasi.scheduler.reclaim import Claims
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job


def place_lone(board: Board, demands: Iterable[Demand]) -> bool:
    """Place the one job of these demands that needs a turn, if there is one, where a whole pass would.

    False if it takes a whole pass to decide. No other demand is worth a try, and no start is planned. A start that a
    pass promises the job before it borrows is forgotten again as it starts, so none is looked for here.
    """
    alone: tuple[Job, Demand] | None = None
    for demand in demands:
        for line in board.state.backlogs.by_need[demand.key].lines.values():
            for _, number in line:
                if board.is_settled(number):
                    continue
                if alone is not None:
                    return False
                alone = board.state.jobs[number], demand
    return alone is None or _place(board, *alone)


def _place(board: Board, job: Job, demand: Demand) -> bool:
    queue = job.spec.queue
    is_behind = queue in board.rules.strict and board.state.queues[queue].waiting[0][1] != job.id
    if is_behind or job.spec.begin_at_ms > board.now_ms:
        return False
    demand.reopen()
    if place_home(board, job, demand) or Claims(board).claim(job, demand):
        return True
    return demand.may_borrow and place_borrowed(board, job, demand)


def waits(state: FleetState, demand: Demand) -> bool:
    """True if some job of the demand waits and has no reservation."""
    backlog = state.backlogs.by_need.get(demand.key)
    lines = () if backlog is None else backlog.lines.values()
    return any(job not in state.reservations for line in lines for _, job in line)
