"""A Slurm in memory that does everything a real one has been seen to do wrong, by a seed, on a clock of its own.

It stands below the engine's command layer: it is a `Runner`. It takes jobs and says that it did not, or says so late;
it takes one twice; a crash loses the last five seconds and gives the numbers out again; it starts a running job anew,
also without counting; it forgets ended jobs early, lists some jobs only now and then, and answers late or never. What a
job of an engine does on a node is done for real: it claims the run's directory, shows life there and leaves its record.
"""

import copy
import json
import os
from collections import Counter
from pathlib import Path
from random import Random

from msgspec import Struct

from pumasi.agents.slurm.runner import Answer, CommandTimedOut
from pumasi.agents.supervisor import claim

USER, OTHER_USER = 1000, 1001
_STEP_SECONDS = 0.5
_SAVE_SECONDS = 5.0
_BEAT_SECONDS = 5.0
_REGISTER_SECONDS = 4.0
_COMMAND_SECONDS = 0.02
_NEVER = float("inf")
_UNREACHABLE = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


class FakeJob(Struct, kw_only=True):
    """A job as this Slurm has it; `directory`: of the run it is for, "" for work of others."""

    id: int
    user: int
    name: str
    comment: str
    submitted: int
    directory: str = ""
    state: str = "PENDING"
    reason: str = "None"
    restarts: int = 0
    start_at: float = _NEVER
    ended_at: float = _NEVER

    @property
    def is_active(self) -> bool:
        """True while it waits or runs."""
        return self.state in ("PENDING", "RUNNING")


class Process(Struct, kw_only=True):
    """What runs on a node for a job; it lives on whatever slurmctld knows. `exit_code` is how it means to end."""

    directory: Path
    job: int
    ends_at: float
    exit_code: int
    beat_at: float
    cause: str = ""
    by_engine: bool = False
    killed: bool = False
    over: bool = False


class HostileSlurm:
    """Runs commands as a `Runner` does. It does nothing wrong until `hostile` is set."""

    def __init__(self, random: Random) -> None:
        self.now = 10_000.0
        self.hostile = False
        self.jobs: dict[int, FakeJob] = {}
        self.runs: Counter[str] = Counter()
        self.processes: list[Process] = []
        self.down_until = 0.0
        self._random = random
        self._next = 1
        self._late: list[tuple[float, list[str], str]] = []
        self._saved: tuple[dict[int, FakeJob], int] = ({}, 1)
        self._saved_at = self.now

    # -- time

    def clock(self) -> float:
        """Seconds; the engine's clock."""
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Let things happen for so long."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + _STEP_SECONDS)
            self._late = [each for each in self._late if not self._arrives(each)]
            self._run_processes()
            if self.now >= self.down_until:
                self._run_controller()

    def heal(self) -> None:
        """Do nothing wrong from now on."""
        self.hostile, self.down_until = False, 0.0

    def _chance(self, percent: float) -> bool:
        return self.hostile and self._random.random() * 100 < percent

    # -- slurmctld

    def add_foreign(self, name: str, comment: str, user: int) -> None:
        """A job of somebody else, that runs for ever."""
        job = self._add(name, comment, user, "")
        job.state, job.start_at = "RUNNING", self.now

    def crash(self) -> None:
        """Kill slurmctld and start it anew: what was not saved is lost, and its numbers will be given out again."""
        jobs, self._next = self._saved
        self.jobs = copy.deepcopy(jobs)
        self.down_until = self.now + self._random.uniform(1, 4)
        back_at = self.down_until + _REGISTER_SECONDS
        for process in self.processes:
            job = self.jobs.get(process.job)
            if job is None or job.state != "RUNNING" or job.directory != str(process.directory):
                process.ends_at, process.by_engine = min(process.ends_at, back_at), True
                process.killed = self._random.random() < 0.5
        for job in self.jobs.values():
            if job.state == "PENDING" and job.start_at < _NEVER:
                job.start_at = back_at

    def _run_controller(self) -> None:
        for job in list(self.jobs.values()):
            if job.state == "PENDING" and job.start_at <= self.now:
                self._start(job)
            elif job.state == "RUNNING" and job.directory:
                self._harm(job)
            elif not job.is_active and self._chance(10):
                del self.jobs[job.id]
        if self.now - self._saved_at >= _SAVE_SECONDS:
            self._saved, self._saved_at = (copy.deepcopy(self.jobs), self._next), self.now
        if self._chance(1):
            self.crash()

    def _start(self, job: FakeJob) -> None:
        if self._chance(3):
            job.start_at, job.reason = _NEVER, "JobHeldAdmin"
            return
        job.state = "RUNNING"
        if job.restarts or not claim(job.directory, str(job.id)):
            self._end(job, "COMPLETED")
            return
        self.runs[job.directory] += 1
        self.processes.append(
            Process(
                directory=Path(job.directory),
                job=job.id,
                ends_at=self.now + self._random.choice((0.1, 2, 10, 40)),
                exit_code=self._random.choice((0, 0, 1, 7)),
                beat_at=self.now,
            )
        )

    def _harm(self, job: FakeJob) -> None:
        process = self._process(job)
        if process is None or not self._chance(2):
            return
        how = self._random.choice(("NODE_FAIL", "PREEMPTED", "CANCELLED", "requeue", "twice"))
        if how == "twice":  # started anew without counting, while the first goes on
            copied = self._add(job.name, job.comment, job.user, job.directory)
            copied.start_at = self.now
            return
        process.by_engine, process.ends_at = True, self.now
        process.killed = how == "NODE_FAIL" or self._random.random() < 0.3
        if how == "requeue":
            job.state, job.restarts, job.start_at = "PENDING", job.restarts + 1, self.now + 2
        else:
            self._end(job, how)

    def _end(self, job: FakeJob, state: str) -> None:
        job.state, job.ended_at = state, self.now

    def _add(self, name: str, comment: str, user: int, directory: str) -> FakeJob:
        job = FakeJob(
            id=self._next, user=user, name=name, comment=comment, submitted=int(self.now), directory=directory
        )
        self._next += 1
        self.jobs[job.id] = job
        return job

    # -- nodes

    def lives(self, directory: str) -> bool:
        """True if something of the run is running."""
        return any(str(process.directory) == directory for process in self.processes)

    def _process(self, job: FakeJob) -> Process | None:
        return next(
            (each for each in self.processes if each.job == job.id and str(each.directory) == job.directory), None
        )

    def _run_processes(self) -> None:
        for process in self.processes:
            if self.now >= process.beat_at + _BEAT_SECONDS:
                process.beat_at = self.now
                self._beat(process)
            if self.now >= process.ends_at:
                self._leave(process)
        self.processes = [process for process in self.processes if not process.over]

    def _beat(self, process: Process) -> None:
        supervisor = process.directory / "supervisor"
        if supervisor.exists():
            os.utime(supervisor, ns=(0, int(self.now * 1e9)))
        self._heed(process)
        if not process.directory.exists() or (process.directory / "exit").exists():
            process.over = True

    def _heed(self, process: Process) -> None:
        order = process.directory / "stop"
        if order.exists() and not process.cause:
            process.cause = json.loads(order.read_text())["cause"]
            process.ends_at = min(process.ends_at, self.now + 0.5)

    def _leave(self, process: Process) -> None:
        process.over = True
        job = self.jobs.get(process.job)
        if job is not None and job.state == "RUNNING" and job.directory == str(process.directory):
            self._end(job, "FAILED" if process.exit_code else "COMPLETED")
        if process.killed or not process.directory.exists() or (process.directory / "exit").exists():
            return
        record = {
            "exit_code": process.exit_code,
            "cause": process.cause,
            "by_engine": process.by_engine and not process.cause,
        }
        draft = process.directory / "exit.draft"
        draft.write_text(json.dumps(record))
        draft.rename(process.directory / "exit")

    # -- commands

    def run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        """As the protocol says."""
        self.now += _COMMAND_SECONDS
        if name == "scontrol":
            up = self.now >= self.down_until
            return Answer(0 if up else 1, f"Slurmctld(primary) at here is {'UP' if up else 'DOWN'}\n", "")
        if self.now < self.down_until:
            self.now += min(seconds, 9.0)
            return Answer(1, "", _UNREACHABLE)
        answer = {"sbatch": self._sbatch, "squeue": self._squeue, "scancel": self._scancel}[name](arguments, text)
        if self._chance(4):
            self.now += seconds
            raise CommandTimedOut(f"{name} did not answer")
        return Answer(1, "", _UNREACHABLE) if self._chance(3) else answer

    def _sbatch(self, arguments: list[str], text: str) -> Answer:
        if self._chance(3):
            return Answer(
                1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
            )
        if self._chance(5):
            self._late.append((self.now + self._random.uniform(1, 40), arguments, text))
            return Answer(
                1, "", "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received\n"
            )
        job = self._submit(arguments, text)
        if self._chance(5):
            self._submit(arguments, text)
        return Answer(0, f"{job.id}\n", "")

    def _arrives(self, late: tuple[float, list[str], str]) -> bool:
        at, arguments, text = late
        if self.now >= at:
            self._submit(arguments, text)
        return self.now >= at

    def _submit(self, arguments: list[str], text: str) -> FakeJob:
        options = _options(arguments)
        directory = text.rsplit(maxsplit=1)[-1]
        job = self._add(options["--job-name"], options["--comment"], USER, directory)
        job.start_at = self.now + self._random.choice((0.2, 0.2, 3, 30))
        return job

    def _squeue(self, arguments: list[str], _text: str) -> Answer:
        options = _options(arguments)
        jobs = list(self.jobs.values())
        if "--jobs" in options:
            jobs = [job for job in jobs if job.id == int(options["--jobs"])]
            if not jobs:
                return Answer(1, "", "slurm_load_jobs error: Invalid job id specified\n")
        elif self._chance(5):
            jobs = [job for job in jobs if self._random.random() < 0.5]
        rows = [_row(job) for job in jobs]
        if self._chance(3):
            rows.append("1|forged\n7|1000|RUNNING|x|")
        return Answer(0, "".join(f"{row}\n" for row in rows), "")

    def _scancel(self, arguments: list[str], _text: str) -> Answer:
        options, job = _options(arguments), self.jobs.get(int(arguments[-1]))
        if job is None or job.name != options["--name"] or not job.is_active:
            return Answer(1, "", "scancel: error: Kill job error on job id 1: Invalid job id specified\n")
        if self._chance(10):
            return Answer(0, "", "")  # it says nothing, and has done nothing
        process = self._process(job)
        if "--signal" in options:
            if process is not None:
                self._heed(process)
            return Answer(0, "", "")
        self._end(job, "CANCELLED")
        if process is not None:
            process.ends_at, process.by_engine = self.now, True
            process.killed = self._chance(30)
        return Answer(0, "", "")


def _options(arguments: list[str]) -> dict[str, str]:
    pairs = (argument.partition("=") for argument in arguments if argument.startswith("--"))
    return {name: value for name, _, value in pairs}


def _row(job: FakeJob) -> str:
    return f"{job.id}|{job.user}|{job.state}|{job.submitted}|{job.reason}|{job.name}|{job.comment}"
