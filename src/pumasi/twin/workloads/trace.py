"""What readers of workload traces give, whatever the format: jobs with a time, a length, a size and a group."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

WHOLE_GPU_MILLI = 1000


class TraceJob(Struct, frozen=True, order=True, gc=False):
    """One job of a trace. Times are Unix milliseconds and milliseconds; a trace's local time is read as UTC.

    `asked_ms`: the run time its user asked for, 0 if the trace does not say. `gpu_milli`: thousandths of each of its
    GPUs that it needs. `cpu_milli` and `memory_mib`: what it needs beside them, 0 if the trace does not say.
    """

    submitted_ms: int
    duration_ms: int
    gpus: int
    group: str
    asked_ms: int = 0
    gpu_milli: int = WHOLE_GPU_MILLI
    cpu_milli: int = 0
    memory_mib: int = 0

    @property
    def ends_ms(self) -> int:
        """When it ended, had it started at once."""
        return self.submitted_ms + self.duration_ms

    @property
    def gpu_milliseconds(self) -> int:
        """The work in it, counting whole GPUs."""
        return self.gpus * self.duration_ms


class TraceProblem(Exception):
    """The file is not such a trace; the message names file, line and what is wrong."""


def read_rows(path: Path, columns: tuple[str, ...], read: Callable[[dict[str, str]], TraceJob]) -> list[TraceJob]:
    """The jobs of a CSV file whose first columns are `columns`, in order of submission.

    :raises TraceProblem: if the file cannot be read or a line is not a job.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return sorted(_jobs(path, csv.DictReader(lines), columns, read))
    except OSError as error:
        raise TraceProblem(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TraceProblem(f"{path}: the file is not UTF-8 text") from error


def _jobs(
    path: Path, rows: "csv.DictReader[str]", columns: tuple[str, ...], read: Callable[[dict[str, str]], TraceJob]
) -> Iterator[TraceJob]:
    if tuple(rows.fieldnames or ())[: len(columns)] != columns:
        raise TraceProblem(f"{path}:1: the columns are {rows.fieldnames}, expected {', '.join(columns)}")
    for row in rows:
        try:
            job = read(row)
        except (ValueError, ArithmeticError, TypeError) as error:
            raise TraceProblem(f"{path}:{rows.line_num}: {error}") from error
        if job.duration_ms < 0 or job.gpus < 0:
            raise TraceProblem(f"{path}:{rows.line_num}: a job has neither a negative length nor negative GPUs")
        yield job


def window(jobs: list[TraceJob], from_ms: int, until_ms: int) -> tuple[list[TraceJob], list[TraceJob]]:
    """The jobs that were running when a window opened (with what they had left), and those submitted within it."""
    running = [
        TraceJob(from_ms, job.ends_ms - from_ms, job.gpus, job.group)
        for job in jobs
        if job.submitted_ms < from_ms < job.ends_ms
    ]
    return running, [job for job in jobs if from_ms <= job.submitted_ms < until_ms]
