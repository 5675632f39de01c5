"""Compliance: every reclaim from the claim to the start, against the window the lending contract promised.

The clock of the promise starts when the claim is made: the cycle in which the job is within its owner's entitlement and
the borrowers are told. A job may have waited before, because its owner had used up what it is due; that is shown, and
is no broken promise.
"""

from copy import copy

from msgspec import Struct, field

from pumasi.events.facts import Event, ReservationEnded, ReservationMade, ReservationState, StopOrdered
from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import StopCause

SETTLED_KEPT = 1 << 15


class Reclaim(Struct):
    """One reclaim. Times are Unix milliseconds; `settled_ms` is 0 while GPUs are still awaited.

    `asked_ms`: since when the job has waited. `made_ms`: when it became a claim, and the promise began to count.
    `victims` lost `evicted_gpus` so that `claimant` got `gpus`; its owner's contract allowed `evicted_gpus_max` (0: no
    bound). `fulfilled` is False if the claimant no longer needed them.
    """

    claimant: JobId
    owner: OwnerId = ""
    pool: PoolId = ""
    gpus: int = 0
    asked_ms: int = 0
    made_ms: int = 0
    due_ms: int = 0
    settled_ms: int = 0
    fulfilled: bool = False
    evicted_gpus: int = 0
    evicted_gpus_max: int = 0
    victims: list[JobId] = field(default_factory=list)

    @property
    def promised_milliseconds(self) -> int:
        """The reclaim window of the lending contract."""
        return self.due_ms - self.made_ms

    @property
    def took_milliseconds(self) -> int:
        """From the claim until the claimant was given its GPUs."""
        return self.settled_ms - self.made_ms

    @property
    def kept(self) -> bool:
        """True if the promise was kept."""
        return self.fulfilled and self.took_milliseconds <= self.promised_milliseconds


class Compliance(Struct):
    """How the reclaims that gave their claimants GPUs went in all. `kept`: within the window. A slice counts as one."""

    fulfilled: int = 0
    kept: int = 0
    requested_gpus: int = 0
    evicted_gpus: int = 0

    def count(self, reclaim: Reclaim) -> None:
        """One more."""
        self.fulfilled += 1
        self.kept += reclaim.kept
        self.requested_gpus += reclaim.gpus
        self.evicted_gpus += reclaim.evicted_gpus


class Reclaims(Struct):
    """The reclaims: the open ones by claimant, and of the settled ones the latest, in order.

    `totals`: by owner, all that were fulfilled since the log began. `preempting`: jobs that wait for GPUs of their own
    owner's other work. That is no reclaim, and nobody's promise.
    """

    open: dict[JobId, Reclaim] = field(default_factory=dict)
    settled: list[Reclaim] = field(default_factory=list)
    totals: dict[OwnerId, Compliance] = field(default_factory=dict)
    preempting: dict[JobId, None] = field(default_factory=dict)

    def branch(self) -> "Reclaims":
        """Reclaims that start as these and go their own way; settled ones are shared, for they change no more."""
        mine = {job: copy(reclaim) for job, reclaim in self.open.items()}
        for reclaim in mine.values():
            reclaim.victims = list(reclaim.victims)
        totals = {owner: copy(compliance) for owner, compliance in self.totals.items()}
        return Reclaims(mine, list(self.settled), totals, dict(self.preempting))

    def apply(self, event: Event, victim_gpus: int) -> None:
        """Fold one fact. `victim_gpus`: GPUs of the attempt, if the fact is a stop order."""
        match event:
            case StopOrdered(cause=StopCause.PREEMPT):
                self.preempting[event.claimant] = None
            case StopOrdered(claimant=claimant, cause=cause) if claimant and cause is not StopCause.CANCEL:
                # Cancelling a victim is a second order to it: it was counted with the first.
                reclaim = self.open.setdefault(claimant, Reclaim(claimant))
                reclaim.victims.append(event.job)
                reclaim.evicted_gpus += victim_gpus
            case ReservationMade() if event.job not in self.preempting:
                self._made(event)
            case ReservationEnded() if event.job in self.preempting:
                del self.preempting[event.job]
            case ReservationEnded() if event.job in self.open:
                reclaim = self.open.pop(event.job)
                reclaim.settled_ms = event.at_ms
                reclaim.fulfilled = event.state is ReservationState.FULFILLED
                self._settle(reclaim)

    def _settle(self, reclaim: Reclaim) -> None:
        if reclaim.fulfilled:
            self.totals.setdefault(reclaim.owner, Compliance()).count(reclaim)
        self.settled.append(reclaim)
        if len(self.settled) >= 2 * SETTLED_KEPT:
            del self.settled[:-SETTLED_KEPT]  # the log has them all

    def _made(self, event: ReservationMade) -> None:
        reclaim = self.open.setdefault(event.job, Reclaim(event.job))
        reclaim.owner, reclaim.pool = event.charges[0].owner, event.pool
        reclaim.gpus = sum(charge.gpus for charge in event.charges)
        reclaim.asked_ms, reclaim.made_ms, reclaim.due_ms = event.asked_ms, event.at_ms, event.due_ms
        reclaim.evicted_gpus_max = event.evicted_gpus_max
