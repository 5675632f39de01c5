"""The state as bytes and back, and its canonical hash. Derived structures are rebuilt, never stored."""

from hashlib import sha256

import msgspec
from msgspec import Struct

from pumasi.events.facts import NodeState
from pumasi.model.access import Principal, Token
from pumasi.model.fleet import GpuModel, Policy
from pumasi.model.ids import JobId, PoolId
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import (
    AdvanceRecord,
    Job,
    OwnerRecord,
    PlannedStart,
    PoolRecord,
    QueueRecord,
    Request,
    Reservation,
    SiteRecord,
    Strike,
)


class _Image(Struct):
    """Every stored field of the state. Order of the lists is the order of the log, which is part of the state."""

    seq: int
    at_ms: int
    plan_name: str
    policy: Policy
    gpu_models: list[GpuModel]
    owners: list[OwnerRecord]
    sites: list[SiteRecord]
    pools: list[PoolRecord]
    nodes: list[tuple[PoolId, int, NodeState, str]]
    queues: list[QueueRecord]
    next_job: JobId
    jobs: list[Job]
    active: dict[PoolId, list[JobId]]
    reservations: list[Reservation]
    planned: list[PlannedStart]
    requests: dict[str, Request]
    principals: list[Principal]
    tokens: list[Token]
    advance_reservations: list[AdvanceRecord] = []  # none in snapshots of versions that knew none
    strikes: list[tuple[PoolId, int, tuple[Strike, ...]]] = []  # likewise


_encoder = msgspec.msgpack.Encoder()
_canonical = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(_Image)


def save(state: FleetState) -> bytes:
    """The state as bytes that `load` reads."""
    return _encoder.encode(_image(state))


def digest(state: FleetState) -> str:
    """A hash equal for equal states, whatever way they came about."""
    image = _image(state)
    image.jobs.sort(key=lambda job: job.id)
    image.nodes.sort()
    for jobs in image.active.values():
        jobs.sort()
    return sha256(_canonical.encode(image)).hexdigest()


def load(body: bytes) -> FleetState:
    """The state `save` saved.

    :raises msgspec.MsgspecError: if the bytes are not a snapshot of this version; fold the log instead.
    """
    image = _decoder.decode(body)
    state = FleetState()
    state.seq, state.at_ms, state.plan_name, state.policy = image.seq, image.at_ms, image.plan_name, image.policy
    state.gpu_models = {model.id: model for model in image.gpu_models}
    state.owners = {record.declared.id: record for record in image.owners}
    state.sites = {record.declared.id: record for record in image.sites}
    state.pools = {record.declared.id: record for record in image.pools}
    state.queues = {record.declared.id: record for record in image.queues}
    state.next_job = image.next_job
    state.jobs = {job.id: job for job in image.jobs}
    state.active = {pool: dict.fromkeys(jobs) for pool, jobs in image.active.items()}
    state.reservations = {reservation.job: reservation for reservation in image.reservations}
    state.planned = {start.job: start for start in image.planned}
    state.advance_reservations = {record.declared.id: record for record in image.advance_reservations}
    state.strikes = {(pool, node): strikes for pool, node, strikes in image.strikes}
    state.requests = image.requests
    state.principals = {principal.id: principal for principal in image.principals}
    state.tokens = {token.digest: token for token in image.tokens}
    for record in state.queues.values():
        for _, job in record.waiting:
            state.backlogs.enter(state.jobs[job])
    _rebuild(state, image)
    return state


def _rebuild(state: FleetState, image: _Image) -> None:
    state.waiting_jobs = sum(len(record.waiting) for record in state.queues.values())
    for pool in state.pools:
        state.build_pool(pool)
    for pool, node, node_state, reason in image.nodes:
        state.occupancy[pool].set_node_state(node, node_state)
        state.node_reasons[pool, node] = reason
    for site in state.sites:
        state.share_power(site)


def _image(state: FleetState) -> _Image:
    return _Image(
        seq=state.seq,
        at_ms=state.at_ms,
        plan_name=state.plan_name,
        policy=state.policy,
        gpu_models=list(state.gpu_models.values()),
        owners=list(state.owners.values()),
        sites=list(state.sites.values()),
        pools=list(state.pools.values()),
        nodes=_nodes(state),
        queues=list(state.queues.values()),
        next_job=state.next_job,
        jobs=list(state.jobs.values()),
        active={pool: list(jobs) for pool, jobs in state.active.items()},
        reservations=list(state.reservations.values()),
        planned=list(state.planned.values()),
        advance_reservations=list(state.advance_reservations.values()),
        requests=state.requests,
        principals=list(state.principals.values()),
        tokens=list(state.tokens.values()),
        strikes=[(*place, strikes) for place, strikes in state.strikes.items()],
    )


def _nodes(state: FleetState) -> list[tuple[PoolId, int, NodeState, str]]:
    return [
        (pool, node, node_state, state.node_reasons[pool, node])
        for pool, occupancy in state.occupancy.items()
        for node, node_state in occupancy.node_states.items()
    ]
