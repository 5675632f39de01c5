"""How much of what could be allocated is: Philly's jobs on the whole Korean fleet against a linear program's bound.

The fleet starts in the middle of its work: jobs that would be running have what is left of them to do. Then jobs come
at a rate that asks for 1.0 to 1.3 times the GPUs there are. The program knows everything beforehand, may cut jobs into
pieces and sees no nodes: what it allocates in the same time, under the same lending contracts, nobody can exceed.
"""

import random
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

import highspy
import numpy as np

from bench.fleet import korean_plane
from bench.measure import Figures, publish
from bench.twin_fleets import philly_rows
from pumasi.events.facts import AttemptEnded, AttemptPlaced, AttemptStarted, JobSubmitted, StopOrdered
from pumasi.model.fleet import PARTS_PER_GPU
from pumasi.model.ids import JobId, OwnerId, PoolId, QueueId
from pumasi.model.jobs import OUTCOME_OF_STOP, JobSpec, JobState, Level, Outcome, Topology
from pumasi.scheduler.plan import plan
from pumasi.scheduler.planner import Planner
from pumasi.scheduler.rules import Rules
from pumasi.state.backlog import Backlog
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.state.lending import lending_limit, refusal
from pumasi.state.records import Job

LOADS_PERCENT = (100, 110, 120, 130)
HOURS = 6
CYCLE_MS = 30_000
BUCKET_MS = 900_000
HOUR_MS = 3_600_000
TAIL = {256: 60, 512: 30, 1024: 12, 2048: 4}  # as newer clusters have them (Acme, NSDI'24), beside Philly's 82,247 jobs
END_MS = HOURS * HOUR_MS


class Work(NamedTuple):
    """A job to come. Times in milliseconds from the beginning."""

    submit_ms: int
    runtime_ms: int
    gpus: int
    queue: QueueId


class Trace:
    """Sizes and lengths of the trace, with the tail of large gangs; those last as long as its largest do."""

    def __init__(self) -> None:
        rows = [(gpus, seconds * 1000) for _, seconds, gpus, _ in philly_rows()]
        large = [runtime_ms for gpus, runtime_ms in rows if gpus >= 16]
        chance = random.Random(0)
        self.rows = rows + [(gpus, chance.choice(large)) for gpus, count in TAIL.items() for _ in range(count)]
        self.gpu_milliseconds = sum(gpus * runtime_ms for gpus, runtime_ms in self.rows) / len(self.rows)


def workload(state: FleetState, trace: Trace, load_percent: int, seed: int) -> list[Work]:
    """Jobs for every owner and queue in proportion to what is theirs, in order of submission."""
    chance = random.Random(seed)
    entitled = Rules(state, state.at_ms).entitled_parts
    leaves = [name for name, queue in state.queues.items() if not queue.children]
    nominal = {name: sum(quota.nominal for quota in state.queues[name].declared.quotas.values()) for name in leaves}
    found = []
    for owner, parts in entitled.items():
        asked_gpus = parts / PARTS_PER_GPU * load_percent / 100
        shares = {name: most for name, most in nominal.items() if name.partition("/")[0] == owner}
        queues = chance.choices(list(shares), list(shares.values()), k=1 << 16)
        found += list(under_way(trace, asked_gpus, queues, chance))
        for _ in range(round(asked_gpus * END_MS / trace.gpu_milliseconds)):
            size, runtime_ms = chance.choice(trace.rows)
            found.append(Work(chance.randrange(1, END_MS), runtime_ms, size, chance.choice(queues)))
    return sorted(found)


def under_way(trace: Trace, asked_gpus: float, queues: list[QueueId], chance: random.Random) -> Iterator[Work]:
    """What would be running at the beginning: long jobs are met more often, anywhere in the middle of them."""
    by_runtime = [runtime_ms for _, runtime_ms in trace.rows]
    while asked_gpus > 0:
        for gpus, runtime_ms in chance.choices(trace.rows, by_runtime, k=100):
            if asked_gpus > 0:
                yield Work(0, max(1000, round(runtime_ms * chance.random())), gpus, chance.choice(queues))
                asked_gpus -= gpus


def job_spec(work: Work, chance: random.Random) -> JobSpec:
    """As users write it: a limit on the safe side; of the gangs up to 64 GPUs six in ten need one rack."""
    in_rack = 8 < work.gpus <= 64 and chance.random() < 0.6
    topology = Topology(level=Level.RACK, required=True) if in_rack else Topology()
    limit = 3600 * (1 + 3 * work.runtime_ms // (2 * HOUR_MS))
    return JobSpec(
        name="job", queue=work.queue, script="train", gpus=work.gpus, time_limit_seconds=limit, topology=topology
    )


class Replay:
    """The planner placing the work, a cycle every half minute, with engines that start and stop when told to.

    `allocated`: GPU-milliseconds that count: what a job loses when its GPUs are asked back does not. `fragmented`: GPUs
    that idled beside a waiting job they could carry, at each quarter of an hour.
    """

    def __init__(self, state: FleetState, works: list[Work]) -> None:
        self._state = state
        self._works = works
        self._planner = Planner(state)
        self._begin_ms = state.at_ms
        self._now_ms = 0
        self._runtime_ms: dict[JobId, int] = {}
        self._ends: list[tuple[int, JobId, int, Outcome]] = []  # when, of which job and attempt, and how
        self._idle = Idle(state)
        self.allocated = 0
        self.fragmented: list[int] = []

    def run(self) -> None:
        """All of it, in order."""
        chance, coming = random.Random(1), iter(self._works)
        work = next(coming, None)
        for self._now_ms in range(0, END_MS, CYCLE_MS):
            while self._ends and self._ends[0][0] <= self._now_ms:
                self._end(*heappop(self._ends)[1:])
            while work is not None and work.submit_ms <= self._now_ms:
                self._submit(work, chance)
                work = next(coming, None)
            self._cycle()
            if self._now_ms % BUCKET_MS == 0:
                self.fragmented.append(self._idle.beside_waiting_jobs())
        for job in self._state.jobs.values():
            if job.live:
                self._count(job, END_MS)

    @property
    def _at_ms(self) -> int:
        return self._begin_ms + self._now_ms

    def _submit(self, work: Work, chance: random.Random) -> None:
        job = self._state.next_job
        self._runtime_ms[job] = work.runtime_ms
        apply(self._state, JobSubmitted(at_ms=self._at_ms, by="bench", job=job, spec=job_spec(work, chance)))

    def _cycle(self) -> None:
        for event in plan(self._state, self._at_ms, self._planner).events:
            apply(self._state, event)
            if isinstance(event, AttemptPlaced):
                apply(self._state, AttemptStarted(at_ms=event.at_ms, job=event.job, attempt=event.attempt))
                end_ms = self._now_ms + self._runtime_ms[event.job]
                heappush(self._ends, (end_ms, event.job, event.attempt, Outcome.COMPLETED))
            elif isinstance(event, StopOrdered):
                end_ms = event.kill_at_ms - self._begin_ms
                heappush(self._ends, (end_ms, event.job, event.attempt, OUTCOME_OF_STOP[event.cause]))

    def _end(self, job_id: JobId, attempt: int, outcome: Outcome) -> None:
        job = self._state.jobs.get(job_id)
        if job is None or job.live is None or len(job.attempts) != attempt:
            return  # it ended before it was to be killed, or was killed before its end
        done = outcome is Outcome.COMPLETED
        if done:
            self._count(job, job.attempts[-1].placed_ms - self._begin_ms + self._runtime_ms[job_id])
        becomes = JobState.SUCCEEDED if done else JobState.WAITING
        ended = AttemptEnded(at_ms=self._at_ms, job=job_id, attempt=attempt, outcome=outcome, job_state=becomes)
        apply(self._state, ended)

    def _count(self, job: Job, until_ms: int) -> None:
        self.allocated += job.spec.gpus * (until_ms - (job.attempts[-1].placed_ms - self._begin_ms))


class Idle:
    """GPUs that idle although a waiting job that asks for no more of them may have them."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._rules = Rules(state, state.at_ms)

    def beside_waiting_jobs(self) -> int:
        """How many there are now, in all pools."""
        idle = 0
        for pool, occupancy in self._state.occupancy.items():
            free = occupancy.free.free_gpus
            if free and any(self._could(pool, free, backlog) for backlog in self._state.backlogs.by_need.values()):
                idle += free
        return idle

    def _could(self, pool: PoolId, free: int, backlog: Backlog) -> bool:
        if backlog.spec.gpus > free:
            return False
        demand = self._rules.demand(backlog.key, backlog.spec)
        if all(fit.pool != pool for fit in demand.fits):
            return False
        books = self._state.books[pool]
        room = books[backlog.owner].idle if backlog.owner in books else 0
        return (
            room
            + sum(
                max(0, min(books[lender].idle, limit - books[lender].lent))
                for lender, limit in lenders(self._state, backlog.owner, pool)
            )
            >= backlog.spec.gpus
        )


def lenders(state: FleetState, borrower: OwnerId, pool: PoolId) -> list[tuple[OwnerId, int]]:
    """Who may lend to an owner in a pool, at any hour, and how much at most."""
    who = state.owners[borrower].declared
    return [
        (name, lending_limit(state, name, pool))
        for name in state.pools[pool].declared.entitlements
        if name != borrower and refusal(state.owners[name].declared.lending, who) is None
    ]


# --- the bound -------------------------------------------------------------------------------------------------------


def bound(state: FleetState, works: list[Work]) -> int:
    """The most GPU-milliseconds that could be allocated: by owner, whose entitlement, pool and quarter of an hour.

    Within each of them nobody uses more than there is or may be lent, and up to the end of each no owner uses more than
    its jobs, started when they were submitted, would have.
    """
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    hours, buckets = BUCKET_MS / HOUR_MS, range(END_MS // BUCKET_MS)
    used: dict[tuple[OwnerId, int], list[int]] = {}  # columns by user and bucket
    on: dict[tuple[OwnerId, PoolId, int], list[int]] = {}  # and by whose GPUs they are
    columns = 0
    for pool, record in state.pools.items():
        for user in state.owners:
            own = record.declared.entitlements.get(user, 0)
            for name, most in [(user, own), *lenders(state, user, pool)]:
                for bucket in buckets if most else ():
                    highs.addVar(0, most * hours)
                    highs.changeColCost(columns, -1)
                    used.setdefault((user, bucket), []).append(columns)
                    on.setdefault((name, pool, bucket), []).append(columns)
                    columns += 1
    for (name, pool, _), found in on.items():
        highs.addRow(0, state.books[pool][name].due * hours, len(found), found, [1.0] * len(found))
    for user in state.owners:
        upto: list[int] = []
        for bucket, asked in zip(buckets, asked_hours(works, user), strict=True):
            upto += used.get((user, bucket), [])
            highs.addRow(0, asked, len(upto), upto, [1.0] * len(upto))
    highs.run()
    return round(-highs.getInfo().objective_function_value * HOUR_MS)


def asked_hours(works: list[Work], user: OwnerId) -> list[float]:
    """GPU-hours an owner's jobs would have had by the end of each bucket, each started when it was submitted."""
    mine = [work for work in works if work.queue.partition("/")[0] == user]
    submit, runtime, gpus = (np.array([work[field] for work in mine], np.int64) for field in range(3))
    ends = range(BUCKET_MS, END_MS + 1, BUCKET_MS)
    return [float((gpus * np.clip(end - submit, 0, runtime)).sum()) / HOUR_MS for end in ends]


# --- the figures -----------------------------------------------------------------------------------------------------

NOTES = {
    "allocated_over_lp": "GPU-time allocated of what a linear program allocates that may cut jobs: the worst load",
    **{f"allocated_over_lp_{load}": f"at {load} % of the fleet asked for" for load in LOADS_PERCENT},
    **{f"allocated_percent_{load}": f"of all GPUs allocated, at {load} %" for load in LOADS_PERCENT},
    **{
        f"fragmented_percent_{load}": "of all GPUs idle beside a waiting job they could carry" for load in LOADS_PERCENT
    },
    "jobs": "jobs of the largest load",
}


def measure() -> Figures:
    """All figures: one replay for each load."""
    trace, figures, jobs = Trace(), Figures(), 0
    for load in LOADS_PERCENT:
        state = korean_plane().state
        works = workload(state, trace, load, seed=load)
        most, jobs = bound(state, works), len(works)
        replay = Replay(state, works)
        replay.run()
        fleet = sum(pool.declared.gpus for pool in state.pools.values())
        figures[f"allocated_over_lp_{load}"] = replay.allocated / most
        figures[f"allocated_percent_{load}"] = 100 * replay.allocated / (fleet * END_MS)
        figures[f"fragmented_percent_{load}"] = 100 * sum(replay.fragmented) / len(replay.fragmented) / fleet
        print(f"quality: {load} % asked for, {replay.allocated / most:.4f} of the bound allocated", flush=True)
    worst = min(figures[f"allocated_over_lp_{load}"] for load in LOADS_PERCENT)
    return {"allocated_over_lp": worst, **figures, "jobs": jobs}


if __name__ == "__main__":
    publish("quality", measure(), NOTES)
