"""What real Slurm has been seen to do to a control plane, one test each, on a real Slurm."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from pumasi.agents.run_book import ended_report
from pumasi.agents.slurm.engine import SlurmEngine
from pumasi.events.facts import NodeState
from pumasi.model.jobs import Outcome, Span, StopCause
from pumasi.ports.engine import Ending, Start, StartVerdict
from pumasi.protocol.messages import NodeHealth, NodeReport, RunKey, StartOrder
from pumasi.testing.engine import Driver, an_order
from pumasi.testing.slurm_cluster import SlurmCluster
from tests.agents.slurm.conftest import POOL, SOON, open_slurm

RUN = RunKey(1, 1)
LONG_MS = 600_000
PATIENCE_SECONDS = 80.0
NO_OUTPUT = "--output=/dev/null"
WAITING = "echo ready; until [ -e go ]; do sleep 0.05; done; exit 3"


@pytest.fixture(name="engine")
def an_engine(cluster: SlurmCluster, tmp_path: Path) -> SlurmEngine:
    return open_slurm(cluster, tmp_path)


@pytest.fixture(name="driver")
def a_driver(engine: SlurmEngine, cluster: SlurmCluster) -> Iterator[Driver]:
    driver = Driver(engine, PATIENCE_SECONDS)
    yield driver
    for found in engine.find():
        if found.ending is None:
            engine.stop(found.run, StopCause.CANCEL, "KILL", 0)
            driver.ending(found.run)
    clean(cluster)


def clean(cluster: SlurmCluster) -> None:
    """No job is left, and all nodes are idle: a crash can drain some ("Duplicate jobid")."""
    cluster.run("scancel", f"--user={os.getuid()}")
    until(lambda: not cluster.ask("squeue", "--noheader"))

    def all_idle() -> bool:
        cluster.run("scontrol", "update", f"nodename={','.join(cluster.nodes)}", "state=resume")
        return cluster.ask("sinfo", "--noheader", "--format=%t") == "idle"

    until(all_idle)


def until(holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at, "it did not come about in time"
        time.sleep(0.05)


def an_order_here(
    tmp_path: Path, script: str, job: int = 1, nodes: int = 1, mask: int = 0xFF, first: int = 0
) -> StartOrder:
    order = an_order(script, job, working_directory=str(tmp_path))
    return msgspec.structs.replace(order, spans=(Span(first, nodes, mask),))


def traced(tmp_path: Path) -> list[str]:
    trace = tmp_path / "trace"
    return trace.read_text().split() if trace.exists() else []


def jobs(cluster: SlurmCluster, state: str = "all") -> list[list[str]]:
    """Id, name and state of each job."""
    rows = cluster.ask("squeue", "--noheader", f"--states={state}", "--format=%A %j %T")
    return [row.split() for row in rows.splitlines()]


def block_first_node(cluster: SlurmCluster) -> int:
    """A job of somebody else, for as long as the test wants."""
    busy = cluster.submit("#!/bin/sh\nsleep 600", f"--nodelist={cluster.nodes[0]}", "--exclusive", NO_OUTPUT)
    until(lambda: [str(busy), "sbatch", "RUNNING"] in jobs(cluster))
    return busy


def wait_for_save(cluster: SlurmCluster) -> None:
    """Return when slurmctld has just saved its jobs: for five seconds from now, what it takes is not on its disk."""
    saved = cluster.folder / "state" / "job_state"
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    cluster.submit("#!/bin/sh\ntrue", "--hold", NO_OUTPUT)  # there is something to save
    until(lambda: saved.exists() and saved.stat().st_mtime_ns != before)


def has_jobs_after_poll(driver: Driver, cluster: SlurmCluster, count: int) -> bool:
    """True if so many jobs wait or run."""
    driver.poll()
    return len(jobs(cluster, "pending,running")) == count


def job_of(cluster: SlurmCluster, engine: SlurmEngine, state: str = "all") -> str:
    """The number of the newest job of our run."""
    tag = engine._store.directory(RUN).path.name
    return max((row[0] for row in jobs(cluster, state) if row[1] == tag), key=int)


# --- slurmctld -------------------------------------------------------------------------------------------------------


def test_a_job_that_slurm_forgot_is_submitted_again_and_runs_once(
    cluster: SlurmCluster, driver: Driver, tmp_path: Path
) -> None:
    busy = block_first_node(cluster)
    wait_for_save(cluster)
    driver.start(an_order_here(tmp_path, "echo x >> trace; exit 3"))
    cluster.kill_controller()
    cluster.start_controller()
    cluster.ask("scancel", str(busy))
    assert (driver.ending(RUN).exit_code, traced(tmp_path)) == (3, ["x"])


def test_a_number_given_out_again_is_not_ours_to_cancel(
    cluster: SlurmCluster, driver: Driver, engine: SlurmEngine, tmp_path: Path
) -> None:
    block_first_node(cluster)
    wait_for_save(cluster)
    driver.start(an_order_here(tmp_path, "true"))
    driver.poll()
    ours = job_of(cluster, engine)
    cluster.kill_controller()
    cluster.start_controller()
    foreign = cluster.submit("#!/bin/sh\nsleep 600", f"--nodelist={cluster.nodes[1]}", NO_OUTPUT)
    assert str(foreign) == ours, "Slurm gives the number out again, or this test shows nothing"
    assert driver.engine.stop(RUN, StopCause.CANCEL, "TERM", 0)
    assert driver.ending(RUN).stopped_for is StopCause.CANCEL
    until(lambda: [str(foreign), "sbatch", "RUNNING"] in jobs(cluster))
    driver.poll()
    assert [str(foreign), "sbatch", "RUNNING"] in jobs(cluster)


def test_with_slurm_down_a_run_is_queued_at_once_and_starts_when_slurm_is_back(
    cluster: SlurmCluster, driver: Driver, tmp_path: Path
) -> None:
    cluster.kill_controller()
    try:
        driver.poll()
        began = time.monotonic()
        # A node of its own: what was cancelled a moment ago comes back to life with the old slurmctld's last save.
        driver.start(an_order_here(tmp_path, "echo x >> trace", first=4))
        driver.poll()
        assert time.monotonic() - began < 6, "a client hangs for 9 s: nobody asks but the ping"
    finally:
        cluster.start_controller()
    assert (driver.ending(RUN).exit_code, traced(tmp_path)) == (0, ["x"])


def test_a_frozen_slurm_holds_nobody_up_for_long(cluster: SlurmCluster, driver: Driver, tmp_path: Path) -> None:
    driver.start(an_order_here(tmp_path, WAITING))
    driver.await_output(RUN, "ready")
    cluster.freeze_controller()
    try:
        driver.engine.stop(RUN, StopCause.RECLAIM, "TERM", 0)
        ending = driver.ending(RUN)  # the supervisor looks by itself whether it is told to stop
    finally:
        cluster.thaw_controller()
    assert ending.stopped_for is StopCause.RECLAIM


# --- jobs that Slurm ends, repeats or never starts -------------------------------------------------------------------


def test_slurm_may_not_requeue_a_job_of_ours(
    cluster: SlurmCluster, driver: Driver, engine: SlurmEngine, tmp_path: Path
) -> None:
    driver.start(an_order_here(tmp_path, "echo x >> trace"))
    driver.ending(RUN)
    number = job_of(cluster, engine)
    assert cluster.run("scontrol", "requeue", number).returncode, "--no-requeue forbids it"


def test_a_job_that_slurm_starts_twice_runs_once(
    cluster: SlurmCluster, driver: Driver, engine: SlurmEngine, tmp_path: Path
) -> None:
    driver.start(an_order_here(tmp_path, "echo x >> trace; exec sleep 600"))
    until(lambda: traced(tmp_path))
    number = job_of(cluster, engine)
    cluster.ask("scontrol", "update", f"job={number}", "requeue=1")
    cluster.ask("scontrol", "requeue", number)  # the same number again, after its first process was told to end
    assert driver.ending(RUN).stopped_for is StopCause.DRAIN
    until(lambda: has_jobs_after_poll(driver, cluster, 0))
    assert traced(tmp_path) == ["x"]


def test_what_the_sites_people_cancel_was_drained(
    cluster: SlurmCluster, driver: Driver, engine: SlurmEngine, tmp_path: Path
) -> None:
    driver.start(an_order_here(tmp_path, WAITING))
    driver.await_output(RUN, "ready")
    cluster.ask("scancel", job_of(cluster, engine))
    ending = driver.ending(RUN)
    assert (ending.stopped_for, ended_report(ending).outcome) == (StopCause.DRAIN, Outcome.DRAINED)
    assert "CANCELLED" in ending.detail


def test_a_node_that_goes_down_takes_its_run_with_it(cluster: SlurmCluster, driver: Driver, tmp_path: Path) -> None:
    driver.start(an_order_here(tmp_path, WAITING, nodes=2))
    driver.await_output(RUN, "ready")
    cluster.ask("scontrol", "update", f"node={cluster.nodes[1]}", "state=down", "reason=fire")
    assert driver.ending(RUN).outcome is Outcome.NODE_FAILED
    until(lambda: "idle" in cluster.ask("sinfo", "--noheader", "--format=%t", f"--nodes={cluster.nodes[1]}"))


def test_a_run_whose_supervisor_is_killed_is_lost_and_says_so(
    cluster: SlurmCluster, driver: Driver, engine: SlurmEngine, tmp_path: Path
) -> None:
    driver.start(an_order_here(tmp_path, WAITING))
    driver.await_output(RUN, "ready")
    keeper = engine._store.directory(RUN).keeper()
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGKILL)
    ending = driver.ending(RUN)
    assert (ending.known, ending.detail) == (False, "Slurm says FAILED")


def test_what_cannot_start_says_why(cluster: SlurmCluster, tmp_path: Path) -> None:
    engine = open_slurm(cluster, tmp_path)
    engine._site = msgspec.structs.replace(engine._site, python="/nowhere/python3")
    driver = Driver(engine, PATIENCE_SECONDS)
    driver.start(an_order_here(tmp_path, "true"))
    ending = driver.ending(RUN)
    assert (ending.outcome, driver.started) == (Outcome.NEVER_STARTED, {})
    assert "/nowhere/python3" in ending.detail


def test_what_waits_too_long_is_given_back(cluster: SlurmCluster, tmp_path: Path) -> None:
    busy = block_first_node(cluster)
    engine = open_slurm(cluster, tmp_path, queue_seconds=1)
    driver = Driver(engine, PATIENCE_SECONDS)
    driver.start(an_order_here(tmp_path, "echo x >> trace"))
    ending = driver.ending(RUN)
    cluster.ask("scancel", str(busy))
    assert (ending.outcome, "in time" in ending.detail) == (Outcome.NEVER_STARTED, True)
    until(lambda: not jobs(cluster, "pending,running"))
    assert traced(tmp_path) == []


@pytest.mark.parametrize("start_was_seen", [True, False])
def test_a_run_whose_directory_is_wiped_comes_to_an_end(
    cluster: SlurmCluster, driver: Driver, tmp_path: Path, start_was_seen: bool
) -> None:
    store = driver.engine._store  # type: ignore[attr-defined]
    driver.start(an_order_here(tmp_path, WAITING))
    until(lambda: "ready" in driver.output(RUN))
    if start_was_seen:
        driver.poll()
    shutil.rmtree(store.directory(RUN).path)
    assert (driver.ending(RUN).known, driver.ending(RUN).outcome) == (False, None)
    until(lambda: has_jobs_after_poll(driver, cluster, 0))


def test_a_partition_that_is_not_there_is_refused(cluster: SlurmCluster, tmp_path: Path) -> None:
    engine = open_slurm(cluster, tmp_path, partition="nowhere")
    (answer,) = engine.start([Start(an_order_here(tmp_path, "true"), LONG_MS, 0)])
    assert (answer.verdict, "partition" in answer.detail) == (StartVerdict.FORBIDDEN, True)
    assert engine.find() == ()


def test_what_slurm_refuses_late_is_refused_in_its_own_words(
    cluster: SlurmCluster, driver: Driver, tmp_path: Path
) -> None:
    """It was away when the order came, and does not take the job when it is back."""
    cluster.kill_controller()
    driver.start(an_order_here(tmp_path, "true"))
    cluster.start_controller()
    until(lambda: not cluster.run("scontrol", "update", "partitionname=gpu", "state=inactive").returncode)
    ending = driver.ending(RUN)
    cluster.ask("scontrol", "update", "partitionname=gpu", "state=up")
    assert (ending.outcome, ended_report(ending).outcome) == (Outcome.REFUSED, Outcome.REFUSED)
    assert "the site's Slurm refuses it" in ending.detail and "partition not available" in ending.detail


def test_a_job_of_ours_that_nobody_knows_is_ended_and_a_foreign_one_is_not(
    cluster: SlurmCluster, driver: Driver, engine: SlurmEngine
) -> None:
    fleet = engine._settings.fleet
    stray = f"pumasi-{fleet}-77-1"
    for name, comment in ((stray, f"{stray}@sejong"), (stray, f"{stray}@busan"), ("simulation", stray)):
        cluster.submit("#!/bin/sh\nsleep 600", f"--job-name={name}", f"--comment={comment}", "--gres=gpu:1", NO_OUTPUT)
    until(lambda: len(jobs(cluster, "running")) == 3)
    until(lambda: has_jobs_after_poll(driver, cluster, 2))
    time.sleep(1.5)
    driver.poll()
    assert sorted(row[1] for row in jobs(cluster, "running")) == [stray, "simulation"]


def test_a_site_without_slurmdbd_says_that_it_keeps_no_accounts(engine: SlurmEngine) -> None:
    assert "no slurmdbd" in engine.read_output(RUN, "accounts", 0, 100).problem


# --- what a job finds, and what it cannot do -------------------------------------------------------------------------


def test_srun_works_on_all_nodes_of_a_gang(cluster: SlurmCluster, driver: Driver, tmp_path: Path) -> None:
    driver.start(
        an_order_here(tmp_path, "srun sh -c 'echo $SLURMD_NODENAME $PUMASI_JOB_ID'; echo $SLURM_JOB_ID", nodes=3)
    )
    assert driver.ending(RUN).exit_code == 0
    lines = driver.output(RUN).split("\n")
    assert sorted(lines[:3]) == [f"{node} 1" for node in cluster.nodes[:3]]
    assert any(row[0] == lines[3] for row in jobs(cluster))


def test_two_jobs_on_one_node_get_different_gpus(driver: Driver, tmp_path: Path) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; until [ -e go ]; do sleep 0.05; done"
    for job, mask in ((1, 0b0111), (2, 0b111000)):
        driver.start(an_order_here(tmp_path, script, job, mask=mask))
        driver.await_output(RunKey(job, 1), "\n")
    (tmp_path / "go").touch()
    assert [driver.output(RunKey(job, 1)) for job in (1, 2)] == ["0,1,2\n", "3,4,5\n"]


def test_nothing_a_user_writes_reaches_slurm(cluster: SlurmCluster, driver: Driver, tmp_path: Path) -> None:
    directives = "#SBATCH --job-name=evil\n#SBATCH --comment=evil\n#SBATCH --output=/tmp/evil\n"
    script = f'#!/bin/sh\n{directives}printf %s "$SLURM_JOB_NAME"\n'
    order = an_order_here(tmp_path, script)
    environment = {"SBATCH_REQUEUE": "1", "SLURM_JOB_COMMENT": "evil", "LD_PRELOAD": "/nowhere/evil.so"}
    order = msgspec.structs.replace(order, name="evil\n1|0|x", environment=environment, queue="evil;$(touch evil)")
    driver.start(order)
    ending = driver.ending(RUN)
    listed = cluster.ask("squeue", "--noheader", "--states=all", "--format=%j %k %Z %o")
    assert (ending.exit_code, "evil" in listed, driver.output(RUN)) == (0, False, "evil\n1|0|x")
    assert not (tmp_path / "evil").exists() and not Path("/tmp/evil").exists()


# --- nodes -----------------------------------------------------------------------------------------------------------


def test_the_health_of_nodes_is_told_when_it_changes(cluster: SlurmCluster, engine: SlurmEngine) -> None:
    heard: list[NodeHealth] = []

    def hears(ailing: tuple[NodeReport, ...]) -> bool:
        nodes = engine.poll().nodes
        if nodes is not None:
            heard.append(nodes)
        return bool(heard) and heard[-1] == NodeHealth(pools=(POOL,), ailing=ailing)

    until(lambda: hears(()))
    cluster.drain(cluster.nodes[2], "fan")
    until(lambda: hears((NodeReport(pool=POOL, first=2, nodes=1, state=NodeState.DRAINED, reason="drain: fan"),)))
    cluster.resume(cluster.nodes[2])
    until(lambda: hears(()))
    assert all(one != next_one for one, next_one in pairwise(heard)), "what has not changed is not told again at once"


def test_an_ending_is_never_told_twice(driver: Driver, tmp_path: Path) -> None:
    driver.start(an_order_here(tmp_path, "exit 2"))
    assert driver.ending(RUN) == Ending(RUN, exit_code=2)
    for _ in range(20):
        driver.poll()
        time.sleep(SOON.list)
    assert len(driver.told) == 1
