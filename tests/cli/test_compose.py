"""From a draft to the body of a job."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.cli.submission.catalogue import Catalogue
from pumasi.cli.submission.compose import Fleet, compose, gang
from pumasi.cli.submission.directives import Setting
from pumasi.cli.submission.draft import Draft, Manner, apply_settings
from pumasi.cli.submission.options import OptionProblem, find_long
from tests.cli.contract_server import OTHER_POOL, POOL

FLEET = Fleet(Catalogue.of([POOL, OTHER_POOL]), datetime(2027, 1, 31, tzinfo=UTC), 1_800_000_000_000)


def _one(**fields: Any) -> dict[str, Any]:
    draft = Draft(**{"name": "n", "queue": "public", "script": "#!/bin/sh\n", "gpus": 8, **fields})
    (body,) = compose(draft, FLEET)
    return body


def _problem(**fields: Any) -> str:
    with pytest.raises(OptionProblem) as caught:
        _one(**fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "per_node", "gpus", "expected"),
    [
        (0, 0, 8, (8, 0)),
        (2, 8, 0, (16, 8)),
        (0, 8, 0, (8, 8)),
        (2, 8, 16, (16, 8)),
        (0, 4, 72, (72, 4)),
        (4, 0, 16, (16, 4)),
    ],
)
def test_sums_up_the_gang(nodes: int, per_node: int, gpus: int, expected: tuple[int, int]) -> None:
    assert gang(Draft(nodes=nodes, gpus_per_node=per_node, gpus=gpus)) == expected


@pytest.mark.parametrize(("nodes", "per_node", "gpus"), [(0, 0, 0), (4, 0, 0), (2, 8, 32), (0, 8, 12), (3, 0, 16)])
def test_refuses_a_gang_that_contradicts_itself(nodes: int, per_node: int, gpus: int) -> None:
    with pytest.raises(OptionProblem):
        gang(Draft(nodes=nodes, gpus_per_node=per_node, gpus=gpus))


@given(st.integers(0, 40), st.integers(0, 16), st.integers(0, 600))
def test_a_gang_that_is_accepted_adds_up(nodes: int, per_node: int, gpus: int) -> None:
    try:
        total, each = gang(Draft(nodes=nodes, gpus_per_node=per_node, gpus=gpus))
    except OptionProblem:
        return
    assert total > 0
    assert not gpus or total == gpus
    assert not per_node or each == per_node
    assert not nodes or total == nodes * each


def test_names_of_places_are_told_apart_by_the_fleet() -> None:
    body = _one(places=("sejong-b200", "ulsan"), sites=("sejong",))
    assert body["pools"] == ["sejong-b200"]
    assert body["sites"] == ["sejong", "ulsan"]
    assert "did you mean sejong-b200?" in _problem(places=("sejong-b20",))


def test_places_to_try_first_keep_their_order() -> None:
    assert _one(prefers=("ulsan", "sejong-b200"))["prefers"] == ["ulsan", "sejong-b200"]
    assert "did you mean sejong-b200?" in _problem(prefers=("sejong-b20",))


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({"gpu_types": ("b200",)}, ["hgx-b200"]),
        ({"gpu_types": ("gb300",)}, ["gb300-nvl72"]),
        ({"gpu_types": ("nvl72",)}, ["gb300-nvl72"]),
        ({"constraint": "b200|gb300"}, ["gb300-nvl72", "hgx-b200"]),
        ({"constraint": "b200|gb300", "gpu_types": ("b200",)}, ["hgx-b200"]),
    ],
)
def test_gpu_types_stand_for_models(fields: dict[str, Any], models: list[str]) -> None:
    assert _one(**fields)["gpu_models"] == models


def test_constraints_name_architectures() -> None:
    assert _one(constraint="aarch64&gb300")["cpu_arch"] == "arm64"
    assert "cpu_arch" not in _one(constraint="x86_64|arm64")


@pytest.mark.parametrize(
    ("cpus", "memory"),
    [
        ({"cpus_per_gpu": 4}, {"host_memory_mib_per_gpu": 8000}),
        ({"cpus_per_node": 16}, {"host_memory_mib_per_node": 32000}),
        ({}, {"host_memory_mib_per_node": 2000}),
    ],
)
def test_memory_for_each_cpu_is_memory_for_the_cpus_asked_for(cpus: dict[str, int], memory: dict[str, int]) -> None:
    body = _one(cpu_memory_mib=2000, fields=dict(cpus))
    assert {name: value for name, value in body.items() if name.startswith("host")} == memory


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"gpu_types": ("h100",)}, "no pool has a GPU 'h100'; there are gb300-nvl72, hgx-b200"),
        ({"constraint": "b200&gb300"}, "no GPU model meets all"),
        ({"constraint": "b200*4"}, "is not understood"),
        ({"constraint": "b200", "gpu_types": ("gb300",)}, "exclude each other"),
        ({"tasks": 5}, "--ntasks=5 is not supported"),
        ({"tasks_per_node": 8}, "--ntasks-per-node=8 is not supported"),
        ({"begin": "soon"}, "'soon' is no time"),
    ],
)
def test_says_what_cannot_be(fields: dict[str, Any], problem: str) -> None:
    assert problem in _problem(**fields)


def test_one_task_per_node_is_what_a_script_is_told() -> None:
    _one(tasks=2, nodes=2)
    _one(tasks=1)


def test_a_gang_may_be_spread_within_a_level() -> None:
    draft = Draft(name="n", queue="q", script="s", gpus=1)
    for name, value in (("topology", "block:required"), ("spread-job", "")):
        apply_settings(draft, Manner(), [Setting(find_long(name), value)], frozenset())
    assert compose(draft, FLEET)[0]["topology"] == {"level": "block", "required": True, "spread": True}


def test_an_array_is_a_job_for_each_index() -> None:
    draft = Draft(name="n", queue="q", script="s", gpus=1, array=(2, 4, 6), environment={"A": "1"})
    bodies = compose(draft, FLEET)
    assert [body["environment"]["SLURM_ARRAY_TASK_ID"] for body in bodies] == ["2", "4", "6"]
    assert bodies[0]["environment"] == {
        "A": "1",
        "SLURM_ARRAY_JOB_ID": "1800000000000",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_TASK_COUNT": "3",
        "SLURM_ARRAY_TASK_MIN": "2",
        "SLURM_ARRAY_TASK_MAX": "6",
        "SLURM_ARRAY_TASK_STEP": "2",
    }


def test_begin_runs_by_the_fleets_clock() -> None:
    assert _one(begin="now+1hour")["begin_at_ms"] == (1_801_353_600 + 3600) * 1000
