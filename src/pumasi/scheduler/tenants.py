"""Who sits in a pool on whose entitlement, and who is on the way out: read once a cycle, when first asked for."""

from collections.abc import Iterable

from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import AttemptState, Charge, Span
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job, Reservation


class Tenants:
    """The live jobs of a pool as loans and reclaims see them.

    `loans`: by lender, the running jobs that borrow from it, and how many GPUs. `ending`: by lender, GPUs lent to jobs
    that are stopping; `ending_home`: by owner, GPUs its own such jobs have on its entitlement. `stopping`: jobs told to
    stop, and when they are killed. `touched`: nodes where GPUs were taken or held since the cycle began, in order, and
    `told`: jobs that were stopped or recharged, so that who remembers an answer knows what of it is stale.
    """

    def __init__(self, state: FleetState, pool: PoolId, reservations: Iterable[Reservation]) -> None:
        self._charges: dict[JobId, tuple[Charge, ...]] = {}
        self.loans: dict[OwnerId, dict[JobId, int]] = {}
        self.ending: dict[OwnerId, int] = {}
        self.ending_home: dict[OwnerId, int] = {}
        self.stopping: dict[JobId, int] = {}
        self.touched: list[int] = []
        self.told: list[JobId] = []
        self._held: dict[int, int] = {}
        self._borrowing: dict[OwnerId, dict[OwnerId, int]] = {}  # by lender and borrower, how many jobs
        for reservation in reservations:
            if reservation.pool == pool:
                self.hold(reservation.spans)
        for job in sorted(state.guests[pool]):
            record = state.jobs[job]
            attempt = record.attempts[-1]
            if attempt.state is AttemptState.STOPPING and attempt.stop is not None:
                self.stopping[job] = attempt.stop.kill_at_ms
            self._enter(record, attempt.charges)

    def charges(self, job: Job) -> tuple[Charge, ...]:
        """The charges of a live job."""
        return self._charges.get(job.id) or job.attempts[-1].charges

    def borrowers(self) -> list[JobId]:
        """Every running job that borrows, in order of their numbers."""
        return sorted({job: None for loans in self.loans.values() for job in loans})

    def borrowers_of(self, lender: OwnerId) -> list[OwnerId]:
        """The owners whose running jobs borrow from a lender."""
        return [owner for owner, jobs in self._borrowing.get(lender, {}).items() if jobs]

    def held(self, node: int) -> int:
        """The GPUs of a node that are held by reservations."""
        return self._held.get(node, 0)

    def recharge(self, job: Job, charges: tuple[Charge, ...]) -> None:
        """Follow a change of charges of a running job."""
        self._leave(job)
        self._charges[job.id] = charges
        self._enter(job, charges)
        self.told.append(job.id)

    def stop(self, job: Job, kill_at_ms: int) -> None:
        """Follow a stop order."""
        self._leave(job)
        self.stopping[job.id] = kill_at_ms
        self._enter(job, self.charges(job))
        self.told.append(job.id)

    def hold(self, spans: tuple[Span, ...]) -> None:
        """Follow a reservation."""
        for span in spans:
            for node in range(span.first, span.first + span.nodes):
                self._held[node] = self._held.get(node, 0) | span.gpu_mask
        self.touch(spans)

    def touch(self, spans: tuple[Span, ...]) -> None:
        """Note that something changed on these nodes."""
        for span in spans:
            self.touched += range(span.first, span.first + span.nodes)

    def _leave(self, job: Job) -> None:
        for charge in self.charges(job):
            if self.loans.get(charge.owner, {}).pop(job.id, None) is not None:
                self._borrowing[charge.owner][job.owner] -= 1

    def _enter(self, job: Job, charges: tuple[Charge, ...]) -> None:
        for charge in charges:
            if job.id in self.stopping:
                ending = self.ending_home if charge.owner == job.owner else self.ending
                ending[charge.owner] = ending.get(charge.owner, 0) + charge.gpus
            elif charge.owner != job.owner:
                self.loans.setdefault(charge.owner, {})[job.id] = charge.gpus
                jobs = self._borrowing.setdefault(charge.owner, {})
                jobs[job.owner] = jobs.get(job.owner, 0) + 1
