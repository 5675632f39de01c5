"""What can be asked of the control plane. Secrets are made by the caller; only their digests come here."""

from msgspec import Struct

from pumasi.events.facts import NodeState
from pumasi.model.access import Principal, Token
from pumasi.model.fleet import FleetPlan
from pumasi.model.ids import JobId, PoolId, PrincipalId, QueueId, SiteId
from pumasi.model.jobs import JobSpec
from pumasi.model.reservations import ReservationId, ReservationPurpose
from pumasi.protocol.messages import NodeHealth, Report, RunKey


class Command(Struct, frozen=True, kw_only=True):
    """What all commands share: who asks."""

    by: PrincipalId


class SubmitJobs(Command, frozen=True, kw_only=True):
    """Take jobs, all or none. Answered with their ids. `request`: idempotency key, "" for none; scoped by principal."""

    specs: tuple[JobSpec, ...]
    held: bool = False
    request: str = ""
    request_hash: str = ""


class CancelJob(Command, frozen=True, kw_only=True):
    """Cancel a job; an active one gets its notice signal and is killed after its grace."""

    job: JobId


class HoldJob(Command, frozen=True, kw_only=True):
    """Keep a waiting job from starting."""

    job: JobId


class ReleaseJob(Command, frozen=True, kw_only=True):
    """Let a held job wait again."""

    job: JobId


class SetNodeState(Command, frozen=True, kw_only=True):
    """Drain, resume or give up nodes of a pool. A node that is down loses what it runs."""

    pool: PoolId
    nodes: tuple[int, ...]
    state: NodeState
    reason: str = ""


class SetPowerCap(Command, frozen=True, kw_only=True):
    """Let a site draw at most so many kilowatts (0: what its plan says). Within `notice_seconds` it is down to it."""

    site: SiteId
    kilowatts: int
    notice_seconds: int


class MakeReservation(Command, frozen=True, kw_only=True):
    """Reserve whole nodes of a pool in advance: `nodes` or `gpus` of them, or those of `node_indices`; from `start_ms`,
    or now if that is 0. `ignore_running`: maintenance although jobs may run on these nodes when it begins.
    """

    name: ReservationId
    purpose: ReservationPurpose
    pool: PoolId
    duration_seconds: int
    start_ms: int = 0
    nodes: int = 0
    gpus: int = 0
    node_indices: tuple[int, ...] = ()
    queue: QueueId = ""
    ignore_running: bool = False
    reason: str = ""


class DeleteReservation(Command, frozen=True, kw_only=True):
    """Cancel a reservation, or end it now."""

    name: ReservationId


class ApplyPlan(Command, frozen=True, kw_only=True):
    """Make the fleet what the plan says, with the stages it gives for `as_of` (ISO date). `dry_run` changes nothing."""

    plan: FleetPlan
    as_of: str
    dry_run: bool = False


class DeclarePrincipal(Command, frozen=True, kw_only=True):
    """Add a principal or replace its role bindings."""

    principal: Principal


class IssueToken(Command, frozen=True, kw_only=True):
    """Record a token by its digest."""

    token: Token


class RevokeToken(Command, frozen=True, kw_only=True):
    """Make a token worthless."""

    digest: str


class EnrolSite(Command, frozen=True, kw_only=True):
    """An agent proved a one-use token (its digest) and the key it will sign with."""

    site: SiteId
    public_key: str
    used_up: str


class HearSite(Command, frozen=True, kw_only=True):
    """A site's agent called; what it reports about runs of that site is recorded, what is stale is passed over.

    `nodes`: how its nodes are, if it says so. `runs`: all runs it has, if it says so.
    """

    site: SiteId
    reports: tuple[Report, ...] = ()
    nodes: NodeHealth | None = None
    runs: tuple[RunKey, ...] | None = None
