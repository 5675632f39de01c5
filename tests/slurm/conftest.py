"""Five real clusters with an agent each, one control plane: shared by all tests here, and whole again after each."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi.client.errors import Conflict
from pumasi.demo.slurm_fleet import SlurmFleet, slurm_fleet
from tests.slurm.chaos import make_whole


@pytest.fixture(scope="session")
def federation(slurm_folder: Path) -> Iterator[SlurmFleet]:
    """The federation; at its end no run of it is left."""
    with slurm_fleet(slurm_folder / "f") as fleet:
        yield fleet
        for cluster in fleet.clusters.values():
            assert "pumasi-" not in cluster.ask("squeue", "--noheader", "--format=%j", "--states=R,PD,CG")


@pytest.fixture
def fleet(federation: SlurmFleet) -> Iterator[SlurmFleet]:
    """The federation; what a test leaves running or drained does not reach the next."""
    yield federation
    for job in list(federation.client.jobs(state=["live"])):
        with contextlib.suppress(Conflict):  # it has ended by itself
            federation.client.cancel(job["id"])
    make_whole(federation)


@pytest.fixture(scope="session")
def marks(slurm_folder: Path) -> Path:
    """Where jobs write down what they do."""
    folder = slurm_folder / "marks"
    folder.mkdir()
    return folder
