"""What a simulation leaves: the log of facts, the books, and one row per job in plain columns."""

from array import array

from msgspec import Struct

from pumasi.control.plane import ControlPlane
from pumasi.ledger.ledger import Ledger
from pumasi.model.ids import JobId, QueueId
from pumasi.model.jobs import JobState
from pumasi.ports.event_log import JobStore
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job
from pumasi.twin.jobs import TwinJob

STATES = tuple(JobState)
_CODES = {state: code for code, state in enumerate(STATES)}


class JobTable:
    """One row per submitted job, in the order of submission: row `i` is job `first_job + i` of the log.

    Columns are arrays of integers: `submitted_ms`, `started_ms` (the first start; 0: never), `ended_ms` (0: not yet),
    `gpus`, `attempts`, `state` (index into STATES), `queue` (index into `queues`), `source` (index into the list of
    jobs given to the simulation).
    """

    def __init__(self, first_job: JobId = 1) -> None:
        self.first_job = first_job
        self.queues: list[QueueId] = []
        self.submitted_ms = array("q")
        self.started_ms = array("q")
        self.ended_ms = array("q")
        self.gpus = array("i")
        self.attempts = array("i")
        self.state = array("b")
        self.queue = array("i")
        self.source = array("i")
        self._queue_index: dict[QueueId, int] = {}

    def __len__(self) -> int:
        """How many jobs were submitted."""
        return len(self.gpus)

    def submitted(self, source: int, job: TwinJob, at_ms: int) -> None:
        """A job was accepted."""
        queue = job.spec.queue
        index = self._queue_index.get(queue)
        if index is None:
            index = self._queue_index[queue] = len(self.queues)
            self.queues.append(queue)
        self.submitted_ms.append(at_ms)
        self.started_ms.append(0)
        self.ended_ms.append(0)
        self.gpus.append(job.spec.gpus)
        self.attempts.append(0)
        self.state.append(_CODES[JobState.WAITING])
        self.queue.append(index)
        self.source.append(source)

    def source_of(self, job: JobId) -> int:
        """Where the job stands in the list of jobs given to the simulation."""
        return self.source[job - self.first_job]

    def record(self, job: Job) -> None:
        """Write down how a job stands; one from before the first is passed over."""
        row = job.id - self.first_job
        if row < 0:
            return
        attempts = job.attempts
        self.ended_ms[row] = job.ended_ms
        self.state[row] = _CODES[job.state]
        self.attempts[row] = len(attempts)
        for attempt in attempts:
            if attempt.started_ms:
                self.started_ms[row] = attempt.started_ms
                break

    def state_of(self, row: int) -> JobState:
        """The state of a row's job."""
        return STATES[self.state[row]]

    def wait_ms(self, row: int) -> int:
        """From submission to the first start; -1 if it never started."""
        started_ms = self.started_ms[row]
        return started_ms - self.submitted_ms[row] if started_ms else -1


class Refused(Struct, frozen=True, gc=False):
    """A job the control plane did not take, and why."""

    source: int
    at_ms: int
    code: str
    detail: str


class Outcome(Struct, kw_only=True):
    """A simulation that has run. `finished` False: it was stopped before its end, and holds good up to `at_ms`.

    `log`: every fact (`log.read(0)`), and the records of the ended jobs. `jobs`: one row per job. `refused`: jobs not
    taken. `plane`: the control plane at the end; from it, `twin.run.look_ahead` goes on.
    """

    log: JobStore
    jobs: JobTable
    refused: list[Refused]
    plane: ControlPlane
    at_ms: int
    finished: bool
    cycles: int = 0
    instants: int = 0
    violations: list[str] = []

    @property
    def state(self) -> FleetState:
        """The fleet at the end."""
        return self.plane.state

    @property
    def ledger(self) -> Ledger:
        """The books at the end; `ledger.reclaims` has every reclaim with its promise."""
        return self.plane.ledger
