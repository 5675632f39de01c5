"""What Slurm's commands write, as values. One reader per shape; what cannot be read is no news, never a guess.

Jobs are read from text in a form we choose, the same in every version: as JSON, Slurm 22.05 ignores the filters and
lists every core of every node of every job. Only the agent's own Unix user's jobs are ever listed, and the two fields
that a submitter chooses come last: others cannot forge a row.
"""

import re
from typing import Any, NamedTuple

import msgspec

JOB_FIELDS = "%A|%U|%T|%V|%r|%j|%k"
ACCOUNT_FIELDS = "JobIDRaw,State,ExitCode,Submit,JobName"
USAGE_FIELDS = "JobID,State,ExitCode,ElapsedRaw,TotalCPU,MaxRSS,ConsumedEnergyRaw,AllocTRES,NodeList"
_JOB_FIELD_COUNT = 7
_VERSION = re.compile(r"slurm(?:-wlm)? ([0-9]+)\.([0-9]+)")


class SlurmJob(NamedTuple):
    """A job as Slurm has it. `submitted`: Unix seconds; with the id it names a job for ever, the id alone does not."""

    id: int
    user: int
    state: str
    submitted: int
    reason: str
    name: str
    comment: str


class SlurmNode(NamedTuple):
    """A node as Slurm has it. `states`: its state and all flags, in capitals."""

    name: str
    states: frozenset[str]
    reason: str
    gres: str
    features: tuple[str, ...]
    partitions: tuple[str, ...]
    cpus: int
    memory_mib: int


class Accounted(NamedTuple):
    """What slurmdbd says of a job that is over. `signal`: what killed its batch script, or 0."""

    id: int
    state: str
    exit_code: int
    signal: int
    submitted: int
    name: str


class Unreadable(Exception):
    """The answer has no shape we know."""


def read_version(text: str) -> tuple[int, int]:
    """The major and minor version from `sinfo --version`.

    :raises Unreadable: if there is none.
    """
    match = _VERSION.search(text)
    if match is None:
        raise Unreadable(f"no version of Slurm: {text[:100]!r}")
    return int(match[1]), int(match[2])


def read_jobs(text: str) -> list[SlurmJob]:
    """The rows of `squeue` in our form; a row that is none, left by a newline in a job's name, is passed over."""
    return [job for line in text.split("\n") if (job := _job(line)) is not None]


def _job(line: str) -> SlurmJob | None:
    parts = line.split("|", _JOB_FIELD_COUNT - 1)
    if len(parts) != _JOB_FIELD_COUNT or not (_is_number(parts[0]) and _is_number(parts[1]) and _is_number(parts[3])):
        return None
    return SlurmJob(int(parts[0]), int(parts[1]), parts[2], int(parts[3]), *parts[4:])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 18


def read_nodes(raw: str) -> list[SlurmNode]:
    """The nodes in the JSON of `sinfo` (22.05) or `scontrol show nodes` (23.02 and later).

    :raises Unreadable: if it is neither.
    """
    try:
        document: Any = msgspec.json.decode(raw)
        return [_node(each) for each in document["nodes"]]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"no list of nodes: {error!r}") from error


def _node(entry: dict[str, Any]) -> SlurmNode:
    return SlurmNode(
        name=str(entry["name"]),
        states=_node_states(entry),
        reason=str(entry.get("reason") or ""),
        gres=str(entry.get("gres") or ""),
        features=_words(entry.get("features") or ()),
        partitions=_words(entry.get("partitions") or ()),
        cpus=int(entry.get("cpus") or 0),
        memory_mib=int(entry.get("real_memory") or 0),
    )


def _node_states(entry: dict[str, Any]) -> frozenset[str]:
    """22.05 has one state and a list of flags, later versions one list of all."""
    state = entry["state"]
    states = state if isinstance(state, list) else [state, *entry.get("state_flags", ())]
    return frozenset(str(each).upper() for each in states)


def _words(value: Any) -> tuple[str, ...]:
    return tuple(value.split(",")) if isinstance(value, str) else tuple(str(each) for each in value)


def read_accounts(text: str) -> list[Accounted]:
    """The rows of `sacct -P`; steps and rows that are none are passed over."""
    return [found for line in text.split("\n") if (found := _accounted(line)) is not None]


def _accounted(line: str) -> Accounted | None:
    parts = line.split("|", 4)
    if len(parts) != 5 or not _is_number(parts[0]) or not _is_number(parts[3]):
        return None
    code, _, number = parts[2].partition(":")
    if not (_is_number(code) and _is_number(number)):
        return None
    state = parts[1].split(" ")[0]  # "CANCELLED by 1000"
    return Accounted(int(parts[0]), state, int(code), int(number), int(parts[3]), parts[4])
