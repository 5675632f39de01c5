"""The whole thing as users run it: `pumasi up` with its agents, killed and started again on the same data."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pumasi.client.client import Client
from pumasi.demo.report import allocated_gpu_milliseconds
from pumasi.demo.server import connect, launch, stop

PATIENCE_SECONDS = 90


class Running:
    """A control plane under test: killed and started again at will, stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process, ready = launch(folder, ["--plan", "campus"])
        self.server = connect(self.process, ready, folder / "server.log")
        self.client = Client(server=self.server.url, token=self.server.token)

    def start_again(self) -> None:
        """On the same data; the token of before is still good."""
        self.process, ready = launch(self.folder, [])
        until(ready.exists)
        self.client.close()
        self.client = Client(server=_url(ready), token=self.server.token)

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As Ctrl-C does; nothing of it is left then."""
        self.client.close()
        stop(self.process)
        assert tagged_processes(self.folder) == [], "something was left behind"


def _url(ready: Path) -> str:
    import json

    url: str = json.loads(ready.read_text(encoding="utf-8"))["url"]
    return url


def until(holds: Callable[[], Any]) -> Any:
    """Wait until something holds and return what it gave."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE_SECONDS} seconds")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Running]:
    fleet = Running(tmp_path)
    yield fleet
    fleet.stop()


def tagged_processes(folder: Path) -> list[int]:
    """Processes that carry a run tag and work in the folder, and agents that serve it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in text and (b"PUMASI_RUN_TAG" in text or b"pumasi\0agent" in text):
                found.append(int(entry.name))
    return found


def job(seconds: float, code: int = 0, **fields: Any) -> dict[str, Any]:
    base = {"name": "work", "queue": "physics", "gpus": 4, "time_limit_seconds": 600}
    return base | {"script": f"#!/bin/sh\necho begun >> ran\nsleep {seconds}\nexit {code}\n"} | fields


def waiting(go: Path, code: int = 0) -> dict[str, Any]:
    """A job that runs until a file is there: it ends when the test says, however slow the machine."""
    return job(0, script=f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.1; done\nexit {code}\n")


def runs_of(folder: Path, number: int) -> list[Path]:
    """The run directories of a job's attempts."""
    return sorted(folder.glob(f"data/agents/sites/*/*/*-campus-{number}-*"))


def has_ended(fleet: Running, number: int) -> bool:
    """True once a job's run has left its exit record."""
    return all((run / "exit").exists() for run in runs_of(fleet.folder, number))


def state_is(fleet: Running, number: int, state: str) -> Callable[[], bool]:
    return lambda: fleet.client.job(number)["display_state"] == state


def test_what_was_acknowledged_survives_a_kill_and_what_ran_goes_on(fleet: Running) -> None:
    go = fleet.folder / "go"
    short, failing, long = fleet.client.submit([waiting(go), waiting(go, code=7), job(600)])
    for number in (short, failing, long):
        until(state_is(fleet, number, "running"))
    acknowledged = fleet.client.submit([job(0, name=f"later-{n}") for n in range(50)], held=True)
    fleet.kill()
    go.touch()
    until(lambda: all(has_ended(fleet, number) for number in (short, failing)))  # while nobody watches
    fleet.start_again()
    assert fleet.client.wait(short, PATIENCE_SECONDS)["state"] == "succeeded"
    failed = fleet.client.wait(failing, PATIENCE_SECONDS)
    assert (failed["state"], failed["exit_code"]) == ("failed", 7)
    assert {row["id"] for row in fleet.client.jobs(state=["held"])} == set(acknowledged)
    still = fleet.client.job(long)
    assert still["display_state"] == "running" and len(still["attempts"]) == 1
    assert len(runs_of(fleet.folder, long)) == 1
    fleet.client.cancel(long)
    assert fleet.client.wait(long, PATIENCE_SECONDS)["state"] == "cancelled"


def agent_pid(fleet: Running) -> int:
    """The embedded agent: the one child that runs `pumasi agent`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == fleet.process.pid and b"agent" in (entry / "cmdline").read_bytes():
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("there is no agent")


def test_an_agent_that_is_killed_is_replaced_and_adopts_what_ran(fleet: Running) -> None:
    number = fleet.client.submit(waiting(fleet.folder / "go", code=5))
    until(state_is(fleet, number, "running"))
    os.kill(agent_pid(fleet), signal.SIGKILL)
    (fleet.folder / "go").touch()
    after = fleet.client.submit(job(0))
    ended = fleet.client.wait(number, PATIENCE_SECONDS)
    assert (ended["state"], ended["exit_code"], len(ended["attempts"])) == ("failed", 5, 1)
    assert fleet.client.wait(after, PATIENCE_SECONDS)["state"] == "succeeded"


def test_a_clean_stop_ends_every_run_and_the_job_queues_again(fleet: Running) -> None:
    number = fleet.client.submit(job(600))
    until(state_is(fleet, number, "running"))
    fleet.stop()
    fleet.start_again()
    until(state_is(fleet, number, "running"))
    assert [attempt["outcome"] for attempt in fleet.client.job(number)["attempts"]] == ["drained", None]


def test_reclaim_gives_notice_before_the_kill_and_the_books_add_up(fleet: Running) -> None:
    """Physics borrows what computing leaves idle; computing's own job gets it back within the window."""
    script = "#!/bin/sh\ntrap 'echo notice; exit 143' TERM\nsleep 600 & wait $!\n"
    pools = [row for row in fleet.client.pools() if row["id"] == "cs-rtx"]
    assert pools[0]["gpus"] == 24
    borrower = fleet.client.submit(job(0, gpus=24, pools=["cs-rtx"], script=script))
    until(state_is(fleet, borrower, "running"))
    owner = fleet.client.submit(job(1, queue="computing", gpus=16, pools=["cs-rtx"]))
    assert fleet.client.wait(owner, 300)["state"] == "succeeded"
    attempt = fleet.client.job(borrower)["attempts"][0]
    assert attempt["outcome"] == "reclaimed" and attempt["stop"]["claimant"] == owner
    assert "notice" in runs_of(fleet.folder, borrower)[0].joinpath("stdout").read_text()
    (reclaim,) = [row for row in fleet.client.reclaims() if row["claimant"] == owner]
    assert reclaim["kept"] and reclaim["took_seconds"] <= reclaim["promised_seconds"]
    fleet.client.cancel(borrower)
    fleet.client.wait(borrower, PATIENCE_SECONDS)
    jobs = list(fleet.client.jobs())
    assert fleet.client.usage(by="owner")["total"]["gpu_milliseconds"] == allocated_gpu_milliseconds(jobs)
