"""When a waiting job starts at the latest, by time limits: those of what runs, and of what waits before it.

GPUs are counted, not placed, and every run is taken to last to its limit. So a job may well start sooner, and later if
what it needs is a shape, or if others come that go first.
"""

from bisect import bisect_left
from collections.abc import Iterator
from heapq import heappop, heappush, merge
from itertools import islice

import numpy as np
from msgspec import Struct

from pumasi.model.ids import JobId, OwnerId, PoolId, QueueId, queue_owner
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.outlook import NEVER_MS, Moments
from pumasi.state.lending import lending_limit
from pumasi.state.records import Job

MOST_IN_LINE = 2000  # jobs whose turns are worked out; those behind them are taken to go on at the same pace

Key = tuple[OwnerId, tuple[PoolId, ...]]


class _Line(Struct, frozen=True):
    """Jobs that wait for the same GPUs. `starts_ms`: of the first `looked_at` of them, the last at `last_ms`."""

    starts_ms: dict[JobId, int]
    looked_at: int
    last_ms: int


class Estimates:
    """The lines before the pools of a fleet, each worked out when first asked for."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._returns: dict[tuple[OwnerId, PoolId], tuple[Moments, Moments]] = {}
        self._lines: dict[Key, _Line] = {}

    def start_ms(self, job: Job, demand: Demand) -> int | None:
        """When the job's turn comes: at home, or among all who borrow if that is sooner; None if it never does."""
        board, gpus = self._board, job.spec.gpus
        pools = [fit.pool for fit in demand.fits if board.is_connected(fit.pool)]
        home = tuple([pool for pool in pools if board.account(job.owner, pool).due >= gpus])
        lent = tuple([pool for pool in pools if demand.may_borrow and board.lenders(job.owner, pool)])
        turns_ms = min(self._turn_ms(job, (job.owner, home)), self._turn_ms(job, ("", lent)))
        return None if turns_ms == NEVER_MS else turns_ms

    def _turn_ms(self, job: Job, key: Key) -> int:
        """When the job's turn has come, and enough is free in one pool."""
        owner, pools = key
        alone_ms = min((self._alone_ms(job, owner, pool) for pool in pools), default=NEVER_MS)
        if alone_ms == NEVER_MS:
            return NEVER_MS
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = self._line_up(owner, pools)
        turn_ms = line.starts_ms.get(job.id)
        return max(alone_ms, self._behind_ms(job, owner, line) if turn_ms is None else turn_ms)

    def _alone_ms(self, job: Job, owner: OwnerId, pool: PoolId) -> int:
        """When enough is free in a pool, if nobody else waited."""
        missing = job.spec.gpus - self._idle(owner, pool)
        if missing <= 0:
            return self._board.now_ms
        moments, gpus = self._ends(owner, pool)
        at = int(np.searchsorted(np.cumsum(gpus), missing))
        return max(self._board.now_ms, int(moments[at])) if at < len(moments) else NEVER_MS

    def _behind_ms(self, job: Job, owner: OwnerId, line: _Line) -> int:
        """The turn of a job behind all that were looked at."""
        queues, now_ms = self._board.state.queues, self._board.now_ms
        ahead = sum(bisect_left(queues[queue].waiting, job.order) for queue in self._queues(owner))
        return now_ms + (line.last_ms - now_ms) * max(ahead, line.looked_at) // max(1, line.looked_at)

    # --- a line ------------------------------------------------------------------------------------------------------

    def _line_up(self, owner: OwnerId, pools: tuple[PoolId, ...]) -> _Line:
        """First come, first served, as the queues order their jobs, with everything that frees in these pools."""
        ends = [end for pool in pools for end in zip(*map(np.ndarray.tolist, self._ends(owner, pool)), strict=True)]
        ends.sort()  # so it is a heap
        free = sum(self._idle(owner, pool) for pool in pools)
        capacity, turn_ms = free + sum(gpus for _, gpus in ends), self._board.now_ms
        starts_ms: dict[JobId, int] = {}
        waiting = list(self._waiting(owner))
        for job in waiting:
            gpus = job.spec.gpus
            if gpus > capacity or not self._waits_for(job, pools):
                continue
            while free < gpus:
                moment_ms, freed = heappop(ends)
                turn_ms, free = max(turn_ms, moment_ms), free + freed
            free -= gpus
            starts_ms[job.id] = turn_ms
            heappush(ends, (turn_ms + job.spec.time_limit_seconds * 1000, gpus))
        return _Line(starts_ms, len(waiting), turn_ms)

    def _queues(self, owner: OwnerId) -> list[QueueId]:
        return [queue for queue in self._board.state.queues if owner in ("", queue_owner(queue))]

    def _waiting(self, owner: OwnerId) -> Iterator[Job]:
        state = self._board.state
        in_order = merge(*(state.queues[queue].waiting for queue in self._queues(owner)))
        return (state.jobs[job] for _, job in islice(in_order, MOST_IN_LINE))

    def _waits_for(self, job: Job, pools: tuple[PoolId, ...]) -> bool:
        if self._board.is_settled(job.id) or job.spec.begin_at_ms > self._board.now_ms:
            return False
        demand = self._board.rules.demand_of(job.owner, job.spec)
        return any(fit.pool in pools for fit in demand.fits)

    def _idle(self, owner: OwnerId, pool: PoolId) -> int:
        """GPUs that are free and may be lent, or those of an owner's entitlement that nobody uses or keeps back."""
        board = self._board
        if owner:
            return board.idle(owner, pool)
        books = board.books(pool).items()
        rooms = (
            min(board.idle(who, pool), lending_limit(board.state, who, pool) - account.lent) for who, account in books
        )
        return min(board.free(pool).free_gpus, sum(max(0, room) for room in rooms))

    def _ends(self, owner: OwnerId, pool: PoolId) -> tuple[Moments, Moments]:
        ends = self._returns.get((owner, pool))
        if ends is None:
            ends = self._returns[owner, pool] = self._board.outlook(pool).returns(owner)
        return ends
