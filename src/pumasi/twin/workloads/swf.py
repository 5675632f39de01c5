"""Reader for the Standard Workload Format 2.2 of the Parallel Workloads Archive: 18 numbers a line, `;` before remarks.

A processor of such a trace stands for a GPU here; its user group, or else user, queue or partition, for a group. Jobs
that never ran, or whose run time or size is unknown (-1), are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from pumasi.twin.workloads.trace import TraceJob, TraceProblem

FIELDS = 18
SUBMIT, RUN_TIME, PROCESSORS, ASKED_PROCESSORS, ASKED_TIME = 1, 3, 4, 7, 8  # counted from 0
GROUP_FIELDS = {"user": 11, "group": 12, "queue": 14, "partition": 15}
START_KEY = "UnixStartTime:"


def read_swf(path: Path, group_by: str = "group") -> list[TraceJob]:
    """All jobs of the file that ran, in order of submission. `group_by`: one of GROUP_FIELDS, such as `user` for groups
    `user-1`, `user-2` and so on.

    :raises TraceProblem: if the file cannot be read or a line is not a job.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return sorted(_jobs(path, lines, group_by))
    except OSError as error:
        raise TraceProblem(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TraceProblem(f"{path}: the file is not UTF-8 text") from error


def _jobs(path: Path, lines: Iterator[str], group_by: str) -> Iterator[TraceJob]:
    start_ms = 0
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            if line.startswith(";"):
                start_ms = _start_ms(line, start_ms)
            elif words and (job := _job(words, start_ms, group_by)) is not None:
                yield job
        except ValueError as error:
            raise TraceProblem(f"{path}:{number}: {error}") from error


def _start_ms(remark: str, before_ms: int) -> int:
    _, found, text = remark.partition(START_KEY)
    return int(text) * 1000 if found else before_ms


def _job(words: list[str], start_ms: int, group_by: str) -> TraceJob | None:
    if len(words) != FIELDS:
        raise ValueError(f"{len(words)} values, expected {FIELDS}")
    numbers = [round(float(word)) for word in words]  # the CPU time used has a fraction in some traces
    processors = numbers[PROCESSORS] if numbers[PROCESSORS] > 0 else numbers[ASKED_PROCESSORS]
    if numbers[RUN_TIME] < 0 or processors <= 0 or numbers[SUBMIT] < 0:
        return None
    asked_ms = max(0, numbers[ASKED_TIME]) * 1000
    submitted_ms = start_ms + numbers[SUBMIT] * 1000
    group = f"{group_by}-{numbers[GROUP_FIELDS[group_by]]}"
    return TraceJob(submitted_ms, numbers[RUN_TIME] * 1000, processors, group, asked_ms)
