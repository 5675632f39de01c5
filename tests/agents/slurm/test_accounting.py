"""Where slurmdbd keeps what has ended, the engine asks it about what Slurm has purged; on a real slurmdbd."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pumasi.agents.command import agent
from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.runner import ProcessRunner
from pumasi.model.jobs import Outcome, Span
from pumasi.protocol.messages import RunKey
from pumasi.testing.engine import Driver, an_order
from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters
from tests.agents.slurm.conftest import SOON, open_slurm
from tests.conftest import need_slurm

PATIENCE_SECONDS = 80.0
RUN = RunKey(1, 1)


@pytest.fixture(scope="module")
def cluster(slurm_folder: Path) -> Iterator[SlurmCluster]:
    """Two nodes and a slurmdbd; Slurm itself forgets a job two seconds after its end."""
    need_slurm(accounting=True)
    lines = "MinJobAge=2\nJobAcctGatherType=jobacct_gather/linux\nJobAcctGatherFrequency=1"
    with running_clusters(slurm_folder, ["books"], nodes=2, accounting=True, lines=lines) as clusters:
        yield clusters["books"]


def until(holds: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up_at, "it did not come about in time"
        time.sleep(0.1)


def test_how_a_purged_job_ended_is_known_from_slurmdbd(cluster: SlurmCluster, tmp_path: Path) -> None:
    """The node goes with the run and its supervisor; when anybody looks, Slurm has purged the job."""
    driver = Driver(open_slurm(cluster, tmp_path, patience=SOON._replace(lost=1.0)), PATIENCE_SECONDS)
    driver.start(an_order("echo ready; sleep 600", spans=(Span(0, 1, 0xFF),)))
    driver.await_output(RUN, "ready")
    cluster.kill_node(cluster.nodes[0])
    cluster.ask("scontrol", "update", f"node={cluster.nodes[0]}", "state=down", "reason=fire")
    until(lambda: not cluster.ask("squeue", "--noheader", "--states=all"))
    assert driver.ending(RUN).outcome is Outcome.NODE_FAILED
    cluster.start_node(cluster.nodes[0])


def test_the_accounts_tell_state_and_exit_code(cluster: SlurmCluster) -> None:
    number = cluster.submit("#!/bin/sh\nexit 3", "--job-name=pumasi-test-7-1", f"--nodelist={cluster.nodes[1]}")
    commands = SlurmCommands(ProcessRunner("/usr/bin", str(cluster.config)), os.getuid())
    until(lambda: [each.state for each in commands.accounted("pumasi-test-7-1")] == ["FAILED"])
    (account,) = commands.accounted("pumasi-test-7-1")
    assert (account.id, account.exit_code, account.signal) == (number, 3, 0)
    assert abs(account.submitted - time.time()) < 3600, "times are Unix seconds"
    assert commands.accounted("pumasi-test-8-1") == []


def test_what_a_run_took_comes_from_the_site_s_own_books(cluster: SlurmCluster, tmp_path: Path) -> None:
    """Slurm has purged it, and somebody else's job of the same name is none of ours."""
    driver = Driver(open_slurm(cluster, tmp_path), PATIENCE_SECONDS)
    busy = "import time; held = bytearray(50 << 20); t = time.process_time()\nwhile time.process_time() - t < 2: pass"
    assert driver.run(f"python3 -c '{busy}'; exit 3", spans=(Span(1, 1, 0b11),)).exit_code == 3

    def rows() -> list[dict[str, str]]:
        names, *rows = [line.split("|") for line in driver.output(RUN, "accounts").splitlines()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    until(lambda: [row["State"] for row in rows()] == ["FAILED", "FAILED"])
    job, batch = rows()
    assert (job["ExitCode"], batch["JobID"]) == ("3:0", f"{job['JobID']}.batch")
    assert "gres/gpu:b200=2" in job["AllocTRES"] and job["NodeList"] == cluster.nodes[1]
    assert batch["TotalCPU"] >= "00:02" and int(batch["MaxRSS"]) > 50 << 20


def test_a_site_that_joins_is_seen_to_have_accounts(cluster: SlurmCluster, tmp_path: Path) -> None:
    where = ["--site", "kaist", "--owner", "public", "--data", str(tmp_path), "--slurm-conf", str(cluster.config)]
    assert CliRunner().invoke(agent, ["init", *where]).exit_code == 0
    table = tmp_path / "sites" / "kaist" / "slurm.yaml"
    assert "\naccounting: yes" in table.read_text()
    assert "ok   slurmdbd answers" in CliRunner().invoke(agent, ["doctor", *where[:2], *where[4:6]]).output
