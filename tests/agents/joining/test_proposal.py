"""What `agent init` makes of a cluster: pools by likeness, racks kept together, models by name; sound files."""

from pathlib import Path

import msgspec
import pytest

from pumasi.agents.joining.inventory import Gpus, Inventory, gpus_of
from pumasi.agents.joining.proposal import Proposal, engine_file, plan_file, policy_file, propose
from pumasi.agents.site_policy import Admission, Place, read_policy
from pumasi.agents.slurm.readers import SlurmNode
from pumasi.agents.slurm.site import read_site
from pumasi.plans.catalogue import shipped_catalogue

MODELS = [entry.model for entry in shipped_catalogue().entries.values()]


def node(name: str, gres: str = "gpu:b200:8", partitions: tuple[str, ...] = ("batch", "gpu")) -> SlurmNode:
    return SlurmNode(name, frozenset({"IDLE"}), "", gres, (), partitions, 64, 1000)


def inventory(*nodes: SlurmNode, racks: tuple[tuple[str, ...], ...] = ()) -> Inventory:
    settings = {"KillWait": "45 sec", "AccountingStorageType": "accounting_storage/slurmdbd"}
    return Inventory(version="slurm 24.11.5", nodes=nodes, default_partition="gpu", racks=racks, settings=settings)


def proposed(*nodes: SlurmNode, racks: tuple[tuple[str, ...], ...] = ()) -> Proposal:
    return propose(inventory(*nodes, racks=racks), "kaist", "public", MODELS)


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:b200:8", [Gpus("b200", 8)]),
        ("gpu:b200:8(S:0-1)", [Gpus("b200", 8)]),
        ("gpu:4", [Gpus("", 4)]),
        ("gpu:1g.23gb:56(S:0-1)", [Gpus("1g.23gb", 56)]),
        ("gpu:h200:4(S:0,1),gpu:a100:2,shard:16", [Gpus("h200", 4), Gpus("a100", 2)]),
        ("gpu:b200:0", []),
        ("(null)", []),
        ("", []),
        ("craynetwork:4", []),
    ],
)
def test_gres_is_read_as_the_site_writes_it(gres: str, gpus: list[Gpus]) -> None:
    assert gpus_of(gres) == gpus


def test_nodes_alike_are_a_pool_and_others_stay_outside() -> None:
    proposal = proposed(
        *(node("a1"), node("a2"), node("h1", "gpu:h200:8"), node("h2", "gpu:h200:8", ("batch",))),
        *(node("login", "(null)"), node("mixed", "gpu:h200:4,gpu:a100:4"), node("spare", partitions=())),
    )
    assert [(pool.id, pool.partition, pool.nodes, pool.model) for pool in proposal.pools] == [
        ("kaist-b200", "gpu", ("a1", "a2"), "hgx-b200"),
        ("kaist-h200", "gpu", ("h1",), "hgx-h200"),
        ("kaist-h200-n2", "batch", ("h2",), "hgx-h200"),
    ]
    assert dict(proposal.left_out) == {
        "login": "no GPUs",
        "mixed": "GPUs of two types; a pool has one",
        "spare": "in no partition",
    }


@pytest.mark.parametrize(
    ("gres", "model"),
    [
        ("gpu:nvidia_b200:8", "hgx-b200"),
        ("gpu:gb300:4", "gb300-nvl72"),
        ("gpu:gb200_nvl72:4", "gb200-nvl72"),
        ("gpu:rtx_pro_6000:8", "rtx-pro-6000"),
        ("gpu:gh200:1", "gh200"),
        ("gpu:b300:16", None),  # no model of the catalogue has 16 of them in a node
        ("gpu:tesla:8", None),
        ("gpu:8", None),
    ],
)
def test_a_model_is_named_where_the_site_s_word_tells_it(gres: str, model: str | None) -> None:
    assert proposed(node("a", gres)).pools[0].model == model


@pytest.mark.parametrize(
    ("gres", "model", "cut", "whole"),
    [
        ("gpu:b200_1g.23gb:56", "hgx-b200", "1g.23gb", 8),
        ("gpu:nvidia_h200_3g.71gb:16", "hgx-h200", "3g.71gb", 8),
        ("gpu:1g.23gb:28", "hgx-b200", "1g.23gb", 4),
        ("gpu:1g.24gb:28", None, "1g.24gb", 28),  # of four GPUs of one model, or of seven of another
        ("gpu:1g.24gb:32", "rtx-pro-6000", "1g.24gb", 8),
        ("gpu:rtx_pro_6000_2g.48gb:16", "rtx-pro-6000", "2g.48gb", 8),
        ("gpu:b200_9g.23gb:56", None, "9g.23gb", 56),  # no model is cut so
        ("gpu:1g.23gb:55", None, "1g.23gb", 55),  # no whole GPUs
    ],
)
def test_a_type_that_is_a_mig_profile_is_a_pool_cut_so(gres: str, model: str | None, cut: str, whole: int) -> None:
    proposal = proposed(node("a", gres))
    (pool,) = proposal.pools
    assert (pool.model, pool.cut and pool.cut.name) == (model, cut)
    plan = plan_file(proposal, "2026-03-01", MODELS)
    assert f"    slice: {cut}\n    gpus_per_node: {whole}" in plan
    assert f"gpus_per_node: {gpus_of(gres)[0].count} # slices" in engine_file(proposal, inventory(), "", "/usr/bin")


def test_racks_keep_their_nodes_together_and_in_order(tmp_path: Path) -> None:
    racks = (("n3", "n1"), ("n2", "n4"))
    pool = proposed(*(node(f"n{number}") for number in (1, 2, 3, 4)), racks=racks).pools[0]
    assert (pool.nodes, pool.nodes_per_rack) == (("n3", "n1", "n2", "n4"), 2)
    uneven = proposed(*(node(f"n{number}") for number in (1, 2, 3)), racks=(("n1",), ("n2", "n3"))).pools[0]
    assert uneven.nodes_per_rack == 0


def test_the_files_are_sound_and_say_what_was_found(tmp_path: Path) -> None:
    racks = (("n3", "n1"), ("n2", "n4"))
    nodes = [node(f"n{number}") for number in (1, 2, 3, 4)]
    proposal = proposed(*nodes, racks=racks)
    (tmp_path / "slurm.yaml").write_text(engine_file(proposal, inventory(*nodes), "/etc/slurm/slurm.conf", "/opt/bin"))
    site = read_site(tmp_path / "slurm.yaml")
    assert (site.kill_wait_seconds, site.accounting, site.commands) == (45, True, "/opt/bin")
    assert site.pools["kaist-b200"].nodes == ("n3", "n1", "n2", "n4")
    (tmp_path / "policy.yaml").write_text(policy_file(proposal, lend=False))
    policy = read_policy(tmp_path / "policy.yaml")
    assert (policy.gpus_at_most, policy.queues, policy.data_classes) == (32, ("public",), ("open",))
    assert not Admission(policy, {"kaist-b200": Place("gpu")}).uncovered()
    assert "queues: [all]" in policy_file(proposal, lend=True)


def test_the_plan_s_part_makes_a_sound_plan(tmp_path: Path) -> None:
    from pumasi.plans.reader import load_plan

    part = plan_file(proposed(node("a1"), node("a2")), "2026-03-01", MODELS)
    rest = "name: alone\nowners: {public: {kind: public}}\nqueues: {public: {}}\nbasis: {assumption: a test}\n"
    (tmp_path / "plan.yaml").write_text(rest + part)
    plan = load_plan(tmp_path / "plan.yaml")
    assert [(pool.id, pool.model, pool.gpus, pool.entitlements) for pool in plan.pools] == [
        ("kaist-b200", "hgx-b200", 16, {"public": 16})
    ]


def test_a_model_nobody_knows_is_left_to_the_author_and_the_plan_is_not_sound_until_then() -> None:
    proposal = proposed(node("a1", "gpu:tesla:8"))
    assert "model: '' # one of" in plan_file(proposal, "2026-03-01", MODELS)
    assert msgspec.structs.asdict(proposal.pools[0])["model"] is None
