"""A whole federation on one machine: real Slurm clusters, an agent for each as its operator would run it, one fleet.

Everything is done by the public commands: `pumasi up`, `agent init`, `token issue` over the API, `agent enrol`, `agent
run`. Every part can be killed and started again.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pumasi.agents.slurm.hostlist import expand
from pumasi.client.client import Client
from pumasi.demo.server import connect, launch, stop
from pumasi.testing.slurm_cluster import SlurmCluster, running_clusters
from pumasi.testing.slurm_files import free_ports

SITES = ("samsung", "sk", "hyundai", "naver", "public")
NODES, GPUS_PER_NODE = 4, 8
PATIENCE_SECONDS = 60.0
COMMAND_SECONDS = 60.0
LOOK_SECONDS = 0.1
QUEUE_SECONDS = 20  # a run that Slurm has not started by then is given back: its node may be out of order

T = TypeVar("T")


class FleetTrouble(Exception):
    """Something did not come to be in time, or a command failed; the message says what."""


class SlurmFleet:
    """The running federation. Made by `slurm_fleet`."""

    def __init__(self, folder: Path, clusters: dict[str, SlurmCluster], plan: str, queue_seconds: int) -> None:
        self.folder = folder
        self.clusters = clusters
        self._plan = plan
        self._queue_seconds = queue_seconds
        self._port = free_ports(1, 1)[0]
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._control: subprocess.Popen[bytes] | None = None
        self._token = ""
        self.client = Client(server=self.url, token="")

    @property
    def url(self) -> str:
        """The control plane's address, the same for the life of the fleet."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def agents_data(self) -> Path:
        """Where the agents keep what they know; each site has a directory of its own below."""
        return self.folder / "agents"

    def site_directory(self, site: str) -> Path:
        """The site's own directory, with slurm.yaml and policy.yaml."""
        return self.agents_data / "sites" / site

    # -- the whole

    def start(self) -> None:
        """Start the control plane, let every cluster join, and wait until all sites are connected."""
        process, ready = launch(self.folder, ["--plan", self._plan, "--agents", "none", "--port", str(self._port)])
        self._control = process
        self._token = connect(process, ready, self.folder / "server.log").token
        self.client = Client(server=self.url, token=self._token)
        self._at_all_sites(self._init)
        for site in self.clusters:
            self._edit(site)
        self._at_all_sites(self._enrol)
        for site in self.clusters:
            self.start_agent(site)
        self.wait_connected()

    def wait_connected(self) -> None:
        """Wait until every site's agent serves and has spoken."""
        self.until(lambda: all(self._serves(site) for site in self.clusters), "the agents do not come up")
        self.until(lambda: self._connected() >= self.clusters.keys(), "the sites do not connect")

    def _serves(self, site: str) -> bool:
        return b"agent ready" in (self.folder / f"agent-{site}.log").read_bytes()

    def _connected(self) -> set[str]:
        return {row["id"] for row in self.client.sites() if row["link"] == "connected"}

    def stop(self) -> None:
        """Stop agents and control plane; the runs are ended with their clusters."""
        for site in list(self._agents):
            self.stop_agent(site)
        self.client.close()
        if self._control is not None and self._control.poll() is None:
            stop(self._control)

    # -- its parts

    def start_agent(self, site: str) -> None:
        """Start the agent of a site (again)."""
        with (self.folder / f"agent-{site}.log").open("ab") as log:
            command = [*_pumasi("agent", "run"), *self._where(site), "--server", self.url]
            self._agents[site] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop_agent(self, site: str) -> None:
        """Stop an agent as its operator does; its runs go on."""
        self._agents[site].terminate()
        self._agents.pop(site).wait(COMMAND_SECONDS)

    def kill_agent(self, site: str) -> None:
        """SIGKILL to the agent of a site."""
        self._agents[site].kill()
        self._agents.pop(site).wait()

    def agent_pid(self, site: str) -> int:
        """The process of a site's agent."""
        return self._agents[site].pid

    def kill_control(self) -> None:
        """SIGKILL to the control plane."""
        if self._control is not None:
            self._control.kill()
            self._control.wait()

    def start_control(self) -> None:
        """Start the control plane (again) on the same data and the same port."""
        self._control, ready = launch(self.folder, ["--agents", "none", "--port", str(self._port)])
        self.until(ready.exists, "the control plane does not start")
        self.client.close()
        self.client = Client(server=self.url, token=self._token)

    # -- asking

    def until(self, holds: Callable[[], T | None], problem: str, seconds: float = PATIENCE_SECONDS) -> T:
        """Wait until something holds, and return what it gave.

        :raises FleetTrouble: with `problem` if it does not within `seconds`.
        """
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            found = holds()
            if found:
                return found
            time.sleep(LOOK_SECONDS)
        raise FleetTrouble(f"{problem} within {seconds:.0f} s; logs are in {self.folder}")

    def wait_state(self, job: int, *states: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The job, once it is in one of these display states, such as "running"."""

        def look() -> dict[str, Any] | None:
            row = self.client.job(job)
            return row if row["display_state"] in states else None

        return self.until(look, f"job {job} is not {' or '.join(states)}", seconds)

    def nodes_of(self, attempt: dict[str, Any]) -> list[str]:
        """The site's own names of an attempt's nodes."""
        names = self.clusters[attempt["site"]].nodes
        return [names[int(name.rpartition("-")[2]) - 1] for name in expand(attempt["node_list"])]

    # -- inside

    def _at_all_sites(self, step: Callable[[str], "subprocess.Popen[str]"]) -> None:
        """Take a step at every site at once; it is the operators' own machines that do the work."""
        running = {site: step(site) for site in self.clusters}
        said = {site: process.communicate(timeout=COMMAND_SECONDS)[0] for site, process in running.items()}
        for site, process in running.items():
            if process.returncode:
                raise FleetTrouble(f"{site}: {said[site].strip()}")

    def _init(self, site: str) -> "subprocess.Popen[str]":
        config = str(self.clusters[site].config)
        shared = self.folder / "shared"
        shared.mkdir(exist_ok=True)
        places = ("--slurm-conf", config, "--shared", str(shared))
        return _run("agent", "init", *self._where(site), "--owner", site, *places, "--lend")

    def _edit(self, site: str) -> None:
        """What its operator edits: a site that is cleared for a data class lets it in, and time is short here."""
        policy, table = (self.site_directory(site) / name for name in ("policy.yaml", "slurm.yaml"))
        cleared = next(row["clearances"] for row in self.client.sites() if row["id"] == site)
        classes = ", ".join(["open", *cleared])
        policy.write_text(policy.read_text().replace("data_classes: [open]", f"data_classes: [{classes}]"))
        table.write_text(f"{table.read_text()}queue_seconds: {self._queue_seconds}\n")

    def _enrol(self, site: str) -> "subprocess.Popen[str]":
        token = self.client.issue_token(kind="enrol", site=site)["token"]
        process_environment = {"PUMASI_ENROL_TOKEN": token}
        return _run("agent", "enrol", *self._where(site), "--server", self.url, **process_environment)

    def _where(self, site: str) -> list[str]:
        return ["--data", str(self.agents_data), "--site", site]


@contextmanager
def slurm_fleet(
    folder: Path,
    sites: Sequence[str] = SITES,
    plan: str = "five-slurm",
    nodes: int = NODES,
    queue_seconds: int = QUEUE_SECONDS,
) -> Iterator[SlurmFleet]:
    """The federation, until the context ends; nothing of it runs then.

    :param folder: absolute and short, as for `running_clusters`.
    """
    with running_clusters(folder / "c", sites, nodes=nodes, gpus_per_node=GPUS_PER_NODE) as clusters:
        fleet = SlurmFleet(folder, clusters, plan, queue_seconds)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()


def _pumasi(*words: str) -> list[str]:
    return [sys.executable, "-m", "pumasi", *words]


def _run(*words: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        _pumasi(*words),
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
