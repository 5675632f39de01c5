"""Why the rest waits: per demand and queue, what blocks each pool, the least that would start it, and an estimate when.

Jobs with the same demand share one answer, found on the board as the cycle leaves it.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

from pumasi.model.ids import JobId, PoolId, QueueId
from pumasi.model.jobs import JobState, Level
from pumasi.scheduler.backfill import promised_nodes
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand
from pumasi.scheduler.eligibility import queue_verdict
from pumasi.scheduler.estimate import Estimates
from pumasi.scheduler.placement import find, roomy, segment_counts, short
from pumasi.scheduler.reasons import Reason, ReasonCode, Reasons, Verdict
from pumasi.scheduler.shapes import Fit, Need
from pumasi.state.freemap import FreeMap, indices
from pumasi.state.lending import LendingRule, refusal_now
from pumasi.state.records import Job, Reservation

MOST_REASONS = 5
CHANGE = "a change of the fleet or of its rules"

_C = ReasonCode

# The nearer to a start, the earlier; what no waiting changes comes last.
_NEARNESS = (
    _C.TOO_FEW_FREE, _C.PLANNED_START, _C.RESERVED, _C.TOO_FEW_CPUS, _C.TOO_LITTLE_MEMORY, _C.NO_SHAPE, _C.POWER_CAP,
    _C.LENT_OUT, _C.QUEUE_LIMIT, _C.ENTITLEMENT_USED, _C.NOTHING_TO_BORROW, _C.OUTSIDE_LENDING_WINDOW,
    _C.SITE_NOT_CONNECTED, _C.LENDER_REFUSES_OWNER, _C.LENDER_REFUSES_KIND, _C.LENDING_LIMIT, _C.ENTITLEMENT_TOO_SMALL,
    _C.QUEUE_LIMIT_TOO_SMALL,
)  # fmt: skip
_RANK = {code: rank for rank, code in enumerate(_NEARNESS)}


class WhyWaiting(Mapping[JobId, Reasons]):
    """Reasons for the jobs that wait on a board, worked out when asked for.

    A job that could start is not among them: no cycle has looked at it yet. Reasons are read from the board's state, so
    read them before it changes; whoever has read all of them keeps them.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._estimates = Estimates(board)
        self._shared: dict[tuple[Demand, QueueId, int], Reasons | None] = {}

    def __getitem__(self, job: JobId) -> Reasons:
        record = self._board.state.jobs.get(job)
        found = None if record is None or job in self._board.placed else self._explain(record)
        if found is None:
            raise KeyError(job)
        return found

    def start_ms(self, job: JobId) -> int | None:
        """When a job with reasons starts at the latest, by time limits and promises; None if they do not tell."""
        board = self._board
        record = board.state.jobs[job]
        if job in board.reserved:
            return board.reserved[job].due_ms
        if record.spec.begin_at_ms > board.now_ms:
            return record.spec.begin_at_ms
        if self._blocking(record) is not None:
            return None
        if job in board.planned:
            return board.planned[job].start_ms
        demand = board.rules.demand_of(record.owner, record.spec)
        found = self._estimates.start_ms(record, demand)
        return None if found is None else max(found, self._reserved_until_ms(record, demand))

    def _reserved_until_ms(self, job: Job, demand: Demand) -> int:
        """When the first pool is free of the reservations that keep a job out of all; 0 if in one they do not."""
        board, ends_ms = self._board, []
        for fit in demand.fits if board.state.advance_reservations else ():
            blocker = _blocker(board, job, demand, fit)
            if blocker is None or blocker.code is not _C.RESERVED:
                return 0
            until_ms = board.now_ms + job.spec.time_limit_seconds * 1000
            ends_ms.append(max(made.end_ms for made in board.barring(job.spec.queue, until_ms, fit.pool)))
        return min(ends_ms, default=0)

    def __iter__(self) -> Iterator[JobId]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> dict[JobId, Reasons]:
        board = self._board
        waiting = [job for queue in board.state.queues.values() for _, job in queue.waiting if job not in board.placed]
        found = {job: self._explain(board.state.jobs[job]) for job in waiting}
        return {job: reasons for job, reasons in found.items() if reasons is not None}

    def _blocking(self, job: Job) -> JobId | None:
        """The job that blocks this one in a queue of strict order, if one does."""
        board = self._board
        if job.spec.queue not in board.rules.strict:
            return None
        for _, other in board.state.queues[job.spec.queue].waiting:
            if other == job.id:
                return None
            if not board.is_settled(other) and board.state.jobs[other].spec.begin_at_ms <= board.now_ms:
                return other
        return None

    def _explain(self, job: Job) -> Reasons | None:
        """Jobs with the same demand share an answer; by queue with quotas, by time limit beside planned starts, by both
        beside reservations.
        """
        if job.state is not JobState.WAITING:
            return None
        reservation = self._board.reserved.get(job.id)
        if reservation is not None:
            return _reclaiming(job, reservation)
        if job.spec.begin_at_ms > self._board.now_ms:
            return _NOT_YET
        ahead = self._blocking(job)
        if ahead is not None:
            return _behind(ahead)
        demand = self._board.rules.demand_of(job.owner, job.spec)
        has_reserved = bool(self._board.state.advance_reservations)
        queue = job.spec.queue if demand.has_quotas or has_reserved else ""
        key = (demand, queue, job.spec.time_limit_seconds if self._board.planned or has_reserved else 0)
        if job.id in self._board.planned:
            return _explain_demand(self._board, job, demand)
        if key not in self._shared:
            self._shared[key] = _explain_demand(self._board, job, demand)
        return self._shared[key]


def _behind(ahead: JobId) -> Reasons:
    detail, would_start = f"its queue keeps strict order, and job {ahead} stands before it", f"job {ahead} starting"
    return Reasons((Reason(_C.QUEUE_ORDER, "", detail, would_start),), would_start)


_NOT_YET = Reasons((Reason(_C.BEGIN_TIME, "", "the job asks to begin later", "its begin time"),), "its begin time")


def _reclaiming(job: Job, reservation: Reservation) -> Reasons:
    detail = f"{job.spec.gpus} GPUs are reserved for the job; those who use them have been given notice"
    would_start = "the end of the notice"
    return Reasons((Reason(_C.RECLAIMING, reservation.pool, detail, would_start),), would_start)


def _explain_demand(board: Board, job: Job, demand: Demand) -> Reasons | None:
    if not demand.fits:
        return _never(demand)
    blockers = [_blocker(board, job, demand, fit) for fit in demand.fits]
    found = [blocker for blocker in blockers if blocker is not None]
    if len(found) < len(blockers):
        return None
    found.sort(key=lambda reason: _RANK[reason.code])
    first = found[0]
    found += [_as_reason(verdict) for verdict in demand.verdicts if verdict.code is _C.SITE_REFUSES]
    return Reasons(tuple(found[:MOST_REASONS]), first.would_start)


def _held_back(board: Board, job: Job, pool: PoolId) -> Reason | None:
    """The planned start that the job would delay if it started now, or the reservation it would run into."""
    until_ms = board.now_ms + job.spec.time_limit_seconds * 1000
    for start in board.planned_in(pool):
        if start.job != job.id and start.start_ms < until_ms:
            seconds = max(0, start.start_ms - board.now_ms) // 1000
            detail = f"it might still run when job {start.job} is to start there, in {seconds} seconds at the latest"
            return Reason(_C.PLANNED_START, pool, detail, f"a time limit of at most {seconds} seconds")
    for reservation in board.barring(job.spec.queue, until_ms, pool):
        seconds = max(0, reservation.start_ms - board.now_ms) // 1000
        if seconds:
            detail = f"it might still run when reservation {reservation.id} begins, in {seconds} seconds"
            return Reason(_C.RESERVED, pool, detail, f"a time limit of at most {seconds} seconds")
        detail = f"what is free there is kept for reservation {reservation.id}"
        return Reason(_C.RESERVED, pool, detail, f"the end of reservation {reservation.id}")
    return None


def _never(demand: Demand) -> Reasons:
    verdicts = demand.verdicts[:MOST_REASONS] or (Verdict(_C.NO_POOL, "", "the fleet has no pools"),)
    return Reasons(tuple(_as_reason(verdict) for verdict in verdicts), CHANGE)


def _as_reason(verdict: Verdict) -> Reason:
    return Reason(verdict.code, verdict.pool, verdict.detail, CHANGE)


# --- one pool --------------------------------------------------------------------------------------------------------


def _blocker(board: Board, job: Job, demand: Demand, fit: Fit) -> Reason | None:
    """What keeps the job out of a pool that could run it; None if nothing does."""
    pool, gpus = fit.pool, job.spec.gpus
    if not board.is_connected(pool):
        return Reason(_C.SITE_NOT_CONNECTED, pool, "the site's agent is not heard from", f"{pool}'s site connecting")
    if board.queue_room(job, pool) < gpus:
        return _queue_limit(board, job, pool)
    if board.free(pool).free_gpus >= gpus > board.power_room(pool):
        missing = gpus - max(0, board.power_room(pool))
        detail = f"power lets {board.state.powered[pool]} GPUs run there at once, and not {gpus} more"
        return Reason(_C.POWER_CAP, pool, detail, f"{missing} GPUs given back at {pool}, or power for them")
    if _own(board, job, pool) + _lendable(board, job, demand, pool) < gpus:
        return _not_entitled(board, job, demand, fit)
    return _not_free(board, fit) or _kept_off(board, fit) or _held_back(board, job, pool)


def _queue_limit(board: Board, job: Job, pool: PoolId) -> Reason:
    """Why the job's queue may not use so many GPUs more there; what its owner has lent counts against its limit too."""
    gpus, room, account = job.spec.gpus, board.queue_room(job, pool), board.account(job.owner, pool)
    never = queue_verdict(board.state, job.spec, pool) or _owner_verdict(board, job, pool)
    if never is not None:
        return Reason(never.code, pool, never.detail, CHANGE)
    tree = board.quotas(job.owner, pool)
    if account.lent >= gpus - room and (tree is None or tree.most(job.spec.queue) >= gpus):
        detail = f"{account.lent} of {job.owner}'s GPUs there are lent, and it may not borrow as many in their place"
        return Reason(_C.LENT_OUT, pool, detail, f"{gpus - room} lent GPUs handed back at {pool}")
    detail = f"queue {job.spec.queue} may use {max(0, room)} more GPUs there, the job asks for {gpus}"
    return Reason(_C.QUEUE_LIMIT, pool, detail, f"{gpus - room} GPUs given back by the queue at {pool}")


def _owner_verdict(board: Board, job: Job, pool: PoolId) -> Verdict | None:
    """Why the job's owner can never use so many GPUs there, if its borrowing limit is why."""
    quota, most = board.state.queues[job.owner].declared.quotas.get(pool), board.home_most(job, pool)
    if quota is None or quota.borrowing_limit is None or most + quota.borrowing_limit >= job.spec.gpus:
        return None
    detail = f"{job.owner} may borrow {quota.borrowing_limit} GPUs there beside {most} of its own"
    return Verdict(_C.QUEUE_LIMIT_TOO_SMALL, pool, f"{detail}, the job asks for {job.spec.gpus}")


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
        percent = board.state.owners[owner].declared.lending.evicted_percent_max
        bound = f" and for at most {percent} % of its size in evictions" if percent else ""
        detail = (
            f"{account.lent} of {owner}'s GPUs there are lent, and no borrowers can make room within the window{bound}"
        )
        return Reason(_C.LENT_OUT, pool, detail, f"{missing} lent GPUs handed back at {pool}")
    has_lenders = demand.may_borrow and bool(board.lenders(owner, pool))
    most = board.home_most(job, pool)
    if is_home and not has_lenders and most < gpus:
        detail = f"the queue has at most {most} of {owner}'s {account.due} GPUs there, the job asks for {gpus}"
        return Reason(_C.ENTITLEMENT_TOO_SMALL, pool, detail, CHANGE)
    if is_home and not has_lenders:
        detail = f"{own} of {owner}'s {account.due} GPUs there are left to this queue, the job asks for {gpus}"
        return Reason(_C.ENTITLEMENT_USED, pool, detail, f"{missing} of {owner}'s own GPUs given back at {pool}")
    if not has_lenders:
        return _no_lender(board, job, fit)
    most += board.lendable_most(owner, pool)
    if most < gpus:
        detail = f"{owner}'s own GPUs and all that is ever lent there come to {most}, the job asks for {gpus}"
        return Reason(_C.LENDING_LIMIT, pool, detail, CHANGE)
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


def _not_free(board: Board, fit: Fit) -> Reason | None:
    pool, need, free = fit.pool, fit.need, board.free(fit.pool)
    if free.free_gpus < need.gpus:
        missing = need.gpus - free.free_gpus
        detail = f"{free.free_gpus} GPUs are free there, the job asks for {need.gpus}"
        return Reason(_C.TOO_FEW_FREE, pool, detail, f"{missing} more free GPUs at {pool}")
    return None if find(free, need) is not None else _no_shape(board, fit) or _no_rest(free, fit)


def _no_rest(free: FreeMap, fit: Fit) -> Reason:
    """The GPUs are free, and the CPUs or the memory beside them are not: what the node with most of it has."""
    need, had = fit.need, [free.left_on(node) for node in indices(short(free, fit.need, roomy(free, fit.need.each)))]
    cpus = need.cpus or -(-need.each * free.cpus_per_node // free.gpus_per_node)
    memory_mib = need.memory_mib or -(-need.each * free.memory_mib_per_node // free.gpus_per_node)
    lacks_cpus = [left for left, _ in had if left < cpus]
    code, what, asked, most = (
        (_C.TOO_FEW_CPUS, "CPUs", cpus, max(lacks_cpus))
        if lacks_cpus
        else (_C.TOO_LITTLE_MEMORY, "MiB of memory", memory_mib, max(left for _, left in had))
    )
    where = f"beside {need.each} free GPUs of a node"
    detail = f"{where} there {most:,} {what} are free, the job asks for {asked:,}"
    return Reason(code, fit.pool, detail, f"{asked - most:,} more {what} free {where} at {fit.pool}")


def _kept_off(board: Board, fit: Fit) -> Reason | None:
    """What is promised to others, if the job takes more than the share of its GPUs and finds room only beside that."""
    promised = promised_nodes(board, fit)
    if not promised or find(board.shadow(fit.pool, tuple(promised)), fit.need) is not None:
        return None
    detail = "it takes more than the share of its GPUs, which it may not on nodes where others are promised their start"
    return Reason(_C.PLANNED_START, fit.pool, detail, f"the starts promised at {fit.pool}")


def _no_shape(board: Board, fit: Fit) -> Reason | None:
    need, free = fit.need, board.free(fit.pool)
    counts = segment_counts(free, need)
    width = {Level.RACK: 1, Level.BLOCK: free.racks_per_block, Level.POOL: len(counts)}[need.widest]
    most = max(sum(counts[first : first + width]) for first in range(0, len(counts), width))
    wanted = need.nodes // need.segment
    if most >= wanted:
        return None
    where = "" if need.widest is Level.POOL else f" in one {need.widest}"
    detail = f"the job needs {_things(need, wanted)}{where}, at most {most} can be had"
    return Reason(_C.NO_SHAPE, fit.pool, detail, f"{_things(need, wanted - most)}{where} more at {fit.pool}")


def _things(need: Need, count: int) -> str:
    """So many nodes, or segments, with enough free GPUs."""
    if need.segment == 1:
        return f"{count} node{'s' * (count != 1)} with {need.each} free GPUs"
    return f"{count} group{'s' * (count != 1)} of {need.segment} nodes with {need.each} free GPUs in one rack"
