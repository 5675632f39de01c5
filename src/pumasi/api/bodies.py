"""The bodies and queries the API takes. A type both checks requests and is what the OpenAPI document says of them."""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct, field

from pumasi.api.strict_json import INTEGER_LIMIT
from pumasi.model.access import Role, TokenKind
from pumasi.model.jobs import PRIORITY_MAX, JobSpec, Level, Topology
from pumasi.model.reservations import ReservationPurpose

BATCH_LIMIT = 10_000
PAGE_LIMIT = 1000
PAGE_DEFAULT = 100

# No control characters: what people and log files read must stay on its line. `\Z`, for `$` lets a last newline pass.
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
_TEXT = r"^[^\x00]*\Z"  # no NUL: no engine can pass one on
_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
_PATH = r"^[a-z0-9]([a-z0-9/-]*[a-z0-9])?\Z"
_PRINCIPAL = r"^[a-z0-9]([a-z0-9._@-]{0,126}[a-z0-9])?\Z"
_SCOPE = r"^(\*|(site:)?[a-z0-9]([a-z0-9/-]*[a-z0-9])?)\Z"
_SIGNAL = r"^[A-Z0-9+-]{1,20}\Z"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
_STREAM = r"^(stdout|stderr|accounts)\Z"
_SLICE = r"^([1-9]g\.[0-9]{1,4}gb(\+[a-z.]+)*|shard)?\Z"
_DATE = r"^(\d{4}-\d{2}-\d{2})?\Z"

PATTERN_WORDS: dict[str, str] = {
    _LINE: "it must be one line without control characters",
    _TEXT: "it must not hold NUL characters",
    _NAME: "a name is 1 to 63 of a-z, 0-9 and inner hyphens",
    _PATH: "a queue is a path of names joined by /, such as public/academia",
    _PRINCIPAL: "it is 1 to 128 of a-z, 0-9 and inner . _ @ -",
    _SCOPE: "a scope is *, a queue path or site:<id>",
    _SIGNAL: "a signal is a name in capitals, such as TERM or USR1",
    _VARIABLE: "a variable's name is of letters, digits and _, and begins with none of the digits",
    _STREAM: "it is stdout, stderr or accounts",
    _SLICE: "a slice is a MIG profile, such as 1g.23gb, or shard",
    _DATE: "a date is written as 2026-11-25",
}

Name: TypeAlias = Annotated[str, Meta(pattern=_NAME, max_length=63)]
QueuePath: TypeAlias = Annotated[str, Meta(pattern=_PATH, max_length=512)]
PrincipalName: TypeAlias = Annotated[str, Meta(pattern=_PRINCIPAL, max_length=128)]
Line: TypeAlias = Annotated[str, Meta(pattern=_LINE, max_length=1024)]
JobName: TypeAlias = Annotated[str, Meta(pattern=_LINE, min_length=1, max_length=200)]
Title: TypeAlias = Annotated[str, Meta(pattern=_LINE, max_length=200)]
Script: TypeAlias = Annotated[str, Meta(pattern=_TEXT, min_length=1, max_length=256 * 1024)]
VariableName: TypeAlias = Annotated[str, Meta(pattern=_VARIABLE, max_length=256)]
VariableValue: TypeAlias = Annotated[str, Meta(pattern=_TEXT, max_length=32 * 1024)]
Slice: TypeAlias = Annotated[str, Meta(pattern=_SLICE, max_length=40)]
Signal: TypeAlias = Annotated[str, Meta(pattern=_SIGNAL)]

Gpus: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]
Mebibytes: TypeAlias = Annotated[int, Meta(ge=0, le=10_000_000)]
Seconds: TypeAlias = Annotated[int, Meta(ge=0, le=366 * 24 * 3600)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_LIMIT)]
Priority: TypeAlias = Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]
Few: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=1000)]
Nobody: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=0)]


class TopologyBody(Topology, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tight a gang must sit: within one `level` if `required`, else as near to that as can be.

    `spread`: within that, its nodes stand in as many racks as can be, so that one fault takes few of them.
    """

    level: Level = Level.POOL
    required: bool = False
    spread: bool = False


class JobBody(JobSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to submit. `gpus` is the whole gang; times are seconds; `time_limit_seconds` 0 takes the fleet's default.

    With a `slice`, a MIG profile such as `1g.23gb`, its GPUs are slices of that kind; with `shard`, shards of shared
    GPUs, those on a node of one.

    `held`: it waits only once released. `begin_at_ms`: Unix milliseconds before which it does not start, at most a
    day past.
    """

    name: JobName
    queue: QueuePath
    script: Script
    gpus: Gpus
    time_limit_seconds: Seconds = 0
    gpus_per_node: Count = 0
    slice: Slice = ""
    gpu_models: Few = ()
    memory_gib_per_gpu: Count = 0
    cpus_per_gpu: Count = 0
    cpus_per_node: Count = 0
    host_memory_mib_per_gpu: Mebibytes = 0
    host_memory_mib_per_node: Mebibytes = 0
    sites: Few = ()
    pools: Few = ()
    prefers: Few = ()
    data_class: Name = "open"
    priority: Priority = 0
    topology: TopologyBody = TopologyBody()
    segment_nodes: Count = 0
    notice_signal: Signal = "TERM"
    notice_seconds: Seconds = 0
    checkpoint_seconds: Seconds = 0
    environment: Annotated[dict[VariableName, VariableValue], Meta(max_length=1000)] = field(default_factory=dict)
    working_directory: Line = ""
    stdout: Line = ""
    stderr: Line = ""
    begin_at_ms: Milliseconds = 0
    refused_by: Nobody = ()  # the sites' word; a job that is submitted has not been refused
    held: bool = False


class BatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs to submit, all or none. All of them are held, or none is."""

    jobs: Annotated[tuple[JobBody, ...], Meta(min_length=1, max_length=BATCH_LIMIT)]


class ReasonBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a node is drained."""

    reason: Annotated[str, Meta(pattern=_LINE, min_length=1, max_length=500)]


class PowerBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site may draw: `kilowatts`, 0 for what its plan says. After `notice_seconds` it draws no more."""

    kilowatts: Annotated[int, Meta(ge=0, le=10_000_000)]
    notice_seconds: Annotated[int, Meta(ge=1, le=24 * 3600)] = 300


class ReservationBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whole nodes of a pool to reserve: how many `nodes`, how many `gpus` (slices, if the pool is cut), or which, as a
    `node_list` such as `pool-[00001-00004]`. `start_at_ms`: Unix milliseconds, 0 for now. `queue`: whom an award or a
    hand-over is for. `ignore_running`: maintenance of the nodes listed although jobs may run on when it begins.
    """

    name: Name
    purpose: ReservationPurpose
    pool: Name
    duration_seconds: Annotated[int, Meta(ge=1, le=10 * 366 * 24 * 3600)]
    start_at_ms: Milliseconds = 0
    nodes: Count = 0
    gpus: Count = 0
    node_list: Annotated[str, Meta(pattern=_LINE, max_length=16 * 1024)] = ""
    queue: Annotated[str, Meta(max_length=512)] = ""
    ignore_running: bool = False
    reason: Annotated[str, Meta(pattern=_LINE, max_length=500)] = ""


class SetupBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one-use setup token, and who becomes the first fleet admin."""

    token: Annotated[str, Meta(max_length=200)]
    principal: PrincipalName
    title: Title = ""


class BindingBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A role at a scope: `*`, a queue path (an owner is one), or `site:<id>`."""

    role: Role
    scope: Annotated[str, Meta(pattern=_SCOPE, max_length=520)]


class PrincipalBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person or service and all its role bindings; they replace earlier ones."""

    id: PrincipalName
    title: Title = ""
    bindings: Annotated[tuple[BindingBody, ...], Meta(max_length=100)] = ()


class TokenBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to issue. `principal`: the caller if empty. `site`: for kind `enrol`. `lifetime_seconds` 0: default."""

    kind: TokenKind = TokenKind.PERSONAL
    principal: Annotated[str, Meta(max_length=128)] = ""
    site: Annotated[str, Meta(max_length=63)] = ""
    lifetime_seconds: Seconds = 0


class NoQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A route without query parameters."""


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a list. `cursor`: `next_cursor` of the page before."""

    limit: Limit = PAGE_DEFAULT
    cursor: str = ""


class NodesQuery(PageQuery, frozen=True, kw_only=True):
    """Which nodes. `state` may repeat: idle, mix, alloc, drain, drng, down, planned."""

    pool: str = ""
    state: tuple[str, ...] = ()


class JobsQuery(PageQuery, frozen=True, kw_only=True):
    """Which jobs. `state` may repeat and knows `live` and `ended` too; `queue` takes all queues below it along."""

    state: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    user: str = ""
    site: str = ""


class AllocationsQuery(PageQuery, frozen=True, kw_only=True):
    """Which allocations. `owner`: it uses them, or they count on its entitlement."""

    pool: str = ""
    owner: str = ""


class LogQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a job's output from byte `offset`. `wait_seconds`: how long to wait for more if there is none.

    `stream`: `stdout`, `stderr`, or `accounts`: what the site's own accounting has of it, as a table.
    """

    stream: Annotated[str, Meta(pattern=_STREAM)] = "stdout"
    offset: Milliseconds = 0
    limit: Annotated[int, Meta(ge=1, le=1 << 20)] = 1 << 16
    wait_seconds: Annotated[int, Meta(ge=0, le=60)] = 0
    attempt: Count = 0


class UsageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Usage over whole Korean days. `from`, `until`: dates, or moments at a midnight in Korea. `by`: comma list."""

    from_: str = ""
    until: str = ""
    by: str = "owner"


class ReclaimsQuery(PageQuery, frozen=True, kw_only=True):
    """Which reclaims."""

    owner: str = ""
    pool: str = ""


class PlanQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`as_of`: the date whose stages count (today if empty). `dry_run`: say what would change, and change nothing."""

    as_of: Annotated[str, Meta(pattern=_DATE)] = ""
    dry_run: bool = False


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events after sequence number `after`; from now on if it is absent. The Last-Event-ID header goes before it."""

    after: Milliseconds | None = None


def spec_of(body: JobBody, default_time_limit_seconds: int) -> JobSpec:
    """What the log keeps of a submitted job."""
    fields = {name: getattr(body, name) for name in JobSpec.__struct_fields__}
    topology = body.topology
    fields["topology"] = Topology(level=topology.level, required=topology.required, spread=topology.spread)
    fields["time_limit_seconds"] = body.time_limit_seconds or default_time_limit_seconds
    return JobSpec(**fields)
