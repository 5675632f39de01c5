"""Nodes for a reservation made in advance: those that, by time limits and all that is promised, are free by then."""

from collections.abc import Iterable

from msgspec import Struct

from pumasi.model.hostlist import node_name
from pumasi.model.ids import OwnerId, PoolId
from pumasi.model.jobs import Span
from pumasi.scheduler.outlook import NEVER_MS, Moments, Outlook, Outlooks, map_at, shape_ms
from pumasi.scheduler.placement import find, merged
from pumasi.scheduler.shapes import Need
from pumasi.state.fleet_state import FleetState


class Window(Struct, frozen=True, kw_only=True):
    """A span of time in a pool, and on whose entitlement: "" for nobody's, which is maintenance.

    `ignores_running`: nodes do as well on which jobs may run or are planned to start then.
    """

    pool: PoolId
    start_ms: int
    end_ms: int
    owner: OwnerId = ""
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
    return _entitlement_lacks(state, window, nodes * like.gpus_per_node) or spans


def these_nodes(state: FleetState, window: Window, nodes: Iterable[int]) -> tuple[Span, ...] | str:
    """These whole nodes, if they are free for all of the window; or a sentence about the first that is not."""
    like, ends_ms = state.occupancy[window.pool].free, _gpu_ends_ms(state, window)
    chosen = sorted(dict.fromkeys(nodes))
    for node in chosen:
        if ends_ms[node].max() > window.start_ms:
            return f"{node_name(window.pool, node)} may be in use in that time, or is promised"
    lacks = _entitlement_lacks(state, window, len(chosen) * like.gpus_per_node)
    return lacks or merged([Span(node, 1, like.full_mask) for node in chosen])


def _gpu_ends_ms(state: FleetState, window: Window) -> Moments:
    """When each GPU is given back. What is promised in the window never is; nor what is not up, but for maintenance."""
    occupancy = state.occupancy[window.pool]
    free = occupancy.free
    outlook = Outlook(free.nodes, free.gpus_per_node) if window.ignores_running else Outlooks(state).of(window.pool)
    for reservation in state.reservations.values():
        if reservation.pool == window.pool:
            outlook.close(reservation.spans)
    for promise in _promised(state, window):
        outlook.close(promise.spans)
    for node in occupancy.node_states if window.owner else ():
        outlook.close((Span(node, 1, free.full_mask),))
    return outlook.gpu_ends_ms


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


def _entitlement_lacks(state: FleetState, window: Window, gpus: int) -> str:
    """A sentence if the owner's entitlement does not carry so many GPUs in the window; "" if it does."""
    if not window.owner:
        return ""
    account = state.books[window.pool].get(window.owner)
    idle = 0 if account is None else account.idle
    idle += Outlooks(state).of(window.pool).returned_gpus(window.owner, window.start_ms)
    idle -= sum(promise.gpus for promise in _promised(state, window) if promise.owner == window.owner)
    if idle >= gpus:
        return ""
    return f"{window.owner} has {max(0, idle)} GPUs of its entitlement in {window.pool} free then, {gpus} are asked for"
