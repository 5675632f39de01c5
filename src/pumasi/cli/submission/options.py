"""The options of `submit`: the same table reads `#SBATCH` lines, `#PUMASI` lines and the command line.

An option of sbatch that Pumasi does not have says why; one that nobody has gets a suggestion. Nothing is passed over.
"""

from difflib import get_close_matches
from enum import StrEnum
from typing import NamedTuple


class Takes(StrEnum):
    """What follows an option."""

    VALUE = "value"
    NOTHING = "nothing"
    PERHAPS = "perhaps"  # a value after '=' only


class Option(NamedTuple):
    """An option by its long name. `ours`: not one of sbatch, so not for `#SBATCH` lines. `why_not`: unsupported."""

    name: str
    short: str = ""
    takes: Takes = Takes.VALUE
    metavar: str = ""
    help: str = ""
    ours: bool = False
    variable: str = ""  # the environment variable of sbatch that sets it
    why_not: str = ""


_NOTHING, _PERHAPS = Takes.NOTHING, Takes.PERHAPS

SUPPORTED = (
    Option("job-name", "J", metavar="NAME", help="Name of the job.", variable="SBATCH_JOB_NAME"),
    Option("account", "A", metavar="QUEUE", help="Queue to charge, as a path.", variable="SBATCH_ACCOUNT"),
    Option("queue", metavar="QUEUE", help="The same as --account.", ours=True),
    Option("partition", "p", metavar="NAMES", help="Pools or sites it may run at.", variable="SBATCH_PARTITION"),
    Option("prefer", metavar="NAMES", help="Pools or sites to try first, in this order."),
    Option("qos", "q", metavar="NAME", help="Only 'normal', which changes nothing."),
    Option("nodes", "N", metavar="N", help="Number of nodes."),
    Option("ntasks", "n", metavar="N", help="Only 1 or one per node; the launcher in the script starts more."),
    Option("ntasks-per-node", metavar="N", help="Only 1; the launcher in the script starts more."),
    Option("gpus", "G", metavar="[TYPE:]N", help="GPUs in all.", variable="SBATCH_GPUS"),
    Option("gpus-per-node", metavar="[TYPE:]N", help="GPUs on each node.", variable="SBATCH_GPUS_PER_NODE"),
    Option("gres", metavar="gpu[:TYPE]:N", help="The same as --gpus-per-node.", variable="SBATCH_GRES"),
    Option("cpus-per-task", "c", metavar="N", help="CPUs of its task on each node."),
    Option("cpus-per-gpu", metavar="N", help="CPUs for each GPU."),
    Option("mincpus", metavar="N", help="CPUs on each node."),
    Option(
        "mem", metavar="SIZE", help="Memory on each node: 64G; a bare number is MiB.", variable="SBATCH_MEM_PER_NODE"
    ),
    Option("mem-per-gpu", metavar="SIZE", help="Memory for each GPU.", variable="SBATCH_MEM_PER_GPU"),
    Option("mem-per-cpu", metavar="SIZE", help="Memory for each CPU asked for.", variable="SBATCH_MEM_PER_CPU"),
    Option("time", "t", metavar="TIME", help="Time limit: MM, HH:MM:SS, D-HH, 90m, ...", variable="SBATCH_TIMELIMIT"),
    Option("output", "o", metavar="FILE", help="Where its output goes; %j is its number."),
    Option("error", "e", metavar="FILE", help="Where its error output goes."),
    Option("chdir", "D", metavar="FOLDER", help="Folder it runs in, at the site."),
    Option("constraint", "C", metavar="FEATURES", help="GPU models or CPU architecture.", variable="SBATCH_CONSTRAINT"),
    Option("segment", metavar="NODES", help="Nodes that must share one NVLink domain."),
    Option("spread-job", takes=_NOTHING, help="Its nodes in as many racks as can be, not in as few."),
    Option("array", "a", metavar="INDEXES", help="One job for each index: 0-9, 1,3,5 or 0-15:4."),
    Option("requeue", takes=_NOTHING, help="Run it again when its GPUs are reclaimed (the default)."),
    Option("no-requeue", takes=_NOTHING, help="Let it end when its GPUs are reclaimed."),
    Option("signal", metavar="[B:]SIGNAL[@SECONDS]", help="Signal before it is stopped, and how long before."),
    Option("begin", "b", metavar="TIME", help="Do not start before: now+2h, 16:00, 2027-01-31T08:00."),
    Option("hold", "H", takes=_NOTHING, help="Hold it until 'pumasi release'."),
    Option("priority", metavar="N", help="Priority within its queue; higher goes first."),
    Option("nice", takes=_PERHAPS, metavar="N", help="Priority lowered by N (100)."),
    Option("export", metavar="NONE|ALL|NAMES", help="Variables of this shell to send along; none by default."),
    Option("comment", metavar="TEXT", help="A remark; the job finds it in SLURM_JOB_COMMENT."),
    Option("wait", "W", takes=_NOTHING, help="Wait until it has ended, and exit with its code."),
    Option("parsable", takes=_NOTHING, help="Print the job number alone."),
    Option("test-only", takes=_NOTHING, help="Say where it could run; submit nothing."),
    Option("quiet", "Q", takes=_NOTHING, help="Print nothing but errors."),
    Option("wrap", metavar="COMMAND", help="Run this command instead of a script."),
    Option("site", metavar="NAMES", help="Sites it may run at.", ours=True),
    Option("pool", metavar="NAMES", help="Pools it may run in.", ours=True),
    Option("gpu-model", metavar="NAMES", help="GPU models it may run on.", ours=True),
    Option(
        "slice", metavar="PROFILE", help="Slices of GPUs of this MIG profile, such as 1g.23gb, or shard.", ours=True
    ),
    Option("gpu-memory", metavar="GIB", help="Least memory of each GPU.", ours=True),
    Option("cpu-arch", metavar="ARCH", help="x86_64 or arm64.", ours=True),
    Option("data-class", metavar="CLASS", help="Class of the data it reads; 'open' by default.", ours=True),
    Option("stay-home", takes=_NOTHING, help="Never leave pools its owner is entitled to.", ours=True),
    Option("no-borrow", takes=_NOTHING, help="Never run on what others lend.", ours=True),
    Option("topology", metavar="LEVEL[:required]", help="Sit within one rack, block or pool.", ours=True),
    Option("checkpoint", metavar="TIME", help="How often it saves its work.", ours=True),
)

_SHARED_OUT = "the CPUs and memory of a node are shared out in proportion to its GPUs"
_PLACED = "Pumasi chooses the nodes; --partition and --constraint narrow the choice"
_LAUNCHER = "the launcher in the script (srun, torchrun, mpirun) lays out its tasks"
_NO_MAIL = "Pumasi sends no mail; 'pumasi submit --wait' returns when the job has ended"
_SITE_RULE = "the site's administrator decides this"
_NOT_YET = "Pumasi does not have it"


def _unsupported(why: str, names: str, takes: Takes = Takes.VALUE) -> tuple[Option, ...]:
    """Options, given as `name` or `name/short` with spaces between."""
    pairs = (word.partition("/") for word in names.split())
    return tuple(Option(name, short, takes, why_not=why) for name, _, short in pairs)


UNSUPPORTED = (
    *_unsupported(_SHARED_OUT, "tmp cores-per-socket"),
    *_unsupported(_SHARED_OUT, "sockets-per-node threads-per-core core-spec/S thread-spec extra-node-info/B"),
    *_unsupported(_SHARED_OUT, "exclusive", _PERHAPS),
    *_unsupported(_SHARED_OUT, "oversubscribe/s overcommit/O", _NOTHING),
    *_unsupported(_PLACED, "nodelist/w exclude/x nodefile/F batch cluster-constraint clusters/M"),
    *_unsupported(_PLACED, "contiguous use-min-nodes", _NOTHING),
    *_unsupported("topology is asked for by --segment and --topology", "switches"),
    *_unsupported(_LAUNCHER, "gpus-per-task gpus-per-socket ntasks-per-core ntasks-per-gpu ntasks-per-socket"),
    *_unsupported(_LAUNCHER, "distribution/m hint gpu-bind mem-bind cpu-bind tres-per-task gres-flags wait-all-nodes"),
    *_unsupported(_NO_MAIL, "mail-type mail-user"),
    *_unsupported("jobs cannot depend on others; --wait tells when one has ended", "dependency/d kill-on-invalid-dep"),
    *_unsupported("--time is the one limit", "time-min deadline"),
    *_unsupported(_SITE_RULE, "acctg-freq bb bbf cpu-freq gpu-freq delay-boot network power profile propagate"),
    *_unsupported(_SITE_RULE, "mcs-label wckey uid gid licenses/L container"),
    *_unsupported(_SITE_RULE, "reboot", _NOTHING),
    *_unsupported(_SITE_RULE, "get-user-env", _PERHAPS),
    *_unsupported("a reservation is for queues: jobs of its queue run in it by themselves", "reservation"),
    *_unsupported(_NOT_YET, "export-file input/i open-mode"),
    *_unsupported(_NOT_YET, "ignore-pbs verbose/v", _NOTHING),
    *_unsupported("a gang whose node fails is started again as a whole", "no-kill/k", _PERHAPS),
)

BY_NAME = {option.name: option for option in (*SUPPORTED, *UNSUPPORTED)}
BY_SHORT = {option.short: option for option in (*SUPPORTED, *UNSUPPORTED) if option.short}


class OptionProblem(Exception):
    """An option, or its value, cannot be used; the message says why and what would be right."""


def find_long(name: str) -> Option:
    """The option of this long name.

    :raises OptionProblem: if neither sbatch nor Pumasi has it, with a suggestion.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    close = get_close_matches(name, [option.name for option in SUPPORTED], n=1)
    raise OptionProblem(f"there is no option --{name}" + (f"; did you mean --{close[0]}?" if close else ""))


def find_short(letter: str) -> Option:
    """The option of this letter.

    :raises OptionProblem: if neither sbatch nor Pumasi has it.
    """
    if letter in BY_SHORT:
        return BY_SHORT[letter]
    raise OptionProblem(f"there is no option -{letter}")
