"""Has a workload the shapes of the trace it was made from? Distances between distributions, in thousandths.

The distance is that of Kolmogorov and Smirnov: the largest difference between the two shares of jobs up to a value. 0:
the same distribution; 1000: nothing in common. All in integers, so the same everywhere.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct

from pumasi.twin.workloads.resample import DAY_MS, HOUR_MS, KOREA_OFFSET_MS, weekday
from pumasi.twin.workloads.trace import TraceJob

LIMIT_PER_MILLE = 100  # a tenth of the jobs: what one drawn day of a bursty trace may well move


class ShapeDistances(Struct, frozen=True):
    """How far a workload is from its trace, in thousandths: sizes, lengths, hours of the day, days of the week."""

    gpus: int
    duration: int
    hour: int
    weekday: int

    @property
    def is_kept(self) -> bool:
        """True if sizes, lengths and hours are within the limit. Weekdays are told but not judged: a trace of a few
        weeks says too little about them.
        """
        return max(self.gpus, self.duration, self.hour) <= LIMIT_PER_MILLE


def shape_distances(trace: Iterable[TraceJob], made: Iterable[TraceJob]) -> ShapeDistances:
    """The distances between a trace (its local time read as UTC) and a workload made of it (in Korean time)."""
    before, after = list(trace), list(made)

    def distance(value: Callable[[TraceJob, int], int]) -> int:
        return ks_per_mille(
            Counter(value(job, job.submitted_ms) for job in before),
            Counter(value(job, job.submitted_ms + KOREA_OFFSET_MS) for job in after),
        )

    return ShapeDistances(
        gpus=distance(lambda job, _: job.gpus),
        duration=distance(lambda job, _: job.duration_ms),
        hour=distance(lambda _, local_ms: local_ms % DAY_MS // HOUR_MS),
        weekday=distance(lambda _, local_ms: weekday(local_ms)),
    )


def ks_per_mille(before: Counter[int], after: Counter[int]) -> int:
    """The largest difference between two cumulative distributions, in thousandths, rounded up."""
    total_before, total_after = before.total(), after.total()
    if not total_before or not total_after:
        return 0 if total_before == total_after else 1000
    largest = up_to_before = up_to_after = 0
    for value in sorted(before.keys() | after.keys()):
        up_to_before += before[value]
        up_to_after += after[value]
        largest = max(largest, abs(up_to_before * total_after - up_to_after * total_before))
    return -(-largest * 1000 // (total_before * total_after))
