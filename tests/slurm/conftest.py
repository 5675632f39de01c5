"""Five real clusters with an agent each, one control plane: shared by all tests here, which leave it whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi.demo.slurm_fleet import SlurmFleet, slurm_fleet


@pytest.fixture(scope="session")
def fleet(slurm_folder: Path) -> Iterator[SlurmFleet]:
    """The federation; at its end no run of it is left."""
    with slurm_fleet(slurm_folder / "f") as fleet:
        yield fleet
        for cluster in fleet.clusters.values():
            assert "pumasi-" not in cluster.ask("squeue", "--noheader", "--format=%j", "--states=R,PD,CG")


@pytest.fixture(scope="session")
def marks(slurm_folder: Path) -> Path:
    """Where jobs write down what they do."""
    folder = slurm_folder / "marks"
    folder.mkdir()
    return folder
