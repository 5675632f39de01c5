"""Loans of what runs: brought home when the borrower can carry them, moved between lenders, ended when not allowed."""

from collections.abc import Iterable

from msgspec import Struct

from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import Charge
from pumasi.scheduler.backfill import unpromised_by_moment
from pumasi.scheduler.board import Board
from pumasi.scheduler.outlook import end_ms
from pumasi.state.accounts import Accounts
from pumasi.state.lending import lending_limit
from pumasi.state.records import Attempt, Job


class Move(Struct, frozen=True):
    """So many GPUs of a job's charge go from one owner's entitlement to another's."""

    job: JobId
    source: OwnerId
    target: OwnerId
    gpus: int


def bring_loans_home(board: Board, pools: Iterable[PoolId]) -> None:
    """At the start of a cycle: count what borrows as home use where its own owner can carry it now.

    Only these `pools` are looked at: those where something has changed since that was last done. Whoever comes home
    gives another's entitlement back, so that its owner's loans may follow.
    """
    for pool in pools:
        may_any = board.state.guests[pool] and may_come_home(board.state.books[pool])
        while may_any and any(_bring_home(board, owner, pool) for owner in may_come_home(board.books(pool))):
            pass


def may_come_home(accounts: Accounts) -> list[OwnerId]:
    """The owners with jobs that borrow in a pool although they have GPUs of their own idle there."""
    return [owner for owner, account in accounts.items() if account.borrowed and account.idle > 0]


def end_forbidden_loans(board: Board) -> None:
    """End the loans that their lender no longer allows.

    No loan is made against the rules, so this needs doing only when rules have changed, or hold at other times.
    """
    for pool, guests in board.state.guests.items():
        for owner, account in board.state.books[pool].items() if guests else ():
            if account.lent and _may_be_forbidden(board, owner, pool):
                _end_forbidden(board, owner, pool)


def _bring_home(board: Board, owner: OwnerId, pool: PoolId) -> bool:
    """Count loans on what their borrower has idle and what is promised on its entitlement leaves; True if any came."""
    room, decided = board.idle(owner, pool), len(board.events)
    if room <= 0:
        return False
    tenants, promised = board.tenants(pool), unpromised_by_moment(board, pool, owner)
    for job in tenants.borrowing(owner):
        until_ms = end_ms(job, job.attempts[-1])
        most = min([room, *[gpus for at_ms, gpus in promised if at_ms < until_ms]])
        moves = []
        for charge in tenants.charges(job):
            gpus = min(charge.gpus, most)
            if charge.owner != owner and gpus > 0:
                moves.append(Move(job.id, charge.owner, owner, gpus))
                room, most = room - gpus, most - gpus
                promised = [(at_ms, left - gpus if at_ms < until_ms else left) for at_ms, left in promised]
        commit(board, moves)
        if room <= 0:
            break
    return len(board.events) > decided


# --- moving a loan to another lender ---------------------------------------------------------------------------------


def relief(
    board: Board, lender: OwnerId, pool: PoolId, gpus: int, *, spared: Iterable[JobId] = (), only: JobId = 0
) -> list[Move]:
    """Moves that take up to `gpus` of what a lender lends off its entitlement, onto others that may carry it.

    Jobs that are `spared` are not moved; with `only`, no other job is.
    """
    tenants = board.tenants(pool)
    takers = {borrower: _takers(board, borrower, lender, pool) for borrower in tenants.borrowers_of(lender)}
    moves: list[Move] = []
    spent: dict[OwnerId, int] = {}
    for job_id, lent in tenants.loans[lender].items() if any(takers.values()) else ():
        if gpus <= 0:
            break
        if job_id in spared or (only and job_id != only):
            continue
        left = min(lent, gpus)
        for room, target in takers[board.state.jobs[job_id].owner]:
            moved = min(room - spent.get(target, 0), left)
            if moved > 0:
                moves.append(Move(job_id, lender, target, moved))
                spent[target] = spent.get(target, 0) + moved
                left, gpus = left - moved, gpus - moved
    return moves


def _takers(board: Board, borrower: OwnerId, lender: OwnerId, pool: PoolId) -> list[tuple[int, OwnerId]]:
    """Where a borrower's charges could go: its own idle entitlement first, then other lenders."""
    rooms = [(board.idle(borrower, pool), borrower), *board.lendable(borrower, pool)]
    return [(room, target) for room, target in rooms if room > 0 and target != lender]


def commit(board: Board, moves: list[Move]) -> None:
    """Recharge the jobs the moves speak of, each once."""
    charges: dict[JobId, dict[OwnerId, int]] = {}
    for move in moves:
        job = board.state.jobs[move.job]
        if move.job not in charges:
            tenants = board.tenants(job.attempts[-1].pool)
            charges[move.job] = {charge.owner: charge.gpus for charge in tenants.charges(job)}
        counted = charges[move.job]
        counted[move.source] -= move.gpus
        counted[move.target] = counted.get(move.target, 0) + move.gpus
    for job_id, counted in charges.items():
        board.recharge(board.state.jobs[job_id], tuple(Charge(owner, gpus) for owner, gpus in counted.items() if gpus))


# --- ending what is no longer allowed --------------------------------------------------------------------------------


def _may_be_forbidden(board: Board, lender: OwnerId, pool: PoolId) -> bool:
    """False if the accounts alone show that all loans are within the rules; most cycles look no further."""
    books = board.books(pool)
    if books[lender].lent > lending_limit(board.state, lender, pool):
        return True
    contract = board.state.owners[lender].declared.lending
    if not (contract.refuses_owners or contract.refuses_kinds or contract.windows):
        return False  # it lets everyone in, and at any time
    return any(
        account.borrowed and borrower != lender and not _is_let_in(board, borrower, lender, pool)
        for borrower, account in books.items()
    )  # fmt: skip


def _end_forbidden(board: Board, lender: OwnerId, pool: PoolId) -> None:
    """Loans the lender's rules now refuse, and what exceeds its limit: moved if possible, else given notice."""
    tenants = board.tenants(pool)
    running = dict(tenants.loans.get(lender, {}))
    over = sum(running.values()) - lending_limit(board.state, lender, pool)
    jobs = [board.state.jobs[job] for job in running]
    refused = {job.id: None for job in jobs if not _is_let_in(board, job.owner, lender, pool)}
    for job in sorted(jobs, key=lambda job: (job.id not in refused, lost_gpu_milliseconds(board, job), job.id)):
        if job.id not in refused and over <= 0:
            return
        gpus = running[job.id] if job.id in refused else min(over, running[job.id])
        over -= running[job.id]
        moves = relief(board, lender, pool, gpus, only=job.id)
        if sum(move.gpus for move in moves) == gpus:
            commit(board, moves)
        else:
            board.stop(job, kill_at_ms(board, job), 0)


def _is_let_in(board: Board, borrower: OwnerId, lender: OwnerId, pool: PoolId) -> bool:
    return any(name == lender for name, _ in board.lenders(borrower, pool))


# --- what an end costs -----------------------------------------------------------------------------------------------


def kill_at_ms(board: Board, job: Job) -> int:
    """When a borrower told to stop now is killed: by the contract of the lender that gives it most time."""
    attempt = job.attempts[-1]
    lenders = [charge.owner for charge in board.tenants(attempt.pool).charges(job) if charge.owner != job.owner]
    return max(kill_at_by_contract_ms(board, attempt, lender) for lender in lenders)


def kill_at_by_contract_ms(board: Board, attempt: Attempt, lender: OwnerId) -> int:
    """When an attempt told to stop now is killed by a lender's contract: after its notice, and its protected time."""
    contract = board.state.owners[lender].declared.lending
    began_ms = attempt.started_ms or attempt.placed_ms
    return max(board.now_ms + contract.notice_seconds * 1000, began_ms + contract.protected_seconds * 1000)


def lost_gpu_milliseconds(board: Board, job: Job) -> int:
    """Work that is lost if the job is stopped: GPU-milliseconds since its last checkpoint, or since it started."""
    attempt = job.attempts[-1]
    if not attempt.started_ms:
        return 0
    ran_ms = board.now_ms - attempt.started_ms
    period_ms = job.spec.checkpoint_seconds * 1000
    return job.spec.gpus * (ran_ms % period_ms if period_ms else ran_ms)
