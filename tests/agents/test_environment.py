"""What a job finds around it."""

import msgspec
import pytest

from pumasi.agents.environment import SYSTEM_PATH, Place, first_node_gpus, job_environment, node_file, output_name
from pumasi.model.jobs import Span
from pumasi.testing.engine import an_order

PLACE = Place("sejong", "pumasi-korea-1-1", "svc", "/home/svc", "/data/run", "/srv/here")


def test_ours_beats_the_jobs_and_the_jobs_beats_the_base() -> None:
    order = an_order("true", environment={"PATH": "/opt/bin", "SLURM_JOB_ID": "999", "PUMASI_GPUS": "0", "A": "b"})
    environment = job_environment(order, PLACE)
    assert (environment["PATH"], environment["A"]) == ("/opt/bin", "b")
    assert (environment["SLURM_JOB_ID"], environment["PUMASI_GPUS"]) == ("1", "24")
    assert job_environment(an_order("true"), PLACE)["PATH"] == SYSTEM_PATH


def test_array_variables_of_the_job_arrive() -> None:
    order = an_order("true", environment={"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"})
    assert job_environment(order, PLACE)["SLURM_ARRAY_TASK_ID"] == "3"
    assert output_name("%A_%a.out", order) == "40_3.out"


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ((Span(0, 1, 0b1111),), {"SLURM_TASKS_PER_NODE": "1", "SLURM_GPUS_PER_NODE": "4", "SLURM_GPUS": "4"}),
        ((Span(0, 1, 0b11000000),), {"CUDA_VISIBLE_DEVICES": "6,7", "SLURM_GPUS_ON_NODE": "2"}),
        ((Span(3, 18, 0b1111),), {"SLURM_NNODES": "18", "SLURM_TASKS_PER_NODE": "1(x18)", "PUMASI_GPUS": "72"}),
        ((Span(3, 1, 1), Span(9, 2, 1)), {"SLURM_JOB_NODELIST": "sejong-b200-[00004,00010-00011]"}),
    ],
)
def test_the_allocation_is_spelled_out(spans: tuple[Span, ...], expected: dict[str, str]) -> None:
    environment = job_environment(an_order("true", spans=spans), PLACE)
    assert {name: environment[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("known", "visible"), [((), "8,9"), (tuple(f"MIG-{number}" for number in range(14)), "MIG-8,MIG-9")]
)
def test_slices_have_the_names_that_cuda_knows(known: tuple[str, ...], visible: str) -> None:
    order = msgspec.structs.replace(an_order("true", spans=(Span(0, 1, 0b11 << 8),)), slice="1g.23gb")
    environment = job_environment(order, PLACE._replace(slices=known))
    names = ("PUMASI_SLICE", "PUMASI_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES")
    assert [environment[name] for name in names] == ["1g.23gb", "2", "8,9", visible]


def test_who_has_shards_is_shown_their_gpu() -> None:
    order = an_order("true", spans=(Span(0, 1, 0b11 << 8),))
    environment = job_environment(msgspec.structs.replace(order, slice="shard", slices_per_gpu=7), PLACE)
    names = ("PUMASI_SLICE", "PUMASI_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES")
    assert [environment[name] for name in names] == ["shard", "2", "1", "1"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("", ""),
        ("slurm-%j.out", "slurm-1.out"),
        ("%5j.out", "00001.out"),
        ("%x-%u-%N", "a_b-mina-sejong-b200-00001"),
        ("100%%", "100%"),
        ("%z %", "%z %"),
        ("%A-%a", "1-4294967294"),
        ("/abs/%j", "/abs/1"),
    ],
)
def test_output_patterns(pattern: str, name: str) -> None:
    assert output_name(pattern, an_order("true", name="a/b")) == name


def test_nodes_and_gpus_by_hand() -> None:
    order = an_order("true")
    assert node_file(order) == "sejong-b200-00001\nsejong-b200-00002\nsejong-b200-00005\n"
    assert first_node_gpus(order) == [0, 1, 2, 3, 4, 5, 6, 7]
