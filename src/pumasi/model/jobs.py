"""Jobs: what a user asks for, the states a job goes through, and the exact GPUs an attempt is given."""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from pumasi.model.fleet import CpuArch
from pumasi.model.ids import GpuModelId, OwnerId, PoolId, QueueId, SiteId

OPEN_DATA = "open"  # the data class that needs no clearance
PRIORITY_MAX = 1_000_000


class JobState(StrEnum):
    """States of a job. ACTIVE means that an attempt is live; the last five are terminal and absorb."""

    HELD = "held"
    WAITING = "waiting"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # its time limit ran out
    UNKNOWN_OUTCOME = "unknown_outcome"


TERMINAL_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.UNKNOWN_OUTCOME}
)


class AttemptState(StrEnum):
    """States of one attempt to run a job."""

    PLACED = "placed"  # GPUs are given; the site has yet to start it
    RUNNING = "running"
    STOPPING = "stopping"  # told to stop; GPUs are still its own
    ENDED = "ended"


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"  # it exited by itself; the exit code tells the rest
    TIME_LIMIT = "time_limit"
    RECLAIMED = "reclaimed"
    CANCELLED = "cancelled"
    DRAINED = "drained"
    PREEMPTED = "preempted"  # stopped for work of its own queue that goes before it
    POWER_CUT = "power_cut"
    NODE_FAILED = "node_failed"
    NEVER_STARTED = "never_started"  # the engine refused or lost it before its first instruction
    REFUSED = "refused"  # the site's own policy or its engine forbids it
    LOST = "lost"  # it ran, and nobody can say how it ended


class StopCause(StrEnum):
    """Why an attempt is told to stop."""

    CANCEL = "cancel"
    RECLAIM = "reclaim"
    TIME_LIMIT = "time_limit"
    DRAIN = "drain"
    PREEMPT = "preempt"
    POWER = "power"


OUTCOME_OF_STOP = {
    StopCause.CANCEL: Outcome.CANCELLED,
    StopCause.RECLAIM: Outcome.RECLAIMED,
    StopCause.TIME_LIMIT: Outcome.TIME_LIMIT,
    StopCause.DRAIN: Outcome.DRAINED,
    StopCause.PREEMPT: Outcome.PREEMPTED,
    StopCause.POWER: Outcome.POWER_CUT,
}


class Level(StrEnum):
    """Topology levels below a pool, narrow to wide."""

    RACK = "rack"
    BLOCK = "block"
    POOL = "pool"


class Topology(Struct, frozen=True, kw_only=True, gc=False):
    """How tight a gang must sit: within one `level` if `required`, else as near to that as can be.

    `spread`: within that, its nodes stand in as many racks as can be, so that one fault takes few of them.
    """

    level: Level = Level.POOL
    required: bool = False
    spread: bool = False


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the user asks for. Immutable: a requeued job runs the same spec again, but not where it was refused.

    `gpus` is the whole gang. `gpus_per_node` 0 lets each pool choose: the fewest nodes with the same number on each.
    With a `slice` (a MIG profile such as `1g.23gb`) they are slices of that kind, from a pool cut into such; if it is
    SHARD, they are shards of GPUs that are shared, those on a node of one GPU.
    `segment_nodes` > 0: nodes of the gang that must share one NVLink domain. Durations are seconds. CPUs and
    memory that are not asked for come with the GPUs, in proportion; whoever asks for less has less.
    `prefers`: pools and sites to try first, in this order; it may run at others too.
    """

    name: str
    queue: QueueId
    script: str
    gpus: int
    time_limit_seconds: int
    gpus_per_node: int = 0
    slice: str = ""
    gpu_models: tuple[GpuModelId, ...] = ()
    memory_gib_per_gpu: int = 0
    cpus_per_gpu: int = 0
    cpus_per_node: int = 0
    host_memory_mib_per_gpu: int = 0
    host_memory_mib_per_node: int = 0
    cpu_arch: CpuArch | None = None
    sites: tuple[SiteId, ...] = ()
    pools: tuple[PoolId, ...] = ()
    prefers: tuple[str, ...] = ()
    data_class: str = OPEN_DATA
    stays_home: bool = False  # never leaves a pool its owner is entitled to
    may_borrow: bool = True
    priority: int = 0
    topology: Topology = Topology()
    segment_nodes: int = 0
    requeue: bool = True
    notice_signal: str = "TERM"
    notice_seconds: int = 0  # what the job asks for; the lending contract decides
    checkpoint_seconds: int = 0  # how often it saves its work; 0: never
    environment: dict[str, str] = {}
    working_directory: str = ""
    stdout: str = ""
    stderr: str = ""
    begin_at_ms: int = 0
    refused_by: tuple[PoolId, ...] = ()  # what its user does not say: pools whose sites have refused it


def not_again(spec: JobSpec, pool: PoolId) -> JobSpec:
    """The spec of a job that a pool's site has refused."""
    return replace(spec, refused_by=(*spec.refused_by, pool))


class Span(Struct, frozen=True, array_like=True, gc=False):
    """`nodes` neighbouring nodes of a pool from index `first`, on each the same GPUs (`gpu_mask`, bit i = GPU i).

    `cpus` and `memory_mib`: what it has of each node beside them; 0: the share of its GPUs.
    """

    first: int
    nodes: int
    gpu_mask: int
    cpus: int = 0
    memory_mib: int = 0

    @property
    def gpus(self) -> int:
        """GPUs in the span."""
        return self.nodes * self.gpu_mask.bit_count()


class Charge(Struct, frozen=True, array_like=True, gc=False):
    """Whose entitlement an allocation uses, in GPUs: the job's own owner (home) or a lender (borrowed)."""

    owner: OwnerId
    gpus: int


def overlap(some: tuple[Span, ...], others: tuple[Span, ...]) -> bool:
    """True if two allocations in a pool have a GPU in common."""
    return any(
        one.gpu_mask & other.gpu_mask and one.first < other.first + other.nodes and other.first < one.first + one.nodes
        for one in some
        for other in others
    )


def span_gpus(spans: tuple[Span, ...]) -> int:
    """GPUs in all `spans`."""
    if len(spans) == 1:
        return spans[0].nodes * spans[0].gpu_mask.bit_count()
    return sum([span.nodes * span.gpu_mask.bit_count() for span in spans])


def gpus_on_each_node(gpus: int, wanted_per_node: int, node_gpus: int) -> int:
    """GPUs a gang takes on each node of a pool with `node_gpus` per node; 0 if they cannot hold it evenly."""
    if wanted_per_node:
        return wanted_per_node if wanted_per_node <= node_gpus and gpus % wanted_per_node == 0 else 0
    return next(each for each in range(min(gpus, node_gpus), 0, -1) if gpus % each == 0)
