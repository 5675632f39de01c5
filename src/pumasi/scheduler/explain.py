"""Why the rest waits: per demand and queue, what blocks each pool, the least that would start it, and an estimate when.

Jobs with the same demand share one answer, found on the board as the cycle leaves it.
"""

from pumasi.model.ids import JobId, PoolId
from pumasi.model.jobs import Level
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.estimate import Estimates
from pumasi.scheduler.fairshare import ShareNode, ShareTree
from pumasi.scheduler.placement import segment_counts
from pumasi.scheduler.reasons import Reason, ReasonCode, Reasons, Verdict
from pumasi.scheduler.shapes import Fit, Need
from pumasi.state.lending import LendingRule, refusal_now
from pumasi.state.records import Job, Reservation

MOST_REASONS = 5
CHANGE = "a change of the fleet or of its rules"

_C = ReasonCode

# The nearer to a start, the earlier; what no waiting changes comes last.
_NEARNESS = (
    _C.TOO_FEW_FREE, _C.NO_SHAPE, _C.POWER_CAP, _C.LENT_OUT, _C.QUEUE_LIMIT, _C.ENTITLEMENT_USED, _C.NOTHING_TO_BORROW,
    _C.OUTSIDE_LENDING_WINDOW, _C.SITE_NOT_CONNECTED, _C.LENDER_REFUSES_OWNER, _C.LENDER_REFUSES_KIND,
    _C.LENDING_LIMIT,
)  # fmt: skip
_RANK = {code: rank for rank, code in enumerate(_NEARNESS)}


def explain(board: Board, trees: list[ShareTree]) -> dict[JobId, Reasons]:
    """Reasons for every waiting job the cycle did not place."""
    estimates = Estimates(board)
    reasons: dict[JobId, Reasons] = {}
    for tree in trees:
        for job in tree.not_yet:
            reasons[job.id] = _not_yet(job)
        shared: dict[Demand, Reasons] = {}
        for leaf in tree.leaves():
            _explain_leaf(board, estimates, leaf, shared, reasons)
    for job_id, reservation in board.reserved.items():
        reasons[job_id] = _reclaiming(board.state.jobs[job_id], reservation)
    return reasons


def _explain_leaf(
    board: Board, estimates: Estimates, leaf: ShareNode, shared: dict[Demand, Reasons], reasons: dict[JobId, Reasons]
) -> None:
    """Answer for a queue's jobs; what is not due to its own quotas is `shared` with the owner's other queues."""
    own: dict[Demand, Reasons] = {}
    for job, demand in leaf.left:
        answer = own.get(demand) or shared.get(demand)
        if answer is None:
            answer = _explain_demand(board, estimates, job, demand)
            is_own = any(board.is_queue_bound(job, fit.pool) for fit in demand.fits)
            (own if is_own else shared)[demand] = answer
        reasons[job.id] = answer


def _not_yet(job: Job) -> Reasons:
    reason = Reason(_C.BEGIN_TIME, "", "the job asks to begin later", "its begin time")
    return Reasons((reason,), reason.would_start, job.spec.begin_at_ms)


def _reclaiming(job: Job, reservation: Reservation) -> Reasons:
    detail = f"{job.spec.gpus} GPUs are reserved for the job; borrowers have been given notice and hand them back"
    would_start = "the end of the notice"
    return Reasons(
        (Reason(_C.RECLAIMING, reservation.pool, detail, would_start),), would_start, reservation.due_ms
    )  # fmt: skip


def _explain_demand(board: Board, estimates: Estimates, job: Job, demand: Demand) -> Reasons:
    if not demand.fits:
        return _never(demand)
    found = [_blocker(board, job, demand, fit) for fit in demand.fits]
    found.sort(key=lambda reason: _RANK[reason.code])
    first = found[0]
    return Reasons(tuple(found[:MOST_REASONS]), first.would_start, estimates.start_ms(job, demand))


def _never(demand: Demand) -> Reasons:
    verdicts = demand.verdicts[:MOST_REASONS] or (Verdict(_C.NO_POOL, "", "the fleet has no pools"),)
    reasons = tuple(Reason(verdict.code, verdict.pool, verdict.detail, CHANGE) for verdict in verdicts)
    return Reasons(reasons, CHANGE)


# --- one pool --------------------------------------------------------------------------------------------------------


def _blocker(board: Board, job: Job, demand: Demand, fit: Fit) -> Reason:
    """What keeps the job out of a pool that could run it."""
    pool, gpus = fit.pool, job.spec.gpus
    if not board.is_connected(pool):
        return Reason(_C.SITE_NOT_CONNECTED, pool, "the site's agent is not heard from", f"{pool}'s site connecting")
    room = board.queue_room(job, pool)
    if room < gpus:
        detail = f"queue {job.spec.queue} may use {max(0, room)} more GPUs there, the job asks for {gpus}"
        return Reason(_C.QUEUE_LIMIT, pool, detail, f"{gpus - room} GPUs given back by the queue at {pool}")
    if board.free(pool).free_gpus >= gpus > board.power_room(pool):
        missing = gpus - max(0, board.power_room(pool))
        detail = f"power lets {board.state.powered[pool]} GPUs run there at once, and not {gpus} more"
        return Reason(_C.POWER_CAP, pool, detail, f"{missing} GPUs given back at {pool}, or power for them")
    if _own(board, job, pool) + _lendable(board, job, demand, pool) < gpus:
        return _not_entitled(board, job, demand, fit)
    return _not_free(board, fit)


def _own(board: Board, job: Job, pool: PoolId) -> int:
    """GPUs of its owner's entitlement the job could be charged to now."""
    return max(0, min(board.account(job.owner, pool).idle, board.home_room(job, pool)))


def _lendable(board: Board, job: Job, demand: Demand, pool: PoolId) -> int:
    """GPUs the lenders of a pool have idle for the job."""
    return sum(gpus for gpus, _ in board.lendable(job.owner, pool)) if demand.may_borrow else 0


def _not_entitled(board: Board, job: Job, demand: Demand, fit: Fit) -> Reason:
    pool, gpus, owner = fit.pool, job.spec.gpus, job.owner
    account, own, lent = board.account(owner, pool), _own(board, job, pool), _lendable(board, job, demand, pool)
    missing, is_home = gpus - own - lent, fit in demand.home_fits
    if is_home and board.home_room(job, pool) >= gpus:
        detail = f"{account.lent} of {owner}'s GPUs there are lent, and no borrowers can make room within the window"
        return Reason(_C.LENT_OUT, pool, detail, f"{missing} lent GPUs handed back at {pool}")
    has_lenders = demand.may_borrow and bool(board.lenders(owner, pool))
    if is_home and not has_lenders:
        detail = f"{own} of {owner}'s {account.due} GPUs there are left to this queue, the job asks for {gpus}"
        return Reason(_C.ENTITLEMENT_USED, pool, detail, f"{missing} of {owner}'s own GPUs given back at {pool}")
    if not has_lenders:
        return _no_lender(board, job, fit)
    detail = f"{owner} has {own} GPUs of its own idle there and could borrow {lent}, the job asks for {gpus}"
    return Reason(_C.NOTHING_TO_BORROW, pool, detail, f"{missing} more GPUs idle at {pool}")


def _no_lender(board: Board, job: Job, fit: Fit) -> Reason:
    """Nobody lends the job's owner anything there now: by what rule."""
    pool, borrower = fit.pool, board.state.owners[job.owner].declared
    rules: dict[LendingRule | None, str] = {}
    for lender in board.state.pools[pool].declared.entitlements:
        if lender != borrower.id:
            rule = refusal_now(board.state.owners[lender].declared.lending, borrower, board.now_ms)
            rules.setdefault(rule, lender)
    if LendingRule.WINDOW in rules:
        lender = rules[LendingRule.WINDOW]
        would_start = f"{lender}'s lending window opening"
        return Reason(_C.OUTSIDE_LENDING_WINDOW, pool, f"{lender} lends only in its lending windows", would_start)
    if None in rules or not rules:
        return Reason(_C.LENDING_LIMIT, pool, "no owner there lends anything", CHANGE)
    rule, lender = next(iter(rules.items()))
    if rule is LendingRule.OWNER:
        return Reason(_C.LENDER_REFUSES_OWNER, pool, f"the lending contract of {lender} refuses {borrower.id}", CHANGE)
    return Reason(
        _C.LENDER_REFUSES_KIND, pool, f"the lending contract of {lender} refuses {borrower.kind} owners", CHANGE
    )


def _not_free(board: Board, fit: Fit) -> Reason:
    pool, need, free = fit.pool, fit.need, board.free(fit.pool)
    if free.free_gpus < need.gpus:
        missing = need.gpus - free.free_gpus
        detail = f"{free.free_gpus} GPUs are free there, the job asks for {need.gpus}"
        return Reason(_C.TOO_FEW_FREE, pool, detail, f"{missing} more free GPUs at {pool}")
    return _no_shape(board, fit)


def _no_shape(board: Board, fit: Fit) -> Reason:
    need, free = fit.need, board.free(fit.pool)
    counts = segment_counts(free, need)
    width = {Level.RACK: 1, Level.BLOCK: free.racks_per_block, Level.POOL: len(counts)}[need.widest]
    most = max(sum(counts[first : first + width]) for first in range(0, len(counts), width))
    wanted = need.nodes // need.segment
    where = "" if need.widest is Level.POOL else f" in one {need.widest}"
    detail = f"the job needs {_things(need, wanted)}{where}, at most {most} can be had"
    return Reason(_C.NO_SHAPE, fit.pool, detail, f"{_things(need, wanted - most)}{where} more at {fit.pool}")


def _things(need: Need, count: int) -> str:
    """So many nodes, or segments, with enough free GPUs."""
    if need.segment == 1:
        return f"{count} node{'s' * (count != 1)} with {need.each} free GPUs"
    return f"{count} group{'s' * (count != 1)} of {need.segment} nodes with {need.each} free GPUs in one rack"
