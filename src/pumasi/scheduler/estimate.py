"""When a waiting job might start, by the time limits of what runs: counts only, so a bound rather than a promise."""

from bisect import bisect_left

from pumasi.model.ids import PoolId
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.outlook import end_ms
from pumasi.state.records import Job

Ends = tuple[list[int], list[int]]  # moments in order, and the GPUs that have come free by each


class Estimates:
    """The ends to expect in each pool, read from its jobs when first asked for."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._ends: dict[PoolId, Ends] = {}

    def start_ms(self, job: Job, demand: Demand) -> int | None:
        """The earliest moment at which enough GPUs have come free in some pool; None if there is none."""
        moments = [self._start_in(job, demand, fit.pool) for fit in demand.fits if self._board.is_connected(fit.pool)]
        return min((moment for moment in moments if moment is not None), default=None)

    def _start_in(self, job: Job, demand: Demand, pool: PoolId) -> int | None:
        may_borrow = demand.may_borrow and bool(self._board.lenders(job.owner, pool))
        if not may_borrow and self._board.account(job.owner, pool).due < job.spec.gpus:
            return None
        missing = job.spec.gpus - self._board.free(pool).free_gpus
        moments, freed = self._of(pool)
        at = bisect_left(freed, max(1, missing))
        return moments[at] if at < len(moments) else None

    def _of(self, pool: PoolId) -> Ends:
        ends = self._ends.get(pool)
        if ends is None:
            ends = self._ends[pool] = _ends(self._board, pool)
        return ends


def _ends(board: Board, pool: PoolId) -> Ends:
    jobs = board.state.jobs
    running = [(end_ms(jobs[job], jobs[job].attempts[-1]), jobs[job].spec.gpus) for job in board.state.active[pool]]
    for job, where in board.placed.items():
        if where == pool:
            running.append((board.now_ms + jobs[job].spec.time_limit_seconds * 1000, jobs[job].spec.gpus))
    moments: list[int] = []
    freed: list[int] = []
    total = 0
    for moment, gpus in sorted(running):
        total += gpus
        moments.append(moment)
        freed.append(total)
    return moments, freed
