"""A real Slurm whose GPUs are cut, as it names MIG slices: joining proposes such a pool, and jobs get slices of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pumasi.agents.command import agent
from pumasi.agents.slurm.site import read_site
from pumasi.model.jobs import Span, StopCause
from pumasi.plans.reader import load_plan
from pumasi.protocol.messages import RunKey
from pumasi.testing.engine import Driver, an_order
from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters
from tests.agents.slurm.conftest import open_slurm

SLICE = "1g.23gb"
SLICES_OF_A_NODE = 56


@pytest.fixture(scope="module")
def school(slurm_folder: Path) -> Iterator[SlurmCluster]:
    """Two nodes of eight GPUs, each cut into seven."""
    with running_clusters(
        slurm_folder, ["school"], nodes=2, gpus_per_node=SLICES_OF_A_NODE, gpu_type=f"b200_{SLICE}"
    ) as clusters:
        yield clusters["school"]


def test_init_proposes_a_pool_that_is_cut_and_the_doctor_finds_it_good(school: SlurmCluster, tmp_path: Path) -> None:
    where = ["--data", str(tmp_path), "--site", "school"]
    arguments = ["init", *where, "--owner", "public", "--slurm-conf", str(school.config)]
    said = CliRunner().invoke(agent, arguments)
    assert said.exit_code == 0
    assert "2 nodes x 56 slices of 1g.23gb in gpu, hgx-b200" in said.output
    (pool,) = read_site(tmp_path / "sites" / "school" / "slurm.yaml").pools.values()
    assert (pool.gres_type, pool.gpus_per_node) == (f"b200_{SLICE}", SLICES_OF_A_NODE)
    part = next((tmp_path / "sites" / "school").glob("*plan*")).read_text()
    rest = "name: alone\nowners: {public: {kind: public}}\nqueues: {public: {}}\nbasis: {assumption: a test}\n"
    (tmp_path / "plan.yaml").write_text(rest + part)
    (planned,) = load_plan(tmp_path / "plan.yaml").pools
    assert (planned.model, planned.slice, planned.gpus, planned.whole_gpus) == ("hgx-b200", SLICE, 112, 16)
    assert "2 nodes; Slurm takes jobs there" in CliRunner().invoke(agent, ["doctor", *where]).output


def test_two_students_get_different_slices_of_a_node(school: SlurmCluster, tmp_path: Path) -> None:
    engine = open_slurm(school, tmp_path, gpus_per_node=SLICES_OF_A_NODE, gres_type=f"b200_{SLICE}")
    driver = Driver(engine, 60.0)
    script = "echo $CUDA_VISIBLE_DEVICES of $PUMASI_SLICE; until [ -e go ]; do sleep 0.05; done"
    try:
        for job, mask in ((1, 0b1), (2, 0b110)):
            spans = (Span(0, 1, mask),)
            driver.start(an_order(script, job, spans=spans, slice=SLICE, working_directory=str(tmp_path)))
            driver.await_output(RunKey(job, 1), "\n")
        (tmp_path / "go").touch()
        assert [driver.ending(RunKey(job, 1)).exit_code for job in (1, 2)] == [0, 0]
        assert [driver.output(RunKey(job, 1)) for job in (1, 2)] == [f"0 of {SLICE}\n", f"1,2 of {SLICE}\n"]
        nodes = engine.poll().nodes
        assert nodes is None or not nodes.ailing, "its nodes have all their slices"
    finally:
        for found in engine.find():
            if found.ending is None:
                engine.stop(found.run, StopCause.CANCEL, "KILL", 0)
