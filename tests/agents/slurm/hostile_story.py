"""One story: an agent that lives and dies above a hostile Slurm. Told by a seed; what must hold is asserted."""

import shutil
import tempfile
from pathlib import Path
from random import Random

from pumasi.agents.run_book import ended_report
from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.engine import SlurmEngine, SlurmSettings
from pumasi.agents.slurm.site import SlurmPool, SlurmSite
from pumasi.model.jobs import Outcome, StopCause
from pumasi.ports.engine import Ending, Start, StartVerdict
from pumasi.protocol.messages import RunKey, StartOrder
from pumasi.testing.engine import an_order
from pumasi.testing.hostile_slurm import OTHER_USER, USER, HostileSlurm

POOL = "sejong-b200"
NODES = tuple(f"n{number:02d}" for number in range(1, 9))
TABLE = SlurmSite(
    pools={POOL: SlurmPool(id=POOL, partition="gpu", nodes=NODES, gpus_per_node=8)},
    queue_seconds=120,
)
HEALING_SECONDS = 1500
MEMORY = Path("/dev/shm")


class Story:
    """Orders, crashes and time in a drawn sequence."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="pumasi-story-", dir=MEMORY if MEMORY.is_dir() else None))
        self.slurm = HostileSlurm(self.random)
        self.told: dict[RunKey, Ending] = {}
        self.ran_when_told: dict[RunKey, int] = {}
        self.orders: dict[RunKey, StartOrder] = {}
        self.started: set[RunKey] = set()
        for name, comment, user in (
            ("pumasi-test-1-1", "pumasi-test-1-1@elsewhere", USER),
            ("pumasi-test-2-1", "pumasi-test-2-1@sejong", OTHER_USER),
            ("pumasi-other-1-1", "pumasi-other-1-1@sejong", USER),
            ("simulation", "", OTHER_USER),
        ):
            self.slurm.add_foreign(name, comment, user)
        self.slurm.pass_time(10)
        self.slurm.hostile = True
        self.engine = self.new_engine()

    def new_engine(self) -> SlurmEngine:
        settings = SlurmSettings(fleet="test", site="sejong", directory=self.folder / "site", submissions_at_once=1)
        return SlurmEngine(settings, TABLE, SlurmCommands(self.slurm, USER, self.slurm.clock), self.slurm.clock)

    def tell(self, steps: int = 40) -> None:
        """The whole story; raises AssertionError if something did not hold."""
        try:
            for _ in range(steps):
                self.random.choices(
                    (self.start, self.stop, self.poll, self.wait, self.die, self.slurm.crash), (3, 1, 8, 4, 1, 0.3)
                )[0]()
            self.heal()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- what the control plane and fate do

    def start(self) -> None:
        """A new job, another attempt of one whose last is over, or an order that comes again."""
        job = self.random.randint(1, 4)
        attempt = max((run.attempt for run in self.orders if run.job == job), default=0)
        last = RunKey(job, attempt)
        if not attempt or (last in self.told and attempt < 5):
            last = RunKey(job, attempt + 1)
            self.orders[last] = an_order("true", last.job, last.attempt)
        (answer,) = self.engine.start([Start(self.orders[last], 600_000, 30_000)])
        if answer.verdict in (StartVerdict.REFUSED, StartVerdict.FORBIDDEN) and last not in self.told:
            self.note(Ending(last, detail=answer.detail, outcome=Outcome.NEVER_STARTED))

    def stop(self) -> None:
        """A stop of a live run."""
        live = [run for run in self.orders if run not in self.told]
        if live:
            there = self.engine.stop(self.random.choice(live), StopCause.RECLAIM, "TERM", 1000)
            assert there, "a live run is there to be stopped"

    def poll(self) -> None:
        polled = self.engine.poll_runs()
        for run in polled.started:
            assert run not in self.started, f"{run} started twice"
            self.started.add(run)
        for ending in polled.ended:
            self.note(ending)

    def wait(self) -> None:
        self.slurm.pass_time(self.random.choice((0.5, 1, 5, 20)))

    def die(self) -> None:
        """The agent is killed, and comes back."""
        self.engine = self.new_engine()
        self.started.clear()
        for found in self.engine.find():
            if found.ending is not None:
                self.note(found.ending)
            elif found.started:
                self.started.add(found.run)

    # -- what must hold

    def directory(self, run: RunKey) -> str:
        return str(self.folder / "site" / "runs" / run.tag("test"))

    def note(self, ending: Ending) -> None:
        run = ending.run
        if run in self.told:
            assert ended_report(ending).outcome == ended_report(self.told[run]).outcome, f"{run} ended in two ways"
            return
        assert run in self.orders, f"{run} was never ordered"
        assert not self.slurm.lives(self.directory(run)), f"{run} is told to be over and still runs"
        self.told[run] = ending
        self.ran_when_told[run] = self.slurm.runs[self.directory(run)]
        if ending.outcome is Outcome.NEVER_STARTED:
            assert self.ran_when_told[run] == 0, f"{run} is told never to have started, and it did"
        if self.random.random() < 0.5:
            self.engine.forget(run)

    def heal(self) -> None:
        """Nothing goes wrong any more: everything ordered comes to its one end, and nothing is left."""
        self.slurm.heal()
        for _ in range(HEALING_SECONDS):
            self.slurm.pass_time(1)
            self.poll()
            if self.told.keys() == self.orders.keys() and not self.ours():
                break
        assert self.told.keys() == self.orders.keys(), f"lost: {self.orders.keys() - self.told.keys()}"
        assert self.ours() == [], "a job of ours is left"
        for run in self.orders:
            assert self.slurm.runs[self.directory(run)] <= 1, f"{run} ran twice"
            assert self.slurm.runs[self.directory(run)] == self.ran_when_told[run], f"{run} ran after its end was told"
        foreign = [job.state for job in self.slurm.jobs.values() if not job.directory]
        assert foreign == ["RUNNING"] * 4, "a foreign job was touched"

    def ours(self) -> list[str]:
        return [job.name for job in self.slurm.jobs.values() if job.directory and job.is_active]
