"""What a site lets the control plane ask: a file the site's operator writes, and the agent obeys before any order.

The control plane decides within these caps; it cannot change them, and whoever takes it over cannot either. What the
file does not allow is refused, with the line that says so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from pumasi.model.ids import PoolId, is_queue_path
from pumasi.model.jobs import span_gpus
from pumasi.plans import yaml_tree
from pumasi.plans.problems import Problems, quoted
from pumasi.plans.section import Section
from pumasi.protocol.messages import StartOrder

EVERYONE = "all"
_HOUR_SECONDS = 3600
_LONGEST_HOURS = 24 * 365


class PolicyProblem(Exception):
    """The file cannot be used; the message names every mistake with its line."""


class Place(NamedTuple):
    """Where the site's own table puts the work of a pool. An empty account is the engine's default."""

    partition: str = ""
    account: str = ""


class SitePolicy(Struct, frozen=True, kw_only=True):
    """The caps. `lines` has the line of each key, from 1. GPUs are whole GPUs; a job's hours are its time limit."""

    file: str
    lines: dict[str, int]
    partitions: tuple[str, ...]
    accounts: tuple[str, ...]
    users: tuple[str, ...]
    queues: tuple[str, ...]
    data_classes: tuple[str, ...]
    gpus_at_most: int
    gpus_per_job_at_most: int
    hours_at_most: int


def read_policy(path: Path) -> SitePolicy:
    """Read a policy file.

    :raises PolicyProblem: if it is not there or has mistakes; all of them are named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyProblem(f"{path}: {error.strerror}: write one by `pumasi agent init`") from error
    problems = Problems(path.name)
    tree = yaml_tree.parse_yaml(data, problems)
    if tree is not None and not isinstance(tree, yaml_tree.Mapping):
        problems.add(1, 1, "", "a policy is keys with values, such as partitions: [gpu]")
    if isinstance(tree, yaml_tree.Mapping):
        policy = _policy(path.name, Section(tree, "", problems))
        if not problems.count:
            return policy
    raise PolicyProblem("\n".join(str(problem) for problem in problems.listed()))


def _policy(file: str, section: Section) -> SitePolicy:
    gpus_at_most = section.integer("gpus_at_most")
    policy = SitePolicy(
        file=file,
        lines={key: node.line for key, node in section.node.entries.items()},
        partitions=_required(section, "partitions"),
        accounts=section.words("accounts"),
        users=_required(section, "users"),
        queues=_required(section, "queues"),
        data_classes=_required(section, "data_classes"),
        gpus_at_most=gpus_at_most,
        gpus_per_job_at_most=section.integer("gpus_per_job_at_most", gpus_at_most),
        hours_at_most=section.integer("hours_at_most", _LONGEST_HOURS, minimum=1, maximum=_LONGEST_HOURS),
    )
    for queue in policy.queues:
        if not is_queue_path(queue):
            section.complain("queues", f"{quoted(queue)} is no queue; it is a path such as public/academia, or all")
    section.finish()
    return policy


def _required(section: Section, key: str) -> tuple[str, ...]:
    """What is not allowed is forbidden, so a list that is forgotten is a mistake; one that is empty allows nothing."""
    if not section.has(key):
        section.complain(key, f"is missing; list what may run here, or [{EVERYONE}]")
    return section.words(key)


class Admission:
    """Holds orders against the policy. `places`: where each pool's work goes; other pools are not served here."""

    def __init__(self, policy: SitePolicy, places: Mapping[PoolId, Place]) -> None:
        self._policy = policy
        self._places = places

    def refusal(self, order: StartOrder, gpus_in_use: int) -> str:
        """Why the site does not run this, or "" if it does. `gpus_in_use`: of all runs of ours that are here."""
        ask = _Ask(order, self._places.get(order.pool, Place()), gpus_in_use)
        for key, check in _CHECKS:
            problem = check(self._policy, ask)
            if problem:
                return f"the site's policy forbids it: {self._policy.file}:{self._line(key)}: {key}: {problem}"
        return ""

    def uncovered(self) -> list[str]:
        """Partitions and accounts of the site's own table that its policy does not allow: nothing would run there."""
        found = []
        for pool, place in sorted(self._places.items()):
            for key, check in _CHECKS[:2]:
                problem = check(self._policy, _Ask(None, place, 0))
                if problem:
                    found.append(f"pool {pool}: {self._policy.file}:{self._line(key)}: {key}: {problem}")
        return found

    def _line(self, key: str) -> int:
        """A key that is left out stands nowhere: the file as a whole says it."""
        return self._policy.lines.get(key, 1)


class _Ask(NamedTuple):
    order: StartOrder | None
    place: Place
    gpus_in_use: int


def _partition(policy: SitePolicy, ask: _Ask) -> str:
    return _not_among(ask.place.partition, policy.partitions) if ask.place.partition else ""


def _account(policy: SitePolicy, ask: _Ask) -> str:
    return _not_among(ask.place.account, policy.accounts) if ask.place.account else ""


def _user(policy: SitePolicy, ask: _Ask) -> str:
    return _not_among(ask.order.user, policy.users) if ask.order else ""


def _queue(policy: SitePolicy, ask: _Ask) -> str:
    queue = ask.order.queue if ask.order else ""
    allowed = any(queue == each or queue.startswith(f"{each}/") for each in policy.queues)
    return "" if allowed else _not_among(queue, policy.queues)


def _data_class(policy: SitePolicy, ask: _Ask) -> str:
    return _not_among(ask.order.data_class, policy.data_classes) if ask.order else ""


def _gpus_of_job(policy: SitePolicy, ask: _Ask) -> str:
    gpus = span_gpus(ask.order.spans) if ask.order else 0
    most = policy.gpus_per_job_at_most
    return f"the job takes {gpus} GPUs, at most {most} may be asked for" if gpus > most else ""


def _gpus(policy: SitePolicy, ask: _Ask) -> str:
    gpus = ask.gpus_in_use + (span_gpus(ask.order.spans) if ask.order else 0)
    most = policy.gpus_at_most
    return f"{gpus} GPUs would be in use, at most {most} may be" if gpus > most else ""


def _hours(policy: SitePolicy, ask: _Ask) -> str:
    seconds = ask.order.time_limit_seconds if ask.order else 0
    allowed = policy.hours_at_most * _HOUR_SECONDS
    return f"the time limit is {seconds} s, at most {allowed} s may be asked for" if seconds > allowed else ""


def _not_among(word: str, allowed: tuple[str, ...]) -> str:
    if word in allowed or EVERYONE in allowed:
        return ""
    return f"{quoted(word)} is not among {', '.join(allowed) or 'those allowed, as none is'}"


_CHECKS: tuple[tuple[str, Callable[[SitePolicy, _Ask], str]], ...] = (
    ("partitions", _partition),
    ("accounts", _account),
    ("users", _user),
    ("queues", _queue),
    ("data_classes", _data_class),
    ("gpus_per_job_at_most", _gpus_of_job),
    ("gpus_at_most", _gpus),
    ("hours_at_most", _hours),
)
