"""A real Slurm cluster for the engine's tests, shared by all of them."""

import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.engine import SlurmEngine, SlurmSettings
from pumasi.agents.slurm.runner import ProcessRunner
from pumasi.agents.slurm.site import SlurmPool, SlurmSite
from pumasi.agents.slurm.tracked import Patience
from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters

POOL = "sejong-b200"
SOON = Patience(
    list=0.05, unsure=1.0, forgotten=0.5, record=0.5, silence=1.5, lost=10.0, stray=1.0, stop=0.5, nodes=0.2, away=1.0
)


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """A cluster of five nodes with eight fake GPUs each."""
    with (
        tempfile.TemporaryDirectory(prefix="pumasi-slurm-", dir="/tmp") as folder,
        running_clusters(Path(folder), ["sejong"], nodes=5) as clusters,
    ):
        yield clusters["sejong"]


def open_slurm(
    cluster: SlurmCluster,
    directory: Path,
    *,
    queue_seconds: int = 600,
    partition: str = "gpu",
    patience: Patience = SOON,
    gpus_per_node: int = 8,
    gres_type: str = "b200",
) -> SlurmEngine:
    """The engine of the cluster, its files below `directory`; impatient, so that tests are quick."""
    pool = SlurmPool(
        id=POOL, partition=partition, nodes=cluster.nodes, gpus_per_node=gpus_per_node, gres_type=gres_type
    )  # fmt: skip
    table = SlurmSite(
        pools={POOL: pool},
        slurm_conf=str(cluster.config),
        kill_wait_seconds=2,
        queue_seconds=queue_seconds,
        accounting=cluster.plan.accounting,
    )
    settings = SlurmSettings(
        fleet=f"f{zlib.crc32(str(directory).encode())}",  # tags are unique for ever: a fleet for each test
        site="sejong",
        directory=directory / "site",
        output_limit_bytes=1000,
        beat_ms=300,
        patience=patience,
    )
    commands = SlurmCommands(ProcessRunner(table.commands, table.slurm_conf), os.getuid())
    return SlurmEngine(settings, table, commands)
