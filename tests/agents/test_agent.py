"""The whole agent: real processes, a real server, and what goes wrong between them."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pumasi.agents.run_directory import processes_of
from pumasi.model.jobs import Outcome, StopCause
from pumasi.protocol.messages import RunEnded, RunKey, RunStarted, StopOrder
from pumasi.testing.control_plane import SmallControlPlane
from pumasi.testing.engine import an_order
from tests.agents.conftest import SITE, AgentProcess

RUN = RunKey(1, 1)
WAIT_FOR_GO = "touch ready; until [ -e go ]; do sleep 0.02; done; exit 9"
FOR_EVER = "touch ready; sleep 600; echo"


def stop(run: RunKey, cause: StopCause = StopCause.CANCEL, kill_in_ms: int = 60_000) -> StopOrder:
    return StopOrder(run=run, cause=cause, kill_in_ms=kill_in_ms)


def order_and_await(plane: SmallControlPlane, script: str, place: Path) -> None:
    plane.order(SITE, an_order(script, working_directory=str(place)))
    plane.wait((place / "ready").exists)


def live_processes(agent: AgentProcess) -> dict[int, str]:
    return processes_of(agent.data / "sites" / SITE / "runs")


# --- plain service ---------------------------------------------------------------------------------------------------


def test_a_run_is_started_and_its_exit_code_reported(plane: SmallControlPlane, agent: AgentProcess) -> None:
    plane.order(SITE, an_order("exit 3"))
    assert plane.await_end(SITE, RUN) == RunEnded(run=RUN, outcome=Outcome.COMPLETED, exit_code=3)
    assert plane.reports(SITE)[0] == RunStarted(run=RUN)


def test_output_is_read_through_the_agent(plane: SmallControlPlane, agent: AgentProcess) -> None:
    plane.order(SITE, an_order("echo 품앗이"))
    plane.await_end(SITE, RUN)
    chunk = plane.read_output(SITE, RUN, "stdout", 3, 100)
    assert (chunk.data, chunk.size, chunk.complete) == ("7JWX7J20Cg==", 10, True)
    assert plane.read_output(SITE, RunKey(9, 9), "stdout", 0, 10).problem


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [(StopCause.CANCEL, Outcome.CANCELLED), (StopCause.RECLAIM, Outcome.RECLAIMED), (StopCause.DRAIN, Outcome.DRAINED)],
)
def test_a_stop_ends_a_run_for_its_reason(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path, cause: StopCause, outcome: Outcome
) -> None:
    order_and_await(plane, FOR_EVER, tmp_path)
    plane.stop(SITE, stop(RUN, cause))
    ended = plane.await_end(SITE, RUN)
    assert (ended.outcome, ended.signal) == (outcome, 15)


def test_a_job_gets_the_notice_it_asked_for(plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path) -> None:
    script = "trap 'touch saved; exit 0' USR2; touch ready; while :; do sleep 0.02; done"
    plane.order(SITE, an_order(script, working_directory=str(tmp_path), notice_signal="USR2"))
    plane.wait((tmp_path / "ready").exists)
    plane.stop(SITE, stop(RUN, StopCause.RECLAIM))
    assert plane.await_end(SITE, RUN).outcome is Outcome.RECLAIMED
    assert (tmp_path / "saved").exists()


def test_a_run_that_was_stopped_before_it_was_known_never_starts(plane: SmallControlPlane, agent: AgentProcess) -> None:
    plane.stop(SITE, stop(RUN))
    ended = plane.await_end(SITE, RUN)
    assert (ended.outcome, ended.detail) == (Outcome.CANCELLED, "there was nothing of it to stop")
    assert RunStarted(run=RUN) not in plane.reports(SITE)


def test_orders_that_come_again_start_nothing(plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path) -> None:
    order = an_order("echo x >> trace; touch ready; sleep 0.3", working_directory=str(tmp_path))
    plane.order(SITE, order)
    plane.wait((tmp_path / "ready").exists)
    for _ in range(3):
        plane.order(SITE, order)
    plane.await_end(SITE, RUN)
    plane.order(SITE, order)  # days later, as it were: it is told the end again
    plane.wait(lambda: sum(isinstance(report, RunEnded) for report in plane.reports(SITE)) >= 2)
    assert (tmp_path / "trace").read_text() == "x\n"


def test_fleet_time_runs_faster(plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path) -> None:
    agent.terminate()
    agent.start("--clock-rate", "600", "--end-runs")
    started_at = time.monotonic()
    plane.order(SITE, an_order("exec sleep 600", time_limit_seconds=300))
    assert plane.await_end(SITE, RUN).outcome is Outcome.TIME_LIMIT
    assert 0.5 <= time.monotonic() - started_at < 60


def test_many_runs_are_all_reported_once_each(plane: SmallControlPlane, agent: AgentProcess) -> None:
    plane.order(SITE, *(an_order(f"exit {job % 5}", job) for job in range(1, 101)))
    ended = [plane.await_end(SITE, RunKey(job, 1)) for job in range(1, 101)]
    assert [report.exit_code for report in ended] == [job % 5 for job in range(1, 101)]
    assert len([report for report in plane.reports(SITE) if isinstance(report, RunEnded)]) == 100


# --- crashes of the agent --------------------------------------------------------------------------------------------


def test_an_agent_killed_in_mid_run_adopts_it(plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    plane.wait(lambda: RunStarted(run=RUN) in plane.reports(SITE))
    agent.kill()
    assert live_processes(agent)
    agent.start("--end-runs")
    (tmp_path / "go").touch()
    assert plane.await_end(SITE, RUN) == RunEnded(run=RUN, outcome=Outcome.COMPLETED, exit_code=9)


def test_a_run_that_ended_while_the_agent_was_dead_is_reported(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    agent.kill()
    (tmp_path / "go").touch()
    plane.wait(lambda: not live_processes(agent))
    agent.start("--end-runs")
    assert plane.await_end(SITE, RUN).exit_code == 9


def test_the_time_limit_holds_while_the_agent_is_dead(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    plane.order(SITE, an_order(FOR_EVER, working_directory=str(tmp_path), time_limit_seconds=1))
    plane.wait((tmp_path / "ready").exists)
    agent.kill()
    plane.wait(lambda: not live_processes(agent))
    agent.start("--end-runs")
    assert plane.await_end(SITE, RUN).outcome is Outcome.TIME_LIMIT


@pytest.mark.parametrize("moment_ms", [0, 2, 4, 6, 8, 12, 16, 24, 40])
def test_an_agent_killed_at_any_moment_starts_each_run_once(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path, moment_ms: int
) -> None:
    jobs = range(1, 6)
    script = "echo x >> trace-$PUMASI_JOB_ID; sleep 0.05; exit 2"
    plane.order(SITE, *(an_order(script, job, working_directory=str(tmp_path)) for job in jobs))
    time.sleep(moment_ms / 1000)
    agent.kill()
    agent.start("--end-runs")
    ended = [plane.await_end(SITE, RunKey(job, 1)) for job in jobs]
    assert [(report.outcome, report.exit_code) for report in ended] == [(Outcome.COMPLETED, 2)] * 5
    assert [(tmp_path / f"trace-{job}").read_text() for job in jobs] == ["x\n"] * 5


def test_an_agent_told_to_stop_leaves_its_runs_alone(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    agent.terminate()
    agent.start()
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    assert agent.terminate() == 0
    assert live_processes(agent)
    agent.start("--end-runs")
    (tmp_path / "go").touch()
    assert plane.await_end(SITE, RUN).exit_code == 9


def test_an_agent_told_to_end_its_runs_leaves_nothing(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, FOR_EVER, tmp_path)
    assert agent.terminate() == 0
    assert live_processes(agent) == {}
    ended = plane.ended(SITE, RUN)
    assert ended is not None
    assert ended.outcome is Outcome.DRAINED


# --- memory lost -----------------------------------------------------------------------------------------------------


def test_without_its_journal_an_agent_finds_its_runs(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    agent.kill()
    (agent.data / "sites" / SITE / "journal").unlink()
    agent.start("--end-runs")
    (tmp_path / "go").touch()
    assert plane.await_end(SITE, RUN).exit_code == 9


def test_without_all_its_memory_an_agent_says_lost_and_never_starts_twice(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, FOR_EVER, tmp_path)
    plane.wait(lambda: RunStarted(run=RUN) in plane.reports(SITE))
    agent.kill()
    (tmp_path / "ready").unlink()
    site = agent.data / "sites" / SITE
    (site / "journal").unlink()
    shutil.rmtree(site / "runs")
    agent.start("--end-runs")
    assert plane.await_end(SITE, RUN).outcome is Outcome.LOST
    assert not (tmp_path / "ready").exists()
    assert live_processes(agent) == {}


def test_a_torn_journal_is_read_as_far_as_it_goes(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    agent.kill()
    with (agent.data / "sites" / SITE / "journal").open("ab") as journal:
        journal.write(b'{"type":"over","report":{"run":{"jo')
    agent.start("--end-runs")
    (tmp_path / "go").touch()
    assert plane.await_end(SITE, RUN).exit_code == 9


def test_a_run_nobody_wants_any_more_is_ended(plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path) -> None:
    order_and_await(plane, FOR_EVER, tmp_path)
    agent.kill()
    plane.drop(SITE, RUN)
    agent.start("--end-runs")
    assert plane.await_end(SITE, RUN).outcome is Outcome.CANCELLED
    assert live_processes(agent) == {}


def test_a_run_said_to_have_run_and_unknown_is_lost(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    plane.repeat(SITE, an_order("touch ready", working_directory=str(tmp_path)))
    assert plane.await_end(SITE, RUN).outcome is Outcome.LOST
    assert not (tmp_path / "ready").exists()


# --- the control plane away ------------------------------------------------------------------------------------------


def test_runs_go_on_while_the_control_plane_is_away(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    plane.go_away()
    (tmp_path / "go").touch()
    plane.wait(lambda: not live_processes(agent))
    time.sleep(0.5)
    plane.come_back()
    assert plane.await_end(SITE, RUN).exit_code == 9


def test_a_report_whose_answer_was_lost_is_made_again(plane: SmallControlPlane, agent: AgentProcess) -> None:
    plane.lose_answers(3)
    plane.order(SITE, an_order("exit 4"))
    assert plane.await_end(SITE, RUN).exit_code == 4
    plane.wait(lambda: plane.reports(SITE).count(RunStarted(run=RUN)) >= 2)


def test_an_end_that_could_not_be_reported_survives_the_agent(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    plane.go_away()
    (tmp_path / "go").touch()
    journal = agent.data / "sites" / SITE / "journal"
    plane.wait(lambda: b'"over"' in journal.read_bytes())
    agent.kill()
    shutil.rmtree(agent.data / "sites" / SITE / "runs")
    plane.come_back()
    agent.start("--end-runs")
    assert plane.await_end(SITE, RUN).exit_code == 9


# --- who speaks ------------------------------------------------------------------------------------------------------


def test_a_copy_of_an_agent_falls_silent(plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path) -> None:
    original = agent.process
    assert original is not None
    shutil.copytree(agent.data, tmp_path / "copy")
    agent.enrol(tmp_path / "copy")
    assert original.wait(60) == 4
    agent.start("--end-runs", data=tmp_path / "copy")
    plane.order(SITE, an_order("exit 2"))
    assert plane.await_end(SITE, RUN).exit_code == 2
    assert agent.terminate() == 0


def test_a_site_is_served_by_one_process_at_a_time(plane: SmallControlPlane, agent: AgentProcess) -> None:
    second = subprocess.run(agent._command("run", None), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 5
    assert second.stderr.startswith("pumasi: another agent runs from ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--site", "sejong"], 4, "not enrolled"),
        (["run", "--site", "../x"], 2, "is no site name"),
        (["enrol", "--site", "sejong", "--token", "x"], 7, "ConnectError"),
        (["enrol", "--site", "sejong"], 2, "no token"),
        (["enrol", "--site", "a", "--site", "b", "--token", "x"], 2, "one site"),
        (["run", "--site", "sejong", "--server", "http://10.0.0.1"], 2, "jobs carry secrets"),
        (["run", "--site", "sejong", "--server", "10.0.0.1", "--plain-http"], 2, "no address of a server"),
        (["run", "--site", "sejong", "--clock-rate", "0"], 2, "clock-rate"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    where = ["--server", "http://127.0.0.1:9", "--data", str(tmp_path)]
    command = [sys.executable, "-m", "pumasi", "agent", arguments[0], *where, *arguments[1:]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PUMASI_")}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (code, True, False)


def test_an_agent_bound_to_its_parent_goes_with_it(
    plane: SmallControlPlane, agent: AgentProcess, tmp_path: Path
) -> None:
    order_and_await(plane, WAIT_FOR_GO, tmp_path)
    agent.kill()
    command = shlex.join([*agent._command("run", None), "--with-parent"])
    before = plane.syncs(SITE)
    with subprocess.Popen(["/bin/sh", "-c", f"{command} & echo $!; wait"], stdout=subprocess.PIPE, text=True) as parent:
        plane.wait(lambda: plane.syncs(SITE) > before)
        assert parent.stdout is not None
        bound = int(parent.stdout.readline())
        parent.kill()
    plane.wait(lambda: not os.path.exists(f"/proc/{bound}") or _is_zombie(bound))
    assert live_processes(agent)
    agent.start("--end-runs")
    (tmp_path / "go").touch()
    assert plane.await_end(SITE, RUN).exit_code == 9


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_bad_token_is_refused(plane: SmallControlPlane, tmp_path: Path) -> None:
    agent = AgentProcess(plane, tmp_path / "agent")
    done = subprocess.run(
        agent._command("enrol", None), input="nonsense\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (4, "pumasi: refused: token-used\n")


def test_the_key_is_the_agents_alone(agent: AgentProcess) -> None:
    assert (agent.data / "sites" / SITE / "key").stat().st_mode & 0o777 == 0o600
