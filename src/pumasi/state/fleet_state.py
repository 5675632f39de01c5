"""The state of the fleet: everything the log says, in the shape decisions need it."""

from bisect import bisect_left, insort
from copy import copy

from pumasi.events.facts import ReservationState
from pumasi.model.access import Principal, Token
from pumasi.model.fleet import GpuModel, Policy, Stage
from pumasi.model.ids import GpuModelId, JobId, OwnerId, PoolId, PrincipalId, QueueId, SiteId
from pumasi.model.jobs import AttemptState, Charge, JobState
from pumasi.model.reservations import ReservationId
from pumasi.state import accounts
from pumasi.state.accounts import Accounts
from pumasi.state.backlog import Backlogs, Changes
from pumasi.state.freemap import FreeMap
from pumasi.state.occupancy import Occupancy
from pumasi.state.power import powered_gpus
from pumasi.state.records import (
    Account,
    AdvanceRecord,
    Attempt,
    Job,
    OwnerRecord,
    PlannedStart,
    PoolRecord,
    QueueRecord,
    Request,
    Reservation,
    SiteRecord,
    Strike,
)


class FleetState:
    """A fold over the log. Read it freely; only `state.fold.apply` may change it.

    `jobs` holds every job that is not terminal; a terminal one leaves the state (its record goes to the archive).
    `strikes`: by node, the attempts that failed fast on it since one did well there (`state.strikes`).
    What stands below `tokens` is derived from the rest and never stored. `powered`: the GPUs that power lets run, for
    pools it does not let run whole. `guests`: by pool, the live jobs that borrow or are stopping. `shared`: jobs whose
    records a branch has too (`state.branch`): they are copied before they are changed.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.at_ms = 0
        self.plan_name = ""
        self.policy = Policy()
        self.gpu_models: dict[GpuModelId, GpuModel] = {}
        self.owners: dict[OwnerId, OwnerRecord] = {}
        self.sites: dict[SiteId, SiteRecord] = {}
        self.pools: dict[PoolId, PoolRecord] = {}
        self.node_reasons: dict[tuple[PoolId, int], str] = {}
        self.strikes: dict[tuple[PoolId, int], tuple[Strike, ...]] = {}
        self.queues: dict[QueueId, QueueRecord] = {}
        self.next_job: JobId = 1
        self.jobs: dict[JobId, Job] = {}
        self.active: dict[PoolId, dict[JobId, None]] = {}
        self.reservations: dict[JobId, Reservation] = {}
        self.planned: dict[JobId, PlannedStart] = {}
        self.advance_reservations: dict[ReservationId, AdvanceRecord] = {}
        self.requests: dict[str, Request] = {}
        self.principals: dict[PrincipalId, Principal] = {}
        self.tokens: dict[str, Token] = {}
        self.occupancy: dict[PoolId, Occupancy] = {}
        self.books: dict[PoolId, Accounts] = {}
        self.powered: dict[PoolId, int] = {}
        self.waiting_jobs = 0
        self.backlogs = Backlogs()
        self.guests: dict[PoolId, dict[JobId, None]] = {}
        self.changes = Changes()
        self.shared: set[JobId] = set()

    # --- derived structures ------------------------------------------------------------------------------------------

    def build_pool(self, pool: PoolId) -> None:
        """Make a pool's occupancy and books from its declaration and from what runs on it."""
        declared = self.pools[pool].declared
        before = self.occupancy.get(pool)
        nothing_free = FreeMap(
            declared.nodes,
            declared.gpus_per_node,
            declared.nodes_per_rack,
            declared.racks_per_block,
            declared.slices_per_gpu,
            declared.cpus_per_node,
            declared.memory_mib_per_node,
            is_shared=declared.is_shared,
        )
        occupancy = Occupancy(nothing_free, in_service=self.pools[pool].stage is Stage.IN_SERVICE)
        self.occupancy[pool] = occupancy
        self.books[pool] = {owner: Account(entitled=gpus) for owner, gpus in declared.entitlements.items()}
        self.guests[pool] = {}
        for job in self.active.setdefault(pool, {}):
            attempt = self.jobs[job].attempts[-1]
            occupancy.occupy(job, attempt.spans)
            accounts.post(self.books[pool], self.jobs[job].owner, attempt.charges, 1)
            self.note_guest(self.jobs[job])
        for node, state in before.node_states.items() if before else ():
            occupancy.set_node_state(node, state)
        for reservation in self.reservations.values():
            if reservation.pool == pool:
                self.hold(reservation)
        self.share_out(pool)

    def share_out(self, pool: PoolId) -> None:
        """Divide the pool's healthy GPUs among the entitled, or what its site's power lets run, if that is less."""
        entitlements = self.pools[pool].declared.entitlements
        due = accounts.divide(self.usable_gpus(pool), entitlements)
        for owner, gpus in due.items():
            self.books[pool][owner].due = gpus
        self.changes.stir(pool)

    def usable_gpus(self, pool: PoolId) -> int:
        """GPUs of the pool that may run at once: the healthy ones, as far as power goes."""
        healthy = self.occupancy[pool].capacity_gpus
        return min(healthy, self.powered.get(pool, healthy))

    def share_power(self, site: SiteId) -> None:
        """Divide a site's power among its pools in service, in proportion to what they draw in full."""
        pools = {pool: self._draws(record) for pool, record in self.pools.items() if record.declared.site == site}
        for pool in pools:
            self.powered.pop(pool, None)
        self.powered |= powered_gpus(self.sites[site].power_limit_kilowatts * 1000, pools)
        for pool in pools:
            self.share_out(pool)

    def _draws(self, record: PoolRecord) -> tuple[int, int]:
        """GPUs of a pool in service, and the watts of them all."""
        declared = record.declared
        if record.stage is not Stage.IN_SERVICE:
            return 0, 0
        return declared.gpus, declared.whole_gpus * self.gpu_models[declared.model].planning_watts

    # --- jobs --------------------------------------------------------------------------------------------------------

    def enter_waiting(self, job: Job, at_ms: int) -> None:
        """Put a job among the waiting ones of its queue."""
        job.waiting_since_ms = at_ms
        insort(self.queues[job.spec.queue].waiting, job.order)
        self.waiting_jobs += 1
        self.backlogs.enter(job)

    def leave_waiting(self, job: Job) -> None:
        """Take a job from among the waiting ones of its queue."""
        waiting = self.queues[job.spec.queue].waiting
        del waiting[bisect_left(waiting, job.order)]
        self.waiting_jobs -= 1
        self.backlogs.leave(job)
        self.unplan(job.id)

    def unplan(self, job: JobId) -> None:
        """End a job's planned start, if it has one."""
        start = self.planned.pop(job, None)
        if start is not None:
            self.changes.stir(start.pool)

    def note_guest(self, job: Job) -> None:
        """Note whether a live job borrows or is stopping."""
        attempt = job.attempts[-1]
        if attempt.state is AttemptState.STOPPING or any(charge.owner != job.owner for charge in attempt.charges):
            self.guests[attempt.pool][job.id] = None
        else:
            self.guests[attempt.pool].pop(job.id, None)

    def own(self, job: Job) -> Job:
        """The job to change: a copy in its place, if it is shared with a branch."""
        if job.id not in self.shared:
            return job
        self.shared.discard(job.id)
        mine = self.jobs[job.id] = copy(job)
        mine.attempts = [*job.attempts[:-1], copy(job.attempts[-1])] if job.attempts else []
        return mine

    def finish(self, job: Job, state: JobState, at_ms: int) -> Job:
        """A job reaches its terminal state and leaves."""
        job.state = state
        job.ended_ms = at_ms
        del self.jobs[job.id]
        return job

    def use(self, queue: QueueId, pool: PoolId, gpus: int, at_ms: int) -> None:
        """Count GPUs taken (positive) or given back (negative) in a queue and all above it."""
        half_life_ms, parts = self.policy.usage_half_life_seconds * 1000, self.pools[pool].declared.parts(gpus)
        name: QueueId | None = queue
        while name is not None:
            record = self.queues[name]
            if at_ms > record.past_until_ms:
                record.accrue(at_ms, half_life_ms)
            record.parts_in_use += parts
            in_use = record.in_use
            in_use[pool] = in_pool = in_use.get(pool, 0) + gpus
            if not in_pool:
                del in_use[pool]
            name = record.parent

    def settle_credit(self, job: Job, attempt: Attempt, at_ms: int) -> None:
        """Credit the lenders and debit the borrower for the time the present charges held."""
        passed_ms, slices = at_ms - attempt.charged_since_ms, self.pools[attempt.pool].declared.slices_per_gpu
        owner = job.owner
        for charge in attempt.charges:
            if charge.owner != owner:
                gpu_milliseconds = passed_ms * charge.gpus // slices
                self.owners[charge.owner].credit_gpu_milliseconds += gpu_milliseconds
                self.owners[owner].credit_gpu_milliseconds -= gpu_milliseconds

    def charge(self, job: Job, attempt: Attempt, charges: tuple[Charge, ...], at_ms: int) -> None:
        """Replace an allocation's charges."""
        self.settle_credit(job, attempt, at_ms)
        books = self.books[attempt.pool]
        accounts.post(books, job.owner, attempt.charges, -1)
        accounts.post(books, job.owner, charges, 1)
        attempt.charges = charges
        attempt.charged_since_ms = at_ms
        self.note_guest(job)
        self.changes.stir(attempt.pool)
        self.changes.move(attempt.pool, job.id)

    def handed_over(self) -> set[JobId]:
        """The jobs that stand for GPUs handed over; no engine of a site runs them."""
        return {record.job for record in self.advance_reservations.values() if record.job}

    # --- reservations ------------------------------------------------------------------------------------------------

    def hold(self, reservation: Reservation) -> None:
        """Hold a reservation's GPUs back and promise its charges."""
        self.occupancy[reservation.pool].reserve(reservation.spans)
        accounts.promise(self.books[reservation.pool], reservation.charges, 1)
        self.changes.stir(reservation.pool)

    def let_go(self, reservation: Reservation, state: ReservationState) -> None:
        """End a reservation."""
        reservation.state = state
        self.occupancy[reservation.pool].unreserve(reservation.spans)
        accounts.promise(self.books[reservation.pool], reservation.charges, -1)
        self.changes.stir(reservation.pool)
