"""Who sits in a pool on whose entitlement, and who is on the way out: read once a cycle, when first asked for."""

from collections.abc import Iterable

from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import AttemptState, Charge, Span
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job, Reservation


class Tenants:
    """The live jobs of a pool as a reclaim sees them.

    `loans`: by lender, the jobs that borrow from it, and how many GPUs.
    `stopping`: jobs told to stop, and when they are killed.
    """

    def __init__(self, state: FleetState, pool: PoolId, reservations: Iterable[Reservation]) -> None:
        self._charges: dict[JobId, tuple[Charge, ...]] = {}
        self.loans: dict[OwnerId, dict[JobId, int]] = {}
        self.stopping: dict[JobId, int] = {}
        self._held: dict[int, int] = {}
        for reservation in reservations:
            if reservation.pool == pool:
                self.hold(reservation.spans)
        for job in state.active[pool]:
            record = state.jobs[job]
            attempt = record.attempts[-1]
            if attempt.state is AttemptState.STOPPING and attempt.stop is not None:
                self.stopping[job] = attempt.stop.kill_at_ms
            charges = attempt.charges
            if len(charges) != 1 or charges[0].owner != record.owner:
                self._enter(record, charges)

    def charges(self, job: Job) -> tuple[Charge, ...]:
        """The charges of a live job."""
        return self._charges.get(job.id) or job.attempts[-1].charges

    def borrowers(self) -> list[JobId]:
        """Every job that borrows, in order of their numbers."""
        return sorted({job: None for loans in self.loans.values() for job in loans})

    def held(self, node: int) -> int:
        """The GPUs of a node that are held by reservations."""
        return self._held.get(node, 0)

    def recharge(self, job: Job, charges: tuple[Charge, ...]) -> None:
        """Follow a change of charges."""
        for loans in self.loans.values():
            loans.pop(job.id, None)
        self._charges[job.id] = charges
        self._enter(job, charges)

    def stop(self, job: JobId, kill_at_ms: int) -> None:
        """Follow a stop order."""
        self.stopping[job] = kill_at_ms

    def hold(self, spans: tuple[Span, ...]) -> None:
        """Follow a reservation."""
        for span in spans:
            for node in range(span.first, span.first + span.nodes):
                self._held[node] = self._held.get(node, 0) | span.gpu_mask

    def _enter(self, job: Job, charges: tuple[Charge, ...]) -> None:
        for charge in charges:
            if charge.owner != job.owner:
                self.loans.setdefault(charge.owner, {})[job.id] = charge.gpus
