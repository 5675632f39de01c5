"""From one trace to many: weeks drawn anew from its days, with more or less load, and the shapes kept.

A day of the new workload is a day of the trace with the same weekday, all groups together: what groups do at the same
time, they do at the same time again. More load is more jobs, not larger ones: each job of the day comes as often as the
load says, its repeats within half an hour of it.
"""

from collections import defaultdict
from random import Random

from msgspec import Struct

from pumasi.twin.streams import stream
from pumasi.twin.workloads.trace import TraceJob

DAY_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
KOREA_OFFSET_MS = 9 * HOUR_MS
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday; Monday is 0
JITTER_MS = HOUR_MS // 2


class Resampling(Struct, frozen=True, kw_only=True):
    """What to draw from a trace and for how long.

    `source_from_ms`, `source_days`: the days of the trace to draw from, whole weeks. `start_ms`: midnight of the first
    new day in Korea. `load_percent`: jobs for each of the trace's, in per cent.
    """

    source_from_ms: int
    source_days: int
    start_ms: int
    days: int
    load_percent: int = 100


def resample(jobs: list[TraceJob], wanted: Resampling, seed: int) -> list[TraceJob]:
    """A workload of `wanted.days` days with the shapes of the trace, in order of submission."""
    by_weekday = _days_by_weekday(jobs, wanted)
    random = stream(seed, "workload", "resample")
    made: list[TraceJob] = []
    for day in range(wanted.days):
        begins_ms = wanted.start_ms + day * DAY_MS
        source = random.choice(by_weekday[weekday(begins_ms + KOREA_OFFSET_MS)])
        for job in source:
            made.extend(_copies(job, begins_ms, wanted, random))
    made.sort()
    return made


def weekday(at_ms: int) -> int:
    """The day of the week of a moment; 0 is Monday."""
    return (at_ms // DAY_MS + EPOCH_WEEKDAY) % 7


def source_jobs(jobs: list[TraceJob], wanted: Resampling) -> list[TraceJob]:
    """The part of the trace that is drawn from."""
    until_ms = wanted.source_from_ms + wanted.source_days * DAY_MS
    return [job for job in jobs if wanted.source_from_ms <= job.submitted_ms < until_ms]


def _days_by_weekday(jobs: list[TraceJob], wanted: Resampling) -> dict[int, list[list[TraceJob]]]:
    first = wanted.source_from_ms // DAY_MS
    by_day: dict[int, list[TraceJob]] = {first + day: [] for day in range(wanted.source_days)}
    for job in source_jobs(jobs, wanted):
        by_day[job.submitted_ms // DAY_MS].append(job)
    by_weekday: dict[int, list[list[TraceJob]]] = defaultdict(list)
    for day, found in by_day.items():
        by_weekday[weekday(day * DAY_MS)].append(found)
    return by_weekday


def _copies(job: TraceJob, begins_ms: int, wanted: Resampling, random: Random) -> list[TraceJob]:
    whole, rest = divmod(wanted.load_percent, 100)
    count = whole + (random.randrange(100) < rest)
    within_ms = job.submitted_ms % DAY_MS
    return [_copy(job, begins_ms + _moved(within_ms, number, random)) for number in range(count)]


def _moved(within_ms: int, number: int, random: Random) -> int:
    """The first copy comes when the job did; the others near it, on the same day."""
    if number == 0:
        return within_ms
    return min(max(within_ms + random.randint(-JITTER_MS, JITTER_MS), 0), DAY_MS - 1)


def _copy(job: TraceJob, submitted_ms: int) -> TraceJob:
    return TraceJob(
        submitted_ms,
        job.duration_ms,
        job.gpus,
        job.group,
        job.asked_ms,
        job.gpu_milli,
        job.cpu_milli,
        job.memory_mib,
    )
