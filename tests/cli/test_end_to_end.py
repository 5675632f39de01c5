"""The command line against a real control plane: `pumasi up` on the campus plan, with real agents and real processes.

One control plane serves the module; each test works in queues or on jobs of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pumasi import Client
from pumasi.client.errors import NotFound, Refused
from pumasi.demo.report import milliseconds
from tests.cli.conftest import Result

START_SECONDS_MAX = 40
SCRIPT = """#!/bin/sh
#SBATCH --job-name=hello
#SBATCH --account=computing/vision
#SBATCH --gpus=4 --time=5
echo "$PUMASI_GPUS GPUs, $SLURM_JOB_COMMENT"
echo oops >&2
exit 3
"""


class Fleet:
    """A running control plane, and command lines that know it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PUMASI_", "SBATCH_"))},
            "PYTHONPATH": str(Path("src").resolve()),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        ready = folder / "ready.json"
        arguments = ["up", "--plan", "campus", "--data", "data", "--port", "0", "--ready-file", str(ready)]
        with (folder / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pumasi", *arguments], cwd=folder, env=self.environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready.exists():
            assert self.process.poll() is None, (folder / "up.log").read_text()
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.05)
        started = json.loads(ready.read_text())
        self.url, self.setup = str(started["url"]), str(started["setup"])

    def pumasi(self, *arguments: str, token: str = "") -> Result:
        """Run a command line as its users do."""
        environment = {**self.environment, **({"PUMASI_TOKEN": token} if token else {})}
        done = subprocess.run(
            [sys.executable, "-m", "pumasi", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def stop(self) -> int:
        """Stop the control plane and return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=90)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A control plane whose administrator has logged in by the setup token."""
    running = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        result = running.pumasi("--server", running.url, "login", "--setup", running.setup)
        assert result.code == 0, result.err
        _wait_for_sites(running)
        yield running
    finally:
        code = running.stop()
    assert code == 0


def _wait_for_sites(fleet: Fleet) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while json.loads(fleet.pumasi("info", "--json").out)["items"][0]["link"] != "connected":
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def client(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The Python client with what the command line has stored."""
    monkeypatch.setenv("XDG_CONFIG_HOME", fleet.environment["XDG_CONFIG_HOME"])
    monkeypatch.delenv("PUMASI_TOKEN", raising=False)
    with Client(fleet.url) as found:
        yield found


def _job(fleet: Fleet, number: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.pumasi("job", number, "--json").out)
    return found


def test_a_setup_token_works_once(fleet: Fleet) -> None:
    assert "Role       fleet-admin at *" in fleet.pumasi("whoami").out
    assert fleet.pumasi("--server", fleet.url, "login", "--setup", fleet.setup).code == 4


def test_a_script_runs_and_its_code_output_and_story_come_back(fleet: Fleet) -> None:
    (fleet.folder / "hello.sh").write_text(SCRIPT)
    submitted = fleet.pumasi("submit", "--wait", "hello.sh", "--comment", "it works")
    number = submitted.out.split()[-1]
    assert (submitted.code, submitted.out) == (3, f"Submitted batch job {number}\n")
    assert fleet.pumasi("logs", number).out == "4 GPUs, it works\n"
    assert fleet.pumasi("logs", "--stderr", number).out == "oops\n"
    assert "completed, exit code 3:0" in fleet.pumasi("job", number).out
    row = fleet.pumasi("usage", "jobs", "--columns", "JOBID,ACCOUNT,ALLOCGPUS,STATE,EXITCODE", "--no-headers").out
    assert [number, "computing/vision", "4", "FAILED", "3:0"] in [line.split() for line in row.splitlines()]


def test_logs_follow_a_running_job(fleet: Fleet) -> None:
    number = fleet.pumasi(
        "submit", "--parsable", "--wrap", "echo a; sleep 1; echo b", "-G1", "-A", "computing"
    ).out.strip()
    deadline = time.monotonic() + START_SECONDS_MAX
    while _job(fleet, number)["state"] == "waiting" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert fleet.pumasi("logs", "-f", number).out == "a\nb\n"


def test_nodes_are_reserved_and_jobs_that_would_run_into_it_wait(fleet: Fleet) -> None:
    reserve = ("reservation", "create", "works", "-p", "cs-rtx", "-w", "ALL", "--duration", "2h")
    assert fleet.pumasi(*reserve, "--start", "now+1h", "--flags", "maint").code == 0
    job = ("submit", "--wrap", "true", "-p", "cs-rtx", "-G1", "-A", "computing")
    long = fleet.pumasi(*job, "--parsable", "-t", "90").out.strip()
    assert fleet.pumasi(*job, "--wait", "-t", "10").code == 0, "what is over by then passes it"
    assert _job(fleet, long)["state"] == "waiting"
    assert "reservation works" in fleet.pumasi("why", long).out
    assert fleet.pumasi(*reserve, "--flags", "maint").code == 5, "the name is taken"
    assert "works" in fleet.pumasi("reservation", "list").out
    assert fleet.pumasi("reservation", "delete", "works").code == 0
    deadline = time.monotonic() + START_SECONDS_MAX
    while _job(fleet, long)["state"] == "waiting" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert fleet.pumasi("reservation", "show", "works").code == 3
    assert _job(fleet, long)["state"] != "waiting"


def test_an_array_runs_with_its_indexes(fleet: Fleet) -> None:
    wrapped = ("--wrap", "echo $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT", "-G", "rtx:1")
    submitted = fleet.pumasi("submit", "--parsable", *wrapped, "-A", "computing/classes", "-a", "2,4", "-W")
    numbers = submitted.out.split()
    assert submitted.code == 0
    assert [fleet.pumasi("logs", number).out for number in numbers] == ["2 of 2\n", "4 of 2\n"]


def test_a_class_gets_a_slice_each_and_uses_parts_of_gpus(fleet: Fleet, client: Client) -> None:
    """Twenty students ask as they do of Slurm; all run at once, no two on one slice, and an hour of four is a GPU's."""
    asked = ("-A", "computing/classes", "--gres=gpu:1g.24gb:1", "-t", "5", "-D", str(fleet.folder), "-a", "1-20")
    wrapped = ("--wrap", "echo $PUMASI_SLICE $SLURM_JOB_GPUS; until [ -e lesson-over ]; do sleep 0.1; done")
    numbers = fleet.pumasi("submit", "--parsable", *wrapped, *asked).out.split()
    deadline = time.monotonic() + START_SECONDS_MAX
    while any(client.job(int(number))["state"] != "active" for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (line,) = fleet.pumasi(
        "info", "-s", "-p", "cs-slices", "--columns", "MODEL,GPUS(F/T)", "--no-headers"
    ).out.splitlines()
    assert line.split() == ["rtx-pro-6000/4x1g.24gb", "12/32"]
    assert fleet.pumasi("queue", "-j", numbers[0], "--columns", "GPUS", "--no-headers").out.strip() == "1g.24gb:1"
    (fleet.folder / "lesson-over").touch()
    ended = [client.wait(int(number), timeout_seconds=60) for number in numbers]
    assert {job["state"] for job in ended} == {"succeeded"}
    said = sorted(fleet.pumasi("logs", number).out.split() for number in numbers[:4])
    assert [slice_name for slice_name, _ in said] == ["1g.24gb"] * 4 and len({gpu for _, gpu in said}) == 4
    attempts = [attempt for job in ended for attempt in job["attempts"]]
    slice_milliseconds = sum(
        milliseconds(attempt["ended_at"]) - milliseconds(attempt["placed_at"]) for attempt in attempts
    )
    (used,) = [row for row in client.usage(by="pool")["items"] if row["by"]["pool"] == "cs-slices"]
    assert used["gpu_milliseconds"] == slice_milliseconds // 4


def test_a_job_waits_says_why_and_is_held_released_and_cancelled(fleet: Fleet) -> None:
    place = ("-p", "clinic-b200", "-A", "medicine", "-t", "10")
    first = fleet.pumasi("submit", "--parsable", "--wrap", "sleep 60", "-G32", *place).out.strip()
    second = fleet.pumasi("submit", "--parsable", "--hold", "--wrap", "true", "-G32", *place).out.strip()
    assert _job(fleet, second)["reason"] == "JobHeldUser"
    assert fleet.pumasi("release", second).code == 0
    deadline = time.monotonic() + START_SECONDS_MAX
    while "What blocks it:" not in (why := fleet.pumasi("why", second).out):
        assert time.monotonic() < deadline, why
        time.sleep(0.2)
    assert "clinic-b200" in why
    assert fleet.pumasi("queue", "-j", first, "--columns", "ST,CHARGED", "--no-headers").out.split()[1] == "medicine:32"
    assert fleet.pumasi("cancel", first, second).code == 0
    assert fleet.pumasi("hold", second).code == 5
    assert fleet.pumasi("cancel", second).code == 5
    assert _job(fleet, second)["slurm_state"] == "CA"


def test_what_can_never_run_is_refused(fleet: Fleet, client: Client) -> None:
    result = fleet.pumasi("submit", "--wrap", "true", "-G", "4096", "-A", "physics")
    assert result.code == 6
    assert result.err.startswith("pumasi: no pool of this fleet can ever run it: ")
    with pytest.raises(Refused):
        client.submit({"name": "n", "queue": "physics", "script": "#!/bin/sh\n", "gpus": 4096})
    assert client.check({"name": "n", "queue": "physics", "script": "#!/bin/sh\n", "gpus": 8})["admissible"]


def test_the_client_submits_once_for_one_key(client: Client) -> None:
    spec = {"name": "once", "queue": "physics", "script": "#!/bin/sh\ntrue\n", "gpus": 1}
    number = client.submit(spec, key="just-once")
    assert client.submit(spec, key="just-once") == number
    assert client.submit([spec, spec], key="twice") == client.submit([spec, spec], key="twice")
    assert client.wait(number, timeout_seconds=30)["state"] == "succeeded"
    assert [event.seq for event in islice(client.events(after=0), 3)] == [1, 2, 3]
    with pytest.raises(NotFound):
        client.job(999_999)


def test_a_user_sees_and_may_do_what_the_role_says(fleet: Fleet) -> None:
    declared = fleet.pumasi(
        "principal", "declare", "kim", "--title", "김민지", "--role", "user", "--scope", "computing/vision"
    )
    assert declared.code == 0
    token = fleet.pumasi("token", "issue", "--principal", "kim").out.strip()
    number = fleet.pumasi("submit", "--parsable", "--wrap", "true", "-G1", token=token).out.strip()
    assert _job(fleet, number)["queue"] == "computing/vision"
    mine = fleet.pumasi("queue", "--me", "-t", "all", "--columns", "USER", "--no-headers", token=token)
    assert set(mine.out.split()) == {"kim"}
    assert fleet.pumasi("submit", "--wrap", "true", "-G1", "-A", "physics", token=token).code in {3, 4}
    assert fleet.pumasi("drain", "cs-rtx-00001", "--reason", "x", token=token).code == 4
    assert fleet.pumasi("whoami", token="pumasi_personal_" + "x" * 43).code == 4


def test_nodes_are_drained_and_resumed(fleet: Fleet) -> None:
    assert fleet.pumasi("drain", "physics-h200-[00003-00004]", "--reason", "fans").code == 0
    lines = [line.split() for line in fleet.pumasi("info", "-N", "-p", "physics-h200", "--no-headers").out.splitlines()]
    assert [(line[2], line[5]) for line in lines[2:]] == [("drain", "fans")] * 2
    shown = fleet.pumasi("info", "-p", "physics-h200", "-t", "drain", "--columns", "NODELIST", "--no-headers").out
    assert shown.strip() == "physics-h200-[00003-00004]"
    assert fleet.pumasi("resume", "physics-h200-[00003-00004]").code == 0


def test_reports_and_screens(fleet: Fleet) -> None:
    usage = json.loads(fleet.pumasi("usage", "--by", "owner,lender", "--json").out)
    assert sum(row["gpu_milliseconds"] for row in usage["items"]) == usage["total"]["gpu_milliseconds"]
    assert fleet.pumasi("usage", "-S", "2026-01-01").out.splitlines()[-1].startswith("TOTAL")
    entitled = fleet.pumasi("shares", "--columns", "ENTITLED", "--no-headers").out.split()
    assert sum(int(gpus) for gpus in entitled) == 96
    assert "96 GPUs" in fleet.pumasi("watch", "--once").out
    assert fleet.pumasi("reclaims").code == 0
    assert json.loads(fleet.pumasi("plan", "apply", "campus", "--dry-run").out)["dry_run"]
