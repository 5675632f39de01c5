"""Reader for the Standard Workload Format 2.2 of the Parallel Workloads Archive: 18 numbers a line, `;` before remarks.

A processor of such a trace stands for a GPU here, a trace's user group for a group. Jobs that never ran, or whose run
time or size is unknown (-1), are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from pumasi.twin.workloads.trace import TraceJob, TraceProblem

FIELDS = 18
SUBMIT, RUN_TIME, PROCESSORS, ASKED_PROCESSORS, ASKED_TIME, USER_GROUP = 1, 3, 4, 7, 8, 12  # counted from 0
START_KEY = "UnixStartTime:"


def read_swf(path: Path) -> list[TraceJob]:
    """All jobs of the file that ran, in order of submission.

    :raises TraceProblem: if the file cannot be read or a line is not a job.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return sorted(_jobs(path, lines))
    except OSError as error:
        raise TraceProblem(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TraceProblem(f"{path}: the file is not UTF-8 text") from error


def _jobs(path: Path, lines: Iterator[str]) -> Iterator[TraceJob]:
    start_ms = 0
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            if line.startswith(";"):
                start_ms = _start_ms(line, start_ms)
            elif words and (job := _job(words, start_ms)) is not None:
                yield job
        except ValueError as error:
            raise TraceProblem(f"{path}:{number}: {error}") from error


def _start_ms(remark: str, before_ms: int) -> int:
    _, found, text = remark.partition(START_KEY)
    return int(text) * 1000 if found else before_ms


def _job(words: list[str], start_ms: int) -> TraceJob | None:
    if len(words) != FIELDS:
        raise ValueError(f"{len(words)} values, expected {FIELDS}")
    numbers = [round(float(word)) for word in words]  # the CPU time used has a fraction in some traces
    processors = numbers[PROCESSORS] if numbers[PROCESSORS] > 0 else numbers[ASKED_PROCESSORS]
    if numbers[RUN_TIME] < 0 or processors <= 0 or numbers[SUBMIT] < 0:
        return None
    asked_ms = max(0, numbers[ASKED_TIME]) * 1000
    submitted_ms = start_ms + numbers[SUBMIT] * 1000
    return TraceJob(submitted_ms, numbers[RUN_TIME] * 1000, processors, f"group-{numbers[USER_GROUP]}", asked_ms)
