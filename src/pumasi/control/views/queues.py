"""Queues as callers see them."""

from msgspec import Struct

from pumasi.model.ids import QueueId, queue_owner
from pumasi.state.fleet_state import FleetState


class QuotaRow(Struct, frozen=True):
    """A queue's share of a pool, in GPUs. A limit of null is no limit of its own."""

    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None


class QueueRow(Struct, frozen=True, kw_only=True):
    """A queue. `in_use` counts it and all below it; `waiting` its own jobs; `past_gpu_milliseconds` is decayed."""

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
    jobs_waiting: int
    past_gpu_milliseconds: int


def queue_row(state: FleetState, queue: QueueId) -> QueueRow:
    """One queue."""
    record = state.queues[queue]
    declared = record.declared
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
        jobs_waiting=len(record.waiting),
        past_gpu_milliseconds=record.past_gpu_milliseconds,
    )
