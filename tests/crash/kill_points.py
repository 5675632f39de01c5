"""Kills the writer of a log at random points, reopens the log after each and compares it with what was acknowledged.

Run as `python -m tests.crash.kill_points FOLDER SEED POINTS [WRITER]`; it ends with 0 and one line of figures, or with
1 and what was found. It is a process of its own because it forks: a child per point, from a parent that is warm and has
one thread. The child is the writer: it has the state by birth, opens the log, takes requests, appends, and acknowledges
through a pipe.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import Event, JobCancelled, JobSubmitted, OwnerDeclared, QueueDeclared
from pumasi.model.fleet import Owner, OwnerKind, Queue
from pumasi.model.ids import JobId
from pumasi.model.jobs import JobSpec
from pumasi.ports.event_log import Snapshot
from pumasi.state import snapshot
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.state.records import Job

SOURCES = str(Path(__file__).parents[2] / "src" / "pumasi" / "adapters")
STEPS_OF_A_RUN = 6000  # bytecode instructions of the adapters: some 600 to open the log, 300 to 1,000 a request
RUN_SECONDS = 0.03
POINTS_PER_LOG = 100
REQUESTS_AT_ONCE = (1, 1, 2, 5)
SPEC = JobSpec(name="train", queue="public", script="srun a", gpus=2, time_limit_seconds=60)


class Lost(Exception):
    """A promise was broken."""


# --- the writer ------------------------------------------------------------------------------------------------------


class Writer:
    """What the control plane does with requests, as far as the log is concerned."""

    def __init__(self, path: Path, state: FleetState, pipe: int) -> None:
        self.log = SqliteLog(path)
        self.state = state
        self.pipe = pipe

    def run(self, first_request: int) -> None:
        """Serve requests one after another, cancelling every third job, with a snapshot now and then, for ever."""
        if not self.state.owners:
            self.log.append(_declarations())
            for event in _declarations():
                apply(self.state, event)
        for turn in range(1_000_000):
            requests = range(first_request, first_request + REQUESTS_AT_ONCE[turn % len(REQUESTS_AT_ONCE)])
            first_request = requests.stop
            self.serve([f"request-{number}" for number in requests])
            if turn % 4 == 3:
                self.log.save_snapshot(Snapshot(self.state.seq, {"state": snapshot.save(self.state)}))

    def serve(self, requests: list[str]) -> None:
        """Make a job for each request that has none yet, then acknowledge them all."""
        events: list[Event] = []
        ended: list[Job] = []
        for request in requests:
            if request not in self.state.requests:
                self._submit(request, events, ended)
        self.commit(events, ended, requests)

    def commit(self, events: list[Event], ended: list[Job], requests: list[str]) -> None:
        """Durable first, acknowledged then."""
        self.log.append(events, ended)
        self.acknowledge(requests)

    def acknowledge(self, requests: list[str]) -> None:
        """Tell the caller which job each request has made."""
        lines = "".join(f"{request} {self.state.requests[request].jobs[0]}\n" for request in requests)
        os.write(self.pipe, lines.encode())

    def _submit(self, request: str, events: list[Event], ended: list[Job]) -> None:
        job, at_ms = self.state.next_job, self.state.at_ms + 1
        facts: list[Event] = [JobSubmitted(at_ms=at_ms, by="mina", job=job, spec=SPEC, request=request)]
        facts += [JobCancelled(at_ms=at_ms, job=job)] if job % 3 == 0 else []
        apply(self.state, facts[0])
        record = self.state.jobs[job]
        for fact in facts[1:]:
            apply(self.state, fact)
            ended.append(record)
        events += facts


class HastyWriter(Writer):
    """A writer that acknowledges before the log is durable. The test must find it out, or it would find nothing."""

    def commit(self, events: list[Event], ended: list[Job], requests: list[str]) -> None:
        """Acknowledged first."""
        self.acknowledge(requests)
        self.log.append(events, ended)


class ForgetfulWriter(Writer):
    """A writer that archives ended jobs in a transaction of their own. The test must find this out as well."""

    def commit(self, events: list[Event], ended: list[Job], requests: list[str]) -> None:
        """Two transactions where there must be one."""
        self.log.append(events)
        self.log.append([], ended)
        self.acknowledge(requests)


WRITERS = {"sound": Writer, "hasty": HastyWriter, "forgetful": ForgetfulWriter}


def _declarations() -> list[Event]:
    return [
        OwnerDeclared(at_ms=1, owner=Owner(id="public", title="Public", kind=OwnerKind.PUBLIC)),
        QueueDeclared(at_ms=1, queue=Queue(id="public")),
    ]


# --- the killing -----------------------------------------------------------------------------------------------------


def die_at_step(step: int) -> None:
    """From now on count bytecode instructions of the adapters, and end this process by SIGKILL before number `step`."""
    left = step

    def on_instruction(frame: FrameType, event: str, argument: object) -> object:
        nonlocal left
        if event == "opcode":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_instruction

    def on_call(frame: FrameType, event: str, argument: object) -> object:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        frame.f_trace_opcodes = True
        return on_instruction

    sys.settrace(on_call)  # type: ignore[arg-type]


class Death(NamedTuple):
    """Where a child dies: before an instruction, or after a time, wherever it is then (most often within SQLite)."""

    step: int = 0
    seconds: float = 0.0


def kill_one(death: Death, first_request: int, make_writer: Callable[[int], Writer]) -> dict[str, JobId]:
    """Let a child write until it dies; what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            if death.step:
                die_at_step(death.step)
            make_writer(writing).run(first_request)
        finally:
            os._exit(3)
    os.close(writing)
    if death.seconds:
        time.sleep(death.seconds)
        os.kill(child, signal.SIGKILL)
    acknowledged = _acknowledged(reading)
    _, status = os.waitpid(child, 0)
    if os.WTERMSIG(status) != signal.SIGKILL:
        raise Lost(f"the writer ended by itself with status {status}")
    return acknowledged


def _acknowledged(reading: int) -> dict[str, JobId]:
    with os.fdopen(reading) as pipe:
        pairs = [line.split() for line in pipe]
    return {request: int(job) for request, job in pairs}


# --- the comparison --------------------------------------------------------------------------------------------------


class Witness:
    """Knows what was acknowledged, folds what is on disk, and compares."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = FleetState()
        self.cancelled: set[JobId] = set()
        self.acknowledged: dict[str, JobId] = {}
        self.in_doubt = 0  # requests that had made their job when the writer died before it could say so

    def look(self, acknowledged: dict[str, JobId], *, whole: bool) -> None:
        """Reopen the log after a death.

        :raises Lost: if a promise was broken.
        """
        self.acknowledged |= acknowledged
        log = SqliteLog(self.path)
        if whole:
            log.verify()
        before = set(self.state.requests)
        for seq, event in log.read(self.state.seq):
            self._fold(seq, event)
        self.in_doubt += len(self.state.requests.keys() - before - acknowledged.keys())
        self._compare_jobs()
        self._compare_archive(log)
        saved = log.load_snapshot()
        if saved and snapshot.load(saved.parts["state"]).seq != saved.seq:
            raise Lost(f"the snapshot of {saved.seq} facts holds other ones")
        log.close()

    def _fold(self, seq: int, event: Event) -> None:
        """The fold refuses gaps and doubles: jobs are numbered in order, and each is cancelled once."""
        apply(self.state, event)
        if self.state.seq != seq:
            raise Lost(f"fact {seq} is number {self.state.seq}")
        if isinstance(event, JobCancelled):
            self.cancelled.add(event.job)

    def _compare_jobs(self) -> None:
        made = {request: record.jobs for request, record in self.state.requests.items()}
        for request, job in self.acknowledged.items():
            if made.get(request) != [job]:
                raise Lost(f"{request} was acknowledged as job {job} and is {made.get(request)}")
        doubled = [request for request, jobs in made.items() if len(jobs) != 1]
        if doubled or len(made) != self.state.next_job - 1:
            raise Lost(f"{self.state.next_job - 1} jobs for {len(made)} requests; doubled: {doubled}")

    def _compare_archive(self, log: SqliteLog) -> None:
        if log.count() != len(self.cancelled):
            raise Lost(f"{len(self.cancelled)} jobs ended, {log.count()} are in the archive")
        for job in sorted(self.cancelled)[-5:]:
            record = log.get(job)
            if record is None or not record.is_terminal:
                raise Lost(f"ended job {job} is in the archive as {record}")


# --- all of it -------------------------------------------------------------------------------------------------------


def deaths(chance: random.Random, points: int) -> Iterator[Death]:
    """Two of three at a random instruction, one of three at a random moment."""
    for point in range(points):
        if point % 3:
            yield Death(step=chance.randrange(1, STEPS_OF_A_RUN))
        else:
            yield Death(seconds=chance.uniform(0.0005, RUN_SECONDS))


def main(folder: Path, seed: int, points: int, writer: str = "sound") -> str:
    """Kill at `points` points, with a new log every hundred; the figures.

    :raises Lost: at the first promise that was broken.
    """
    chance, kind, witnesses = random.Random(seed), WRITERS[writer], list[Witness]()
    for point, death in enumerate(deaths(chance, points)):
        if point % POINTS_PER_LOG == 0:
            witnesses.append(Witness(folder / f"fleet-{seed}-{point}.db"))
        witness = witnesses[-1]
        known = len(witness.acknowledged)
        request = chance.randrange(max(1, known - 3), known + 2)  # callers that got no answer ask again
        told = kill_one(death, request, partial(kind, witness.path, witness.state))
        try:
            witness.look(told, whole=point % 20 == 19)
        except Exception as error:
            raise Lost(f"seed {seed}, point {point}, {death}: {error}") from error
    acknowledged = sum(len(witness.acknowledged) for witness in witnesses)
    in_doubt = sum(witness.in_doubt for witness in witnesses)
    return f"{points} deaths, {acknowledged} requests acknowledged, {in_doubt} in doubt"


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5]))
