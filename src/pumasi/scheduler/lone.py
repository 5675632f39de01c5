"""A job that comes alone: with nobody to take turns with, it needs no tree of fair share to find its place.

Most cycles are of this kind: one job has come or may have got room, and nothing else could start.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from pumasi.scheduler.backfill import plan_start
from pumasi.scheduler.board import Board
from pumasi.scheduler.borrow import place_borrowed
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.home import place_home
from pumasi.scheduler.power import settle_power
from pumasi.scheduler.reclaim import Claims
from pumasi.state.records import Job


def place_lone(board: Board, demands: Iterable[Demand]) -> dict[Demand, int] | None:
    """Give the one job of these demands that needs a turn, if there is one, what a pass with turns would give it.

    :returns: by demand, how many jobs were given a place or a reservation; None if it takes turns to decide.
    """
    turns = list(islice(_turns(board, demands), 2))
    if len(turns) > 1 or not all(_may_go(board, job) for job, _ in turns):
        return None
    placed = dict.fromkeys(demands, 0)
    for demand in placed:
        demand.reopen()
    for job, demand in turns:
        placed[demand] += _place(board, job, demand)
        demand.is_refused = not (placed[demand] or demand.has_quotas or job.id in board.held_back)
    return placed


def _turns(board: Board, demands: Iterable[Demand]) -> Iterator[tuple[Job, Demand]]:
    """The jobs of these demands that are neither placed nor have a reservation."""
    by_need, jobs = board.state.backlogs.by_need, board.state.jobs
    for demand in demands:
        for line in by_need[demand.key].lines.values():
            for _, number in line:
                if not board.is_settled(number):
                    yield jobs[number], demand


def _may_go(board: Board, job: Job) -> bool:
    queue = job.spec.queue
    is_behind = queue in board.rules.strict and board.state.queues[queue].waiting[0][1] != job.id
    return not is_behind and job.spec.begin_at_ms <= board.now_ms


def _place(board: Board, job: Job, demand: Demand) -> bool:
    """Home, else on loan. Its start is planned before it borrows only where that could come in its way."""
    if place_home(board, job, demand) or Claims(board).claim(job, demand):
        settle_power(board)
        return True
    is_first = not board.planned
    if not is_first:
        plan_start(board, job, demand)
    settle_power(board)
    if demand.may_borrow and place_borrowed(board, job, demand):
        return True
    if is_first:
        plan_start(board, job, demand)
    return False
