"""The working copy of one cycle: branches of the maps, copies of the books, and the events decided so far.

Everything is copied on first touch, so a cycle that changes two pools copies two pools; a pool's map only when it is
looked at again after a placement, which most cycles never do, and so are its books. The state is never changed.
"""

from collections.abc import Collection
from copy import copy
from operator import itemgetter

from pumasi.events.facts import (
    AdvanceReservationState,
    AllocationRecharged,
    AttemptPlaced,
    Event,
    LinkState,
    NodeState,
    ReservationEnded,
    ReservationMade,
    ReservationState,
    StartGivenUp,
    StartPlanned,
    StopOrdered,
)
from pumasi.model.ids import JobId, OwnerId, PoolId, QueueId
from pumasi.model.jobs import Charge, Span, StopCause, overlap, span_gpus
from pumasi.model.reservations import AdvanceReservation
from pumasi.scheduler.outlook import NEVER_MS, Outlook, Outlooks, end_ms
from pumasi.scheduler.packing import Mix, mix_of
from pumasi.scheduler.quotas import NO_LIMIT, QuotaTree
from pumasi.scheduler.rules import Rules
from pumasi.scheduler.shapes import Fit
from pumasi.scheduler.tenants import Tenants
from pumasi.state import accounts
from pumasi.state.accounts import Accounts
from pumasi.state.backlog import DemandKey
from pumasi.state.fleet_state import FleetState
from pumasi.state.freemap import FreeMap
from pumasi.state.lending import lending_limit, refusal_now
from pumasi.state.records import Account, Job, PlannedStart, Reservation

BY = "scheduler"
_NO_ACCOUNT = Account()
_NO_STARTS: dict[JobId, PlannedStart] = {}
_NO_SHADOWS: dict[tuple[tuple[Span, ...], ...], FreeMap] = {}

Posting = tuple[OwnerId, tuple[Charge, ...], int]  # the borrower, on whose entitlement, and the sign
Run = tuple[int, tuple[Span, ...], tuple[Charge, ...]]  # when it ends, and what it gives back


class Board:
    """What the fleet would be after the events decided so far.

    `stirred`: the pools where one of them may give a waiting job room. `look_again_ms`: when time alone may give one
    room that has been refused. `held_back`: the jobs refused for the sake of what is promised. `gone`: the pools where
    a planned start is no more or a stop leaves more to promises, and `again`: the owners whose work that had held back.
    `reopened`: the pools where a start went by a loan: a claim on what was lent before that is for the next cycle.
    """

    def __init__(self, state: FleetState, now_ms: int, rules: Rules, outlooks: Outlooks) -> None:
        self.state = state
        self.now_ms = now_ms
        self.rules = rules
        self.events: list[Event] = []
        self.stirred: dict[PoolId, None] = {}
        self.look_again_ms = NEVER_MS
        self.placed: dict[JobId, PoolId] = {}
        self.reserved: dict[JobId, Reservation] = dict(state.reservations)
        self._started: dict[PoolId, int] = {}
        self.planned: dict[JobId, PlannedStart] = dict(state.planned)
        self.held_back: dict[JobId, None] = {}
        self._planned_in: dict[PoolId, dict[JobId, PlannedStart]] = {}
        for start in state.planned.values():
            self._planned_in.setdefault(start.pool, {})[start.job] = start
        self._planned_needs = {state.backlogs.key_of(job) for job in state.planned}
        self._outlooks = outlooks
        self._planned_now: dict[JobId, StartPlanned] = {}
        self._holding: dict[PoolId, None] = {}
        self.gone: dict[PoolId, None] = {}
        self.again: dict[OwnerId, None] = {}
        self.reopened: dict[PoolId, None] = {}
        self._own_outlooks: dict[PoolId, Outlook] = {}
        self._moved: dict[PoolId, dict[JobId, Run]] = {}
        self._shadows: dict[PoolId, dict[tuple[tuple[Span, ...], ...], FreeMap]] = {}
        self._surplus_parts: dict[OwnerId, int] | None = None
        self._mixes: dict[PoolId, Mix] = {}
        self._maps: dict[PoolId, FreeMap] = {}
        self._taken: dict[PoolId, list[Span]] = {}  # what the maps do not show yet
        self._books: dict[PoolId, Accounts] = {}
        self._unposted: dict[PoolId, list[Posting]] = {}  # what the books do not show yet
        self._quotas: dict[tuple[OwnerId, PoolId], QuotaTree | None] = {}
        self._tenants: dict[PoolId, Tenants] = {}

    # --- looking -----------------------------------------------------------------------------------------------------

    def free(self, pool: PoolId) -> FreeMap:
        """The pool's free GPUs, to read."""
        if pool in self._taken:
            return self._writable(pool)
        return self._maps.get(pool) or self.state.occupancy[pool].free

    def books(self, pool: PoolId) -> Accounts:
        """The pool's accounts, to read."""
        if pool in self._unposted:
            for borrower, charges, sign in self._unposted.pop(pool):
                accounts.post(self._own_books(pool, borrower, charges), borrower, charges, sign)
        return self._books.get(pool) or self.state.books[pool]

    def account(self, owner: OwnerId, pool: PoolId) -> Account:
        """An owner's account in a pool, to read; an empty one if it has none."""
        return self.books(pool).get(owner) or _NO_ACCOUNT

    def surplus_parts(self, owner: OwnerId) -> int:
        """What an owner lends less what it borrows, over all pools, in parts of a GPU."""
        if self._surplus_parts is None:
            self._surplus_parts = surplus = dict.fromkeys(self.state.owners, 0)
            for pool in self.state.books:
                declared = self.state.pools[pool].declared
                for name, account in self.books(pool).items():
                    surplus[name] += declared.parts(account.lent - account.borrowed)
        return self._surplus_parts[owner]

    def is_settled(self, job: JobId) -> bool:
        """True if the job needs no turn: it is placed or has a reservation."""
        return job in self.placed or job in self.reserved

    def has_victims(self, pool: PoolId) -> bool:
        """True if some job there borrows, stops, or runs on more than its owner is due: a claim might find room."""
        return bool(self.state.guests[pool]) or any(
            account.home > account.due for account in self.books(pool).values()
        )  # fmt: skip

    def tenants(self, pool: PoolId) -> Tenants:
        """Who borrows, who stops: read from the pool's jobs once a cycle."""
        tenants = self._tenants.get(pool)
        if tenants is None:
            tenants = self._tenants[pool] = Tenants(self.state, pool, self.reserved.values())
        return tenants

    def quotas(self, owner: OwnerId, pool: PoolId) -> QuotaTree | None:
        """The quotas of an owner's queues in a pool, or None if it declares none there."""
        key = (owner, pool)
        if key not in self.rules.with_quotas:
            return None
        tree = self._quotas.get(key)
        if tree is None:
            tree = self._quotas[key] = QuotaTree(self.rules.quotas(owner, pool))
            for job, reservation in self.reserved.items():
                if reservation.pool == pool and self.state.jobs[job].owner == owner:
                    tree.take(self.state.jobs[job].spec.queue, sum(charge.gpus for charge in reservation.charges))
        return tree

    def is_connected(self, pool: PoolId) -> bool:
        """True if the agent of the pool's site is heard from; nothing new is given to a site that is not."""
        return self.state.sites[self.state.pools[pool].declared.site].link is LinkState.CONNECTED

    def takes(self, pool: PoolId, gpus: int) -> bool:
        """True if the pool's site is heard from and its power carries so many GPUs more."""
        return self.is_connected(pool) and self.power_room(pool) >= gpus

    def has_holds(self, pool: PoolId) -> bool:
        """True if a start is planned in the pool, or anything is reserved in advance."""
        return bool(self._planned_in.get(pool) or self.state.advance_reservations)

    def planned_in(self, pool: PoolId) -> Collection[PlannedStart]:
        """The planned starts in a pool."""
        return self._planned_in.get(pool, _NO_STARTS).values()

    def barring(self, queue: QueueId, until_ms: int, pool: PoolId) -> list[AdvanceReservation]:
        """The reservations in a pool that begin before `until_ms` and are not for jobs of the queue."""
        records = self.state.advance_reservations.values()
        barring = [record.declared for record in records if record.is_barring and record.declared.pool == pool]
        return [made for made in barring if made.start_ms < until_ms and not made.admits(queue)]

    def admitting(self, queue: QueueId, pool: PoolId) -> list[AdvanceReservation]:
        """The reservations in a pool that have begun and are for jobs of the queue."""
        records = self.state.advance_reservations.values()
        begun = [record.declared for record in records if record.state is AdvanceReservationState.ACTIVE]
        return [made for made in begun if made.pool == pool and made.admits(queue)]

    def has_planned(self, need: DemandKey) -> bool:
        """True if one of the waiting jobs with this need has a planned start."""
        return need in self._planned_needs

    def outlook(self, pool: PoolId) -> Outlook:
        """What comes free in the pool, and when; to read."""
        moved = self._moved.pop(pool, None)
        if moved:
            if pool not in self._own_outlooks:
                self._own_outlooks[pool] = self._outlooks.of(pool).branch()
            outlook = self._own_outlooks[pool]
            for job in moved:
                outlook.leave(job)
            for job, run in moved.items():
                outlook.enter(job, *run)
        return self._own_outlooks.get(pool) or self._outlooks.of(pool)

    def shadow(self, pool: PoolId, held: tuple[tuple[Span, ...], ...]) -> FreeMap:
        """The pool's free GPUs without these, to read."""
        shadows = self._shadows.setdefault(pool, {})
        if held not in shadows:
            shadows[held] = self.free(pool).branch()
            for spans in held:
                shadows[held].take_free(spans)
        return shadows[held]

    def mix(self, fit: Fit) -> Mix | None:
        """What ran in the pool as the cycle began, by which a place there is scored; None for GPUs with their share."""
        if not (fit.need.cpus or fit.need.memory_mib or self.state.occupancy[fit.pool].free.is_shared):
            return None
        if fit.pool not in self._mixes:
            self._mixes[fit.pool] = mix_of(self.state, fit.pool)
        return self._mixes[fit.pool]

    # --- rooms -------------------------------------------------------------------------------------------------------

    def power_room(self, pool: PoolId) -> int:
        """GPUs that may yet start before power runs out: what is in use or reserved has its power."""
        powered = self.state.powered.get(pool)
        if powered is None:
            return NO_LIMIT
        return powered - self.state.occupancy[pool].capacity_gpus + self.free(pool).free_gpus

    def ending_home(self, owner: OwnerId, pool: PoolId) -> int:
        """GPUs of an owner's entitlement that its own stopping jobs will leave."""
        return self.tenants(pool).ending_home.get(owner, 0)

    def has_power(self, reservation: Reservation) -> bool:
        """True if a reservation may start: power carries it beside all that is in use."""
        powered = self.state.powered.get(reservation.pool, NO_LIMIT)
        in_use = self.state.occupancy[reservation.pool].used_gpus + self._started.get(reservation.pool, 0)
        return in_use + span_gpus(reservation.spans) <= powered

    def home_room(self, job: Job, pool: PoolId) -> int:
        """GPUs the job's queue may still use of its owner's entitlement, whether idle or out on loan."""
        owner = job.owner
        account = self.account(owner, pool)
        room = account.due - account.home - account.promised
        tree = self.quotas(owner, pool) if room > 0 else None
        return room if tree is None else min(room, tree.home_room(job.spec.queue, account.due))

    def home_most(self, job: Job, pool: PoolId) -> int:
        """GPUs the job's queue may use of its owner's entitlement when nothing else of the owner runs there."""
        due, tree = self.account(job.owner, pool).due, self.quotas(job.owner, pool)
        return due if tree is None else min(due, tree.home_most(job.spec.queue, due))

    def queue_room(self, job: Job, pool: PoolId) -> int:
        """GPUs the job's queue may still use there, borrowed ones included."""
        owner = job.owner
        tree = self.quotas(owner, pool)
        room = NO_LIMIT if tree is None else tree.most(job.spec.queue)
        root = self.state.queues[owner].declared.quotas.get(pool)
        if root is not None and root.borrowing_limit is not None:
            account = self.account(owner, pool)
            room = min(room, max(0, account.idle) + max(0, root.borrowing_limit - account.borrowed))
        return room

    def is_queue_bound(self, job: Job, pool: PoolId) -> bool:
        """True if the job's queue has less room there than another queue of the owner might have."""
        tree = self.quotas(job.owner, pool)
        if tree is None:
            return False
        account, gpus, queue = self.account(job.owner, pool), job.spec.gpus, job.spec.queue
        entitled = min(gpus, account.due - account.home - account.promised)
        return tree.most(queue) < gpus or tree.home_room(queue, account.due) < entitled

    def idle(self, owner: OwnerId, pool: PoolId) -> int:
        """GPUs of the entitlement nobody uses, is promised or is guaranteed by a queue's ring-fence."""
        account = self.books(pool).get(owner)
        if account is None:
            return 0
        tree = self.quotas(owner, pool)
        return account.idle if tree is None else account.idle - tree.kept_back

    def lenders(self, borrower: OwnerId, pool: PoolId) -> list[tuple[OwnerId, int]]:
        """The owners whose rules let the borrower in now, and how much each may have lent at most."""
        key = (borrower, pool)
        found = self.rules.lenders.get(key)
        if found is None:
            who = self.state.owners[borrower].declared
            found = self.rules.lenders[key] = [
                (lender, limit)
                for lender in self.state.pools[pool].declared.entitlements
                if lender != borrower
                and (limit := lending_limit(self.state, lender, pool))
                and refusal_now(self.state.owners[lender].declared.lending, who, self.now_ms) is None
            ]
        return found

    def lendable(self, borrower: OwnerId, pool: PoolId) -> list[tuple[int, OwnerId]]:
        """What each lender could lend the borrower now, most first (as equals in the order of the entitlements)."""
        books = self.books(pool)
        rooms = [
            (room, lender)
            for lender, limit in self.lenders(borrower, pool)
            if (account := books[lender]).idle > 0 and (room := min(self.idle(lender, pool), limit - account.lent)) > 0
        ]
        return sorted(rooms, key=itemgetter(0), reverse=True)

    def lendable_most(self, borrower: OwnerId, pool: PoolId) -> int:
        """GPUs the lenders would lend the borrower if nothing ran on their entitlements."""
        total = 0
        for lender, limit in self.lenders(borrower, pool):
            tree, due = self.quotas(lender, pool), self.account(lender, pool).due
            total += max(0, min(limit, due - (0 if tree is None else tree.guaranteed)))
        return total

    # --- deciding ----------------------------------------------------------------------------------------------------

    def place(self, job: Job, pool: PoolId, spans: tuple[Span, ...], charges: tuple[Charge, ...]) -> None:
        """Give a job free GPUs. A planned start it delays, as only home work of another owner may, is given up."""
        self._give_up_delayed(job, pool, spans)
        self._taken.setdefault(pool, []).extend(spans)
        for shadow in self._shadows.get(pool, _NO_SHADOWS).values():
            shadow.take_free(spans)
            for span in spans:
                shadow.note(span)
        if pool in self._tenants:
            self._tenants[pool].touch(spans)
        self._take_quota(job, pool, job.spec.gpus)
        self._start(job, pool, spans, charges)

    def start_reserved(self, job: Job, reservation: Reservation) -> None:
        """Give a job the GPUs reserved for it."""
        self._end_reservation(reservation, ReservationState.FULFILLED)
        for span in reservation.spans:
            if span.cpus or span.memory_mib:  # until now its GPUs' share was kept for it
                self._writable(reservation.pool).note(span)
        self._start(job, reservation.pool, reservation.spans, reservation.charges)

    def release(self, reservation: Reservation) -> None:
        """Let a reservation go; what of it is free is free for all."""
        self.stirred[reservation.pool] = None
        self._end_reservation(reservation, ReservationState.RELEASED)
        self._shadows.pop(reservation.pool, None)
        occupancy = self.state.occupancy[reservation.pool]
        free = self._writable(reservation.pool)
        for span in reservation.spans:
            for node in range(span.first, span.first + span.nodes):
                mask = span.gpu_mask & ~occupancy.used[node]
                if mask and occupancy.node_state(node) is NodeState.UP:
                    free.give(Span(node, 1, mask))

    def reserve(self, job: Job, pool: PoolId, spans: tuple[Span, ...], due_ms: int, evicted_gpus_max: int = 0) -> None:
        """Hold GPUs, free or coming free, for a job on its owner's entitlement."""
        self.stirred[pool] = None
        if job.id in self.planned:
            self.give_up_start(self.planned[job.id])
        for start in list(self.planned_in(pool)):
            if overlap(start.spans, spans):
                self.give_up_start(start)
        charges = (Charge(job.owner, job.spec.gpus),)
        self._writable(pool).take_free(spans)
        self._shadows.pop(pool, None)
        self.tenants(pool).hold(spans)
        accounts.promise(self._own_books(pool, job.owner, charges), charges, 1)
        self._take_quota(job, pool, job.spec.gpus)
        self.reserved[job.id] = Reservation(job.id, pool, spans, charges, self.now_ms, due_ms)
        self.events.append(
            ReservationMade(
                at_ms=self.now_ms, by=BY, job=job.id, pool=pool, spans=spans, charges=charges,
                asked_ms=job.waiting_since_ms, due_ms=due_ms, evicted_gpus_max=evicted_gpus_max,
            )
        )  # fmt: skip

    def hold_back(self, job: Job, pool: PoolId) -> None:
        """Note that a job is refused in a pool for the sake of what is promised there, and nothing else."""
        self.held_back[job.id] = self._holding[pool] = None

    def plan_start(self, start: PlannedStart) -> None:
        """Promise a waiting job its start."""
        self.planned[start.job] = start
        self._planned_in.setdefault(start.pool, {})[start.job] = start
        self._planned_needs.add(self.state.backlogs.key_of(start.job))
        event = StartPlanned(
            at_ms=self.now_ms, by=BY, job=start.job, pool=start.pool, spans=start.spans, start_ms=start.start_ms
        )
        self._planned_now[start.job] = event
        self.events.append(event)

    def give_up_start(self, start: PlannedStart) -> None:
        """Give up a planned start that is broken."""
        if not self._forget_start(start):
            self.events.append(StartGivenUp(at_ms=self.now_ms, by=BY, job=start.job))

    def recharge(self, job: Job, charges: tuple[Charge, ...]) -> None:
        """Count a live allocation on other entitlements."""
        attempt = job.attempts[-1]
        self.stirred[attempt.pool] = None
        tenants = self.tenants(attempt.pool)
        self._post(attempt.pool, job.owner, tenants.charges(job), -1)
        self._post(attempt.pool, job.owner, charges, 1)
        tenants.recharge(job, charges)
        self._move(job, attempt.pool, NEVER_MS)
        self.events.append(
            AllocationRecharged(at_ms=self.now_ms, by=BY, job=job.id, attempt=attempt.number, charges=charges)
        )

    def stop(self, job: Job, kill_at_ms: int, claimant: JobId, cause: StopCause = StopCause.RECLAIM) -> None:
        """Give a running job notice."""
        attempt = job.attempts[-1]
        self.stirred[attempt.pool] = None
        self.tenants(attempt.pool).stop(job, kill_at_ms)
        self._move(job, attempt.pool, kill_at_ms)
        if self.has_holds(attempt.pool):
            self.gone[attempt.pool] = None
            self.again.update((charge.owner, None) for charge in self.tenants(attempt.pool).charges(job))
        self.events.append(
            StopOrdered(
                at_ms=self.now_ms, by=BY, job=job.id, attempt=attempt.number, cause=cause,
                kill_at_ms=kill_at_ms, claimant=claimant,
            )
        )  # fmt: skip

    # --- one step at a time ------------------------------------------------------------------------------------------

    def _writable(self, pool: PoolId) -> FreeMap:
        branch = self._maps.get(pool)
        if branch is None:
            branch = self._maps[pool] = self.state.occupancy[pool].free.branch()
        for span in self._taken.pop(pool, ()):
            branch.take(span)
        return branch

    def _own_books(self, pool: PoolId, borrower: OwnerId, charges: tuple[Charge, ...]) -> Accounts:
        """The pool's accounts, those of the borrower and the charged owners to write."""
        theirs, books = self.state.books[pool], self._books.get(pool)
        if books is None:
            books = self._books[pool] = theirs.copy()
        for owner in (borrower, *[charge.owner for charge in charges]):
            account = theirs.get(owner)
            if account is not None and books[owner] is account:
                books[owner] = copy(account)
        return books

    def _start(self, job: Job, pool: PoolId, spans: tuple[Span, ...], charges: tuple[Charge, ...]) -> None:
        self._post(pool, job.owner, charges, 1)
        self._started[pool] = self._started.get(pool, 0) + span_gpus(spans)
        self.placed[job.id] = pool
        self._moved.setdefault(pool, {})[job.id] = (self.now_ms + job.spec.time_limit_seconds * 1000, spans, charges)
        planned = self.planned.get(job.id)
        if planned is not None:
            self._forget_start(planned)
        self.events.append(
            AttemptPlaced(
                at_ms=self.now_ms, by=BY, job=job.id, attempt=len(job.attempts) + 1, queue=job.spec.queue, pool=pool,
                spans=spans, charges=charges,
            )
        )  # fmt: skip

    def _move(self, job: Job, pool: PoolId, kill_at_ms: int) -> None:
        attempt = job.attempts[-1]
        run_end_ms = min(end_ms(job, attempt), kill_at_ms)
        self._moved.setdefault(pool, {})[job.id] = (run_end_ms, attempt.spans, self.tenants(pool).charges(job))

    def _forget_start(self, start: PlannedStart) -> bool:
        """True if it was planned in this very cycle and held nobody back: then it is as if it had never been."""
        del self.planned[start.job]
        del self._planned_in[start.pool][start.job]
        self._planned_needs.discard(self.state.backlogs.key_of(start.job))
        self.stirred[start.pool] = None
        self.again[self.state.jobs[start.job].owner] = None
        event = self._planned_now.pop(start.job, None)
        if event is None or start.pool in self._holding:
            self.gone[start.pool] = None
            return False
        self.events.remove(event)
        return True

    def _give_up_delayed(self, job: Job, pool: PoolId, spans: tuple[Span, ...]) -> None:
        mine = self.planned.get(job.id)
        if mine is not None and mine.pool == pool and mine.spans == spans:
            return  # it starts as planned; those planned behind it may come a little later
        until_ms = self.now_ms + job.spec.time_limit_seconds * 1000
        for start in list(self.planned_in(pool)):
            if start.job != job.id and start.start_ms < until_ms and overlap(start.spans, spans):
                self.give_up_start(start)

    def _end_reservation(self, reservation: Reservation, state: ReservationState) -> None:
        del self.reserved[reservation.job]
        books = self._own_books(reservation.pool, reservation.charges[0].owner, reservation.charges)
        accounts.promise(books, reservation.charges, -1)
        self.events.append(ReservationEnded(at_ms=self.now_ms, by=BY, job=reservation.job, state=state))

    def _post(self, pool: PoolId, borrower: OwnerId, charges: tuple[Charge, ...], sign: int) -> None:
        self._unposted.setdefault(pool, []).append((borrower, charges, sign))
        surplus = self._surplus_parts
        for charge in charges if surplus is not None else ():
            if surplus is not None and charge.owner != borrower:
                parts = self.state.pools[pool].declared.parts(sign * charge.gpus)
                surplus[charge.owner] += parts
                surplus[borrower] -= parts

    def _take_quota(self, job: Job, pool: PoolId, gpus: int) -> None:
        tree = self.quotas(job.owner, pool)
        if tree is not None:
            tree.take(job.spec.queue, gpus)
