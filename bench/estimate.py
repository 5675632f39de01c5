"""How good is the estimated start of a waiting job: asked of the real explanation in the twin on Philly, then awaited.

The scenario is the shipped one (Philly's virtual clusters as owners of 128 nodes) under its lending contracts and under
none. Every ten minutes each job that has come to wait since is asked for once; what it is told is compared with its
first start.
"""

from collections.abc import Sequence

from msgspec import Struct

from bench.measure import Figures, amend, percentile
from bench.twin_fleets import PHILLY
from pumasi.adapters.fact_list import FactList
from pumasi.control.plane import ControlPlane
from pumasi.twin.commands import rules_of, scenario_of
from pumasi.twin.experiment import Prepared, prepare
from pumasi.twin.kernel import Kernel, Rank
from pumasi.twin.run import run_world
from pumasi.twin.world import World

RULES = ("as-planned", "silo")
SEED = 1
ASK_EVERY_MS = 600_000
ON_TIME_MS = 600_000


class Answer(Struct, frozen=True):
    """What a waiting job was told at a moment: the start to expect, None if no moment could be named."""

    asked_ms: int
    estimated_ms: int | None


class Told(Struct, frozen=True):
    """An answer beside what came: milliseconds from the question to the start as estimated, and as it was."""

    estimated_ms: int
    waited_ms: int

    @property
    def error_ms(self) -> int:
        """By how much the job started later than it was told; negative if sooner."""
        return self.waited_ms - self.estimated_ms


class Asking:
    """Asks a world's waiting jobs, each once, as the simulation goes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.answers: dict[int, Answer] = {}

    def ask(self, _: None = None) -> None:
        """Ask whoever waits and has not been asked; and again in ten minutes."""
        kernel, plane = self._world.kernel, self._world.plane
        waiting = [job for queue in plane.state.queues.values() for _, job in queue.waiting]
        for job in waiting:
            if job not in self.answers and not plane.state.jobs[job].attempts and job in plane.reasons:
                self.answers[job] = Answer(kernel.time_ms, plane.reasons.start_ms(job))
        kernel.at(kernel.time_ms + ASK_EVERY_MS, Rank.USER, self.ask)


def replay(ready: Prepared) -> tuple[list[Told], int, int]:
    """What jobs were told and what came; how many could be told no moment; how many had not started at the end."""
    kernel = Kernel(ready.scenario.start_ms)
    world = World(kernel, ready.scenario, ready.jobs, FactList(), ControlPlane(kernel))
    world.declare(ready.plan, ready.scenario.as_of)
    world.await_jobs()
    asking = Asking(world)
    asking.ask()
    table = run_world(world).jobs
    told, nothing, unstarted = [], 0, 0
    for job, answer in asking.answers.items():
        started_ms = table.started_ms[job - table.first_job]
        if answer.estimated_ms is None:
            nothing += 1
        elif not started_ms:
            unstarted += 1
        else:
            told.append(Told(answer.estimated_ms - answer.asked_ms, started_ms - answer.asked_ms))
    return told, nothing, unstarted


def figures_of(rules: str, told: Sequence[Told], nothing: int, unstarted: int) -> Figures:
    """The distribution of the errors."""
    errors = [float(abs(each.error_ms)) for each in told]
    return {
        f"estimate_asked_{rules}": len(told) + nothing + unstarted,
        f"estimate_waited_median_minutes_{rules}": percentile([float(each.waited_ms) for each in told], 50) / 60_000,
        f"estimate_error_median_minutes_{rules}": percentile(errors, 50) / 60_000,
        f"estimate_error_p90_minutes_{rules}": percentile(errors, 90) / 60_000,
        f"estimate_too_early_percent_{rules}": _percent(sum(each.error_ms > ON_TIME_MS for each in told), len(told)),
        f"estimate_too_late_percent_{rules}": _percent(sum(each.error_ms < -ON_TIME_MS for each in told), len(told)),
        f"estimate_none_percent_{rules}": _percent(nothing, len(told) + nothing + unstarted),
        f"estimate_unstarted_{rules}": unstarted,
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


NOTES = {
    note.format(rules.replace("-", "_")): said
    for rules in RULES
    for note, said in (
        ("estimate_asked_{}", "waiting jobs that were asked for their estimated start"),
        ("estimate_waited_median_minutes_{}", "from the question to the first start"),
        ("estimate_error_median_minutes_{}", "between the start as told and as it was"),
        ("estimate_error_p90_minutes_{}", "the same, nine tenths of the jobs"),
        ("estimate_too_early_percent_{}", "told a start more than ten minutes before it came"),
        ("estimate_too_late_percent_{}", "told a start more than ten minutes after it came"),
        ("estimate_none_percent_{}", "told no moment: neither what runs nor what is planned frees enough"),
        ("estimate_unstarted_{}", "told a moment, but not started when the replay ended"),
    )
}


def measure() -> Figures:
    """All figures: a replay under each of the rules."""
    figures, file = Figures(), scenario_of("philly")
    for name in RULES:
        ready = prepare(file, rules_of(name, file.folder), SEED, PHILLY.parents[1])
        figures |= figures_of(name.replace("-", "_"), *replay(ready))
    return figures


if __name__ == "__main__":
    amend("quality", measure(), NOTES)
