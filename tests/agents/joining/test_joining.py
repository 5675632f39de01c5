"""Joining with a real cluster: init proposes what serves, and the doctor finds what does not, and says what to do."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pumasi.agents.command import agent
from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters

SITE = "kaist"


@pytest.fixture(scope="module")
def cluster(slurm_folder: Path) -> Iterator[SlurmCluster]:
    """Of this module alone: it is drained and killed here."""
    with running_clusters(slurm_folder, ["join"], nodes=2) as clusters:
        yield clusters["join"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(agent, list(arguments))


def joined(cluster: SlurmCluster, data: Path, *options: str) -> Path:
    where = ["--data", str(data), "--slurm-conf", str(cluster.config)]
    result = call("init", "--site", SITE, "--owner", "public", *where, *options)
    assert result.exit_code == 0, result.output
    return data / "sites" / SITE


def doctor(data: Path) -> Result:
    return call("doctor", "--data", str(data), "--site", SITE)


def change(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_init_proposes_what_the_doctor_finds_good_but_for_the_enrolment(cluster: SlurmCluster, tmp_path: Path) -> None:
    joined(cluster, tmp_path)
    result = doctor(tmp_path)
    bad = [line for line in result.output.splitlines() if line.startswith("BAD")]
    assert len(bad) == 1 and "not enrolled" in bad[0]
    assert "ok   kaist-b200: 2 nodes; Slurm takes jobs there" in result.output
    assert result.exit_code == 1


def test_key_and_policy_are_kept_from_jobs_where_runs_have_a_directory_of_their_own(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    joined(cluster, tmp_path / "alone")
    assert "note all nodes see" in doctor(tmp_path / "alone").output
    shared = tmp_path / "shared"
    shared.mkdir()
    joined(cluster, tmp_path / "apart", "--shared", str(shared))
    said = doctor(tmp_path / "apart").output
    assert "all nodes see" not in said and f"ok   {shared} is writable" in said
    shared.rmdir()
    assert f"BAD  {shared}: No such file" in doctor(tmp_path / "apart").output


def test_init_writes_over_nothing_unless_it_is_told_to(cluster: SlurmCluster, tmp_path: Path) -> None:
    site = joined(cluster, tmp_path)
    change(site / "policy.yaml", "gpus_at_most: 16", "gpus_at_most: 8")
    joined(cluster, tmp_path)
    assert "gpus_at_most: 8" in (site / "policy.yaml").read_text()
    joined(cluster, tmp_path, "--force")
    assert "gpus_at_most: 16" in (site / "policy.yaml").read_text()


@pytest.mark.parametrize(
    ("file", "old", "new", "finding", "advice"),
    [
        ("slurm.yaml", "0001-0002", "0001-0003", "Slurm has no join0003", "mend `nodes`"),
        ("slurm.yaml", "partition: gpu", "partition: debug", "not in partition debug", "set the right `partition`"),
        ("slurm.yaml", "partition: gpu", "partition: debug", "policy.yaml:3: partitions: 'debug'", "allow it there"),
        ("slurm.yaml", "gres_type: b200", "gres_type: h200", "without Gres=gpu:h200:8", "set gpus_per_node"),
        ("slurm.yaml", "commands: /usr/bin", "commands: /opt", "not found in /opt", "set `commands`"),
        ("slurm.yaml", "kill_wait_seconds: 2", "kill_wait_seconds: 30", "KillWait 2 s", "set kill_wait_seconds: 2"),
        ("slurm.yaml", "gpus_per_node: 8", "gpus_per_node: many", "slurm.yaml:", "mend these lines"),
        ("policy.yaml", "users:", "people:", "people: the key is unknown", "mend these lines"),
    ],
)
def test_what_is_wrong_is_found_with_what_to_do(
    cluster: SlurmCluster, tmp_path: Path, file: str, old: str, new: str, finding: str, advice: str
) -> None:
    change(joined(cluster, tmp_path) / file, old, new)
    result = doctor(tmp_path)
    lines = result.output.splitlines()
    found = [number for number, line in enumerate(lines) if finding in line]
    assert found, result.output
    assert any(advice in line for line in lines[found[0] :]), result.output


def test_a_drained_node_and_a_dead_controller_are_told_apart(cluster: SlurmCluster, tmp_path: Path) -> None:
    joined(cluster, tmp_path)
    cluster.drain(cluster.nodes[0], "a fan is loud")
    assert "join0001 is DRAIN: a fan is loud" in doctor(tmp_path).output
    cluster.resume(cluster.nodes[0])
    cluster.kill_controller()
    result = doctor(tmp_path)
    assert "Slurm does not answer" in result.output and "start slurmctld" in result.output
    where = ["--data", str(tmp_path), "--slurm-conf", str(cluster.config)]
    failed = call("init", "--site", "other", "--owner", "public", *where)
    assert failed.exit_code == 7 and "does not answer" in failed.output
    assert not (tmp_path / "sites" / "other").exists()
    cluster.start_controller()
    cluster.wait_ready()


def test_names_are_checked_before_anything_is_looked_at(tmp_path: Path) -> None:
    result = call("init", "--site", "../etc", "--owner", "public", "--data", str(tmp_path))
    assert result.exit_code == 2 and "is no name" in result.output
    assert not os.listdir(tmp_path)


def test_one_who_never_served_cannot_leave(tmp_path: Path) -> None:
    result = call("leave", "--data", str(tmp_path), "--site", SITE)
    assert result.exit_code == 1 and "no agent has served" in result.output
