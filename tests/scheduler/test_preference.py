"""Several pools could run a job: which is tried first."""

from collections.abc import Iterable

from msgspec.structs import replace

from pumasi.events.facts import GpuModelDeclared
from pumasi.model.fleet import MigProfile, Policy, Pool, PoolOrder, Site
from pumasi.testing.builders import HGX, NVL72, fleet_facts, owner, pool
from pumasi.testing.harness import Harness


def harness(pools: Iterable[Pool], *order: PoolOrder, sites: Iterable[Site] = ()) -> Harness:
    """Ant and bee with these pools; both lend all."""
    owners = [owner("ant", lends=100), owner("bee", lends=100)]
    policy = Policy(pool_order=order) if order else Policy()
    return Harness(fleet_facts(owners, pools, policy=policy, sites=sites))


def places(fleet: Harness, jobs: int, **fields: object) -> list[str]:
    """The pools of so many jobs of ant, one node each, in the order they were submitted."""
    numbers = [fleet.submit("ant", 8, **fields) for _ in range(jobs)]
    fleet.tick()
    live = [fleet.state.jobs[number].live for number in numbers]
    return [attempt.pool if attempt else "" for attempt in live]


HALLS = (pool("p", {"ant": 32}, site="here"), pool("q", {"ant": 16}, site="there"), pool("r", {"bee": 16}))


def test_at_home_the_fullest_pool_with_room_goes_first_and_what_is_lent_last() -> None:
    fleet = harness(HALLS)
    assert places(fleet, 2) == ["q", "q"]
    fleet.submit("ant", 32)
    fleet.tick()
    assert fleet.state.occupancy["p"].used_gpus == 32, "small work has left room for the gang"
    assert places(fleet, 1) == ["r"]


def test_what_is_borrowed_is_borrowed_where_most_is_idle() -> None:
    assert places(harness((pool("q", {"bee": 16}), pool("r", {"bee": 32}))), 3) == ["r", "r", "q"]


def test_a_job_is_tried_first_where_it_wishes_and_then_elsewhere() -> None:
    assert places(harness(HALLS), 6, prefers=("p", "q")) == ["p", "p", "p", "p", "q", "q"]
    assert places(harness(HALLS), 1, prefers=("here",)) == ["p"], "a site stands for its pools"


def test_home_comes_before_any_wish_to_borrow() -> None:
    assert places(harness(HALLS), 1, prefers=("r",)) == ["q"]
    fleet = harness((pool("q", {"bee": 32}), pool("r", {"bee": 16}), pool("s", {"ant": 8})))
    assert places(fleet, 2, prefers=("r",)) == ["s", "r"], "of what is lent, where it wishes; q is more idle"


def test_who_takes_many_cpus_or_much_memory_goes_where_gpus_come_with_them() -> None:
    def halls() -> Harness:
        p, q = (pool(name, {"ant": gpus}, cpus=cpus, memory_mib=mib) for name, gpus, cpus, mib in
                (("p", 16, 64, 800), ("q", 32, 256, 3200)))  # fmt: skip
        return harness((p, q))

    def first(**fields: int) -> str:
        fleet = halls()
        job = fleet.submit("ant", 1, **fields)
        fleet.tick()
        return fleet.state.jobs[job].attempts[-1].pool

    assert first(cpus_per_node=8) == first() == "p", "the fullest that has room"
    assert first(cpus_per_node=20) == first(host_memory_mib_per_node=101) == "q"


def test_a_policy_says_what_comes_first() -> None:
    halls = (pool("p", {"ant": 16}, site="here", model=NVL72), pool("q", {"ant": 32}, site="there"))
    assert places(harness(halls, PoolOrder.HOME, PoolOrder.POWER), 1) == ["q"], "its GPUs draw less"
    sites = [Site(id="here", title="here", operator="bee"), Site(id="there", title="there", operator="ant")]
    assert places(harness(halls, PoolOrder.SITE, sites=sites), 1) == ["q"], "ant operates that site itself"


def test_a_slice_draws_its_part_of_the_gpus_power() -> None:
    """Cut seven ways, the larger GPUs draw less for each slice than the smaller ones cut four ways."""
    small = replace(HGX, mig_profiles=(MigProfile("1g.23gb", 4),))
    large = replace(NVL72, mig_profiles=(MigProfile("1g.23gb", 7),))
    halls = (pool("p", {"ant": 32}, model=small, cut="1g.23gb"), pool("q", {"ant": 28}, model=large, cut="1g.23gb"))
    fleet = harness(halls, PoolOrder.POWER)
    for model in (small, large):
        fleet.record(GpuModelDeclared(at_ms=fleet.now_ms, model=model))
    assert places(fleet, 1, slice="1g.23gb") == ["q"]
