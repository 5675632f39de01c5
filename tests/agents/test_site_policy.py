"""The site's own policy: every cap refuses, and says in which line; a file with mistakes allows nothing."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pumasi.agents.site_policy import Admission, Place, PolicyProblem, read_policy
from pumasi.model.jobs import Outcome, Span
from pumasi.protocol.messages import RunKey
from pumasi.testing.engine import ORDER
from tests.agents.conftest import SITE, AgentProcess

POLICY = """\
# What this site allows.
partitions: [gpu]
accounts: [research]
users: [mina, jun]
queues: [public/academia, samsung]
data_classes: [open, defence]
gpus_per_job_at_most: 16
gpus_at_most: 24
hours_at_most: 48
"""
ASK = msgspec.structs.replace(
    ORDER, user="mina", queue="public/academia/kaist", pool="h200", spans=(Span(0, 2, 0xFF),), time_limit_seconds=60
)


PLACE = Place("gpu", "research")


def admission(folder: Path, place: Place = PLACE, text: str = POLICY) -> Admission:
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    return Admission(read_policy(folder / "policy.yaml"), {"h200": place})


def test_what_the_policy_allows_is_not_refused(tmp_path: Path) -> None:
    site = admission(tmp_path)
    assert site.refusal(ASK, 8) == ""
    assert site.refusal(msgspec.structs.replace(ASK, queue="samsung", data_class="defence", user="jun"), 0) == ""
    assert site.uncovered() == []


@pytest.mark.parametrize(
    ("change", "in_use", "line"),
    [
        ({"user": "mallory"}, 0, "policy.yaml:4: users: 'mallory' is not among mina, jun"),
        ({"queue": "public/academia2"}, 0, "policy.yaml:5: queues: 'public/academia2' is not among"),
        ({"queue": "public"}, 0, "policy.yaml:5: queues: 'public' is not among"),
        ({"data_class": "patient"}, 0, "policy.yaml:6: data_classes: 'patient' is not among open, defence"),
        ({"spans": (Span(0, 3, 0xFF),)}, 0, "policy.yaml:7: gpus_per_job_at_most: the job takes 24 GPUs, at most 16"),
        ({}, 9, "policy.yaml:8: gpus_at_most: 25 GPUs would be in use, at most 24"),
        ({"time_limit_seconds": 48 * 3600 + 1}, 0, "policy.yaml:9: hours_at_most: the time limit is 172801 s"),
    ],
)
def test_each_cap_refuses_and_names_its_line(tmp_path: Path, change: dict[str, object], in_use: int, line: str) -> None:
    assert line in admission(tmp_path).refusal(msgspec.structs.replace(ASK, **change), in_use)


def test_a_table_that_leads_where_the_policy_does_not_is_seen_before_any_job(tmp_path: Path) -> None:
    site = admission(tmp_path, Place("debug", "secret"))
    assert "policy.yaml:2: partitions: 'debug'" in site.refusal(ASK, 0)
    assert [problem.split(": ")[2] for problem in site.uncovered()] == ["partitions", "accounts"]


def test_a_list_that_is_empty_allows_nothing_and_all_allows_everyone(tmp_path: Path) -> None:
    assert "none is" in admission(tmp_path, text=POLICY.replace("[mina, jun]", "[]")).refusal(ASK, 0)
    everyone = POLICY.replace("[mina, jun]", "[all]").replace("[public/academia, samsung]", "[all]")
    assert admission(tmp_path, text=everyone).refusal(msgspec.structs.replace(ASK, user="any", queue="sk"), 0) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("- a\n", "keys with values"),
        (POLICY.replace("users", "user"), "policy.yaml:4: user: the key is unknown"),
        (POLICY.replace("users", "user"), "users: is missing"),
        (POLICY.replace("24", "many"), "policy.yaml:8: gpus_at_most"),
        (POLICY.replace("public/academia,", "Public/../x,"), "policy.yaml:5: queues"),
        (POLICY.replace("24", "1e999"), "policy.yaml:8: gpus_at_most"),
        (POLICY + "gpus_at_most: 999999\n", "policy.yaml:10: gpus_at_most: the key is already set in line 8"),
    ],
)
def test_a_file_with_mistakes_is_refused_whole(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(PolicyProblem) as raised:
        admission(tmp_path, text=text)
    assert problem in str(raised.value)


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PolicyProblem, match="agent init"):
        read_policy(tmp_path / "policy.yaml")


def test_an_agent_obeys_the_policy_before_any_order(agent: AgentProcess) -> None:
    agent.terminate()
    policy = agent.data / "sites" / SITE / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    agent.start("--end-runs")
    stranger = msgspec.structs.replace(ASK, run=RunKey(1, 1), user="mallory", script="true")
    friend = msgspec.structs.replace(ASK, run=RunKey(2, 1), script="exit 3")
    agent.plane.order(SITE, stranger, friend)
    refused = agent.plane.await_end(SITE, stranger.run)
    assert refused.outcome is Outcome.REFUSED and "policy.yaml:4: users: 'mallory'" in refused.detail
    assert agent.plane.await_end(SITE, friend.run).exit_code == 3


def test_an_agent_does_not_start_with_a_policy_that_has_mistakes(agent: AgentProcess) -> None:
    agent.terminate()
    (agent.data / "sites" / SITE / "policy.yaml").write_text("users: [mina]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pumasi", "agent", "run", "--server", agent.plane.url]
    command += ["--data", str(agent.data), "--site", SITE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "policy.yaml:1: partitions: is missing" in done.stderr and "Traceback" not in done.stderr
    (agent.data / "sites" / SITE / "policy.yaml").unlink()
