"""The clusters that other tests stand on: they hand out GPUs, lose what Slurm loses, and leave nothing behind."""

import time
from collections.abc import Callable
from pathlib import Path

from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters

PATIENCE_SECONDS = 60


def _until(holds: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, problem
        time.sleep(0.05)


def _output(file: Path) -> str:
    _until(lambda: file.exists() and file.read_text().endswith("\n"), "the job wrote nothing")
    return file.read_text().strip()


def test_a_job_gets_the_nodes_and_gpus_it_asks_for(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    script = "#!/bin/sh\necho $SLURM_JOB_NODELIST $CUDA_VISIBLE_DEVICES\n"
    nodes = ",".join(slurm_cluster.nodes[1:3])
    slurm_cluster.submit(script, "--nodelist", nodes, "-N2", "--gres=gpu:8", "-o", str(tmp_path / "whole"))
    slurm_cluster.submit(script, "--gres=gpu:b200:3", "-o", str(tmp_path / "part"))
    assert _output(tmp_path / "whole") == "alone[0002-0003] 0,1,2,3,4,5,6,7"
    assert _output(tmp_path / "part").endswith(" 0,1,2")


def test_a_node_dies_with_its_job_and_nothing_is_left_at_the_end(slurm_folder: Path) -> None:
    with running_clusters(slurm_folder, ["brief", "other"], nodes=2) as clusters:
        brief = clusters["brief"]
        brief.submit("#!/bin/sh\necho up; env -i sleep 99\n", "-w", brief.nodes[1], "-o", str(slurm_folder / "up"))
        assert _output(slurm_folder / "up") == "up"
        daemons_alone = 1 + 2 + 2  # munged, slurmctld with its script runner, two slurmd
        assert len(brief.processes()) > daemons_alone
        brief.kill_node(brief.nodes[1])
        # slurmctld forks for a moment now and then; what a job left behind would stay for 99 seconds.
        _until(lambda: len(brief.processes()) == daemons_alone - 1, "something of the node is left")
        clusters["other"].submit("#!/bin/sh\nsetsid sleep 99 & wait\n")
    assert not brief.processes() and not clusters["other"].processes()
