"""The life of jobs on five real clusters: where they land, what they get, how they give way, what stops them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pumasi.demo.slurm_fleet import SlurmFleet
from tests.slurm.chaos import a_job, let_end, run_twice, steps

FOREVER = 3000


def pumasi(fleet: SlurmFleet, *words: str) -> str:
    """What a command writes, as a user with a token runs it."""
    token = fleet.client.connection.token
    environment = os.environ | {"PUMASI_SERVER": fleet.url, "PUMASI_TOKEN": str(token)}
    command = [sys.executable, "-m", "pumasi", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_slurm(fleet: SlurmFleet, job: int) -> dict[str, str]:
    """The cluster's own record of a job's latest attempt: all of Slurm's fields."""
    row = fleet.client.job(job)
    attempt = row["attempts"][-1]
    cluster = fleet.clusters[attempt["site"]]
    name = f"pumasi-five-slurm-{job}-{attempt['number']}"
    (number,) = cluster.ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%A").split()
    shown = cluster.ask("scontrol", "show", "job", "--detail", "--oneliner", number)
    return dict(word.split("=", 1) for word in shown.split() if "=" in word)


def test_one_job_file_lands_on_the_cluster_that_may_run_it(fleet: SlurmFleet, tmp_path: Path) -> None:
    """Fab data may be at Samsung alone; nobody said where."""
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: yield-model\nqueue: samsung/chips\nnodes: 2\ngpus_per_node: 8\ntime_limit: 10:00\ndata_class: fab\n"
        "script: |\n  #!/bin/bash\n  echo $CUDA_VISIBLE_DEVICES on $PUMASI_SITE\n  exit 7\n"
    )
    job = int(pumasi(fleet, "submit", "--parsable", str(file)).strip())
    row = fleet.wait_state(job, "failed")
    assert (row["site"], row["exit_code"]) == ("samsung", 7)
    there = in_slurm(fleet, job)
    assert (there["NumNodes"], there["Requeue"], there["ExitCode"]) == ("2", "0", "7:0")
    assert b"".join(fleet.client.logs(job)) == b"0,1,2,3,4,5,6,7 on samsung\n"
    assert [name for name in fleet.clusters if name != "samsung" and runs_in(fleet, name, job)] == []


def runs_in(fleet: SlurmFleet, site: str, job: int) -> bool:
    listed = fleet.clusters[site].ask("squeue", "--noheader", "--states=all", "--format=%j")
    return f"pumasi-five-slurm-{job}-1" in listed.split()


def test_a_gang_gets_the_very_nodes_and_gpus_that_the_fleet_chose(fleet: SlurmFleet, marks: Path) -> None:
    gang = fleet.client.submit(a_job("naver", marks, gpus=24, beats=FOREVER))
    part = fleet.client.submit(a_job("public", marks, sites=["naver"], gpus=3, beats=FOREVER))
    for job, nodes in ((gang, 3), (part, 1)):
        row = fleet.wait_state(job, "running")
        there = in_slurm(fleet, job)
        assert there["JobState"] == "RUNNING"
        chosen = fleet.nodes_of(row["attempts"][-1])
        named = fleet.clusters["naver"].ask("scontrol", "show", "hostnames", there["NodeList"]).split()
        assert sorted(named) == sorted(chosen) and len(named) == nodes
        assert there["TresPerNode"] == f"gres:gpu:b200:{row['gpus'] // nodes}"


def test_lent_gpus_come_back_with_notice_and_the_borrower_runs_elsewhere(fleet: SlurmFleet, marks: Path) -> None:
    blocker = fleet.client.submit(a_job("hyundai", marks, gpus=32, beats=FOREVER))
    fleet.wait_state(blocker, "running")
    two = ["sk", "hyundai"]
    borrower = fleet.client.submit(a_job("samsung", marks, gpus=32, beats=FOREVER, sites=two))
    row = fleet.wait_state(borrower, "running")
    assert row["attempts"][0]["site"] == "sk"
    assert row["attempts"][0]["charges"] == [{"owner": "sk", "gpus": 32}]
    fleet.client.cancel(blocker)
    fleet.wait_state(blocker, "cancelled")
    owner = fleet.client.submit(a_job("sk", marks, gpus=32, beats=FOREVER))
    fleet.wait_state(owner, "running")
    (reclaim,) = [each for each in fleet.client.reclaims() if each["claimant"] == owner]
    assert reclaim["kept"] and reclaim["took_seconds"] <= reclaim["promised_seconds"] == 20
    elsewhere = fleet.wait_state(borrower, "running")
    assert [each["outcome"] for each in elsewhere["attempts"]] == ["reclaimed", None]
    assert elsewhere["attempts"][1]["site"] == "hyundai"
    taken = steps(marks, borrower)
    assert (1, "notice") in taken and run_twice(taken) == ""


def node_row(fleet: SlurmFleet, site: str, index: int) -> dict[str, Any]:
    name = f"{site}-b200-{index + 1:05d}"
    return next(row for row in fleet.client.nodes(pool=f"{site}-b200") if row["name"] == name)


def node_states(fleet: SlurmFleet, site: str) -> set[str]:
    return {row["state"] for row in fleet.client.nodes(pool=f"{site}-b200")}


def test_a_node_that_the_site_drains_takes_no_more_and_finishes_what_it_has(fleet: SlurmFleet, marks: Path) -> None:
    cluster = fleet.clusters["public"]
    running = fleet.client.submit(a_job("public", marks, gpus=8, beats=FOREVER))
    row = fleet.wait_state(running, "running")
    (node,) = fleet.nodes_of(row["attempts"][0])
    index = cluster.nodes.index(node)
    cluster.drain(node, "a fan is loud")
    fleet.until(lambda: node_row(fleet, "public", index)["state"] == "drng", "the drain is not seen", 120)
    assert "a fan is loud" in node_row(fleet, "public", index)["reason"]
    others = fleet.client.submit([a_job("public", marks, gpus=8, beats=FOREVER) for _ in range(4)])
    for job in others[:3]:
        assert node not in fleet.nodes_of(fleet.wait_state(job, "running")["attempts"][0])
    let_end(marks, running)
    assert fleet.wait_state(running, "succeeded")["attempts"][0]["outcome"] == "completed"
    assert fleet.client.job(others[3])["display_state"] == "waiting"
    cluster.resume(node)
    assert fleet.nodes_of(fleet.wait_state(others[3], "running")["attempts"][0]) == [node]


def test_a_node_that_dies_takes_its_job_along_which_runs_again_elsewhere(fleet: SlurmFleet, marks: Path) -> None:
    job = fleet.client.submit(a_job("samsung", marks, gpus=8, beats=FOREVER))
    (node,) = fleet.nodes_of(fleet.wait_state(job, "running")["attempts"][0])
    fleet.clusters["samsung"].kill_node(node)
    fleet.until(lambda: (2, "start") in steps(marks, job), "it does not run again", 120)
    let_end(marks, job)
    row = fleet.wait_state(job, "succeeded")
    assert [attempt["outcome"] for attempt in row["attempts"]] == ["node_failed", "completed"]
    assert node not in fleet.nodes_of(row["attempts"][1])
    assert run_twice(steps(marks, job)) == ""
    fleet.clusters["samsung"].start_node(node)  # and with it the node, as `make_whole` sees


def test_the_site_s_policy_refuses_and_names_its_line(fleet: SlurmFleet, marks: Path) -> None:
    """The control plane cannot make a site run what its own file forbids."""
    policy = fleet.site_directory("public") / "policy.yaml"
    whole = policy.read_text()
    policy.write_text(whole.replace("gpus_per_job_at_most: 32", "gpus_per_job_at_most: 8"))
    line = next(number for number, text in enumerate(whole.splitlines(), 1) if text.startswith("gpus_per_job"))
    fleet.stop_agent("public")
    fleet.start_agent("public")
    job = fleet.client.submit(a_job("public", marks, gpus=16))
    row = fleet.wait_state(job, "failed")
    assert [attempt["outcome"] for attempt in row["attempts"]] == ["refused"]  # and asked for no more
    said = f"policy.yaml:{line}: gpus_per_job_at_most: the job takes 16 GPUs, at most 8 may be asked for"
    assert said in row["attempts"][0]["detail"]
    assert steps(marks, job) == []
    policy.write_text(whole)
    fleet.stop_agent("public")
    fleet.start_agent("public")


def test_a_site_leaves_once_its_work_has_ended_and_may_come_back(fleet: SlurmFleet, marks: Path) -> None:
    job = fleet.client.submit(a_job("naver", marks, beats=FOREVER))
    fleet.wait_state(job, "running")
    where = ["--data", str(fleet.agents_data), "--site", "naver"]
    with ThreadPoolExecutor(1) as other:
        leaving = other.submit(pumasi, fleet, "agent", "leave", *where, "--wait", "100")
        fleet.until(lambda: "drng" in node_states(fleet, "naver"), "the drain is not seen")
        let_end(marks, job)
        said = leaving.result()
    assert "runs still here: 1" in said and "nothing of the fleet is left here" in said
    assert fleet.client.job(job)["state"] == "succeeded"
    assert node_states(fleet, "naver") == {"drain"}
    pumasi(fleet, "agent", "leave", *where, "--stay")
    fleet.until(lambda: node_states(fleet, "naver") == {"idle"}, "the site does not come back")
