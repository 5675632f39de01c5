"""A job as far as its author has described it. Settings are applied one after the other; the last one wins."""

import os
import re
import signal
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from pumasi.cli.durations import LONGEST_SECONDS, TIME_FORMS, parse_duration
from pumasi.cli.submission.directives import Setting
from pumasi.cli.submission.options import OptionProblem
from pumasi.model.fleet import SHARD, CpuArch, is_slice
from pumasi.model.ids import is_queue_path
from pumasi.model.jobs import Level

NUMBER_MAX = 10_000_000
_KIB_OF = {"K": 1, "": 1 << 10, "M": 1 << 10, "G": 1 << 20, "T": 1 << 30}
ARRAY_TASKS_MAX = 10_000
SLURM_NOTICE_SECONDS = 60  # what sbatch means by --signal without @seconds
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}

# Variables of this shell that belong to this session or would change how the job's shell starts: ALL leaves them here.
_STAY_HERE = re.compile(
    r"(PUMASI|SLURM|SBATCH|LD|BASH|SSH|XDG|DBUS)_.*|HOME|PWD|OLDPWD|SHELL|USER|LOGNAME|PATH|TERM|_|SHLVL"
)


class Draft(Struct):
    """A job in the making. Names of pools, sites and GPU types are as written, until the fleet is asked."""

    name: str = ""
    queue: str = ""
    script: str = ""
    gpus: int = 0
    nodes: int = 0
    gpus_per_node: int = 0
    tasks: int = 0
    tasks_per_node: int = 0
    cpu_memory_mib: int = 0  # for each CPU
    gpu_types: tuple[str, ...] = ()
    constraint: str = ""
    places: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()
    time_limit_seconds: int = 0
    array: tuple[int, ...] = ()
    begin: str = ""
    held: bool = False
    topology: dict[str, object] = field(default_factory=dict)
    fields: dict[str, object] = field(default_factory=dict)  # of the job as the API takes them
    environment: dict[str, str] = field(default_factory=dict)


class Manner(Struct):
    """How to submit rather than what: flags of the command."""

    wait: bool = False
    parsable: bool = False
    test_only: bool = False
    quiet: bool = False


def apply_settings(draft: Draft, manner: Manner, settings: Iterable[Setting], ignored: frozenset[str]) -> list[str]:
    """Apply settings in order and return every problem, each with where it came from."""
    problems = []
    for setting in settings:
        if setting.option.name in ignored:
            continue
        try:
            _apply(draft, manner, setting)
        except OptionProblem as problem:
            problems.append(f"{setting.origin}--{setting.option.name}: {problem}")
    return problems


def _apply(draft: Draft, manner: Manner, setting: Setting) -> None:
    option = setting.option
    if option.why_not:
        raise OptionProblem(f"not supported: {option.why_not}")
    if option.name in _FLAGS:
        setattr(manner, _FLAGS[option.name], True)
        return
    _HANDLERS[option.name](draft, setting.value)


def _number(text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:20]) <= NUMBER_MAX:
        raise OptionProblem(f"expected a number from {least} to {NUMBER_MAX:,}, not {text!r}")
    return int(text)


def _signed(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * _number(text.removeprefix("-"), 0)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise OptionProblem("expected a name, or several with commas between")
    return names


def duration_seconds(text: str) -> int:
    """Seconds in a duration.

    :raises OptionProblem: if it is none, or not within a second and a year.
    """
    seconds = parse_duration(text)
    if seconds is None:
        raise OptionProblem(f"{text!r} is no duration; write {TIME_FORMS}")
    if not 0 < seconds <= LONGEST_SECONDS:
        raise OptionProblem(f"{text!r} is not between a second and {LONGEST_SECONDS // 86400} days")
    return seconds


def _set_name(draft: Draft, text: str) -> None:
    if not text.isprintable() or not text:
        raise OptionProblem("a name is a line of printable characters")
    draft.name = text


def _set_queue(draft: Draft, text: str) -> None:
    if not is_queue_path(text):
        raise OptionProblem(f"{text!r} is no queue; a queue is a path such as public/academia")
    draft.queue = text


def _set_nodes(draft: Draft, text: str) -> None:
    least, dash, most = text.partition("-")
    if dash and least != most:
        raise OptionProblem("a range of nodes is not supported; a gang has one size")
    draft.nodes = _number(least)


def _count_and_type(draft: Draft, text: str) -> int:
    """A slice may be named with its GPU type before it, as Slurm's own names of MIG types are: `b200_1g.23gb`."""
    kind, colon, count = text.lower().rpartition(":")
    gpu_type, _, profile = kind.rpartition("_")
    if is_slice(profile):
        draft.fields["slice"], kind = profile, gpu_type.removeprefix("nvidia").removeprefix("_")
    if colon and (kind or not is_slice(profile)):
        draft.gpu_types = (kind,)
    return _number(count)


def slice_name(text: str) -> str:
    """A MIG profile, or SHARD.

    :raises OptionProblem: if it is neither.
    """
    if not is_slice(text.lower()) and text.lower() != SHARD:
        raise OptionProblem(f"{text!r} is no MIG profile, which looks like 1g.23gb, and not shard")
    return text.lower()


def _set_gpus(draft: Draft, text: str) -> None:
    draft.gpus = _count_and_type(draft, text)


def _set_gpus_per_node(draft: Draft, text: str) -> None:
    draft.gpus_per_node = _count_and_type(draft, text)


def _set_gres(draft: Draft, text: str) -> None:
    name, _, rest = text.partition(":")
    if name not in {"gpu", SHARD} or "," in text:
        raise OptionProblem(f"{text!r} is not supported; only gpu[:TYPE]:N and shard:N are")
    if name == SHARD:
        draft.fields["slice"] = SHARD
    elif draft.fields.get("slice") == SHARD:
        del draft.fields["slice"]  # a later word for whole GPUs
    _set_gpus_per_node(draft, rest or "1")


def memory_mib(text: str) -> int:
    """MiB in a size as Slurm writes it: `64G`, `512M`, a bare number of MiB; 0 asks for nothing in particular.

    :raises OptionProblem: if it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})([KMGT]?)(?:i?B)?", text.strip().upper(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise OptionProblem(f"{text!r} is no size of memory; write for example 64G")
    mib = -(-int(match[1]) * _KIB_OF[match[2]] // 1024)
    if mib > NUMBER_MAX:
        raise OptionProblem(f"{text!r} is more than any node has")
    return mib


def _set_cpus_per_task(draft: Draft, text: str) -> None:
    draft.fields["cpus_per_node"] = _number(text)  # one task a node
    draft.environment["SLURM_CPUS_PER_TASK"] = text


def _set_time(draft: Draft, text: str) -> None:
    if text.upper() in {"UNLIMITED", "INFINITE", "0"}:
        raise OptionProblem("every job has a time limit; it is what lets others plan")
    draft.time_limit_seconds = duration_seconds(text)


def _set_qos(_draft: Draft, text: str) -> None:
    if text != "normal":
        raise OptionProblem(f"there is no QOS {text!r}; --priority and --no-borrow are what comes nearest")


def _set_signal(draft: Draft, text: str) -> None:
    match = re.fullmatch(r"(?:[RB]{1,2}:)?(?:SIG)?([A-Z0-9]+)(?:@(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise OptionProblem(f"{text!r} is no signal; write for example USR1@120")
    draft.fields["notice_signal"] = signal_name(match[1])
    draft.fields["notice_seconds"] = int(match[2]) if match[2] else SLURM_NOTICE_SECONDS


def signal_name(text: str) -> str:
    """The name of a signal without SIG, from its name or number.

    :raises OptionProblem: if there is no such signal, or none that a process can catch.
    """
    try:
        number = signal.Signals(int(text)) if text.isdigit() else signal.Signals[f"SIG{text.removeprefix('SIG')}"]
    except (KeyError, ValueError):
        raise OptionProblem(f"there is no signal {text}") from None
    if number in {signal.SIGKILL, signal.SIGSTOP}:
        raise OptionProblem(f"{number.name} cannot be caught, so it gives no notice")
    return number.name.removeprefix("SIG")


def parse_array(text: str) -> tuple[int, ...]:
    """The indexes of an array: `0-9`, `1,3,5`, `0-15:4`.

    :raises OptionProblem: if they are none.
    """
    if "%" in text:
        raise OptionProblem("a limit on tasks that run at once (%N) is not supported; the queue's quota is the limit")
    indexes: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?", part.strip(), re.ASCII)
        if match is None or match[3] == "0":
            raise OptionProblem(f"{part!r} is no index; write for example 0-9, 1,3,5 or 0-15:4")
        found = range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
        if not found or len(indexes) + len(found) > ARRAY_TASKS_MAX:
            raise OptionProblem(f"{part!r}: an array has 1 to {ARRAY_TASKS_MAX:,} tasks, counted upwards")
        indexes.update(dict.fromkeys(found))
    return tuple(indexes)


def _set_array(draft: Draft, text: str) -> None:
    draft.array = parse_array(text)


def _set_export(draft: Draft, text: str) -> None:
    """NIL and NONE send nothing, ALL what is not of this session alone; a name sends it, NAME=VALUE sets it."""
    for word in _names(text):
        name, equals, value = word.partition("=")
        if word == "ALL":
            draft.environment |= {key: val for key, val in os.environ.items() if not _STAY_HERE.fullmatch(key)}
        elif equals:
            draft.environment[_variable(name)] = value
        elif word not in {"NONE", "NIL"}:
            if _variable(word) not in os.environ:
                raise OptionProblem(f"{word} is not set here")
            draft.environment[word] = os.environ[word]


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise OptionProblem(f"{name!r} is no name of a variable")
    return name


def _set_arch(draft: Draft, text: str) -> None:
    if text.lower() not in ARCHITECTURES:
        raise OptionProblem(f"there is no CPU architecture {text!r}; there are {' and '.join(CpuArch)}")
    draft.fields["cpu_arch"] = ARCHITECTURES[text.lower()]


def _set_topology(draft: Draft, text: str) -> None:
    level, colon, word = text.partition(":")
    if level not in set(Level) or (colon and word != "required"):
        raise OptionProblem("expected rack, block or pool, and perhaps ':required'")
    draft.topology |= {"level": level, "required": bool(colon)}


def _set_spread(draft: Draft, _text: str) -> None:
    draft.topology["spread"] = True


def _set_wrap(draft: Draft, text: str) -> None:
    draft.script = f"#!/bin/sh\n# made by pumasi submit --wrap\n{text}\n"
    draft.name = draft.name or "wrap"


def _set_nice(draft: Draft, text: str) -> None:
    draft.fields["priority"] = -_signed(text or "100")


def _field(name: str, convert: Callable[[str], object]) -> Callable[[Draft, str], None]:
    def handle(draft: Draft, text: str) -> None:
        draft.fields[name] = convert(text)

    return handle


def _attribute(name: str, convert: Callable[[str], object]) -> Callable[[Draft, str], None]:
    def handle(draft: Draft, text: str) -> None:
        setattr(draft, name, convert(text))

    return handle


def _set_comment(draft: Draft, text: str) -> None:
    draft.environment["SLURM_JOB_COMMENT"] = text


def _constant(value: object) -> Callable[[str], object]:
    return lambda _text: value


_FLAGS = {"wait": "wait", "parsable": "parsable", "test-only": "test_only", "quiet": "quiet"}

_HANDLERS: dict[str, Callable[[Draft, str], None]] = {
    "job-name": _set_name,
    "account": _set_queue,
    "queue": _set_queue,
    "partition": _attribute("places", _names),
    "qos": _set_qos,
    "nodes": _set_nodes,
    "ntasks": _attribute("tasks", _number),
    "ntasks-per-node": _attribute("tasks_per_node", _number),
    "gpus": _set_gpus,
    "gpus-per-node": _set_gpus_per_node,
    "gres": _set_gres,
    "cpus-per-task": _set_cpus_per_task,
    "cpus-per-gpu": _field("cpus_per_gpu", _number),
    "mincpus": _field("cpus_per_node", _number),
    "mem": _field("host_memory_mib_per_node", memory_mib),
    "mem-per-gpu": _field("host_memory_mib_per_gpu", memory_mib),
    "mem-per-cpu": _attribute("cpu_memory_mib", memory_mib),
    "time": _set_time,
    "output": _field("stdout", str),
    "error": _field("stderr", str),
    "chdir": _field("working_directory", str),
    "constraint": _attribute("constraint", str.lower),
    "segment": _field("segment_nodes", _number),
    "array": _set_array,
    "requeue": _field("requeue", _constant(True)),
    "no-requeue": _field("requeue", _constant(False)),
    "signal": _set_signal,
    "begin": _attribute("begin", str),
    "hold": _attribute("held", _constant(True)),
    "priority": _field("priority", _signed),
    "nice": _set_nice,
    "export": _set_export,
    "comment": _set_comment,
    "wrap": _set_wrap,
    "prefer": _attribute("prefers", _names),
    "site": _attribute("sites", _names),
    "pool": _attribute("pools", _names),
    "gpu-model": _attribute("gpu_types", _names),
    "slice": _field("slice", slice_name),
    "gpu-memory": _field("memory_gib_per_gpu", _number),
    "cpu-arch": _set_arch,
    "data-class": _field("data_class", str),
    "stay-home": _field("stays_home", _constant(True)),
    "no-borrow": _field("may_borrow", _constant(False)),
    "topology": _set_topology,
    "spread-job": _set_spread,
    "checkpoint": _field("checkpoint_seconds", duration_seconds),
}
