"""A real Slurm whose GPUs are shared: the doctor finds the pool good, and jobs get shards of a GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi.agents.slurm.health import gpu_count
from pumasi.model.fleet import SHARD
from pumasi.model.jobs import Span, StopCause
from pumasi.protocol.messages import RunKey
from pumasi.testing.engine import Driver, an_order
from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters
from tests.agents.slurm.conftest import open_slurm

SHARDS = 8  # of a node with two GPUs


@pytest.fixture(scope="module")
def lab(slurm_folder: Path) -> Iterator[SlurmCluster]:
    """A node with two GPUs, four shards each."""
    with running_clusters(slurm_folder, ["lab"], nodes=1, gpus_per_node=2, shards=SHARDS) as clusters:
        yield clusters["lab"]


def test_jobs_share_a_gpu_by_count(lab: SlurmCluster, tmp_path: Path) -> None:
    engine = open_slurm(lab, tmp_path, gpus_per_node=SHARDS, gres_type=SHARD)
    driver = Driver(engine, 60.0)
    script = "echo $SLURM_SHARDS_ON_NODE of GPU $CUDA_VISIBLE_DEVICES; until [ -e go ]; do sleep 0.05; done"
    try:
        for job, mask in ((1, 0b111), (2, 0b1000)):
            order = an_order(script, job, spans=(Span(0, 1, mask),), slice=SHARD, working_directory=str(tmp_path))
            driver.start(order)
            driver.await_output(RunKey(job, 1), "\n")
        (tmp_path / "go").touch()
        assert [driver.ending(RunKey(job, 1)).exit_code for job in (1, 2)] == [0, 0]
        assert [driver.output(RunKey(job, 1)) for job in (1, 2)] == ["3 of GPU 0\n", "1 of GPU 0\n"]
        nodes = engine.poll().nodes
        assert nodes is None or not nodes.ailing, "its node has all its shards"
    finally:
        for found in engine.find():
            if found.ending is None:
                engine.stop(found.run, StopCause.CANCEL, "KILL", 0)


@pytest.mark.parametrize(
    ("gres", "shards", "gpus"),
    [("gpu:b200:8(S:0-1),shard:56(S:0-1)", 56, 8), ("shard:b200:14,gpu:2", 14, 2), ("gpu:1", 0, 1), ("", 0, 0)],
)
def test_shards_are_told_from_gpus(gres: str, shards: int, gpus: int) -> None:
    assert (gpu_count(gres, SHARD), gpu_count(gres, "")) == (shards, gpus)
