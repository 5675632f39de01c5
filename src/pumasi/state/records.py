"""What the state keeps of each thing: the declared value and what the log has since said about it."""

from msgspec import Struct, field

from pumasi.events.facts import AdvanceReservationState, LinkState, ReservationState
from pumasi.model.fleet import PARTS_PER_GPU, Owner, Pool, Queue, Site, Stage
from pumasi.model.ids import JobId, OwnerId, PoolId, PrincipalId, QueueId, queue_owner
from pumasi.model.jobs import (
    TERMINAL_STATES,
    AttemptState,
    Charge,
    JobSpec,
    JobState,
    Outcome,
    Span,
    StopCause,
    span_gpus,
)
from pumasi.model.reservations import AdvanceReservation, ReservationPurpose


class Stop(Struct, gc=False):
    """An order to stop: why, since when, killed when, and for which job (0: none)."""

    cause: StopCause
    ordered_ms: int
    kill_at_ms: int
    claimant: JobId = 0


class Attempt(Struct, gc=False):
    """One attempt of a job and its allocation. `charged_since_ms`: since when the present `charges` hold."""

    number: int
    state: AttemptState
    pool: PoolId
    spans: tuple[Span, ...]
    charges: tuple[Charge, ...]
    placed_ms: int
    charged_since_ms: int
    started_ms: int = 0
    ended_ms: int = 0
    stop: Stop | None = None
    outcome: Outcome | None = None
    exit_code: int = 0
    signal: int = 0
    detail: str = ""

    @property
    def began_ms(self) -> int:
        """When it started, or was placed if it never has."""
        return self.started_ms or self.placed_ms

    @property
    def gpus(self) -> int:
        """GPUs allocated."""
        return span_gpus(self.spans)


class Strike(Struct, frozen=True, array_like=True, gc=False):
    """An attempt that failed on a node within seconds of `began_ms`.

    `source`: whom it may be blamed on instead. If the work ended by itself, its user in its queue, and `script` is a
    digest of what it ran; if the engine failed it, the job (`script` is None).
    """

    job: JobId
    source: str
    script: str | None
    began_ms: int


class Job(Struct, gc=False):
    """A job. `attempts`: all of them, oldest first; the last is live while the job is active."""

    id: JobId
    spec: JobSpec
    by: PrincipalId
    submitted_ms: int
    state: JobState
    waiting_since_ms: int
    attempts: list[Attempt] = field(default_factory=list)
    ended_ms: int = 0

    @property
    def owner(self) -> OwnerId:
        """The owner whose queue it is in."""
        return queue_owner(self.spec.queue)

    @property
    def live(self) -> Attempt | None:
        """The live attempt, if the job is active."""
        return self.attempts[-1] if self.state is JobState.ACTIVE else None

    @property
    def preemptions(self) -> int:
        """How often it was stopped for other work of its owner."""
        return sum(attempt.outcome is Outcome.PREEMPTED for attempt in self.attempts)

    @property
    def is_terminal(self) -> bool:
        """True once nothing can happen to it any more."""
        return self.state in TERMINAL_STATES

    @property
    def order(self) -> tuple[int, JobId]:
        """Its place among the waiting jobs of its queue: higher priority first, then older."""
        return (-self.spec.priority, self.id)


class Account(Struct, gc=False):
    """An owner's books in a pool, in GPUs.

    `due`: its entitlement, shrunk in proportion when the pool has faults. `home`: used by its own jobs on it. `lent`:
    used by others on it. `promised`: held by reservations for its own jobs. `borrowed`: used by its jobs on others'
    entitlements.
    """

    entitled: int = 0
    due: int = 0
    home: int = 0
    lent: int = 0
    promised: int = 0
    borrowed: int = 0

    @property
    def idle(self) -> int:
        """What of the entitlement nobody uses or is promised; negative after faults or during a reclaim."""
        return self.due - self.home - self.lent - self.promised


class OwnerRecord(Struct, gc=False):
    """An owner. Credit grows by GPU-milliseconds lent and shrinks by those borrowed."""

    declared: Owner
    credit_gpu_milliseconds: int = 0


class SiteRecord(Struct, gc=False):
    """A site and the link to its agent. Its operator may hold its power below what its plan says, and by when."""

    declared: Site
    link: LinkState = LinkState.UNENROLLED
    public_key: str = ""
    generation: int = 0
    since_ms: int = 0
    power_cap_kilowatts: int = 0  # 0: as declared
    power_due_ms: int = 0

    @property
    def power_limit_kilowatts(self) -> int:
        """The power the site may draw: the lower of what is declared and what its operator set; 0: not capped."""
        caps = (self.declared.power_cap_kilowatts, self.power_cap_kilowatts)
        return min((cap for cap in caps if cap), default=0)


class PoolRecord(Struct, gc=False):
    """A pool as declared and its stage. Its occupancy and accounts are kept beside it, in `FleetState`."""

    declared: Pool
    stage: Stage


class QueueRecord(Struct, gc=False):
    """A queue: GPUs in use by it and all below it, per pool, and its decayed use of the past (GPU-milliseconds).

    `parts_in_use`: those of all pools together, in parts of a GPU (`PARTS_PER_GPU`).
    """

    declared: Queue
    parent: QueueId | None
    parts_in_use: int
    children: list[QueueId] = field(default_factory=list)
    waiting: list[tuple[int, JobId]] = field(default_factory=list)
    in_use: dict[PoolId, int] = field(default_factory=dict)
    past_gpu_milliseconds: int = 0
    past_until_ms: int = 0

    @property
    def gpus_in_use(self) -> int:
        """GPUs in use in all pools together, rounded up."""
        return -(-self.parts_in_use // PARTS_PER_GPU)

    def accrue(self, at_ms: int, half_life_ms: int) -> None:
        """Bring the past use up to `at_ms`: add what is in use, and halve at every half-life boundary passed."""
        self.past_gpu_milliseconds = self.past_at(at_ms, half_life_ms)
        self.past_until_ms = max(self.past_until_ms, at_ms)

    def past_at(self, at_ms: int, half_life_ms: int) -> int:
        """What the past use (GPU-milliseconds) is at a later moment; changes nothing."""
        passed = at_ms - self.past_until_ms
        if passed <= 0:
            return self.past_gpu_milliseconds
        halvings = at_ms // half_life_ms - self.past_until_ms // half_life_ms
        return (self.past_gpu_milliseconds >> halvings) + self.parts_in_use * passed // PARTS_PER_GPU


class Reservation(Struct, gc=False):
    """GPUs held for a waiting job, and the entitlements they will count on."""

    job: JobId
    pool: PoolId
    spans: tuple[Span, ...]
    charges: tuple[Charge, ...]
    made_ms: int
    due_ms: int
    state: ReservationState = ReservationState.HELD


class PlannedStart(Struct, frozen=True, gc=False):
    """The start a waiting job is promised: these GPUs, from `start_ms` on."""

    job: JobId
    pool: PoolId
    spans: tuple[Span, ...]
    made_ms: int
    start_ms: int


class AdvanceRecord(Struct, gc=False):
    """A reservation made in advance. `job`: the job that stands for its GPUs while they are handed over."""

    declared: AdvanceReservation
    state: AdvanceReservationState
    job: JobId = 0

    @property
    def is_to_be_handed_over(self) -> bool:
        """True for a hand-over that has not begun."""
        return self.declared.purpose is ReservationPurpose.HAND_OVER and not self.job

    @property
    def is_barring(self) -> bool:
        """True if others must be kept off its GPUs; what is handed over, the job that stands for it keeps."""
        return not self.job


class Request(Struct, gc=False):
    """An idempotent call that was answered: the hash of its body and the jobs it made."""

    body_hash: str
    at_ms: int
    jobs: list[JobId]
