"""A real agent process against a real server, for tests of the whole."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi.agents.agent import enrol
from pumasi.testing.control_plane import SmallControlPlane

SITE = "sejong"


class AgentProcess:
    """`pumasi agent run` for one site, which can be killed and started again over the same directory."""

    def __init__(self, plane: SmallControlPlane, data: Path) -> None:
        self.plane = plane
        self.data = data
        self.process: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []
        self.log = data.parent / "agent.log"

    def enrol(self, data: Path | None = None) -> None:
        asyncio.run(enrol(self.plane.url, data or self.data, SITE, self.plane.issue_token(SITE)))

    def start(self, *options: str, data: Path | None = None) -> subprocess.Popen[bytes]:
        """Start it, and wait until it speaks."""
        before = self.plane.syncs(SITE)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*self._command("run", data), *options], stderr=log)
        self.started.append(self.process)
        self.plane.wait(lambda: self.plane.syncs(SITE) > before)
        return self.process

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def _command(self, name: str, data: Path | None) -> list[str]:
        where = ["--server", self.plane.url, "--data", str(data or self.data), "--site", SITE]
        return [sys.executable, "-m", "pumasi", "agent", name, *where]


@pytest.fixture
def plane() -> Iterator[SmallControlPlane]:
    with SmallControlPlane() as plane:
        yield plane


@pytest.fixture
def agent(plane: SmallControlPlane, tmp_path: Path) -> Iterator[AgentProcess]:
    """Enrolled and running. At the end it ends all its runs."""
    agent = AgentProcess(plane, tmp_path / "agent")
    try:
        agent.enrol()
        agent.start("--end-runs")
        yield agent
        _leave_nothing(agent)
    finally:
        for process in agent.started:
            process.kill()
            process.wait(60)


def _leave_nothing(agent: AgentProcess) -> None:
    if agent.process is None or agent.process.poll() is not None:
        # Whatever a test did to it: an agent that comes back finds all runs of its directory and ends them.
        agent.enrol()
        agent.start("--end-runs")
    assert agent.terminate() == 0
    assert "Traceback" not in agent.log.read_text()
