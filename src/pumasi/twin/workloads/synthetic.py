"""Jobs for the queues of a plan: each leaf queue is kept as busy as a scenario says, with its industry's work."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from math import exp, log
from random import Random

from msgspec import Struct

from pumasi.model.fleet import FleetPlan, Queue, Stage, stage_of
from pumasi.model.ids import PoolId, QueueId
from pumasi.model.jobs import JobSpec
from pumasi.twin.jobs import TwinJob
from pumasi.twin.streams import stream
from pumasi.twin.workloads.classes import INDUSTRIES, OTHER, WorkClass
from pumasi.twin.workloads.mapping import SCRIPT, limit_seconds
from pumasi.twin.workloads.resample import DAY_MS, HOUR_MS, KOREA_OFFSET_MS, weekday

MINUTE_MS = 60_000


class SyntheticWork(Struct, frozen=True, kw_only=True):
    """How busy which queues are: GPUs asked for, in per cent of the GPUs the queue is due in the pools in service.

    Slices are counted apart: work that needs no more is asked of those the queue is due, and no other work.

    `loads`: by path; the longest path that a queue starts with counts. `start_ms`: midnight in Korea.
    """

    start_ms: int
    days: int
    as_of: str
    load_percent: int = 70
    loads: dict[QueueId, int] = {}
    gpus_max: int = 2048


def synthetic_jobs(plan: FleetPlan, work: SyntheticWork, seed: int) -> list[TwinJob]:
    """Jobs for every leaf queue that is due GPUs, in order of submission."""
    cuts = {pool.id: pool.slice for pool in plan.pools if stage_of(pool, work.as_of) is Stage.IN_SERVICE}
    jobs: list[TwinJob] = []
    for queue in leaves(plan):
        due = _due(queue, cuts)
        for kind, percent in INDUSTRIES.get(queue.industry, OTHER):
            cut = next(filter(None, due), "") if kind.on_slices else ""
            gpus = due[cut]
            random = stream(seed, "workload", queue.id, kind.name)
            budget = gpus * work.days * DAY_MS * load_of(queue.id, work) // 100 * percent // 100
            jobs.extend(_jobs(queue, kind, cut, budget, _largest(gpus, work), work, random))
    jobs.sort(key=lambda job: (job.submit_ms, job.spec.queue, job.spec.name))
    return jobs


def _due(queue: Queue, cuts: Mapping[PoolId, str]) -> Counter[str]:
    """GPUs a queue is due in the pools in service: whole ones, and slices by their profile."""
    due: Counter[str] = Counter()
    for pool, quota in queue.quotas.items():
        if pool in cuts and quota.nominal:
            due[cuts[pool]] += quota.nominal
    return due


def leaves(plan: FleetPlan) -> list[Queue]:
    """The queues of a plan that no other queue is below."""
    parents = {queue.id.rpartition("/")[0] for queue in plan.queues}
    return [queue for queue in plan.queues if queue.id not in parents]


def load_of(queue: QueueId, work: SyntheticWork) -> int:
    """How busy a queue is, in per cent."""
    named = [path for path in work.loads if f"{queue}/".startswith(f"{path}/")]
    return work.loads[max(named, key=len)] if named else work.load_percent


def _largest(gpus: int, work: SyntheticWork) -> int:
    """No gang is larger than half of what its queue is due: such work is sized to its hall."""
    return min(work.gpus_max, gpus // 2)


def _jobs(
    queue: Queue, kind: WorkClass, cut: str, budget: int, largest: int, work: SyntheticWork, random: Random
) -> Iterator[TwinJob]:
    sizes = {gpus: weight for gpus, weight in kind.sizes.items() if gpus <= largest}
    while budget > 0 and sizes:
        submit_ms = _moment(kind, work, random)
        gpus = random.choices(list(sizes), list(sizes.values()))[0]
        for _ in range(kind.burst):
            runtime_ms = _length_ms(kind, random)
            budget -= gpus * runtime_ms
            if budget < 0 and random.random() * gpus * runtime_ms < -budget:
                return  # the last one comes with the chance that makes the mean right
            yield _job(queue, kind, cut, gpus, submit_ms, runtime_ms)


def _length_ms(kind: WorkClass, random: Random) -> int:
    minutes = exp(random.gauss(log(kind.median_minutes), kind.spread))
    return int(min(max(minutes, kind.minutes_min), kind.minutes_max) * MINUTE_MS)


def _moment(kind: WorkClass, work: SyntheticWork, random: Random) -> int:
    days = [kind.weekdays[weekday(work.start_ms + day * DAY_MS + KOREA_OFFSET_MS)] for day in range(work.days)]
    day = _draw(days, random)
    return work.start_ms + day * DAY_MS + _draw(kind.hours, random) * HOUR_MS + random.randrange(HOUR_MS)


def _draw(weights: list[int] | tuple[int, ...], random: Random) -> int:
    """An index, each as likely as its weight says; any if all weights are 0."""
    if not any(weights):
        return random.randrange(len(weights))
    return random.choices(range(len(weights)), cum_weights=list(accumulate(weights)))[0]


def _job(queue: Queue, kind: WorkClass, cut: str, gpus: int, submit_ms: int, runtime_ms: int) -> TwinJob:
    spec = JobSpec(
        name=kind.name,
        queue=queue.id,
        script=SCRIPT,
        gpus=gpus,
        slice=cut,
        time_limit_seconds=limit_seconds(runtime_ms),
        data_class=kind.data_class,
        stays_home=kind.stays_home,
        may_borrow=kind.may_borrow,
        priority=kind.priority,
        checkpoint_seconds=kind.checkpoint_minutes * 60,
    )
    saves = kind.checkpoint_minutes > 0
    return TwinJob(submit_ms=submit_ms, spec=spec, runtime_ms=runtime_ms, saves_on_notice=saves)
