"""Does credit make lending even out? Owners whose demand is equal in the long run and differs in its bursts.

After the evaluation of Karma (OSDI 2023): every owner is due the same and wants the same on average, but one wants it
evenly and another all at once, now and then. What it cannot have in a period is lost. The real planner decides, the
real ledger counts. `python -m tests.scheduler.credit` prints the table of `docs/findings.md`.
"""

import random
from typing import NamedTuple

from pumasi.events import facts
from pumasi.ledger.ledger import Ledger
from pumasi.model.fleet import BorrowOrder, Policy
from pumasi.model.ids import JobId, OwnerId, queue_owner
from pumasi.model.jobs import JobState, Outcome
from pumasi.scheduler.plan import plan
from pumasi.scheduler.planner import Planner
from pumasi.state.fold import apply
from pumasi.testing.builders import START_MS, fleet_facts, owner, pool, spec, state_of

BURSTS = (1, 1, 2, 2, 4, 4, 8, 8)  # of each owner: it wants this many times its share, in one of as many periods
SHARE_GPUS = 16
JOB_GPUS = 4
PERIOD_MS = 6 * 3600 * 1000
PERIODS = 4 * 182  # half a year


class Fairness(NamedTuple):
    """How a run went. `received`: GPU-milliseconds by owner. `used`: of all GPUs, in per cent."""

    received: dict[OwnerId, int]
    used: float

    @property
    def disparity(self) -> float:
        """How many times what the worst off owner received the best off did."""
        return max(self.received.values()) / min(self.received.values())


def run(order: BorrowOrder, seed: int, periods: int = PERIODS) -> Fairness:
    """One run of the planner and the ledger under a policy."""
    names = [f"owner-{number}" for number in range(len(BURSTS))]
    declared = fleet_facts(
        [owner(name, lends=100) for name in names],
        [pool("hall", dict.fromkeys(names, SHARE_GPUS))],
        policy=Policy(borrow_order=order),
    )
    state, ledger = state_of(declared), Ledger()
    planner, chance = Planner(state), random.Random(seed)

    def record(event: facts.Event) -> None:
        apply(state, event)
        ledger.apply(event)

    for event in declared:
        ledger.apply(event)
    for period in range(periods):
        now_ms = START_MS + period * PERIOD_MS
        for name, burst in zip(names, BURSTS, strict=True):
            for _ in range(burst * SHARE_GPUS // JOB_GPUS if chance.randrange(burst) == 0 else 0):
                record(facts.JobSubmitted(at_ms=now_ms, job=state.next_job, by="user", spec=spec(name, JOB_GPUS)))
        for event in plan(state, now_ms, planner).events:
            record(event)
        for job in list(state.jobs):
            record(last_word(job, running=state.jobs[job].state is JobState.ACTIVE, at_ms=now_ms + PERIOD_MS))
    received = dict.fromkeys(names, 0)
    for key, amount in ledger.statement(START_MS + periods * PERIOD_MS).items():
        received[queue_owner(key.debit)] += amount
    return Fairness(received, 100 * sum(received.values()) / (periods * PERIOD_MS * SHARE_GPUS * len(names)))


def last_word(job: JobId, *, running: bool, at_ms: int) -> facts.Event:
    """At the end of its period a job that ran has ended, and one that did not is given up."""
    if not running:
        return facts.JobCancelled(at_ms=at_ms, job=job)
    return facts.AttemptEnded(at_ms=at_ms, job=job, attempt=1, outcome=Outcome.COMPLETED, job_state=JobState.SUCCEEDED)


def main() -> None:
    """Print the table: both policies on ten seeds."""
    print("| | disparity, mean of 10 seeds | range | GPUs in use | received by bursts of 1, 2, 4, 8 |")
    print("|---|---|---|---|---|")
    for order in BorrowOrder:
        runs = [run(order, seed) for seed in range(10)]
        disparities = [one.disparity for one in runs]
        by_burst = [received_by_burst(runs, burst) for burst in dict.fromkeys(BURSTS)]
        print(
            f"| `{order}` | {sum(disparities) / len(runs):.2f} | {min(disparities):.2f} to {max(disparities):.2f} |"
            f" {sum(one.used for one in runs) / len(runs):.1f} % | {', '.join(f'{part:.0f} %' for part in by_burst)} |"
        )


def received_by_burst(runs: list[Fairness], burst: int) -> float:
    """What owners with such bursts received of what they are due, in per cent."""
    owners = [place for place, other in enumerate(BURSTS) if other == burst]
    received = sum(list(one.received.values())[place] for one in runs for place in owners)
    return 100 * received / (len(runs) * len(owners) * PERIODS * PERIOD_MS * SHARE_GPUS)


if __name__ == "__main__":
    main()
