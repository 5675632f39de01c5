"""A log as the whole fleet would write it: jobs of a few sizes come, are placed, start and end on 260,000 GPUs.

It is made up, but every fact follows on those before (the fold refuses others), and it is the same for the same seed.
"""

import random
from collections import deque
from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

from pumasi.events import facts
from pumasi.events.facts import Event
from pumasi.model.fleet import CpuArch, GpuModel, LendingContract, Owner, OwnerKind, Policy, Pool, Queue, Site, Stage
from pumasi.model.jobs import Charge, JobSpec, JobState, Outcome, Span

POOLS = 26
NODES_PER_POOL = 1250
GPUS_PER_NODE = 8
OWNERS = ("public", "samsung", "sk", "hyundai", "naver")
_SUBMIT_EVERY_MS = 250


class _Slot(NamedTuple):
    """A place a job of one size fits in."""

    pool: int
    span: Span


class _Running(NamedTuple):
    job: int
    slot: _Slot


def declarations() -> list[Event]:
    """The fleet: five owners, a site and a pool of 10,000 GPUs for each of 26 halls, each shared by two owners."""
    model = GpuModel(
        id="b200", title="B200", gpus_per_node=GPUS_PER_NODE, nvlink_nodes=1, memory_gib=180,
        cpu_arch=CpuArch.X86_64, gpu_watts=1000, planning_watts=1900,
    )  # fmt: skip
    contract = LendingContract(lendable_percent=100)
    return [
        facts.PlanApplied(at_ms=0, name="benchmark"),
        facts.PolicyDeclared(at_ms=0, policy=Policy()),
        facts.GpuModelDeclared(at_ms=0, model=model),
        *(
            facts.OwnerDeclared(at_ms=0, owner=Owner(id=owner, title=owner, kind=OwnerKind.PUBLIC, lending=contract))
            for owner in OWNERS
        ),
        *(
            facts.SiteDeclared(at_ms=0, site=Site(id=f"hall-{pool}", title=f"Hall {pool}", operator="public"))
            for pool in range(POOLS)
        ),
        *(facts.PoolDeclared(at_ms=0, pool=_pool(pool), stage=Stage.IN_SERVICE) for pool in range(POOLS)),
        *(facts.QueueDeclared(at_ms=0, queue=Queue(id=queue)) for queue in _queues()),
    ]


def _pool(number: int) -> Pool:
    half = NODES_PER_POOL * GPUS_PER_NODE // 2
    first, second = _entitled(number)
    return Pool(
        id=f"pool-{number}", site=f"hall-{number}", model="b200", owner=first, nodes=NODES_PER_POOL,
        gpus_per_node=GPUS_PER_NODE, nodes_per_rack=4, racks_per_block=16, entitlements={first: half, second: half},
    )  # fmt: skip


def _entitled(pool: int) -> tuple[str, str]:
    return OWNERS[pool % len(OWNERS)], OWNERS[(pool + 1) % len(OWNERS)]


def _queues() -> list[str]:
    groups = [f"{owner}/group-{group}" for owner in OWNERS for group in range(20)]
    return [*OWNERS, *groups, *(f"{group}/team-{team}" for group in groups for team in range(10))]


class Workload:
    """Writes facts of jobs for as long as they are wanted.

    `waiting` jobs are kept waiting and up to `active` running, so that their sum is the number of live jobs at the end.
    """

    def __init__(self, waiting: int, active: int, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._waiting_wanted = waiting
        self._active_wanted = active
        self._at_ms = 1_800_000_000_000
        self._jobs = 0
        self._queues = [queue for queue in _queues() if queue.count("/") == 2]
        self._waiting: deque[tuple[int, str, int]] = deque()
        self._running: deque[_Running] = deque()
        self._free = {gpus: deque(slots) for gpus, slots in _slots().items()}
        self._sizes = cycle((1, 8, 1, 32, 8, 1, 8, 1))

    def facts(self) -> Iterator[Event]:
        """Endless facts: first the waiting jobs pile up, then jobs end as fast as others start."""
        while True:
            self._at_ms += _SUBMIT_EVERY_MS
            yield self._submit()
            if len(self._waiting) > self._waiting_wanted:
                if len(self._running) >= self._active_wanted:
                    yield self._end()
                yield from self._start()

    def _submit(self) -> Event:
        self._jobs += 1
        queue, gpus = self._random.choice(self._queues), next(self._sizes)
        self._waiting.append((self._jobs, queue, gpus))
        return facts.JobSubmitted(
            at_ms=self._at_ms, by=f"user-{self._jobs % 997}", job=self._jobs, spec=_spec(self._jobs, queue, gpus)
        )

    def _start(self) -> Iterator[Event]:
        job, queue, gpus = self._waiting.popleft()
        slot = self._free[gpus].popleft()
        self._running.append(_Running(job, slot))
        yield facts.AttemptPlaced(
            at_ms=self._at_ms, job=job, attempt=1, queue=queue, pool=f"pool-{slot.pool}", spans=(slot.span,),
            charges=(_charge(slot, queue),),
        )  # fmt: skip
        yield facts.AttemptStarted(at_ms=self._at_ms + 40, job=job, attempt=1)

    def _end(self) -> Event:
        running = self._running.popleft()
        self._free[running.slot.span.gpus].append(running.slot)
        failed = self._random.random() < 0.2
        return facts.AttemptEnded(
            at_ms=self._at_ms, job=running.job, attempt=1, outcome=Outcome.COMPLETED, exit_code=int(failed),
            job_state=JobState.FAILED if failed else JobState.SUCCEEDED,
        )  # fmt: skip


def _slots() -> dict[int, list[_Slot]]:
    """Every pool cut up: a fifth of its nodes into single GPUs, two fifths into nodes, the rest into racks of four."""
    slots: dict[int, list[_Slot]] = {1: [], 8: [], 32: []}
    fifth = NODES_PER_POOL // 5
    for pool in range(POOLS):
        slots[1] += [_Slot(pool, Span(node, 1, 1 << gpu)) for node in range(fifth) for gpu in range(GPUS_PER_NODE)]
        slots[8] += [_Slot(pool, Span(node, 1, 0xFF)) for node in range(fifth, 3 * fifth)]
        slots[32] += [_Slot(pool, Span(node, 4, 0xFF)) for node in range(3 * fifth, NODES_PER_POOL - 3, 4)]
    return slots


def _charge(slot: _Slot, queue: str) -> Charge:
    """Home if the job's owner is entitled in the pool, else borrowed of the first who is."""
    entitled, owner = _entitled(slot.pool), queue.split("/", 1)[0]
    return Charge(owner if owner in entitled else entitled[0], slot.span.gpus)


def _spec(job: int, queue: str, gpus: int) -> JobSpec:
    return JobSpec(
        name=f"train-{job % 1000}", queue=queue, gpus=gpus, time_limit_seconds=86_400, gpu_models=("b200",),
        script="#!/bin/bash\nset -e\nmodule load cuda\nsrun python train.py --config configs/base.yaml\n",
        environment={"RUN": str(job), "OMP_NUM_THREADS": "8"}, checkpoint_seconds=1800,
    )  # fmt: skip
