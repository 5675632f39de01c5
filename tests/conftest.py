"""Settings of the whole suite, and the real Slurm cluster that several packages test against."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters
from pumasi.testing.slurm_files import missing_slurm

# A shell that starts the tests in the background has Ctrl-C ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run: a failure seen here is a failure seen by everyone. Time is bounded by the number of
# examples, not by a deadline that a busy machine would miss. `--hypothesis-profile=search` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", derandomize=False, deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the outputs of scenario and museum scripts anew")


def need_slurm(*, accounting: bool = False) -> None:
    """Where Slurm is lacking, say what to do: in CI that is a failure."""
    problem = missing_slurm(accounting=accounting)
    if problem and os.environ.get("CI") == "true":
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)


@pytest.fixture(scope="session")
def slurm_folder() -> Iterator[Path]:
    """A folder for clusters, its path short enough for their sockets."""
    need_slurm()
    folder = Path(tempfile.mkdtemp(prefix="pumasi-slurm-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_cluster(slurm_folder: Path) -> Iterator[SlurmCluster]:
    """One cluster of four nodes with eight GPUs each, shared by all tests that do not break it."""
    with running_clusters(slurm_folder, ["alone"]) as clusters:
        yield clusters["alone"]
