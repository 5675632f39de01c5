"""What a Slurm cluster on loopback needs to be written: its folder, its configuration, its ports."""

import os
import pwd
import secrets
import shutil
import socket
from pathlib import Path

from msgspec import Struct

_LONGEST_FOLDER = 80  # a unix socket's path below it stays under 108 characters
_FIRST_PORT, _LAST_PORT = 12_000, 32_000  # below the range that the kernel hands out to clients
_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "scancel", "munged", "setpriv")
_ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ClusterPlan(Struct, frozen=True, kw_only=True):
    """One cluster. `first_port`: slurmctld's; slurmdbd's and the nodes' follow. `lines`: more of slurm.conf.

    `shards`: of each node, over all its GPUs. `accounting`: it has a slurmdbd, over a database of its own.
    """

    name: str
    folder: Path
    first_port: int
    node_count: int = 4
    gpus_per_node: int = 8
    gpu_type: str = "b200"
    shards: int = 0
    lines: str = ""
    accounting: bool = False

    @property
    def accounting_port(self) -> int:
        """slurmdbd's."""
        return self.first_port + 1

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes, in order."""
        return tuple(f"{self.name}{number:04d}" for number in range(1, self.node_count + 1))


def missing_slurm(*, accounting: bool = False) -> str:
    """What to do about Slurm that is not installed here; empty if it is. `accounting`: with slurmdbd."""
    needed = _PROGRAMS + (_ACCOUNTING_PROGRAMS if accounting else ())
    missing = [name for name in needed if shutil.which(name, path=_SYSTEM_PATH) is None]
    return f"{', '.join(missing)} not installed: as root, sh scripts/install_slurm.sh" if missing else ""


def program(name: str) -> str:
    """Where a program is; the daemons are not on an ordinary user's path.

    :raises FileNotFoundError: if it is not installed.
    """
    found = shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: as root, sh scripts/install_slurm.sh")
    return found


def slurm_environment(config: Path) -> dict[str, str]:
    """The environment for commands and daemons of a cluster: nothing of ours; a SLURM_JWT changes how they sign."""
    home = os.environ.get("HOME", "/")
    return {"PATH": _SYSTEM_PATH, "HOME": home, "LC_ALL": "C.UTF-8", "SLURM_CONF": str(config)}


def free_ports(count: int, blocks: int) -> list[int]:
    """First ports of `blocks` runs of `count` ports that nobody listens on."""
    found: list[int] = []
    for _ in range(1000):
        first = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT - count)
        if all(abs(first - other) >= count for other in found) and all(_is_free(first + n) for n in range(count)):
            found.append(first)
            if len(found) == blocks:
                return found
    raise OSError(f"no {blocks} runs of {count} free ports between {_FIRST_PORT} and {_LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """True if somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_cluster(plan: ClusterPlan) -> None:
    """Make the cluster's folder with its configuration, its munge key and its GPUs.

    :raises ValueError: if the folder's path is relative or too long.
    """
    if not plan.folder.is_absolute() or len(str(plan.folder)) > _LONGEST_FOLDER:
        raise ValueError(f"{plan.folder} must be absolute and have at most {_LONGEST_FOLDER} characters")
    for name in ("state", "spool", "log", "run", "munge", "gpu"):
        (plan.folder / name).mkdir(parents=True)
    for name in ("state", "munge"):
        (plan.folder / name).chmod(0o700)
    key = plan.folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    # Slurm wants a character device for each GPU. A link to /dev/null is one to stat(), and needs no privilege; its
    # trailing number becomes the GPU's index in CUDA_VISIBLE_DEVICES.
    for index in range(plan.gpus_per_node):
        (plan.folder / "gpu" / f"gpu{index}").symlink_to("/dev/null")
    last = plan.gpus_per_node - 1
    shards = f"Name=shard Count={plan.shards}\n" if plan.shards else ""
    devices = f"Name=gpu Type={plan.gpu_type} File={plan.folder}/gpu/gpu[0-{last}]\n"
    (plan.folder / "gres.conf").write_text(devices + shards)
    (plan.folder / "slurm.conf").write_text(_slurm_conf(plan))
    if plan.accounting:
        config = plan.folder / "slurmdbd.conf"
        config.touch(mode=0o600)
        config.write_text(_slurmdbd_conf(plan))


def own_name() -> str:
    """The Unix user of this process."""
    return pwd.getpwuid(os.getuid()).pw_name


def _slurm_conf(plan: ClusterPlan) -> str:
    user, lines = own_name(), plan.lines + (_accounting_lines(plan) if plan.accounting else "")
    folder, nodes = plan.folder, f"{plan.name}[0001-{plan.node_count:04d}]"
    first, shards = plan.accounting_port + 1, f",shard:{plan.shards}" if plan.shards else ""
    return f"""\
ClusterName={plan.name}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={plan.first_port}
# without this every daemon listens on all addresses
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
{_SETTINGS}
JobCompLoc={folder}/log/jobcomp.txt
NodeName=DEFAULT CPUs=64 RealMemory=1000000 Gres=gpu:{plan.gpu_type}:{plan.gpus_per_node}{shards}
NodeName={nodes} NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{first + plan.node_count - 1}] State=UNKNOWN
PartitionName=DEFAULT MaxTime=INFINITE DefaultTime=60 State=UP OverSubscribe=NO
PartitionName=gpu Nodes={nodes} Default=YES
{lines}
"""


def _accounting_lines(plan: ClusterPlan) -> str:
    return f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={plan.accounting_port}
AccountingStoragePass={plan.folder}/run/munge.sock
AccountingStorageTRES=gres/gpu,gres/gpu:{plan.gpu_type}
"""


def _slurmdbd_conf(plan: ClusterPlan) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={plan.folder}/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={plan.accounting_port}
# without this it listens on all addresses
CommunicationParameters=NoInAddrAny
SlurmUser={own_name()}
LogFile={plan.folder}/log/slurmdbd.log
PidFile={plan.folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={own_name()}
StorageLoc=accounts
"""


_SETTINGS = """\
MailProg=/bin/true
# nothing that needs cgroups, hardware or privileges
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
# GPUs are what is counted; cores are plentiful
GresTypes=gpu,shard
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# quick decisions for small tests
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue,default_queue_depth=1000
PriorityType=priority/multifactor
KillWait=2
CompleteWait=0
MinJobAge=86400
MaxJobCount=200000
JobCompType=jobcomp/filetxt
AccountingStorageType=accounting_storage/none
# failures are seen soon
SlurmctldTimeout=10
SlurmdTimeout=8
MessageTimeout=10
TCPTimeout=2
ReturnToService=2
TreeWidth=65533"""
