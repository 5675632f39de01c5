"""Nodes for a reservation made in advance: those that, by time limits and all that is promised, are free by then.

An award may be over nodes on which jobs of its own queue run: they are what it is for.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from pumasi.model.hostlist import node_name
from pumasi.model.ids import OwnerId, PoolId, QueueId, is_within
from pumasi.model.jobs import Span, span_gpus
from pumasi.scheduler.outlook import NEVER_MS, Moments, Outlook, Outlooks, end_ms, map_at, shape_ms
from pumasi.scheduler.placement import find, merged
from pumasi.scheduler.shapes import Need
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job


class Window(Struct, frozen=True, kw_only=True):
    """A span of time in a pool, and on whose entitlement: "" for nobody's, which is maintenance.

    `ignores_running`: nodes do as well on which jobs may run or are planned to start then. `queue`: those do on which
    its jobs run, and those of queues below it; "" for nobody's.
    """

    pool: PoolId
    start_ms: int
    end_ms: int
    owner: OwnerId = ""
    queue: QueueId = ""
    ignores_running: bool = False


def free_nodes(state: FleetState, window: Window, nodes: int) -> tuple[Span, ...] | str:
    """So many whole nodes that are free for all of the window; or a sentence why there are none."""
    like, ends_ms = state.occupancy[window.pool].free, _gpu_ends_ms(state, window)
    need = Need(nodes, like.gpus_per_node)
    spans = find(map_at(ends_ms, window.start_ms, like), need)
    if spans is None:
        whole = int((ends_ms.max(axis=1) <= window.start_ms).sum())
        lacks = f"{whole} of {like.nodes} nodes of {window.pool} are free for all of that time, {nodes} are asked for"
        earliest_ms = shape_ms(ends_ms, need, like)
        if earliest_ms < NEVER_MS:
            lacks += f"; they are {-(-(earliest_ms - window.start_ms) // 1000)} seconds later"
        return lacks
    return _entitlement_lacks(state, window, spans) or spans


def these_nodes(state: FleetState, window: Window, nodes: Iterable[int]) -> tuple[Span, ...] | str:
    """These whole nodes, if they are free for all of the window; or a sentence about the first that is not."""
    like, ends_ms = state.occupancy[window.pool].free, _gpu_ends_ms(state, window)
    chosen = sorted(dict.fromkeys(nodes))
    for node in chosen:
        if ends_ms[node].max() > window.start_ms:
            return f"{node_name(window.pool, node)} may be in use in that time, or is promised"
    spans = merged([Span(node, 1, like.full_mask) for node in chosen])
    return _entitlement_lacks(state, window, spans) or spans


def _gpu_ends_ms(state: FleetState, window: Window) -> Moments:
    """When each GPU is given back. What is promised in the window never is; nor what is not up, but for maintenance."""
    occupancy = state.occupancy[window.pool]
    free = occupancy.free
    outlook = Outlook(free.nodes, free.gpus_per_node) if window.ignores_running else Outlooks(state).of(window.pool)
    for job in _own_jobs(state, window):
        outlook.leave(job.id)
    for reservation in state.reservations.values():
        if reservation.pool == window.pool:
            outlook.close(reservation.spans)
    for promise in _promised(state, window):
        outlook.close(promise.spans)
    for node in occupancy.node_states if window.owner else ():
        outlook.close((Span(node, 1, free.full_mask),))
    return outlook.gpu_ends_ms


def _own_jobs(state: FleetState, window: Window) -> Iterator[Job]:
    """The jobs that run in the pool and may stay on the nodes."""
    for number in state.active[window.pool] if window.queue else ():
        if is_within(state.jobs[number].spec.queue, window.queue):
            yield state.jobs[number]


class _Promise(Struct, frozen=True):
    """GPUs that somebody is to have in the window, and on whose entitlement."""

    spans: tuple[Span, ...]
    owner: OwnerId
    gpus: int


def _promised(state: FleetState, window: Window) -> list[_Promise]:
    """The planned starts and the reservations in the window."""
    found = []
    for start in () if window.ignores_running else state.planned.values():
        job = state.jobs[start.job]
        end_ms = start.start_ms + job.spec.time_limit_seconds * 1000
        if start.pool == window.pool and start.start_ms < window.end_ms and window.start_ms < end_ms:
            found.append(_Promise(start.spans, job.owner, job.spec.gpus))
    for record in state.advance_reservations.values():
        other = record.declared
        if other.pool == window.pool and other.start_ms < window.end_ms and window.start_ms < other.end_ms:
            found.append(_Promise(other.spans, other.owner if record.is_barring else "", other.gpus))
    return found


def _entitlement_lacks(state: FleetState, window: Window, spans: tuple[Span, ...]) -> str:
    """A sentence if the owner's entitlement does not carry the nodes in the window; "" if it does."""
    if not window.owner:
        return ""
    gpus = span_gpus(spans) - _used_already(state, window, spans)
    account = state.books[window.pool].get(window.owner)
    idle = 0 if account is None else account.idle
    idle += Outlooks(state).of(window.pool).returned_gpus(window.owner, window.start_ms)
    idle -= sum(promise.gpus for promise in _promised(state, window) if promise.owner == window.owner)
    if idle >= gpus:
        return ""
    return f"{window.owner} has {max(0, idle)} GPUs of its entitlement in {window.pool} free then, {gpus} are asked for"


def _used_already(state: FleetState, window: Window, spans: tuple[Span, ...]) -> int:
    """GPUs of whole nodes that the jobs which may stay on them still hold when the window begins."""
    like = state.occupancy[window.pool].free
    own = Outlook(like.nodes, like.gpus_per_node)
    for job in _own_jobs(state, window):
        own.enter(job.id, end_ms(job, job.attempts[-1]), job.attempts[-1].spans, ())
    nodes = [own.gpu_ends_ms[span.first : span.first + span.nodes] for span in spans]
    return sum(int((ends_ms > window.start_ms).sum()) for ends_ms in nodes)
