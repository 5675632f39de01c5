"""Who sits in a pool on whose entitlement, and who is on the way out: read once a cycle, when first asked for."""

from collections.abc import Iterable, Iterator

from pumasi.model.ids import JobId, OwnerId, PoolId, queue_owner
from pumasi.model.jobs import AttemptState, Charge, Span
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job, Reservation


class Tenants:
    """The live jobs of a pool as loans and reclaims see them.

    `loans`: by lender, the running jobs that borrow from it, and how many GPUs. `ending`: by lender, GPUs lent to jobs
    that are stopping; `ending_home`: by owner, GPUs its own such jobs have on its entitlement. `stopping`: jobs told to
    stop, and when they are killed. `held`: by node, the GPUs that reservations hold. `touched`: nodes where GPUs were
    taken or held since the cycle began, in order, and `told`: jobs that were stopped or recharged, so that who
    remembers an answer knows what of it is stale; `changes` rises with either.

    Most cycles only bring some loan home, so who sits where is read when first asked for; until then, recharges wait.
    """

    def __init__(self, state: FleetState, pool: PoolId, reservations: Iterable[Reservation]) -> None:
        self._state = state
        self._pool = pool
        self._charges: dict[JobId, tuple[Charge, ...]] = {}
        self._known: _Seats | None = None
        self._unread: list[tuple[Job, tuple[Charge, ...], tuple[Charge, ...]]] = []  # recharged, from what to what
        self.touched: list[int] = []
        self.told: list[JobId] = []
        self.changes = 0
        self.held: dict[int, int] = {}
        for reservation in reservations:
            if reservation.pool == pool:
                self.hold(reservation.spans)

    @property
    def _seats(self) -> "_Seats":
        if self._known is None:
            self._known = _Seats(self._state, self._pool)
            for job, before, after in self._unread:
                self._known.recharge(job, before, after)
        return self._known

    @property
    def loans(self) -> dict[OwnerId, dict[JobId, int]]:
        """To read."""
        return self._seats.loans

    @property
    def ending(self) -> dict[OwnerId, int]:
        """To read."""
        return self._seats.ending

    @property
    def ending_home(self) -> dict[OwnerId, int]:
        """To read."""
        return self._seats.ending_home

    @property
    def stopping(self) -> dict[JobId, int]:
        """To read."""
        return self._seats.stopping

    def charges(self, job: Job) -> tuple[Charge, ...]:
        """The charges of a live job."""
        return self._charges.get(job.id) or job.attempts[-1].charges

    def borrowers(self) -> list[JobId]:
        """Every running job that borrows, in order of their numbers."""
        return sorted({job: None for loans in self.loans.values() for job in loans})

    def borrowing(self, owner: OwnerId) -> Iterator[Job]:
        """The running jobs of an owner that borrow, or did when the cycle began, in order of their numbers."""
        jobs = self._state.jobs
        for number in sorted(self._state.guests[self._pool]) if self._known is None else self.borrowers():
            job = jobs[number]
            if queue_owner(job.spec.queue) == owner and job.attempts[-1].state is not AttemptState.STOPPING:
                yield job

    def borrowers_of(self, lender: OwnerId) -> list[OwnerId]:
        """The owners whose running jobs borrow from a lender."""
        return [owner for owner, jobs in self._seats.borrowing.get(lender, {}).items() if jobs]

    def recharge(self, job: Job, charges: tuple[Charge, ...]) -> None:
        """Follow a change of charges of a running job."""
        before = self.charges(job)
        self._charges[job.id] = charges
        if self._known is None:
            self._unread.append((job, before, charges))
        else:
            self._known.recharge(job, before, charges)
        self._tell(job)

    def stop(self, job: Job, kill_at_ms: int) -> None:
        """Follow a stop order."""
        self._seats.stop(job, self.charges(job), kill_at_ms)
        self._tell(job)

    def hold(self, spans: tuple[Span, ...]) -> None:
        """Follow a reservation."""
        held = self.held
        for span in spans:
            for node in range(span.first, span.first + span.nodes):
                held[node] = held.get(node, 0) | span.gpu_mask
        self.touch(spans)

    def touch(self, spans: tuple[Span, ...]) -> None:
        """Note that something changed on these nodes."""
        for span in spans:
            self.touched += range(span.first, span.first + span.nodes)
        self.changes += 1

    def _tell(self, job: Job) -> None:
        self.told.append(job.id)
        self.changes += 1


class _Seats:
    """Who sits on whose entitlement, as `Tenants` tells it. `borrowing`: by lender and borrower, how many jobs."""

    def __init__(self, state: FleetState, pool: PoolId) -> None:
        self.loans: dict[OwnerId, dict[JobId, int]] = {}
        self.ending: dict[OwnerId, int] = {}
        self.ending_home: dict[OwnerId, int] = {}
        self.stopping: dict[JobId, int] = {}
        self.borrowing: dict[OwnerId, dict[OwnerId, int]] = {}
        for job in sorted(state.guests[pool]):
            record = state.jobs[job]
            attempt = record.attempts[-1]
            if attempt.state is AttemptState.STOPPING and attempt.stop is not None:
                self.stopping[job] = attempt.stop.kill_at_ms
            self.enter(record, attempt.charges)

    def recharge(self, job: Job, before: tuple[Charge, ...], after: tuple[Charge, ...]) -> None:
        """A running job's charges change."""
        self.leave(job, before)
        self.enter(job, after)

    def stop(self, job: Job, charges: tuple[Charge, ...], kill_at_ms: int) -> None:
        """A running job is told to stop."""
        self.leave(job, charges)
        self.stopping[job.id] = kill_at_ms
        self.enter(job, charges)

    def leave(self, job: Job, charges: tuple[Charge, ...]) -> None:
        """A running job gives up its charges."""
        owner = job.owner
        for charge in charges:
            if charge.owner in self.loans and self.loans[charge.owner].pop(job.id, None) is not None:
                self.borrowing[charge.owner][owner] -= 1

    def enter(self, job: Job, charges: tuple[Charge, ...]) -> None:
        """A live job has these charges."""
        owner, is_stopping = job.owner, job.id in self.stopping
        for charge in charges:
            if is_stopping:
                ending = self.ending_home if charge.owner == owner else self.ending
                ending[charge.owner] = ending.get(charge.owner, 0) + charge.gpus
            elif charge.owner != owner:
                self.loans.setdefault(charge.owner, {})[job.id] = charge.gpus
                jobs = self.borrowing.setdefault(charge.owner, {})
                jobs[owner] = jobs.get(owner, 0) + 1
