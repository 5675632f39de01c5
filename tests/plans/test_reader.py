"""What a sound plan means: quotas in whole GPUs, windows, defaults of the GPU model, stages."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumasi.model.fleet import BorrowOrder, Place, PoolOrder, Stage, stage_of
from pumasi.plans.lending import parse_window
from pumasi.plans.locate import find_plan, shipped_plans
from pumasi.plans.problems import PlanError
from pumasi.plans.reader import PlanReading, load_plan, parse_plan, read_plan
from pumasi.plans.summary import summarize
from tests.plans.snippets import SOUND, edited, sound, write


def quotas(text: str) -> dict[str, dict[str, int]]:
    """Nominal quotas by queue and pool."""
    queues = sound(text).plan.queues
    return {queue.id: {pool: quota.nominal for pool, quota in queue.quotas.items()} for queue in queues}


def test_root_queue_has_the_entitlements_and_parents_come_first() -> None:
    """The root's quotas are what the owner is due; shares of 100% use it up: 60% and 40% of 16 are 10 and 6."""
    assert quotas(SOUND) == {
        "north": {"hall": 16},
        "north/lab": {"hall": 10},
        "north/rest": {"hall": 6},
        "south": {"hall": 8},
    }


@settings(max_examples=30)
@given(st.lists(st.integers(min_value=1, max_value=10_000), min_size=1, max_size=12), st.integers(1, 5_000))
def test_shares_of_the_whole_use_it_up(weights: list[int], nodes: int) -> None:
    """Whatever the shares, when they are 100% together the children have exactly the parent's GPUs, each within one."""
    shares = [weight * 10_000 // sum(weights) for weight in weights]
    shares[0] += 10_000 - sum(shares)
    children = "".join(f"      q{n}: {{share: {share // 100}.{share % 100:02}%}}\n" for n, share in enumerate(shares))
    text = edited("nodes: 3", f"nodes: {nodes}").replace("kilowatts: 60", "kilowatts: 90000000")
    text = text.replace("north: 16, south: 8", f"north: {nodes * 8 - 8}, south: 8").replace("hall: 8}", "hall: 0}")
    text = edited("      lab: {share: 60%, industry: research}\n      rest: {share: 40%}\n", children, text)
    if nodes == 1:
        return  # north is due nothing then
    given_gpus = [quotas(text)[f"north/q{n}"]["hall"] for n in range(len(shares))]
    assert sum(given_gpus) == nodes * 8 - 8
    for gpus, share in zip(given_gpus, shares, strict=True):
        assert abs(gpus - (nodes * 8 - 8) * share / 10_000) < 1


def test_single_quotas_and_limits() -> None:
    """A queue may ask for GPUs of one pool, and limit what it borrows and lends in GPUs or shares of its quota."""
    asked = "rest: {quotas: {hall: {nominal: 6, borrowing_limit: 50%, lending_limit: 0}}}"
    queue = sound(edited("rest: {share: 40%}", asked)).plan.queues[2]
    assert (queue.id, queue.quotas["hall"].nominal) == ("north/rest", 6)
    assert (queue.quotas["hall"].borrowing_limit, queue.quotas["hall"].lending_limit) == (3, 0)


def test_limits_of_all_pools() -> None:
    """`lending_limit: 0` on a queue ring-fences every pool of it; without it there is no limit."""
    lab, rest = sound(edited("rest: {share: 40%}", "rest: {share: 40%, lending_limit: 0}")).plan.queues[1:3]
    assert rest.quotas["hall"].lending_limit == 0
    assert lab.quotas["hall"].lending_limit is None


def test_pool_takes_the_usual_node_of_its_model() -> None:
    """What a pool does not say comes from the catalogue; what it says wins."""
    (pool,) = sound(edited("    nodes: 3\n", "    nodes: 3\n    cpus_per_node: 96\n")).plan.pools
    assert (pool.gpus_per_node, pool.nodes_per_rack, pool.cpus_per_node) == (8, 4, 96)
    assert pool.memory_mib_per_node == 2048 * 1024


def test_a_pool_that_is_cut_counts_slices_and_the_fleet_gpus() -> None:
    """Three nodes of eight GPUs are 168 slices, seven to a GPU; 100 and 68 of them are 15 and 9 GPUs, rounded."""
    text = edited("nodes: 3\n", "nodes: 3\n    slice: 1g.18gb\n").replace(
        "north: 16, south: 8", "north: 100, south: 68"
    )
    plan = sound(text).plan
    (pool,) = plan.pools
    assert (pool.slice, pool.slices_per_gpu, pool.gpus_per_node, pool.gpus) == ("1g.18gb", 7, 56, 168)
    summary = summarize(plan, "2027-01-01")
    assert (summary.gpus_total, summary.gpus_entitled_by_owner) == (24, {"north": 15, "south": 9})
    assert next(queue for queue in plan.queues if queue.id == "north/lab").quotas["hall"].nominal == 60


def test_a_pool_whose_gpus_are_shared_counts_shards_and_the_fleet_gpus() -> None:
    text = edited("nodes: 3\n", "nodes: 3\n    slice: shard\n    shards_per_gpu: 4\n")
    plan = sound(text.replace("north: 16, south: 8", "north: 64, south: 32")).plan
    (pool,) = plan.pools
    assert (pool.is_shared, pool.slices_per_gpu, pool.gpus_per_node, pool.gpus) == (True, 4, 32, 96)
    assert summarize(plan, "2027-01-01").gpus_entitled_by_owner == {"north": 16, "south": 8}


def test_plan_may_declare_its_own_gpu_model() -> None:
    """A model the catalogue lacks is declared beside the pools."""
    figures = "{gpus_per_node: 8, memory_gib: 40, cpu_arch: x86_64, gpu_watts: 400, planning_watts: 600}"
    own = f"gpu_models:\n  own: {figures}\n"
    reading = sound(own + edited("hgx-h200", "own"))
    assert [model.id for model in reading.plan.gpu_models] == ["own"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mon-fri 09:00-17:30", [((0, 1, 2, 3, 4), 540, 1050)]),
        ("sat 00:00-24:00", [((5,), 0, 1440)]),
        ("fri-mon 22:00-24:00", [((0, 4, 5, 6), 1320, 1440)]),
        ("sun 20:00-08:00", [((6,), 1200, 1440), ((0,), 0, 480)]),
        ("mon 20:00-00:00", [((0,), 1200, 1440)]),
        ("mon 24:00-08:00", []),
        ("mon 09:60-10:00", []),
        ("monday 09:00-10:00", []),
    ],
)
def test_windows(text: str, expected: list[tuple[tuple[int, ...], int, int]]) -> None:
    """A night becomes two windows, each within a day."""
    found = [(window.days, window.from_minute, window.to_minute) for window in parse_window(text)]
    assert found == expected


def test_stage_on_a_day() -> None:
    """A pool is in the furthest stage reached; before any, its plan has announced it."""
    (pool,) = sound().plan.pools
    days = ("2026-01-14", "2026-01-15", "2026-02-28", "2026-03-01", "2099-01-01")
    stages = [stage_of(pool, day) for day in days]
    assert stages == [Stage.ANNOUNCED, Stage.ORDERED, Stage.ORDERED, Stage.IN_SERVICE, Stage.IN_SERVICE]


def test_power_steps() -> None:
    """The site carries the last step; the steps are kept for those who ask by day."""
    reading = sound(edited("kilowatts: 60", "kilowatts: {2026-01-01: 40, 2027-01-01: 90}"))
    assert reading.plan.sites[0].power_cap_kilowatts == 90
    assert [step.kilowatts for step in reading.power_steps["mill"]] == [40, 90]


def test_longest_part_of_a_basis_wins() -> None:
    """`stages.ordered` before `stages` before `all` before the plan's own."""
    basis = "    basis: {all: {assumption: a}, stages: {assumption: b}, stages.ordered: {assumption: c}}\n"
    figures = sound(edited("    nodes: 3\n", f"    nodes: 3\n{basis}")).provenance.figures
    found = {figure.path: figure.basis.assumption for figure in figures}
    assert found["pools.hall.nodes"] == "a"
    assert found["pools.hall.stages.in_service"] == "b"
    assert found["pools.hall.stages.ordered"] == "c"
    assert found["sites.mill.power_cap_kilowatts"] == "made up for a test"


def test_load_plan_raises_all_mistakes(tmp_path: Path) -> None:
    """Callers that need a plan get it, or one error with every mistake."""
    assert load_plan(write(tmp_path, SOUND)).name == "small"
    with pytest.raises(PlanError) as caught:
        load_plan(write(tmp_path, edited("site: mill", "site: mil")))
    assert len(caught.value.problems) == 1


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder is a problem of the plan; a missing file is not found."""
    reading = read_plan(tmp_path)
    assert isinstance(reading, list)
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path / "none.yaml")


def test_shipped_plans_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no path is looked for among the shipped plans."""
    monkeypatch.chdir(tmp_path)
    assert shipped_plans() == ("campus", "five-slurm", "korea")
    assert find_plan("korea").name == "korea.yaml"
    with pytest.raises(FileNotFoundError, match="campus, five-slurm, korea"):
        find_plan("corea")


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_any_text_is_answered(content: str | bytes) -> None:
    """No file, however odd, makes the reader fall over."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    assert isinstance(parse_plan(data, "x"), list)


@given(st.integers(0, len(SOUND) - 1), st.text(max_size=6))
def test_any_edit_is_answered(place: int, patch: str) -> None:
    """Nor does a sound plan with a few letters changed anywhere."""
    data = (SOUND[:place] + patch + SOUND[place + len(patch) :]).encode("utf-8", "surrogatepass")
    assert isinstance(parse_plan(data, "x"), (PlanReading, list))


def test_a_policy_may_order_pools_and_borrowers() -> None:
    policy = sound("policy: {pool_order: [site, power], borrow_order: max_min}\n" + SOUND).plan.policy
    assert policy.pool_order == (PoolOrder.SITE, PoolOrder.POWER)
    assert policy.borrow_order is BorrowOrder.MAX_MIN
    assert sound(SOUND).plan.policy.pool_order == (PoolOrder.HOME,)


RULE = "placement_rules:\n  stay:\n    title: It stays\n    work: {data_classes: [secret]}\n    only_at: {home: yes}\n"


def test_rules_are_read_with_their_days() -> None:
    """A rule says what work it is about, where that may run, and from when until when it holds."""
    text = RULE.replace("    work:", "    from: 2026-01-01\n    until: 2027-01-01\n    work:") + SOUND
    (rule,) = sound(text).plan.policy.rules
    assert (rule.id, rule.work.data_classes, rule.only_at, rule.not_at) == ("stay", ("secret",), Place(home=True), None)
    assert [rule.is_in_force(day) for day in ("2025-12-31", "2026-01-01", "2026-12-31", "2027-01-01")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[secret]", "[secrt]", "did you mean secret?"),
        ("work: {", "work: {queues: [north/lob], ", "there is no queue 'north/lob'"),
        ("work: {", "work: {owners: [nort], ", "did you mean north?"),
        ("work: {", "work: {owner_kinds: [friend], ", "there is no kind of owner 'friend'"),
        ("{home: yes}", "{pools: [hal]}", "did you mean hall?"),
        ("{home: yes}", "{sites: [mil]}", "did you mean mill?"),
        ("{home: yes}", "{regions: [Moon]}", "there is no region 'Moon'"),
        ("{home: yes}", "{home: perhaps}", "must be one of yes, no, either"),
        ("{home: yes}", "{}", "names no place"),
        ("    only_at: {home: yes}\n", "", "says where with one of only_at and not_at"),
        ("    work:", "    not_at: {home: no}\n    work:", "says where with one of only_at and not_at"),
        ("    work:", "    from: 2027-01-01\n    until: 2027-01-01\n    work:", "not after from"),
        ("    work:", "    since: 2027-01-01\n    work:", "the key is unknown"),
    ],
)
def test_mistakes_in_rules_are_found(old: str, new: str, message: str) -> None:
    """Each at its place in the file."""
    found = parse_plan((RULE.replace(old, new) + SOUND).encode(), "small.yaml")
    assert not isinstance(found, PlanReading)
    assert any(message in problem.message and problem.path.startswith("placement_rules.stay") for problem in found)
