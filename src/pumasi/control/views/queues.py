"""Queues as callers see them."""

from msgspec import Struct

from pumasi.model.fleet import gpus_of
from pumasi.model.ids import PoolId, QueueId, queue_owner
from pumasi.scheduler.shares import Shares
from pumasi.state.fleet_state import FleetState


class QuotaRow(Struct, frozen=True):
    """A queue's share of a pool, in GPUs. A limit of null is no limit of its own."""

    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None


class QueueRow(Struct, frozen=True, kw_only=True):
    """A queue. `in_use` counts it and all below it; `waiting` its own jobs; `past_gpu_milliseconds` is decayed.

    `fair_share`: GPUs of its owner's that it is due now by exact max-min, in each pool where it is due any. Pool by
    pool they are slices where it is cut; `gpus_*`, of all pools together, are GPUs, rounded up.
    `dominant_permille`: the largest part it uses of what its owner is due in a pool.
    """

    id: str
    title: str
    owner: str
    parent: str | None
    children: tuple[str, ...]
    weight: int
    industry: str
    preemption: str
    quotas: dict[str, QuotaRow]
    in_use: dict[str, int]
    gpus_in_use: int
    gpus_nominal: int
    fair_share: dict[str, int]
    gpus_fair_share: int
    dominant_permille: int
    jobs_waiting: int
    past_gpu_milliseconds: int


def queue_row(state: FleetState, shares: Shares, queue: QueueId) -> QueueRow:
    """One queue, with its share as last worked out."""
    record = state.queues[queue]
    declared = record.declared
    fair_share = shares.of(queue)
    return QueueRow(
        id=queue,
        title=declared.title,
        owner=queue_owner(queue),
        parent=record.parent,
        children=tuple(record.children),
        weight=declared.weight,
        industry=declared.industry,
        preemption=declared.preemption,
        quotas={
            pool: QuotaRow(quota.nominal, quota.borrowing_limit, quota.lending_limit)
            for pool, quota in declared.quotas.items()
        },
        in_use=dict(record.in_use),
        gpus_in_use=record.gpus_in_use,
        gpus_nominal=_gpus_in_all(state, {pool: quota.nominal for pool, quota in declared.quotas.items()}),
        fair_share=fair_share,
        gpus_fair_share=_gpus_in_all(state, fair_share),
        dominant_permille=_dominant_permille(state, queue),
        jobs_waiting=len(record.waiting),
        past_gpu_milliseconds=record.past_gpu_milliseconds,
    )


def _gpus_in_all(state: FleetState, by_pool: dict[PoolId, int]) -> int:
    return gpus_of(sum(state.pools[pool].declared.parts(gpus) for pool, gpus in by_pool.items()))


def _dominant_permille(state: FleetState, queue: QueueId) -> int:
    owner, parts = queue_owner(queue), [0]
    for pool, gpus in state.queues[queue].in_use.items():
        account = state.books[pool].get(owner)
        if account is not None and account.due:
            parts.append(gpus * 1000 // account.due)
    return max(parts)
