"""Power: when a pool runs more than its site's power carries, who stops, and in what order.

What power lets run is what the owners are due, and nothing starts beyond it. What runs already is stopped only here:
borrowed work first; then the home work of owners that run more than they are still due. Among either, the lowest
priority goes first, then who loses least work; who turns out not to be needed among equals is spared. The home work of
an owner within what it is due is never stopped.
"""

from collections.abc import Iterator
from itertools import groupby

from msgspec import Struct

from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import StopCause
from pumasi.scheduler.board import Board
from pumasi.scheduler.loans import lost_gpu_milliseconds
from pumasi.scheduler.quotas import NO_LIMIT
from pumasi.state.records import Job

NOTICE_MS = 300_000  # where no moment is set by which the power must be down


class _Load(Struct):
    """What runs in a pool and is not stopping. `over`: GPUs too many; `over_by_owner`: at home above what is due."""

    over: int
    over_by_owner: dict[OwnerId, int]


def settle_power(board: Board) -> None:
    """Give notice to what a site's power does not carry: at the start of a cycle, and once claims have reserved."""
    powered = board.state.powered
    for pool in board.state.pools if powered else ():
        if pool in powered:
            _settle(board, pool, powered[pool])


def spare_gpus(board: Board, pool: PoolId) -> int:
    """GPUs that power carries beside what will still run when all that is stopping has stopped."""
    powered = board.state.powered.get(pool)
    return NO_LIMIT if powered is None else -_load(board, pool, powered).over


def _settle(board: Board, pool: PoolId, powered: int) -> None:
    load = _load(board, pool, powered)
    if load.over <= 0:
        return
    over, kill_at_ms = load.over, _kill_at_ms(board, pool)
    for equals in _in_order(board, pool, load):
        for job in _enough(equals, over):
            board.stop(job, kill_at_ms, 0, StopCause.POWER)
            over -= job.spec.gpus
            _count_home_part(board, load, job)


def _count_home_part(board: Board, load: _Load, job: Job) -> None:
    """Who stops for what it borrows leaves what it has at home as well."""
    charges = board.tenants(job.attempts[-1].pool).charges(job)
    if any(charge.owner != job.owner for charge in charges):
        load.over_by_owner[job.owner] -= sum(charge.gpus for charge in charges if charge.owner == job.owner)


def _load(board: Board, pool: PoolId, powered: int) -> _Load:
    """Reserved GPUs count: who has them reserved will run."""
    books, tenants = board.books(pool), board.tenants(pool)
    over = sum(account.home + account.lent + account.promised for account in books.values()) - powered
    over_by_owner = {owner: account.home + account.promised - account.due for owner, account in books.items()}
    for job_id in tenants.stopping:
        job = board.state.jobs[job_id]
        for charge in tenants.charges(job):
            over -= charge.gpus
            if charge.owner == job.owner:
                over_by_owner[job.owner] -= charge.gpus
    return _Load(over, over_by_owner)


def _in_order(board: Board, pool: PoolId, load: _Load) -> Iterator[list[Job]]:
    """Who stops, the first to go first, in groups of equals: jobs of the same kind and priority."""
    tenants = board.tenants(pool)
    borrowers = dict.fromkeys(tenants.borrowers())
    running = [board.state.jobs[job] for job in sorted(board.state.active[pool]) if job not in tenants.stopping]
    running.sort(key=lambda job: (job.id not in borrowers, *_rank(board, job)))
    for _, equals in groupby(running, lambda job: (job.id not in borrowers, job.spec.priority)):
        yield [job for job in equals if job.id in borrowers or _is_over_due(load, job)]


def _is_over_due(load: _Load, job: Job) -> bool:
    """True while the home work of the job's owner is more than it is due; the job then no longer counts in it."""
    if load.over_by_owner.get(job.owner, 0) <= 0:
        return False
    load.over_by_owner[job.owner] -= job.spec.gpus
    return True


def _rank(board: Board, job: Job) -> tuple[int, int, int]:
    return (job.spec.priority, lost_gpu_milliseconds(board, job), job.id)


def _enough(equals: list[Job], over: int) -> list[Job]:
    """The first of them until enough GPUs come free, less those it also does without, the last first."""
    chosen = []
    for job in equals:
        if over > 0:
            chosen.append(job)
            over -= job.spec.gpus
    for job in reversed(chosen[:]):
        if over + job.spec.gpus <= 0:
            chosen.remove(job)
            over += job.spec.gpus
    return chosen


def _kill_at_ms(board: Board, pool: PoolId) -> int:
    """When the power must be down; else after a notice that keeps what was promised to reservations."""
    due_ms = board.state.sites[board.state.pools[pool].declared.site].power_due_ms
    if due_ms > board.now_ms:
        return due_ms
    promised = [each.due_ms for each in board.reserved.values() if each.pool == pool and each.due_ms > board.now_ms]
    return min((board.now_ms + NOTICE_MS, *promised))
