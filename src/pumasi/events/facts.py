"""Every fact the log can hold.

A fact carries all its fold needs and the time it happened (`at_ms`, Unix milliseconds of the fleet's clock). Its tag in
the log is its class name. A fact whose meaning must change gets a new class and an upcast (`events.codec`); adding a
field with a default needs neither.
"""

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from pumasi.model.access import Principal, Token
from pumasi.model.fleet import GpuModel, Owner, Policy, Pool, Queue, Site, Stage
from pumasi.model.ids import JobId, PoolId, PrincipalId, QueueId, SiteId
from pumasi.model.jobs import Charge, JobSpec, JobState, Outcome, Span, StopCause
from pumasi.model.reservations import AdvanceReservation, ReservationId


class NodeState(StrEnum):
    """Whether a node takes work: up, drained (finishes what it runs, takes no more) or down."""

    UP = "up"
    DRAINED = "drained"
    DOWN = "down"


class LinkState(StrEnum):
    """Whether a site's agent is heard from."""

    UNENROLLED = "unenrolled"
    CONNECTED = "connected"
    SILENT = "silent"


class ReservationState(StrEnum):
    """Life of a reservation: GPUs held for a job until it starts on them or no longer needs them."""

    HELD = "held"
    FULFILLED = "fulfilled"
    RELEASED = "released"


class Fact(Struct, frozen=True, kw_only=True, tag_field="type", tag=True, omit_defaults=True, gc=False):
    """What all facts share. `by`: the principal or part of the control plane that caused it."""

    at_ms: int
    by: PrincipalId = ""


# --- the fleet as declared -------------------------------------------------------------------------------------------


class PlanApplied(Fact, frozen=True, kw_only=True):
    """A plan of this name was applied; the declarations that follow in the same commit are its contents."""

    name: str


class PolicyDeclared(Fact, frozen=True, kw_only=True):
    """The rules of the whole fleet."""

    policy: Policy


class GpuModelDeclared(Fact, frozen=True, kw_only=True):
    """A GPU model of the catalogue."""

    model: GpuModel


class OwnerDeclared(Fact, frozen=True, kw_only=True):
    """An owner and its lending contract."""

    owner: Owner


class SiteDeclared(Fact, frozen=True, kw_only=True):
    """A site."""

    site: Site


class PoolDeclared(Fact, frozen=True, kw_only=True):
    """A pool and how far it has come. Declared again: its entitlements or stage changed, or it grew."""

    pool: Pool
    stage: Stage


class QueueDeclared(Fact, frozen=True, kw_only=True):
    """A queue and its quotas. A parent is declared before its children."""

    queue: Queue


# --- sites and nodes -------------------------------------------------------------------------------------------------


class SiteEnrolled(Fact, frozen=True, kw_only=True):
    """A site's agent proved its one-use token and left its public key (base64url of 32 Ed25519 bytes)."""

    site: SiteId
    public_key: str
    generation: int


class SiteConnected(Fact, frozen=True, kw_only=True):
    """A site's agent is heard from again (or for the first time)."""

    site: SiteId


class SiteSilent(Fact, frozen=True, kw_only=True):
    """A site's agent has not been heard from for the policy's `link_silent_seconds`. What runs there keeps running."""

    site: SiteId


class PowerCapSet(Fact, frozen=True, kw_only=True):
    """A site may draw so many kilowatts from now on (0: what its plan says), and must be down to it by `due_ms`."""

    site: SiteId
    kilowatts: int
    due_ms: int


class NodeChanged(Fact, frozen=True, kw_only=True):
    """A node was drained, resumed, lost or repaired."""

    pool: PoolId
    node: int
    state: NodeState
    reason: str = ""


# --- jobs ------------------------------------------------------------------------------------------------------------


class JobSubmitted(Fact, frozen=True, kw_only=True):
    """A job was accepted. `request` and `request_hash`: idempotency key and body hash of the call, if it had a key."""

    job: JobId
    spec: JobSpec
    held: bool = False
    request: str = ""
    request_hash: str = ""


class JobHeld(Fact, frozen=True, kw_only=True):
    """A waiting job may not start until released."""

    job: JobId
    reason: str = ""


class JobReleased(Fact, frozen=True, kw_only=True):
    """A held job waits again."""

    job: JobId


class JobCancelled(Fact, frozen=True, kw_only=True):
    """A job that was not active was cancelled. (An active one gets StopOrdered, then AttemptEnded.)"""

    job: JobId


class AttemptPlaced(Fact, frozen=True, kw_only=True):
    """Attempt number `attempt` of a job is given exactly these GPUs, on these owners' entitlements."""

    job: JobId
    attempt: int
    queue: QueueId
    pool: PoolId
    spans: tuple[Span, ...]
    charges: tuple[Charge, ...]


class AttemptStarted(Fact, frozen=True, kw_only=True):
    """The site's engine runs the attempt."""

    job: JobId
    attempt: int


class StopOrdered(Fact, frozen=True, kw_only=True):
    """An attempt is told to stop: notice now, killed at `kill_at_ms`. `claimant`: the job that gets its GPUs, or 0."""

    job: JobId
    attempt: int
    cause: StopCause
    kill_at_ms: int
    claimant: JobId = 0


class AttemptEnded(Fact, frozen=True, kw_only=True):
    """An attempt is over and its GPUs are free. `job_state`: what becomes of the job (waiting again, or terminal)."""

    job: JobId
    attempt: int
    outcome: Outcome
    job_state: JobState
    exit_code: int = 0
    signal: int = 0
    detail: str = ""


class AllocationRecharged(Fact, frozen=True, kw_only=True):
    """The same GPUs from now on count against these owners' entitlements (a loan was returned or moved)."""

    job: JobId
    attempt: int
    charges: tuple[Charge, ...]


class StartPlanned(Fact, frozen=True, kw_only=True):
    """A waiting job is promised these GPUs from `start_ms` on: nothing starts on them that may hold them longer."""

    job: JobId
    pool: PoolId
    spans: tuple[Span, ...]
    start_ms: int


class StartGivenUp(Fact, frozen=True, kw_only=True):
    """The planned start of a job is broken; the job is planned anew."""

    job: JobId


class AdvanceReservationState(StrEnum):
    """The life of a reservation made in advance."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    ENDED = "ended"
    CANCELLED = "cancelled"


class AdvanceReservationMade(Fact, frozen=True, kw_only=True):
    """GPUs are reserved for a span of time to come."""

    reservation: AdvanceReservation


class AdvanceReservationBegan(Fact, frozen=True, kw_only=True):
    """Its time has come. `job`: the job that stands for the GPUs while they are handed over; 0 if none does."""

    reservation: ReservationId
    job: JobId = 0


class AdvanceReservationEnded(Fact, frozen=True, kw_only=True):
    """It is over, or was cancelled before it began; its GPUs are for all again."""

    reservation: ReservationId
    state: AdvanceReservationState


class ReservationMade(Fact, frozen=True, kw_only=True):
    """GPUs, some still in use by attempts told to stop, are held for a job that has waited since `asked_ms`.

    `due_ms`: when they must all be free by the lending contract. `evicted_gpus_max`: GPUs of the jobs that it lets be
    stopped for it; 0: no bound.
    """

    job: JobId
    pool: PoolId
    spans: tuple[Span, ...]
    charges: tuple[Charge, ...]
    asked_ms: int
    due_ms: int
    evicted_gpus_max: int = 0


class ReservationEnded(Fact, frozen=True, kw_only=True):
    """A reservation is over: its job starts on it (an AttemptPlaced follows), or it was let go."""

    job: JobId
    state: ReservationState


# --- people and their tokens -----------------------------------------------------------------------------------------


class PrincipalDeclared(Fact, frozen=True, kw_only=True):
    """A principal and its role bindings, replacing earlier ones."""

    principal: Principal


class TokenIssued(Fact, frozen=True, kw_only=True):
    """A token was issued; the log holds only its digest."""

    token: Token


class TokenRevoked(Fact, frozen=True, kw_only=True):
    """A token works no longer: used up, revoked or expired."""

    digest: str


Event: TypeAlias = (
    PlanApplied
    | PolicyDeclared
    | GpuModelDeclared
    | OwnerDeclared
    | SiteDeclared
    | PoolDeclared
    | QueueDeclared
    | SiteEnrolled
    | SiteConnected
    | SiteSilent
    | PowerCapSet
    | NodeChanged
    | StartPlanned
    | StartGivenUp
    | AdvanceReservationMade
    | AdvanceReservationBegan
    | AdvanceReservationEnded
    | JobSubmitted
    | JobHeld
    | JobReleased
    | JobCancelled
    | AttemptPlaced
    | AttemptStarted
    | StopOrdered
    | AttemptEnded
    | AllocationRecharged
    | ReservationMade
    | ReservationEnded
    | PrincipalDeclared
    | TokenIssued
    | TokenRevoked
)
