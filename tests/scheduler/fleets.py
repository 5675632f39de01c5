"""Random fleets, contracts and stories for the property tests."""

from typing import Any

from hypothesis import strategies as st

from pumasi.control.commands import MakeReservation
from pumasi.events.facts import (
    AdvanceReservationMade,
    Event,
    LinkState,
    NodeState,
    OwnerDeclared,
    SiteConnected,
    SiteSilent,
)
from pumasi.model.calendar import day_name, day_of
from pumasi.model.fleet import (
    SHARD,
    CalendarWindow,
    Owner,
    OwnerKind,
    Place,
    PlacementRule,
    Policy,
    Pool,
    Preemption,
    Queue,
    QueueOrder,
    Quota,
    Work,
)
from pumasi.model.ids import JobId
from pumasi.model.jobs import JobState, Level, Topology
from pumasi.model.reservations import ReservationPurpose
from pumasi.state.records import Job
from pumasi.testing.builders import HGX, NVL72, START_MS, fleet_facts, pool
from pumasi.testing.builders import owner as make_owner
from pumasi.testing.harness import Harness

OWNERS = ("ant", "bee", "cat")
KINDS = tuple(OwnerKind)
NIGHT = CalendarWindow(days=(0, 1, 2, 3, 4, 5, 6), from_minute=0, to_minute=12 * 60)

SLICE, SLICES = "1g.23gb", 7

TOPOLOGIES = (*(Topology() for _ in range(6)), *(Topology(level=level, required=True) for level in Level))

Step = tuple[Any, ...]


@st.composite
def owners(draw: st.DrawFn) -> list[Owner]:
    """Three owners, each with some contract."""
    return [
        make_owner(
            name,
            draw(st.sampled_from((100, 100, 50, 0))),
            draw(st.sampled_from(KINDS)),
            refuses_owners=draw(st.sampled_from(((), (), ("ant",), ("bee",)))),
            refuses_kinds=draw(st.sampled_from(((), (), (OwnerKind.FOREIGN,)))),
            windows=draw(st.sampled_from(((), (), (NIGHT,)))),
            notice_seconds=draw(st.sampled_from((0, 60, 300))),
            protected_seconds=draw(st.sampled_from((0, 600))),
            teardown_seconds=draw(st.sampled_from((0, 30))),
            evicted_percent_max=draw(st.sampled_from((0, 0, 100, 250))),
        )
        for name in OWNERS
    ]


@st.composite
def pools(draw: st.DrawFn) -> list[Pool]:
    """One or two small pools, most with several owners; the second may be cut into slices, or its GPUs shared."""
    found = []
    for name in ("p", "q")[: draw(st.integers(1, 2))]:
        model = draw(st.sampled_from((HGX, NVL72)))
        cut = draw(st.sampled_from(("", "", SLICE, SHARD))) if name == "q" and model is HGX else ""
        each = model.gpus_per_node * (SLICES if cut else 1)
        nodes = {owner: draw(st.sampled_from((0, 2, 2, 3, 4) if not cut else (0, 1, 2))) for owner in OWNERS}
        nodes["ant"] = max(1, nodes["ant"])
        if draw(st.integers(0, 3)) == 3:
            nodes["bee"] = nodes["cat"] = 0  # all ant's: there its jobs may take more than the share of their GPUs
        entitlements = {owner: count * each for owner, count in nodes.items() if count}
        found.append(
            pool(
                name, entitlements, model=model, nodes_per_rack=draw(st.integers(1, 4)), racks_per_block=2, cut=cut,
                cpus=draw(st.sampled_from((0, 0, 20))), memory_mib=draw(st.sampled_from((0, 0, 100))),
            )
        )  # fmt: skip
    return found


preemptions = st.sampled_from((*(Preemption.NEVER for _ in range(4)), Preemption.LOWER_PRIORITY))
orders = st.sampled_from((QueueOrder.BEST_EFFORT,) * 5 + (QueueOrder.STRICT,))


@st.composite
def queues(draw: st.DrawFn, named: list[Pool]) -> list[Queue]:
    """A tree of queues below each owner, some with quotas."""
    found = []
    for owner in OWNERS:
        for path in (owner, f"{owner}/x", f"{owner}/y", f"{owner}/y/z"):
            quotas = {}
            if draw(st.integers(0, 9)) == 9:
                quotas[named[0].id] = Quota(
                    nominal=draw(st.integers(0, 16)),
                    borrowing_limit=draw(st.sampled_from((None, 0, 8))),
                    lending_limit=draw(st.sampled_from((None, 0, 4))),
                )
            found.append(
                Queue(
                    id=path,
                    weight=draw(st.integers(1, 3)),
                    quotas=quotas,
                    preemption=draw(preemptions),
                    order=draw(orders),
                )
            )
    return found


@st.composite
def rules(draw: st.DrawFn) -> tuple[PlacementRule, ...]:
    """Mostly none; else one that keeps somebody's work at home or away from somewhere, perhaps from tomorrow on."""
    if draw(st.integers(0, 4)) < 4:
        return ()
    not_at = draw(st.sampled_from((Place(home=False), Place(pools=("q",)))))
    from_day = draw(st.sampled_from(("", day_name(day_of(START_MS) + 1))))
    return (PlacementRule(id="r", title="", work=Work(owners=("ant", "cat")), not_at=not_at, from_day=from_day),)


@st.composite
def fleets(draw: st.DrawFn) -> list[Event]:
    """The facts of a small fleet."""
    some = draw(pools())
    policy = Policy(
        usage_half_life_seconds=3600, rules=draw(rules()), planned_starts=draw(st.sampled_from((0, 0, 1, 3)))
    )
    return fleet_facts(draw(owners()), some, draw(queues(some)), policy=policy)


@st.composite
def jobs(draw: st.DrawFn) -> Step:
    """A submission."""
    owner = draw(st.sampled_from(OWNERS))
    queue = owner + draw(st.sampled_from(("", "/x", "/y", "/y/z")))
    fields: dict[str, Any] = {
        "gpus": draw(st.sampled_from((1, 2, 4, 6, 8, 8, 8, 12, 16, 16, 24))),
        "slice": draw(st.sampled_from(("", "", "", SLICE, SHARD))),
        "priority": draw(st.integers(0, 1)),
        "may_borrow": draw(st.integers(0, 7)) < 7,
        "stays_home": draw(st.integers(0, 7)) == 7,
        "checkpoint_seconds": draw(st.sampled_from((0, 600))),
        "time_limit_seconds": draw(st.sampled_from((60, 600, 3600))),
        "topology": draw(st.sampled_from(TOPOLOGIES)),
        "segment_nodes": draw(st.sampled_from((0, 0, 0, 0, 0, 1, 2))),
        "gpus_per_node": draw(st.sampled_from((0, 0, 0, 0, 0, 2, 4))),
        "cpus_per_node": draw(st.sampled_from((0, 0, 0, 1, 3, 9, 20))),
        "host_memory_mib_per_gpu": draw(st.sampled_from((0, 0, 0, 2, 12, 30))),
    }
    return ("submit", draw(st.sampled_from((1, 1, 1, 4))), queue, fields)


@st.composite
def bookings(draw: st.DrawFn) -> Step:
    """A reservation made in advance, for something soon."""
    purpose = draw(st.sampled_from(tuple(ReservationPurpose)))
    queue = draw(st.sampled_from(("ant", "bee", "bee/x"))) if purpose is not ReservationPurpose.MAINTENANCE else ""
    times = draw(st.sampled_from((0, 300, 1000))), draw(st.sampled_from((60, 600, 3600)))
    return ("reserve", draw(st.integers(0, 20)), purpose, queue, draw(st.integers(1, 3)), *times)


def steps(*, faults: bool = True) -> st.SearchStrategy[Step]:
    """Something that happens; without `faults`, nodes, sites and contracts stay as they are."""
    nodes = st.tuples(st.just("node"), st.integers(0, 20), st.sampled_from(tuple(NodeState)))
    sites = st.tuples(st.just("site"), st.integers(0, 20))
    power = st.tuples(st.just("power"), st.integers(0, 20), st.sampled_from((0, 1, 20, 60)))
    return st.one_of(
        jobs().map(lambda step: (*step, "tick")),
        jobs().map(lambda step: (*step, "tick")),
        jobs().map(lambda step: (*step, "tick")),
        jobs(),
        st.tuples(st.just("wait"), st.sampled_from((1, 60, 300, 1000))),
        st.tuples(st.just("wait"), st.sampled_from((1, 60, 300))),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        *([nodes, sites, power, bookings(), owners().map(lambda some: ("contracts", some))] if faults else []),
    )


def play(harness: Harness, step: Step) -> None:
    """Carry out a step; what cannot happen now does not."""
    match step:
        case ("submit", count, queue, fields):
            for _ in range(count):
                submit(harness, queue, fields)
        case ("submit", count, queue, fields, "tick"):
            play(harness, step[:-1])
            harness.tick()
        case ("wait", seconds):
            harness.wait(seconds)
            harness.tick()
        case ("end" | "cancel", which):
            stop_job(harness, step[0], which)
        case _:
            change_fleet(harness, step)


def submit(harness: Harness, queue: str, fields: dict[str, Any]) -> JobId:
    """A job arrives. Where no pool is cut it asks for whole GPUs: the API takes no other."""
    is_cut = any(record.declared.slice for record in harness.state.pools.values())
    return harness.submit(queue, **(fields if is_cut else fields | {"slice": ""}))


def stop_job(harness: Harness, how: str, which: int) -> None:
    """One of the running jobs ends, or one of all jobs is cancelled."""
    jobs = sorted(job.id for job in harness.state.jobs.values() if can_stop(job, how))
    if jobs:
        (harness.end if how == "end" else harness.cancel)(jobs[which % len(jobs)])


def can_stop(job: Job, how: str) -> bool:
    """True if a job can end so now."""
    return job.state is JobState.ACTIVE if how == "end" else not (job.live and job.live.stop)


def change_fleet(harness: Harness, step: Step) -> None:
    """A node fails or is mended, a site is lost or found, its power is cut, or all contracts change."""
    match step:
        case ("node", which, state):
            pool_id = list(harness.state.pools)[which % len(harness.state.pools)]
            harness.set_node(pool_id, which % harness.state.pools[pool_id].declared.nodes, state)
        case ("site", which):
            site = list(harness.state.sites)[which % len(harness.state.sites)]
            is_silent = harness.state.sites[site].link is LinkState.SILENT
            harness.record((SiteConnected if is_silent else SiteSilent)(at_ms=harness.now_ms, site=site))
        case ("power", which, kilowatts):
            harness.set_power(list(harness.state.sites)[which % len(harness.state.sites)], kilowatts, 60)
        case ("reserve", which, purpose, queue, nodes, wait_seconds, seconds):
            pool_id = list(harness.state.pools)[which % len(harness.state.pools)]
            made = sum(isinstance(fact, AdvanceReservationMade) for fact in harness.log)
            harness.reserve(
                MakeReservation(
                    by="op", name=f"r{made}", purpose=purpose, pool=pool_id, nodes=nodes, queue=queue,
                    start_ms=harness.now_ms + wait_seconds * 1000, duration_seconds=seconds,
                )
            )  # fmt: skip
        case ("contracts", some):
            for owner in some:
                harness.record(OwnerDeclared(at_ms=harness.now_ms, owner=owner))
            harness.tick()
