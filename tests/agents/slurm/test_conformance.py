"""The Slurm engine keeps the contract of engines, on a real Slurm."""

from pathlib import Path

import pytest

from pumasi.agents.slurm.engine import SlurmEngine
from pumasi.testing.engine import EngineConformance
from pumasi.testing.slurm_cluster import SlurmCluster
from tests.agents.slurm.conftest import open_slurm


class TestSlurmEngine(EngineConformance):
    """Everything the suite asks."""

    cluster: SlurmCluster

    @pytest.fixture(autouse=True)
    def _with_cluster(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster

    def open_engine(self, directory: Path) -> SlurmEngine:
        return open_slurm(self.cluster, directory)
