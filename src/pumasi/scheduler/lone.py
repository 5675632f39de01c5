"""A job that comes alone: with nobody to take turns with, it needs no tree of fair share to find its place.

Most cycles of a fleet that is not full are of this kind: one job has come, and nothing else could start.
"""

from pumasi.scheduler.board import Board
from pumasi.scheduler.borrow import place_borrowed
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.home import place_home
from pumasi.state.records import Job


def place_lone(board: Board, demand: Demand) -> bool:
    """Place the one job of the one demand that is worth a try, exactly where a whole pass would.

    False if it takes a whole pass to decide. No other demand is worth one, and nothing is promised to anybody.
    """
    job = _job_of(board, demand)
    if job is None:
        return False
    demand.reopen()
    if place_home(board, job, demand):
        return True
    return _goes_on_to_borrow(board, job, demand) and place_borrowed(board, job, demand)


def _job_of(board: Board, demand: Demand) -> Job | None:
    """The demand's only job; None if it has more, or may not start yet, or stands behind another."""
    backlog, state = board.state.backlogs.by_need[demand.key], board.state
    if backlog.jobs > 1:
        return None
    ((queue, line),) = backlog.lines.items()
    job = state.jobs[line[0][1]]
    is_behind = queue in board.rules.strict and state.queues[queue].waiting[0][1] != job.id
    return None if is_behind or job.spec.begin_at_ms > board.now_ms else job


def _goes_on_to_borrow(board: Board, job: Job, demand: Demand) -> bool:
    """True if the job may borrow and can claim nothing. A start promised to it meanwhile would be forgotten again."""
    return demand.may_borrow and all(board.home_room(job, fit.pool) < job.spec.gpus for fit in demand.home_fits)
