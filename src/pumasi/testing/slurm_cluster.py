"""Real Slurm clusters on this machine: for tests and the demo. Loopback only, no systemd, no real GPU.

A cluster is one munged with a key of its own, one slurmctld, and one slurmd for each node, all in the foreground as
children of this process, with everything they write below one folder. Their GPUs are links to /dev/null: Slurm counts
and hands them out as it does real ones. Works as root and as an ordinary user, with Debian 12's Slurm 22.05.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pumasi.testing.processes import all_pids, environment_of, has_open, is_step_daemon, with_descendants
from pumasi.testing.slurm_files import (
    ClusterPlan,
    free_ports,
    listens,
    own_name,
    program,
    slurm_environment,
    write_cluster,
)

_READY_SECONDS = 60.0
_COMMAND_SECONDS = 20.0
_PAUSE_SECONDS = 0.05
_UP_STATES = "idle,alloc,mix,comp"


class SlurmTrouble(Exception):
    """A cluster does not do what it should; the message says where its log is."""


class SlurmCluster:
    """One cluster. `start` it and `stop` it; in between break it at will. Made by `running_clusters`."""

    def __init__(self, plan: ClusterPlan) -> None:
        self.plan = plan
        self.name = plan.name
        self.folder = plan.folder
        self.environment = slurm_environment(plan.folder / "slurm.conf")
        self._database = plan.folder / "run" / "db.sock"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def config(self) -> Path:
        """Its slurm.conf: `SLURM_CONF` picks the cluster for every Slurm command."""
        return self.folder / "slurm.conf"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes, in order."""
        return self.plan.nodes

    # -- asking it

    def run(self, *argv: str, seconds: float = _COMMAND_SECONDS, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands on this cluster, with `text` as its standard input."""
        return subprocess.run(
            [program(argv[0]), *argv[1:]],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def ask(self, *argv: str) -> str:
        """What a command that succeeds writes.

        :raises SlurmTrouble: if it does not succeed.
        """
        done = self.run(*argv)
        if done.returncode:
            raise SlurmTrouble(f"{self.name}: {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def submit(self, script: str, *options: str) -> int:
        """Submit a script as any user of the cluster does, without Pumasi; returns its id. Its output goes nowhere."""
        done = self.run("sbatch", "--parsable", "--output=/dev/null", *options, text=script)
        if done.returncode:
            raise SlurmTrouble(f"{self.name}: sbatch: {done.stderr.strip()}")
        return int(done.stdout)

    # -- starting and stopping

    def start(self) -> None:
        """Start all daemons; `wait_ready` says when they serve."""
        self._start_munge()
        if self.plan.accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)

    def wait_ready(self) -> None:
        """Wait until every node can take work.

        :raises SlurmTrouble: if that does not come to be.
        """
        self._until(lambda: self._up_nodes() >= len(self.nodes), "its nodes do not come up", _READY_SECONDS)

    def stop(self) -> None:
        """End every job and every daemon; nothing of the cluster runs after."""
        if self._is_up("slurmctld"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("scancel", "--quiet", "--full", "--signal=KILL", "--state=RUNNING", seconds=5)
        self._end([name for name in self._daemons if name not in {"slurmctld", "munged"}])
        self._end(["slurmctld"])
        self._end(["munged"])
        self._end_strays()

    # -- breaking it

    def kill_controller(self) -> None:
        """SIGKILL to slurmctld: what it has not written in its last five seconds is lost."""
        self._end(["slurmctld"], signal.SIGKILL)

    def start_controller(self) -> None:
        """Start slurmctld (again)."""
        self._launch("slurmctld", "slurmctld", "-D", "-f", str(self.config))

    def freeze_controller(self) -> None:
        """Let slurmctld stand still, as behind a network that swallows everything: clients wait and get no answer."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)

    def thaw_controller(self) -> None:
        """Let slurmctld go on."""
        self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def kill_node(self, node: str) -> None:
        """SIGKILL to everything that runs on a node, as when its power fails."""
        self._end([node], signal.SIGKILL)
        self._end_strays(node)

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node (again)."""
        self._launch(node, "slurmd", "-D", "-f", str(self.config), "-N", node)

    def drain(self, node: str, reason: str) -> None:
        """Drain a node as the site's own staff does."""
        self.ask("scontrol", "update", f"nodename={node}", "state=drain", f"reason={reason}")

    def resume(self, node: str) -> None:
        """Take a drained node back into service."""
        self.ask("scontrol", "update", f"nodename={node}", "state=resume")

    def resume_drained(self) -> tuple[str, ...]:
        """Take back the nodes that are drained, as the site's staff does: Slurm itself drains some after a crash."""
        drained = self.ask("sinfo", "--noheader", "--Node", "--states=drain", "--format=%N").split()
        for node in dict.fromkeys(drained):
            self.resume(node)
        return tuple(dict.fromkeys(drained))

    # -- what runs

    def processes(self) -> tuple[int, ...]:
        """Every process of this cluster, daemons and jobs."""
        up = [process.pid for process in self._daemons.values() if process.poll() is None]
        return tuple(with_descendants({*up, *self._steps("")}))

    def pid(self, daemon: str = "slurmctld") -> int:
        """The process of a daemon: "slurmctld", "munged" or a node's name."""
        return self._daemons[daemon].pid

    # -- inside

    def _start_munge(self) -> None:
        run, socket = self.folder / "run", self.folder / "run" / "munge.sock"
        for stale in (socket, socket.with_suffix(".sock.lock")):
            stale.unlink(missing_ok=True)
        self._launch(
            "munged",
            "munged",
            *("-F", "--force", "--num-threads=2", f"--key-file={self.folder}/munge/key", f"--socket={socket}"),
            *(f"--pid-file={run}/munged.pid", f"--log-file={self.folder}/log/munged.log"),
            f"--seed-file={self.folder}/munge/seed",
        )
        self._until(socket.exists, "munged does not start")

    def _start_accounting(self) -> None:
        """A database of this cluster's own and its slurmdbd, which must listen before slurmctld's first start."""
        data, user = self.folder / "db", f"--user={own_name()}"
        settings = (f"--datadir={data}", user, "--auth-root-authentication-method=socket", "--skip-test-db")
        subprocess.run([program("mariadb-install-db"), "--no-defaults", *settings], capture_output=True, check=True)
        files = (f"--socket={self._database}", f"--pid-file={self.folder}/run/db.pid")
        self._launch("mariadbd", "mariadbd", "--no-defaults", user, f"--datadir={data}", *files, "--skip-networking")
        self._until(self._database.exists, "mariadbd does not start")
        self._launch("slurmdbd", "slurmdbd", "-D")
        self._until(lambda: listens(self.plan.accounting_port), "slurmdbd does not start")

    def _launch(self, name: str, *argv: str) -> None:
        """Start a daemon that goes when this process does, however that ends."""
        self._end([name])
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [program("setpriv"), "--pdeathsig", "KILL", program(argv[0]), *argv[1:]],
                env=self.environment | {"MYSQL_UNIX_PORT": str(self._database)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _up_nodes(self) -> int:
        if not self._is_up("slurmctld"):
            raise SlurmTrouble(f"{self.name}: slurmctld has ended, see {self.folder}/log/slurmctld.out")
        with contextlib.suppress(subprocess.TimeoutExpired):
            return len(self.run("sinfo", "-h", "-N", "-p", "gpu", "-t", _UP_STATES, "-o", "%N").stdout.split())
        return 0

    def _is_up(self, name: str) -> bool:
        return name in self._daemons and self._daemons[name].poll() is None

    def _end(self, names: Sequence[str], number: signal.Signals = signal.SIGTERM) -> None:
        """End daemons, by force if they do not go within a second."""
        ending = [self._daemons[name] for name in names if self._is_up(name)]
        for process in ending:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        for process in ending:
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _end_strays(self, node: str = "") -> None:
        """Step daemons outlive their slurmd, and jobs their step daemon. With a node's name: those of that node."""
        daemons = {process.pid for process in self._daemons.values()}
        for pid in with_descendants(self._steps(node)):
            if pid not in daemons:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _steps(self, node: str) -> Iterator[int]:
        for pid in all_pids():
            environment = environment_of(pid)
            if f"SLURM_CONF={self.config}\0".encode() not in environment:
                continue
            if is_step_daemon(pid):
                if not node or has_open(pid, self.folder / "log" / f"{node}.log"):
                    yield pid
            elif b"SLURM_JOB_ID=" in environment and (not node or f"SLURMD_NODENAME={node}\0".encode() in environment):
                yield pid

    def _until(self, holds: Callable[[], bool], problem: str, seconds: float = _COMMAND_SECONDS) -> None:
        give_up_at = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > give_up_at:
                raise SlurmTrouble(f"{self.name}: {problem} within {seconds:.0f} s, see {self.folder}/log")
            time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def running_clusters(
    folder: Path,
    names: Sequence[str],
    *,
    nodes: int = 4,
    gpus_per_node: int = 8,
    gpu_type: str = "b200",
    shards: int = 0,
    accounting: bool = False,
    lines: str = "",
) -> Iterator[dict[str, SlurmCluster]]:
    """Several clusters, each below a folder of its name, started together and stopped at the end; see `ClusterPlan`.

    :param folder: absolute, and short: a unix socket below it has at most 108 characters.
    :raises SlurmTrouble: if one of them does not come up.
    """
    ports = free_ports(nodes + 2, len(names))
    clusters = {}
    for name, first_port in zip(names, ports, strict=True):
        shutil.rmtree(folder / name, ignore_errors=True)
        plan = ClusterPlan(
            name=name,
            folder=folder / name,
            first_port=first_port,
            node_count=nodes,
            gpus_per_node=gpus_per_node,
            gpu_type=gpu_type,
            shards=shards,
            accounting=accounting,
            lines=lines,
        )
        write_cluster(plan)
        clusters[name] = SlurmCluster(plan)
    try:
        for cluster in clusters.values():
            cluster.start()
        for cluster in clusters.values():
            cluster.wait_ready()
        yield clusters
    finally:
        for cluster in clusters.values():
            cluster.stop()
