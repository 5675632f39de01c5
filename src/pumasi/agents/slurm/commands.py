"""Slurm's commands as calls. Argument lists of our own words only; every one has a time limit, and a look before it.

Where slurmctld is down, its clients hang for 9 seconds; `scontrol ping` says so in 20 milliseconds. So nothing but the
ping is tried unless slurmctld has answered a moment ago.
"""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from pumasi.agents.slurm.readers import (
    ACCOUNT_FIELDS,
    JOB_FIELDS,
    USAGE_FIELDS,
    Accounted,
    SlurmJob,
    SlurmNode,
    Unreadable,
    read_accounts,
    read_jobs,
    read_nodes,
    read_version,
)
from pumasi.agents.slurm.runner import Answer, CommandTimedOut, Runner
from pumasi.model.jobs import Outcome

_PING_SECONDS = 3.0
_FRESH_SECONDS = 0.5
_ASK_SECONDS = 10.0
_LIST_SECONDS = 20.0
_NODES_AS_JSON = (23, 2)  # since when `scontrol show nodes` has --json

# What sbatch says when slurmctld has decided against the job. Whatever else it says, the job may have been taken.
_REFUSED = re.compile(
    r"invalid|not permitted|not available|unable to allocate|violates|more .* than|too (many|large)|exceed|"
    r"access.*denied|unrecognized|no such|does not exist|in an unavailable|unknown|not supported",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"contact|connect|timed out|communication|zero bytes|temporarily|try again|unexpected message|"
    r"unspecified|protocol|socket|slurmdbd",
    re.IGNORECASE,
)


class SlurmAway(Exception):
    """Slurm does not answer, or not in a way we understand. What was asked for may have been done or not."""


class NotAsked(SlurmAway):
    """Slurm does not answer, and so it was not asked for anything."""


class Refused(NamedTuple):
    """The job will not be taken; nothing of it is there. `outcome`: REFUSED if the site's Slurm has decided against it.

    `detail`: why, in Slurm's own words if they are Slurm's.
    """

    detail: str
    outcome: Outcome = Outcome.REFUSED


class Submission(Struct, frozen=True, kw_only=True):
    """What Slurm is told of a run. `tag`: the only name it ever sees; `mark`: the tag and the site, as the comment."""

    tag: str
    mark: str
    partition: str
    nodelist: str
    nodes: int
    minutes: int
    log: str
    gres: str = ""
    exclusive: bool = True
    cpus: int = 0
    memory_mib: int = 0
    account: str = ""
    qos: str = ""

    def arguments(self) -> list[str]:
        """For sbatch: all on the command line, which wins over anything in a script or an environment.

        `--export=ALL` of the runner's clean environment: NONE and NIL make the node run the user's login scripts.
        """
        return [
            *("--parsable", "--no-requeue", "--export=ALL", "--propagate=NONE", "--input=/dev/null", "--chdir=/"),
            *(f"--job-name={self.tag}", f"--comment={self.mark}", f"--output={self.log}", f"--error={self.log}"),
            *(f"--partition={self.partition}", f"--nodelist={self.nodelist}", f"--nodes={self.nodes}"),
            *(f"--time={self.minutes}", "--ntasks-per-node=1"),
            *([f"--gres={self.gres}"] if self.gres else []),
            *(["--exclusive", "--mem=0"] if self.exclusive else []),
            *([f"--cpus-per-task={self.cpus}"] if self.cpus else []),
            *([f"--mem={self.memory_mib}M"] if self.memory_mib else []),
            *([f"--account={self.account}"] if self.account else []),
            *([f"--qos={self.qos}"] if self.qos else []),
        ]


class SlurmCommands:
    """The commands of one cluster, for the jobs of one Unix user (`user`: its number)."""

    def __init__(self, runner: Runner, user: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._user = user
        self._clock = clock
        self._version: tuple[int, int] | None = None
        self._answered_at: float | None = None

    @property
    def answers(self) -> bool:
        """True if Slurm answered when last asked."""
        return self._answered_at is not None

    def submit(self, submission: Submission, script: str) -> int | Refused:
        """Submit a job; returns its id, which is its name only together with its time of submission.

        :raises SlurmAway: if it is not known whether Slurm has it.
        """
        answer = self._run("sbatch", submission.arguments(), _ASK_SECONDS, script)
        first = answer.output.strip().partition(";")[0]
        if answer.code == 0 and first.isascii() and first.isdigit():
            return int(first)
        said = _one_line(answer.errors)
        if answer.code == 1 and _REFUSED.search(said) and not _UNDECIDED.search(said):
            return Refused(f"the site's Slurm refuses it: {said}")
        self._answered_at = None
        raise SlurmAway(said or f"sbatch ended with {answer.code} and wrote {answer.output[:100]!r}")

    def jobs(self) -> list[SlurmJob]:
        """Every job of our user that Slurm still has, ended ones too until it purges them.

        :raises SlurmAway: if Slurm does not say.
        """
        arguments = ["--noheader", "--states=all", f"--user={self._user}", f"--format={JOB_FIELDS}"]
        listed = read_jobs(self._asked("squeue", arguments, _LIST_SECONDS))
        return [job for job in listed if job.user == self._user]

    def signal(self, job: SlurmJob, name: str) -> bool:
        """Send a signal to the batch script of exactly this job. False: it is not there any more.

        :raises SlurmAway: if Slurm does not answer.
        """
        return self._cancel(job, ["--batch", f"--signal={name}"])

    def cancel(self, job: SlurmJob) -> bool:
        """End exactly this job. False: it is not there any more.

        :raises SlurmAway: if Slurm does not answer.
        """
        return self._cancel(job, [])

    def _cancel(self, job: SlurmJob, how: list[str]) -> bool:
        """After a crash Slurm gives ids out again, so id, name and time of submission must all be right, right now."""
        if not self._is_still(job):
            return False
        # It may say nothing and succeed where there is no such job any more: whether it worked, the next list shows.
        answer = self._run("scancel", [*how, f"--name={job.name}", str(job.id)], _ASK_SECONDS)
        if answer.code and "contact" in answer.errors:
            self._answered_at = None
            raise SlurmAway(_one_line(answer.errors))
        return answer.code == 0

    def _is_still(self, job: SlurmJob) -> bool:
        arguments = ["--noheader", "--states=all", f"--jobs={job.id}", f"--format={JOB_FIELDS}"]
        answer = self._run("squeue", arguments, _ASK_SECONDS)
        if answer.code:
            if "Invalid job id" in answer.errors:
                return False
            self._answered_at = None
            raise SlurmAway(_one_line(answer.errors))
        same = [
            each
            for each in read_jobs(answer.output)
            if (each.id, each.user, each.submitted, each.name, each.comment)
            == (job.id, self._user, job.submitted, job.name, job.comment)
        ]
        return len(same) == 1 and answer.output.count("\n") <= 1

    def nodes(self) -> list[SlurmNode]:
        """Every node of the cluster.

        :raises SlurmAway: if Slurm does not say.
        """
        if self._version is None:
            try:
                self._version = read_version(self._asked("sinfo", ["--version"], _ASK_SECONDS))
            except Unreadable as error:
                raise SlurmAway(str(error)) from error
        newer = self._version >= _NODES_AS_JSON
        asked = ("scontrol", ["show", "nodes", "--json"]) if newer else ("sinfo", ["--json"])
        try:
            return read_nodes(self._asked(*asked, _LIST_SECONDS))
        except Unreadable as error:
            raise SlurmAway(str(error)) from error

    def accounted(self, tag: str) -> list[Accounted]:
        """What slurmdbd knows of jobs of this name, in the last week.

        :raises SlurmAway: if it does not say.
        """
        return read_accounts(self._books(tag, ACCOUNT_FIELDS, "--noheader", "--allocations"))

    def accounts(self, tag: str) -> str:
        """The same for people: a line of titles, then a row for each job and each of its steps, fields apart by "|".

        :raises SlurmAway: if slurmdbd does not say.
        """
        return self._books(tag, USAGE_FIELDS, "--noconvert")

    def _books(self, tag: str, fields: str, *how: str) -> str:
        """Of our own user's jobs alone: anybody may give a job of theirs one of our names."""
        which = [f"--name={tag}", f"--user={self._user}", "--starttime=now-7days"]
        return self._asked("sacct", ["--parsable2", *how, *which, f"--format={fields}"], _ASK_SECONDS)

    def _asked(self, name: str, arguments: list[str], seconds: float) -> str:
        answer = self._run(name, arguments, seconds)
        if answer.code:
            self._answered_at = None
            raise SlurmAway(_one_line(answer.errors) or f"{name} ended with {answer.code}")
        return answer.output

    def _run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        if self._answered_at is None or self._clock() - self._answered_at > _FRESH_SECONDS:
            self._ping()
        try:
            answer = self._runner.run(name, arguments, seconds, text)
        except (CommandTimedOut, OSError) as error:
            self._answered_at = None
            raise SlurmAway(str(error)) from error
        if answer.code == 0:
            self._answered_at = self._clock()
        return answer

    def _ping(self) -> None:
        self._answered_at = None
        try:
            answer = self._runner.run("scontrol", ["ping"], _PING_SECONDS)
        except (CommandTimedOut, OSError) as error:
            raise NotAsked(str(error)) from error
        if " UP" not in answer.output:
            raise NotAsked(_one_line(answer.output + answer.errors) or "slurmctld is down")
        self._answered_at = self._clock()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
