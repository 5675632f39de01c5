"""Real Slurm beside ours: a controller alone with 32,500 nodes, 1,500 gangs of whole nodes released at once.

The nodes are CLOUD nodes with a power-up that never completes, so slurmctld allocates them for real and launches
nothing. What is counted are the jobs it has given nodes to, a CPU second of its own. Nothing but the loopback is used;
the daemon is ended by its pid.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from pumasi.testing.slurm_files import free_ports

NODES = 32_500
NODES_PER_RACK = 9
RACKS_PER_BLOCK = 32
GPUS_PER_NODE = 8
JOBS = 1_500
CLIENTS = 4
SECONDS_MAX = 30  # how long a variant may start jobs
START_SECONDS_MAX = 240  # reading the topology takes it a minute

CONF = """ClusterName=bench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
# without this it listens on all addresses
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
PriorityType=priority/basic
SchedulerType=sched/backfill
SchedulerParameters=defer,batch_sched_delay=3,sched_interval=5,sched_min_interval=1000000,default_queue_depth=10000,\
max_rpc_cnt=150,max_sched_time=20,bf_interval=30,bf_max_time=60,bf_max_job_test=10000,bf_continue,bf_window=1440,\
bf_resolution=600
MaxJobCount=200000
MessageTimeout=90
PrivateData=cloud
SuspendProgram=/bin/true
ResumeProgram=/bin/true
ResumeTimeout=65533
SuspendTime=INFINITE
ResumeRate=0
SuspendRate=0
{select}
NodeName=n[00001-{last:05d}] NodeAddr=127.0.0.1 CPUs={gpus} RealMemory=1000000 {gres} State=CLOUD
PartitionName=big Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP OverSubscribe={share}
"""


class Variant(Struct, frozen=True):
    """How Slurm is set up: lines of slurm.conf, whether partitions are shared, and how nodes and jobs name GPUs."""

    select: str
    share: str = "NO"
    node_gres: str = ""
    job_gres: tuple[str, ...] = ()


TRES = "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nTopologyPlugin=topology/"
VARIANTS = {
    "flat": Variant(TRES + "none"),
    "linear": Variant("SelectType=select/linear\nTopologyPlugin=topology/none", "EXCLUSIVE"),
    "gres": Variant(TRES + "none\nGresTypes=gpu", "NO", f"Gres=gpu:{GPUS_PER_NODE}", (f"--gres=gpu:{GPUS_PER_NODE}",)),
    "tree": Variant(TRES + "tree"),
}


def is_installed() -> bool:
    """True if this machine has Slurm's controller and its commands."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return all(shutil.which(name, path=path) for name in ("slurmctld", "sbatch", "scontrol", "squeue"))


def gang_nodes() -> list[int]:
    """The sizes of the gangs, in nodes: 1 to 64, small ones most; the same list for Slurm and for us."""
    sizes = (1, 1, 2, 1, 4, 1, 8, 2, 9, 1, 16, 4, 1, 32, 2, 1, 8, 1, 64, 9)
    return [sizes[number % len(sizes)] for number in range(JOBS)]


def started_per_cpu_second(variant: str) -> float:
    """Jobs that Slurm gives nodes once all are released, a CPU second of its controller, in the time it was given."""
    with _controller(variant) as (run, pid):
        _submit_held(run, VARIANTS[variant])
        began, began_cpu = time.monotonic(), _cpu_seconds(pid)
        run("scontrol", "update", "partitionname=big", "state=up")
        while True:
            time.sleep(0.5)
            started = len(run("squeue", "--noheader", "--states=CF,R", "--format=%i").split())
            if started >= JOBS or time.monotonic() - began > SECONDS_MAX:
                return started / (_cpu_seconds(pid) - began_cpu)


def _cpu_seconds(pid: int) -> float:
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Run = Callable[..., str]


@contextmanager
def _controller(variant: str) -> Iterator[tuple[Run, int]]:
    """A slurmctld of its own: how to run Slurm's commands against it, and its process id."""
    with tempfile.TemporaryDirectory(prefix="bench-slurm-") as name:
        folder = Path(name)
        (folder / "state").mkdir()
        chosen = VARIANTS[variant]
        conf = folder / "slurm.conf"
        conf.write_text(
            CONF.format(
                port=free_ports(1, 1)[0], user="root" if os.geteuid() == 0 else os.environ["USER"], folder=folder,
                select=chosen.select, last=NODES, gpus=GPUS_PER_NODE, share=chosen.share, gres=chosen.node_gres,
            )
        )  # fmt: skip
        (folder / "topology.conf").write_text(_topology())
        environment = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "SLURM_CONF": str(conf), "HOME": name}

        def run(*arguments: str) -> str:
            done = subprocess.run(
                arguments, env=environment, capture_output=True, text=True, timeout=START_SECONDS_MAX, check=True
            )
            return done.stdout

        with (folder / "out").open("w") as out:
            daemon = subprocess.Popen(
                ["slurmctld", "-D", "-c", "-f", str(conf)], env=environment, stdout=out, stderr=out
            )
        try:
            _wait_until_up(run, daemon, folder)
            yield run, daemon.pid
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()


def _topology() -> str:
    """A tree of racks of 9 nodes and blocks of 32 racks, under one root."""
    racks = -(-NODES // NODES_PER_RACK)
    lines = []
    for rack in range(racks):
        first, last = rack * NODES_PER_RACK + 1, min(NODES, (rack + 1) * NODES_PER_RACK)
        lines.append(f"SwitchName=r{rack:04d} Nodes=n[{first:05d}-{last:05d}]")
    blocks = -(-racks // RACKS_PER_BLOCK)
    for block in range(blocks):
        first, last = block * RACKS_PER_BLOCK, min(racks, (block + 1) * RACKS_PER_BLOCK) - 1
        lines.append(f"SwitchName=b{block:03d} Switches=r[{first:04d}-{last:04d}]")
    return "\n".join([*lines, f"SwitchName=root Switches=b[000-{blocks - 1:03d}]", ""])


def _wait_until_up(run: Run, daemon: "subprocess.Popen[bytes]", folder: Path) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if daemon.poll() is not None:
            raise RuntimeError(f"slurmctld ended: {(folder / 'out').read_text()[-500:]}")
        try:
            run("scontrol", "ping")
            run("sinfo", "--noheader")
        except subprocess.CalledProcessError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError("slurmctld did not come up")


def _submit_held(run: Run, variant: Variant) -> None:
    """Submit all jobs to a partition that is down, so that they start to wait at one moment."""
    run("scontrol", "update", "partitionname=big", "state=down")
    common = ("sbatch", "--quiet", "--output=/dev/null", "--exclusive", "--time=60", "--wrap=true", *variant.job_gres)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda nodes: run(*common, f"--nodes={nodes}"), gang_nodes()))
