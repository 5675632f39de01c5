"""What one run of the twin showed, in numbers small enough to keep: read from the log of facts and the table of jobs.

Everything is counted from the end of the warm-up. GPU-time is in GPU-milliseconds, waits are milliseconds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from pumasi.model.ids import OwnerId
from pumasi.model.jobs import JobState, StopCause
from pumasi.twin.outcome import Outcome as Simulated
from pumasi.twin.report.usage import Usage
from pumasi.twin.rules import Rules, owner_of

if TYPE_CHECKING:
    from pumasi.twin.experiment import Prepared

QUANTILES = 200  # steps of a distribution that is kept
SIZES = ((1, "1 GPU"), (8, "2–8"), (64, "9–64"), (512, "65–512"), (1 << 30, "more than 512"))
_SIZE_NAMES = [name for _, name in SIZES]
RECLAIMS_MAX = 5000


class Waits(Struct, frozen=True, kw_only=True):
    """How long a group of jobs waited for its first start. A job that never started waited till the end of the run.

    `quantiles_ms`: QUANTILES + 1 values, least to most. `unstarted`: jobs that had not started. `refused`: jobs that
    the control plane did not take, as they could never have run; they are in no other number.
    """

    jobs: int
    unstarted: int
    refused: int
    mean_ms: int
    quantiles_ms: tuple[int, ...]

    def percentile_ms(self, percent: int) -> int:
        """The wait that so many per cent of the jobs did not exceed; 0 if there are none."""
        return self.quantiles_ms[percent * QUANTILES // 100] if self.quantiles_ms else 0


class ReclaimMeasure(Struct, frozen=True, array_like=True):
    """One reclaim that gave the claimant its GPUs: how long it took, what was promised, and GPUs asked and evicted."""

    owner: OwnerId
    took_ms: int
    promised_ms: int
    gpus: int
    evicted_gpus: int


class OwnerSeries(Struct, frozen=True, kw_only=True):
    """GPU-milliseconds per interval of one owner. Home, lent, idle and down add up to what it is due in service.

    `credit`: lent less borrowed, added up from the start.
    """

    home: list[int]
    lent: list[int]
    idle: list[int]
    down: list[int]
    borrowed: list[int]
    credit: list[int]


class Measures(Struct, frozen=True, kw_only=True):
    """One run. `until_ms`: how far it got. `loans`: GPU-milliseconds by lender and borrower.

    `repeated`: GPU-time that jobs which succeeded needed beyond their work, as what is not saved is done again.
    `reclaims`: the first RECLAIMS_MAX; `reclaims_asked`, `reclaims_kept`: of all that were settled by a start.
    """

    rules: str
    rules_title: str
    seed: int
    finished: bool
    start_ms: int
    from_ms: int
    until_ms: int
    bucket_ms: int
    jobs: int
    refused: dict[str, int]
    owners: dict[OwnerId, Waits]
    sizes: dict[str, Waits]
    classes: dict[str, Waits]
    series: dict[OwnerId, OwnerSeries]
    loans: dict[OwnerId, dict[OwnerId, int]]
    reclaims: list[ReclaimMeasure]
    reclaims_asked: int
    reclaims_kept: int
    requested_gpus: int
    evicted_gpus: int
    evictions: int
    capacity: int
    busy: int
    repeated: int
    work_succeeded: int
    cycles: int
    facts: int
    shapes: dict[str, int]
    notes: tuple[str, ...]

    @property
    def busy_per_mille(self) -> int:
        """The share of the GPUs in service that ran jobs, in thousandths."""
        return self.busy * 1000 // self.capacity if self.capacity else 0


def measure(outcome: Simulated, ready: "Prepared", rules: Rules, from_ms: int) -> Measures:
    """Read a simulation's log and table."""
    until_ms = max(outcome.at_ms, from_ms + 1) if not outcome.finished else ready.scenario.until_ms
    usage = Usage(ready.plan, from_ms, until_ms)
    facts = 0
    for _, event in outcome.log.read(0):
        usage.apply(event)
        facts += 1
    usage.close()
    settled = [each for each in outcome.ledger.reclaims.settled if each.fulfilled and each.made_ms >= from_ms]
    groups = _groups(outcome, ready, from_ms)
    repeated, succeeded = _repeated(outcome, ready, usage.ran_ms, from_ms)
    return Measures(
        rules=rules.name,
        rules_title=rules.title or rules.name,
        seed=ready.scenario.seed,
        finished=outcome.finished,
        start_ms=ready.scenario.start_ms,
        from_ms=from_ms,
        until_ms=until_ms,
        bucket_ms=usage.bucket_ms,
        jobs=len(outcome.jobs),
        refused=dict(Counter(each.code for each in outcome.refused)),
        owners=groups[0],
        sizes=groups[1],
        classes=groups[2],
        series={owner: OwnerSeries(**series) for owner, series in usage.series().items()},
        loans=usage.loans(),
        reclaims=[
            ReclaimMeasure(each.owner, each.took_milliseconds, each.promised_milliseconds, each.gpus, each.evicted_gpus)
            for each in settled[:RECLAIMS_MAX]
        ],
        reclaims_asked=len(settled),
        reclaims_kept=sum(each.kept for each in settled),
        requested_gpus=sum(each.gpus for each in settled),
        evicted_gpus=sum(each.evicted_gpus for each in settled),
        evictions=usage.stops[StopCause.RECLAIM],
        capacity=usage.capacity(),
        busy=usage.busy(),
        repeated=repeated,
        work_succeeded=succeeded,
        cycles=outcome.cycles,
        facts=facts,
        shapes=_shapes(ready),
        notes=ready.notes,
    )


def _shapes(ready: "Prepared") -> dict[str, int]:
    shapes = ready.shapes
    names = ("gpus", "duration", "hour", "weekday")
    return {} if shapes is None else {name: getattr(shapes, name) for name in names}


def size_name(gpus: int) -> str:
    """The band of sizes that a job belongs to."""
    return next(name for largest, name in SIZES if gpus <= largest)


def _place(group: str) -> tuple[int, str]:
    """Bands of sizes from small to large; owners and classes by name."""
    return (_SIZE_NAMES.index(group), "") if group in _SIZE_NAMES else (-1, group)


# --- waits -----------------------------------------------------------------------------------------------------------


def _groups(outcome: Simulated, ready: "Prepared", from_ms: int) -> tuple[dict[str, Waits], ...]:
    """Waits of the jobs submitted after the warm-up: by owner, by size, by class."""
    found: tuple[dict[str, list[int]], ...] = (defaultdict(list), defaultdict(list), defaultdict(list))
    unstarted: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    refused: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    table = outcome.jobs
    owners = [owner_of(queue) for queue in table.queues]
    for row in range(len(table)):
        if table.submitted_ms[row] < from_ms:
            continue
        wait_ms = table.wait_ms(row)
        spec = ready.jobs[table.source[row]].spec
        for at, name in enumerate((owners[table.queue[row]], size_name(spec.gpus), spec.name)):
            found[at][name].append(wait_ms if wait_ms >= 0 else outcome.at_ms - table.submitted_ms[row])
            unstarted[at][name] += wait_ms < 0
    for each in outcome.refused:
        spec = ready.jobs[each.source].spec
        if each.at_ms >= from_ms:
            for at, name in enumerate((owner_of(spec.queue), size_name(spec.gpus), spec.name)):
                refused[at][name] += 1
    return tuple(
        {
            name: waits_of(found[at].get(name, ()), unstarted[at][name], refused[at][name])
            for name in sorted(found[at].keys() | refused[at].keys(), key=_place)
        }
        for at in range(3)
    )


def waits_of(waits_ms: Iterable[int], unstarted: int = 0, refused: int = 0) -> Waits:
    """The distribution of waits."""
    ordered = sorted(waits_ms)
    last = len(ordered) - 1
    return Waits(
        jobs=len(ordered),
        unstarted=unstarted,
        refused=refused,
        mean_ms=sum(ordered) // len(ordered) if ordered else 0,
        quantiles_ms=tuple(ordered[step * last // QUANTILES] for step in range(QUANTILES + 1)) if ordered else (),
    )


# --- work done twice -------------------------------------------------------------------------------------------------


def _repeated(outcome: Simulated, ready: "Prepared", ran_ms: dict[int, int], from_ms: int) -> tuple[int, int]:
    """GPU-time beyond their work of the jobs that succeeded, and that work; of jobs submitted after the warm-up."""
    table, beyond, work = outcome.jobs, 0, 0
    slices = {pool.slice: pool.slices_per_gpu for pool in ready.plan.pools}
    for row in range(len(table)):
        if table.submitted_ms[row] >= from_ms and table.state_of(row) is JobState.SUCCEEDED:
            job = ready.jobs[table.source[row]]
            each, runtime_ms = slices.get(job.spec.slice, 1), job.runtime_ms
            beyond += table.gpus[row] * max(0, ran_ms.get(row + 1, runtime_ms) - runtime_ms) // each
            work += table.gpus[row] * runtime_ms // each
    return beyond, work
