"""The first public call for GPUs, replayed: what was asked and awarded is published, what is done with it assumed.

Published: 514 projects asked for 1,714 servers of 8 GPUs, 159 were awarded 528, at most 32 each, for up to 12 months.
Assumed: how asks and awards spread (drawn to those totals), and how much of an award a project uses: some leave it
idle, as winners of other calls did, most use half to nine tenths. Of the projects without an award half give up; the
others keep some of the work ready that they asked GPUs for. Whether it runs anywhere is what the replay is about.
"""

from collections.abc import Iterator
from random import Random

from msgspec import Struct

from pumasi.model.fleet import (
    CpuArch,
    FleetPlan,
    GpuModel,
    LendingContract,
    Owner,
    OwnerKind,
    Pool,
    Queue,
    Quota,
    Site,
    Stage,
)
from pumasi.model.jobs import JobSpec
from pumasi.twin.jobs import TwinJob
from pumasi.twin.streams import stream
from pumasi.twin.workloads.mapping import SCRIPT, limit_seconds
from pumasi.twin.workloads.resample import DAY_MS, HOUR_MS

PROJECTS, ASKED_SERVERS = 514, 1714
CHOSEN, AWARDED_SERVERS = 159, 528
SERVERS_MAX = 32
SERVER_GPUS = 8
POOL = "awarded"
WAITING_LIST = "waiting-list"
USES_PERCENT = (0, 5, 10, 30, 50, 60, 70, 80, 90, 95)  # of its award, each as likely: some idle, most not
KEEPS_PERCENT = (0, 0, 0, 0, 0, 20, 30, 40, 50, 60)  # of what it asked, without an award
MEDIAN_HOURS = 55
OPENING_DAYS = 30  # projects begin within the first month after the award


class Project(Struct, frozen=True):
    """A project of the call: servers asked for and awarded, how much of them it would use, and when it begins."""

    number: int
    asked: int
    awarded: int
    use_percent: int
    begins_day: int

    @property
    def queue(self) -> str:
        """Its queue: an owner of its own if it was awarded servers, else one of the waiting list's."""
        name = f"project-{self.number:03d}"
        return name if self.awarded else f"{WAITING_LIST}/{name}"


def projects(seed: int) -> list[Project]:
    """The projects of the call, those with an award first."""
    random = stream(seed, "call")
    awarded = _drawn(CHOSEN, AWARDED_SERVERS, random)
    asked = [award + extra for award, extra in zip(awarded, _extras(awarded, random), strict=True)]
    asked += _drawn(PROJECTS - CHOSEN, ASKED_SERVERS - sum(asked), random)
    awarded += [0] * (PROJECTS - CHOSEN)
    return [
        Project(number, asked[number], award, _use_percent(award, random), random.randrange(OPENING_DAYS))
        for number, award in enumerate(awarded)
    ]


def _use_percent(award: int, random: Random) -> int:
    return random.choice(USES_PERCENT if award else KEEPS_PERCENT)


def _drawn(count: int, total: int, random: Random) -> list[int]:
    """So many whole numbers from 1 to SERVERS_MAX with that total, many small and few large."""
    numbers = [1] * count
    while sum(numbers) < total:
        chosen = random.choices(range(count), numbers)[0]  # who has gets: awards are as uneven as grants are
        if numbers[chosen] < SERVERS_MAX:
            numbers[chosen] += 1
    return numbers


def _extras(awarded: list[int], random: Random) -> list[int]:
    """What the chosen asked for beyond their award: nothing for half of them, up to as much again for the others."""
    return [random.choice((0, 0, award // 2, award)) if 2 * award <= SERVERS_MAX else 0 for award in awarded]


def call_plan(seed: int, lendable_percent: int) -> FleetPlan:
    """The awarded servers as one pool: each project with an award an owner, the others one that is due nothing."""
    known = projects(seed)
    chosen = [project for project in known if project.awarded]
    lending = LendingContract(lendable_percent=lendable_percent, notice_seconds=3600, teardown_seconds=600)
    owners = [
        Owner(id=project.queue, title=project.queue, kind=OwnerKind.PUBLIC, lending=lending) for project in chosen
    ]
    owners.append(Owner(id=WAITING_LIST, title="Projects without an award", kind=OwnerKind.PUBLIC))
    queues = [
        Queue(id=each.queue, quotas={POOL: Quota(nominal=each.awarded * SERVER_GPUS)}) for each in chosen
    ]  # fmt: skip
    queues.append(Queue(id=WAITING_LIST))
    queues += [Queue(id=project.queue, weight=project.asked) for project in known if not project.awarded]
    return FleetPlan(
        name="first-call",
        gpu_models=(_MODEL,),
        owners=tuple(owners),
        sites=(Site(id="halls", title="The operators' halls", operator=chosen[0].queue),),
        pools=(_pool({project.queue: project.awarded * SERVER_GPUS for project in chosen}),),
        queues=tuple(queues),
    )


_MODEL = GpuModel(
    id="server",
    title="Servers of the call (H200 and B200)",
    gpus_per_node=SERVER_GPUS,
    nvlink_nodes=1,
    memory_gib=141,
    cpu_arch=CpuArch.X86_64,
    gpu_watts=1000,
    planning_watts=1790,
)


def _pool(due: dict[str, int]) -> Pool:
    return Pool(
        id=POOL,
        site="halls",
        model=_MODEL.id,
        owner=next(iter(due)),
        nodes=AWARDED_SERVERS,
        gpus_per_node=SERVER_GPUS,
        nodes_per_rack=4,
        racks_per_block=8,
        entitlements=due,
        stages={Stage.IN_SERVICE: "2026-03-01"},
    )


def call_jobs(seed: int, start_ms: int, days: int) -> list[TwinJob]:
    """What all projects do, in order of submission: whole servers for half a day to ten days at a time."""
    jobs = [job for project in projects(seed) for job in _jobs(project, seed, start_ms, days)]
    jobs.sort(key=lambda job: (job.submit_ms, job.spec.queue))
    return jobs


def _jobs(project: Project, seed: int, start_ms: int, days: int) -> Iterator[TwinJob]:
    random = stream(seed, "call", str(project.number))
    servers = project.awarded or project.asked
    span_ms = (days - project.begins_day) * DAY_MS
    budget = servers * span_ms * project.use_percent // 100
    while budget > 0:
        size = random.randint(1, max(1, servers // 2))
        runtime_ms = int(min(max(MEDIAN_HOURS * random.lognormvariate(0, 0.7), 12), 240) * HOUR_MS)
        budget -= size * runtime_ms
        if budget < 0 and random.random() * size * runtime_ms < -budget:
            return
        submit_ms = start_ms + project.begins_day * DAY_MS + random.randrange(span_ms)
        yield TwinJob(
            submit_ms=submit_ms,
            spec=_spec(project, size * SERVER_GPUS, runtime_ms),
            runtime_ms=runtime_ms,
            saves_on_notice=True,
        )


def _spec(project: Project, gpus: int, runtime_ms: int) -> JobSpec:
    return JobSpec(
        name="awarded" if project.awarded else "not-awarded",
        queue=project.queue,
        script=SCRIPT,
        gpus=gpus,
        gpus_per_node=SERVER_GPUS,
        time_limit_seconds=limit_seconds(runtime_ms),
        checkpoint_seconds=1800,
    )
