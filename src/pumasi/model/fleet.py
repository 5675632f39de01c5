"""The fleet as declared: GPU models, owners, lending contracts, sites, pools and queues."""

import re
from collections.abc import Iterable
from enum import StrEnum
from itertools import accumulate, pairwise

from msgspec import Struct, field

from pumasi.model.ids import GpuModelId, OwnerId, PoolId, QueueId, SiteId

MAX_GPUS_PER_NODE = 63  # slices, if they are cut: a mask of them fits a signed word of 64 bits
SLICES_PER_GPU_MAX = 7  # of every GPU made
PARTS_PER_GPU = 420  # the least number that 1 to 7 divide: sums over pools count in such parts, so that they are exact
SHARD = "shard"  # in place of a profile: GPUs are not cut but shared by count
SHARDS_PER_GPU = tuple(count for count in range(2, MAX_GPUS_PER_NODE + 1) if PARTS_PER_GPU % count == 0)

_SLICE = re.compile(r"[1-9]g\.([0-9]{1,4})gb(\+[a-z.]+)*")


def is_slice(text: str) -> bool:
    """True if `text` is written as the profile of a slice is, such as `1g.23gb` or `1g.24gb+gfx`."""
    return _SLICE.fullmatch(text) is not None


class Stage(StrEnum):
    """How far a pool has come from promise to use, in order (national programmes confuse these; we never do)."""

    ANNOUNCED = "announced"
    ORDERED = "ordered"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    IN_SERVICE = "in_service"


class OwnerKind(StrEnum):
    """What an owner is, as lending rules speak of it."""

    PUBLIC = "public"
    COMMERCIAL = "commercial"
    FOREIGN = "foreign"


class Engine(StrEnum):
    """What runs the jobs of a site."""

    LOCAL = "local"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"
    RAY = "ray"


class CpuArch(StrEnum):
    """Instruction set of a node's CPUs; container images and binaries are built for one."""

    X86_64 = "x86_64"
    ARM64 = "arm64"


def gpus_of(parts: int) -> int:
    """An amount in parts of a GPU as GPUs, rounded up."""
    return -(-parts // PARTS_PER_GPU)


def whole_gpus(parts: Iterable[int]) -> list[int]:
    """Amounts in parts of a GPU as GPUs: the sum up to each is rounded up, so that together they are what they were."""
    sums = map(gpus_of, accumulate(parts))
    return [total - before for before, total in pairwise((0, *sums))]


class MigProfile(Struct, frozen=True):
    """A slice of a GPU its model can be cut into: name such as `1g.23gb`, and how many fit on one GPU."""

    name: str
    per_gpu: int

    @property
    def memory_gib(self) -> int:
        """Memory of such a slice, as its name says."""
        found = _SLICE.fullmatch(self.name)
        return int(found[1]) if found else 0


class GpuModel(Struct, frozen=True, kw_only=True):
    """What the scheduler must know of a GPU model. `nvlink_nodes`: nodes that form one NVLink domain (18 for NVL72)."""

    id: GpuModelId
    title: str
    gpus_per_node: int
    nvlink_nodes: int
    memory_gib: int
    cpu_arch: CpuArch
    gpu_watts: int
    planning_watts: int  # IT power per GPU with its share of the node, for megawatt sums
    mig_profiles: tuple[MigProfile, ...] = ()

    def profile(self, name: str) -> MigProfile | None:
        """The profile of that name, if its GPUs can be cut so."""
        return next((profile for profile in self.mig_profiles if profile.name == name), None)


class CalendarWindow(Struct, frozen=True, kw_only=True):
    """A weekly window in Korean time: `days` 0 (Monday) to 6, from minute to minute of the day (end exclusive)."""

    days: tuple[int, ...]
    from_minute: int
    to_minute: int


class LendingContract(Struct, frozen=True, kw_only=True):
    """By what rules an owner lends what it leaves idle, and how fast it gets it back.

    The default is the safe one: nothing is lent. `lending_limits` overrides `lendable_percent` for the pools it names
    (GPUs; 0 = ring-fenced). An empty `windows` means at any time. `evicted_percent_max`: the GPUs of the jobs that may
    be stopped for a claim of the owner, in percent of those it claims; it waits where that does not do. 0: its claims
    are met within the window, whatever must stop for them.
    """

    lendable_percent: int = 0
    lending_limits: dict[PoolId, int] = {}
    refuses_owners: tuple[OwnerId, ...] = ()
    refuses_kinds: tuple[OwnerKind, ...] = ()
    windows: tuple[CalendarWindow, ...] = ()
    notice_seconds: int = 300
    protected_seconds: int = 0
    teardown_seconds: int = 120
    evicted_percent_max: int = 0

    @property
    def reclaim_window_seconds(self) -> int:
        """The longest time from an owner's request to its GPUs being free: the promise that is recorded and checked."""
        return max(self.notice_seconds, self.protected_seconds) + self.teardown_seconds


class Owner(Struct, frozen=True, kw_only=True):
    """An organisation that contributes GPUs or is due some."""

    id: OwnerId
    title: str
    kind: OwnerKind
    lending: LendingContract = LendingContract()


class Site(Struct, frozen=True, kw_only=True):
    """A data centre with one engine. `clearances`: data classes it may hold; `open` needs no clearance."""

    id: SiteId
    title: str
    operator: OwnerId
    region: str = ""
    engine: Engine = Engine.LOCAL
    power_cap_kilowatts: int = 0  # 0: not capped
    clearances: tuple[str, ...] = ()


class Pool(Struct, frozen=True, kw_only=True):
    """Homogeneous nodes of one GPU model at a site. `owner` contributed them; `entitlements` says who is due how many.

    A pool may be cut: each of its GPUs into `slices_per_gpu` slices of one MIG profile, `slice`. What is given, counted
    and entitled there are slices, and wherever this or another part of the fleet speaks of GPUs in such a pool, those
    are meant. Only what adds up pools turns them into GPUs (`whole_gpus`, `parts`).
    Or its GPUs are shared: `slice` is SHARD, and `slices_per_gpu` shards of each are given out. They are counted as
    slices are; but nothing divides the GPU, and what a job has of a node are shards of one GPU.
    `stages` maps a stage to the date (ISO, "2027-12-31") it is planned for or was reached.
    """

    id: PoolId
    site: SiteId
    model: GpuModelId
    owner: OwnerId
    nodes: int
    gpus_per_node: int
    nodes_per_rack: int
    racks_per_block: int
    entitlements: dict[OwnerId, int]
    stages: dict[Stage, str] = {}
    cpus_per_node: int = 0
    memory_mib_per_node: int = 0
    slice: str = ""
    slices_per_gpu: int = 1

    @property
    def is_shared(self) -> bool:
        """True if its GPUs are shared by count."""
        return self.slice == SHARD

    @property
    def gpus(self) -> int:
        """All GPUs of the pool (slices, if it is cut), healthy or not."""
        return self.nodes * self.gpus_per_node

    @property
    def whole_gpus(self) -> int:
        """All GPUs of the pool, however they are cut."""
        return self.gpus // self.slices_per_gpu

    def parts(self, gpus: int) -> int:
        """So many GPUs (slices) of the pool in parts of a GPU (`PARTS_PER_GPU`), which add up over pools."""
        return gpus * (PARTS_PER_GPU // self.slices_per_gpu)


def stage_of(pool: Pool, date: str) -> Stage:
    """The furthest stage `pool` has reached by `date` (ISO, inclusive). Its plan alone makes a pool announced."""
    reached = [stage for stage in Stage if stage in pool.stages and pool.stages[stage] <= date]
    return reached[-1] if reached else Stage.ANNOUNCED


class Quota(Struct, frozen=True, kw_only=True):
    """A queue's share of a pool in GPUs, as in Kueue. None: no limit of its own. Lending limit 0: ring-fenced."""

    nominal: int = 0
    borrowing_limit: int | None = None
    lending_limit: int | None = None


class Preemption(StrEnum):
    """Whether waiting work of a queue may stop running work of lower priority in it and below it."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"


class QueueOrder(StrEnum):
    """Whether a job that cannot start lets those behind it in its queue pass (as Kueue's queueing strategies)."""

    BEST_EFFORT = "best_effort"
    STRICT = "strict"


class Queue(Struct, frozen=True, kw_only=True):
    """A node in an owner's tree of groups and projects. The root queue has the owner's id and its entitlements."""

    id: QueueId
    title: str = ""
    weight: int = 1
    industry: str = ""
    quotas: dict[PoolId, Quota] = {}
    preemption: Preemption = Preemption.NEVER
    order: QueueOrder = QueueOrder.BEST_EFFORT


class Work(Struct, frozen=True, kw_only=True):
    """The work a rule is about: jobs of which everything that is given holds. `queues`: these and all below them."""

    data_classes: tuple[str, ...] = ()
    owners: tuple[OwnerId, ...] = ()
    owner_kinds: tuple[OwnerKind, ...] = ()
    queues: tuple[QueueId, ...] = ()


class Place(Struct, frozen=True, kw_only=True):
    """Pools of which everything that is given holds. `home`: the job's owner is entitled to GPUs there, or is not."""

    pools: tuple[PoolId, ...] = ()
    sites: tuple[SiteId, ...] = ()
    regions: tuple[str, ...] = ()
    operators: tuple[OwnerId, ...] = ()
    operator_kinds: tuple[OwnerKind, ...] = ()
    home: bool | None = None


class PlacementRule(Struct, frozen=True, kw_only=True):
    """Such work may run `only_at` such places, or `not_at` them, from `from_day` to `until_day`.

    Days are Korean ones, in ISO form; the last is not in it; empty: from ever, or for ever.
    """

    id: str
    title: str
    work: Work = Work()
    only_at: Place | None = None
    not_at: Place | None = None
    from_day: str = ""
    until_day: str = ""

    def is_in_force(self, day: str) -> bool:
        """True on a Korean day (ISO)."""
        return self.from_day <= day and (not self.until_day or day < self.until_day)


class BorrowOrder(StrEnum):
    """Who borrows first when several want what is idle.

    CREDIT: who has lent most and borrowed least for what it is entitled to. MAX_MIN: who borrows least for that at the
    moment; nothing is remembered.
    """

    CREDIT = "credit"
    MAX_MIN = "max_min"


class PoolOrder(StrEnum):
    """What makes a pool worth trying before another, among those with room that may run a job.

    HOME: the job's owner is entitled to GPUs there. SITE: its owner operates the site. POWER: its GPUs draw less, by
    the planning figure of their model.
    """

    HOME = "home"
    SITE = "site"
    POWER = "power"


class Policy(Struct, frozen=True, kw_only=True):
    """Rules of the whole fleet; versioned so that every decision can name the rules it was made under.

    `pool_order`: which pools are tried first, the first that tells two apart decides. `fast_failure_seconds`: what
    fails sooner after its start may be the node's fault (0: no node is ever blamed); at most `quarantine_percent_max`
    of a site's nodes, or one, are out of work for that without an operator (0: none). `rules`: what work may run where.
    They are about what starts: what runs when one comes into force runs on.
    """

    version: str = "1"
    usage_half_life_seconds: int = 7 * 24 * 3600
    link_silent_seconds: int = 60
    requeue_limit: int = 20
    preemption_limit: int = 5  # so often a job is stopped for work of its own owner, and then no more
    run_silent_seconds: int = 600  # an active job that its site has not named for so long is told of
    fast_failure_seconds: int = 30
    quarantine_percent_max: int = 5
    default_time_limit_seconds: int = 24 * 3600
    borrow_order: BorrowOrder = BorrowOrder.CREDIT
    pool_order: tuple[PoolOrder, ...] = (PoolOrder.HOME,)
    rules: tuple[PlacementRule, ...] = ()
    planned_starts: int = 4  # waiting jobs in each pool whose start is planned, so that nothing delays it


class FleetPlan(Struct, frozen=True, kw_only=True):
    """A whole fleet as a plan file declares it; every reference is by id and has been checked by the reader."""

    name: str
    gpu_models: tuple[GpuModel, ...]
    owners: tuple[Owner, ...]
    sites: tuple[Site, ...]
    pools: tuple[Pool, ...]
    queues: tuple[Queue, ...]
    policy: Policy = field(default_factory=Policy)
