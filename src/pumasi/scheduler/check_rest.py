"""The judge's rules about CPUs and memory: no node gives more than it has, what is promised comes with its share."""

from collections.abc import Iterator
from fractions import Fraction

from msgspec.structs import replace

from pumasi.events.facts import AttemptPlaced, ReservationMade, StartPlanned
from pumasi.model.fleet import Pool
from pumasi.model.ids import queue_owner
from pumasi.model.jobs import JobSpec, Span, gpus_on_each_node
from pumasi.scheduler.check_backfill import end_ms
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job

_ASKS = ("cpus_per_gpu", "cpus_per_node", "host_memory_mib_per_gpu", "host_memory_mib_per_node")

Rest = tuple[Fraction, Fraction]  # CPUs and MiB of a node


def may_ask(pool: Pool, spec: JobSpec) -> bool:
    """More than the share of its GPUs is for an owner that is entitled to the pool alone, and no more than there is."""
    shares = _share(pool, gpus_on_each_node(spec.gpus, spec.gpus_per_node, pool.gpus_per_node))
    is_alone = all(owner == queue_owner(spec.queue) for owner, gpus in pool.entitlements.items() if gpus)
    wholes = (pool.cpus_per_node, pool.memory_mib_per_node)
    return all(
        not whole or asked <= share or (is_alone and asked <= whole)
        for asked, share, whole in zip(_asked(pool, spec), shares, wholes, strict=True)
    )


def takes_more(pool: Pool, spec: JobSpec) -> bool:
    """True if the job takes more of a node than comes with its GPUs there."""
    shares = _share(pool, gpus_on_each_node(spec.gpus, spec.gpus_per_node, pool.gpus_per_node))
    counted = (pool.cpus_per_node, pool.memory_mib_per_node)
    return any(whole and asked > share for asked, share, whole in zip(_asked(pool, spec), shares, counted, strict=True))


def nodes_short_for_others(pool: Pool, job: Job) -> set[int]:
    """The nodes of which a live job has more CPUs or memory than come with its GPUs there."""
    wholes = (pool.cpus_per_node, pool.memory_mib_per_node)
    return {
        node
        for span in job.attempts[-1].spans
        for had, come, whole in zip(
            (span.cpus, span.memory_mib), _share(pool, span.gpu_mask.bit_count()), wholes, strict=True
        )
        if whole and had > come
        for node in _nodes(span)
    }


def placed_with_rest(state: FleetState, event: AttemptPlaced) -> Iterator[str]:
    """A job gets what it asks for, out of what is left, and takes no more than its share where anything is promised."""
    job, declared = state.jobs[event.job], state.pools[event.pool].declared
    nodes = [node for span in event.spans for node in range(span.first, span.first + span.nodes)]
    for span in event.spans:
        if not _is_given(declared, job.spec, span):
            yield f"job {job.id} asks {_asked(declared, job.spec)} CPUs and MiB a node and gets {span}"
    has_enough, kept = enough(state, job.spec, event.pool), promised_nodes(state, event.pool)
    for node in nodes:
        if node not in has_enough:
            yield f"job {job.id} is placed on node {node} of {event.pool}, which lacks CPUs or memory for it"
        if takes_more(declared, job.spec) and node in kept:
            yield f"job {job.id} takes more than its share of node {node}, where something is promised"


def promised_with_rest(state: FleetState, event: ReservationMade | StartPlanned, at_ms: int) -> Iterator[str]:
    """By the time of a promise nobody is left there who takes more than its share, or the GPUs are free with theirs."""
    spec, declared = state.jobs[event.job].spec, state.pools[event.pool].declared
    if takes_more(declared, spec):
        yield f"job {event.job} takes more than its share, and is promised {event.spans}"
    staying = [job for job in _live(state, event.pool) if end_ms(job) > at_ms]
    tight = {node for job in staying for node in nodes_short_for_others(declared, job)}
    bare = replace(spec, **dict.fromkeys(_ASKS, 0))
    has_enough, used = enough(state, bare, event.pool), state.occupancy[event.pool].used
    for span in event.spans:
        for node in tight.intersection(_nodes(span)):
            if used[node] & span.gpu_mask or node not in has_enough:
                yield f"job {event.job} is promised node {node}, where somebody takes more than its share"


def enough(state: FleetState, spec: JobSpec, pool: str) -> set[int]:
    """The nodes of a pool that have the CPUs and the memory for the job left, whatever GPUs are free."""
    declared, occupancy = state.pools[pool].declared, state.occupancy[pool]
    if not (declared.cpus_per_node or declared.memory_mib_per_node):
        return set(range(declared.nodes))
    kept = [(held & ~used).bit_count() for held, used in zip(occupancy.reserved, occupancy.used, strict=True)]
    left = [_share(declared, declared.gpus_per_node - gpus) for gpus in kept]
    for span in (span for job in _live(state, pool) for span in job.attempts[-1].spans):
        for node in _nodes(span):
            taken = _or_share(declared, (span.cpus, span.memory_mib), span.gpu_mask.bit_count())
            left[node] = (left[node][0] - taken[0], left[node][1] - taken[1])
    each = gpus_on_each_node(spec.gpus, spec.gpus_per_node, declared.gpus_per_node)
    cpus, memory_mib = _or_share(declared, _asked(declared, spec), each)
    return {node for node, had in enumerate(left) if had[0] >= cpus and had[1] >= memory_mib}


def promised_nodes(state: FleetState, pool: str) -> set[int]:
    """The nodes of a pool on which anything is reserved, or a start is planned."""
    promised = [start.spans for start in state.planned.values() if start.pool == pool]
    promised += [held.spans for held in state.reservations.values() if held.pool == pool]
    return {node for spans in promised for span in spans for node in _nodes(span)}


def _asked(pool: Pool, spec: JobSpec) -> tuple[int, int]:
    each = gpus_on_each_node(spec.gpus, spec.gpus_per_node, pool.gpus_per_node)
    cpus = max(spec.cpus_per_node, spec.cpus_per_gpu * each)
    return cpus, max(spec.host_memory_mib_per_node, spec.host_memory_mib_per_gpu * each)


def _share(pool: Pool, gpus: int) -> Rest:
    each = pool.gpus_per_node
    return Fraction(gpus * pool.cpus_per_node, each), Fraction(gpus * pool.memory_mib_per_node, each)


def _or_share(pool: Pool, amounts: tuple[int, int], gpus: int) -> Rest:
    """These amounts, or the share of so many GPUs where they are 0; nothing of what the pool does not count."""
    share = _share(pool, gpus)
    cpus = Fraction(amounts[0]) if amounts[0] and pool.cpus_per_node else share[0]
    return cpus, Fraction(amounts[1]) if amounts[1] and pool.memory_mib_per_node else share[1]


def _is_given(pool: Pool, spec: JobSpec, span: Span) -> bool:
    """True if a span has what the job asks for on a node, and no more than that unless it is the share."""
    share = _share(pool, span.gpu_mask.bit_count())
    wholes, given = (pool.cpus_per_node, pool.memory_mib_per_node), (span.cpus, span.memory_mib)
    return all(
        (had == asked) if had else (not whole or asked <= come)
        for had, asked, come, whole in zip(given, _asked(pool, spec), share, wholes, strict=True)
    )


def _live(state: FleetState, pool: str) -> list[Job]:
    return [state.jobs[job] for job in state.active[pool]]


def _nodes(span: Span) -> range:
    return range(span.first, span.first + span.nodes)
