"""What an agent and the control plane say to each other.

The agent syncs in a loop: it reports what happened and is answered, at once or when something comes up, with what is to
be done. Everything may be repeated: an order for a run the agent knows is no news, a report the control plane has is
acknowledged again. Times cross the wire as durations, so that clocks need not agree.
"""

from msgspec import Struct

from pumasi.events.facts import NodeState
from pumasi.model.ids import JobId, PoolId, PrincipalId, SiteId
from pumasi.model.jobs import Outcome, Span, StopCause

PROTOCOL_VERSION = 1


class RunKey(Struct, frozen=True, order=True, gc=False):
    """One attempt of one job: what a run is known by on both sides."""

    job: JobId
    attempt: int

    def tag(self, fleet: str) -> str:
        """The only name an engine ever sees; unique for ever within a fleet."""
        return f"pumasi-{fleet}-{self.job}-{self.attempt}"


class Enrolment(Struct, frozen=True, kw_only=True, gc=False):
    """An agent's request to speak for a site. `proof`: signature of `token` by the key (base64url)."""

    site: SiteId
    token: str
    public_key: str
    proof: str


class Enrolled(Struct, frozen=True, kw_only=True, gc=False):
    """The answer: the agent's generation, which every later call carries; an older one is refused as a clone."""

    fleet: str
    generation: int


class StartOrder(Struct, frozen=True, kw_only=True, gc=False):
    """Start a run on exactly these GPUs. `was_running`: the agent itself reported its start; if unknown to it, lost.

    `slice`: the MIG profile they are slices of, or SHARD; empty if they are whole. `slices_per_gpu` make a GPU.
    """

    run: RunKey
    name: str
    user: PrincipalId
    queue: str
    pool: PoolId
    spans: tuple[Span, ...]
    script: str
    environment: dict[str, str]
    working_directory: str
    stdout: str
    stderr: str
    time_limit_seconds: int
    notice_signal: str
    data_class: str = "open"
    slice: str = ""
    slices_per_gpu: int = 1
    was_running: bool = False


class StopOrder(Struct, frozen=True, kw_only=True, gc=False):
    """Stop a run: send it its notice signal now and kill what is left of it in `kill_in_ms`."""

    run: RunKey
    cause: StopCause
    kill_in_ms: int


class LogRequest(Struct, frozen=True, kw_only=True, gc=False):
    """Somebody reads a run's output: at most `limit` bytes of `stream` ("stdout" or "stderr") from `offset`."""

    id: str
    run: RunKey
    stream: str
    offset: int
    limit: int


class LogChunk(Struct, frozen=True, kw_only=True, gc=False):
    """The answer. `data`: base64. `size`: bytes there are now. `complete`: the run is over and will write no more."""

    id: str
    data: str
    size: int
    complete: bool
    problem: str = ""


class RunStarted(Struct, frozen=True, kw_only=True, tag=True, gc=False):
    """The engine runs it."""

    run: RunKey


class RunEnded(Struct, frozen=True, kw_only=True, tag=True, gc=False):
    """It is over and nothing of it is left. `signal`: what killed it, 0 if it exited by itself."""

    run: RunKey
    outcome: Outcome
    exit_code: int = 0
    signal: int = 0
    detail: str = ""


Report = RunStarted | RunEnded


class NodeReport(Struct, frozen=True, kw_only=True, gc=False):
    """`nodes` neighbouring nodes of a pool, from index `first`, that the site keeps from work, and why."""

    pool: PoolId
    first: int
    nodes: int
    state: NodeState
    reason: str = ""


class NodeHealth(Struct, frozen=True, kw_only=True, gc=False):
    """How the site's nodes are: all nodes of `pools` are up but those in `ailing`. All of it, not what has changed."""

    pools: tuple[PoolId, ...]
    ailing: tuple[NodeReport, ...] = ()


class SyncRequest(Struct, frozen=True, kw_only=True, gc=False):
    """What happened since the last sync. `after_seq`: the last `SyncResponse.seq` acted on; 0 asks for everything.

    `nodes`: None if there is nothing new to say of them. `runs`: a roll call, all runs that the site has and that are
    not over, after its engine was asked; None if it is not time for one.
    """

    after_seq: int
    reports: tuple[Report, ...] = ()
    nodes: NodeHealth | None = None
    runs: tuple[RunKey, ...] | None = None
    log_chunks: tuple[LogChunk, ...] = ()
    wait_seconds: int = 0


class SyncResponse(Struct, frozen=True, kw_only=True, gc=False):
    """What is to be done. `whole`: these are all runs the site should have; any other run of ours is to be ended."""

    seq: int
    whole: bool
    starts: tuple[StartOrder, ...] = ()
    stops: tuple[StopOrder, ...] = ()
    log_requests: tuple[LogRequest, ...] = ()
