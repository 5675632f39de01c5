"""Several submissions are under way at once, and not more than the settings say."""

import threading
from pathlib import Path

from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.engine import SlurmEngine, SlurmSettings
from pumasi.agents.slurm.runner import Answer
from pumasi.agents.slurm.site import SlurmPool, SlurmSite
from pumasi.model.jobs import Span
from pumasi.ports.engine import Start, StartVerdict
from pumasi.testing.engine import an_order

AT_ONCE = 4
TABLE = SlurmSite(
    pools={"sejong-b200": SlurmPool(id="sejong-b200", partition="gpu", nodes=("n1",), gpus_per_node=8)},
)


class Meeting:
    """A Slurm whose `sbatch` answers once `AT_ONCE` of them are under way: one after the other, none would."""

    def __init__(self) -> None:
        self.together = threading.Barrier(AT_ONCE, timeout=60)
        self.counting = threading.Lock()
        self.number = self.now = self.most = 0

    def run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        if name != "sbatch":
            return Answer(0, "Slurmctld(primary) at here is UP", "")
        with self.counting:
            self.number, self.now = self.number + 1, self.now + 1
            self.most = max(self.most, self.now)
            number = self.number
        self.together.wait()
        with self.counting:
            self.now -= 1
        return Answer(1, "", "Invalid qos specification") if number == 1 else Answer(0, f"{number}\n", "")


def test_submissions_are_under_way_together_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    slurm = Meeting()
    settings = SlurmSettings(fleet="test", site="sejong", directory=tmp_path, submissions_at_once=AT_ONCE)
    engine = SlurmEngine(settings, TABLE, SlurmCommands(slurm, 0))
    orders = [an_order("true", job, spans=(Span(0, 1, 1),)) for job in range(1, 2 * AT_ONCE + 1)]
    answers = engine.start([Start(order, 600_000, 0) for order in orders])
    verdicts = [answer.verdict for answer in answers]
    assert slurm.most == AT_ONCE
    assert sorted(verdicts) == [StartVerdict.FORBIDDEN] + [StartVerdict.QUEUED] * (2 * AT_ONCE - 1)
    queued = [order.run for order, verdict in zip(orders, verdicts, strict=True) if verdict is StartVerdict.QUEUED]
    assert sorted(found.run for found in engine.find()) == queued, "what was refused is not there any more"
