"""Reader for the Philly trace (msr-fiddle/philly-traces, ATC'19): GPU training jobs of a multi-tenant cluster, 2017."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")


class TraceJob(Struct, frozen=True, order=True):
    """One job of a trace. Times are Unix milliseconds and milliseconds; the trace's local time is read as UTC."""

    submitted_ms: int
    duration_ms: int
    gpus: int
    group: str

    @property
    def ends_ms(self) -> int:
        """When it ended, had it started at once."""
        return self.submitted_ms + self.duration_ms


class TraceProblem(Exception):
    """The file is not such a trace; the message names file, line and what is wrong."""


def read_philly(path: Path) -> list[TraceJob]:
    """All jobs of the file, in order of submission.

    :raises TraceProblem: if the file cannot be read or a line is not a job.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return sorted(_jobs(path, csv.DictReader(lines)))
    except OSError as error:
        raise TraceProblem(f"{path}: {error.strerror}") from error


def _jobs(path: Path, rows: "csv.DictReader[str]") -> Iterator[TraceJob]:
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise TraceProblem(f"{path}:1: the columns are {rows.fieldnames}, expected {', '.join(COLUMNS)}")
    for row in rows:
        try:
            yield trace_job(row)
        except (ValueError, ArithmeticError) as error:
            raise TraceProblem(f"{path}:{rows.line_num}: {error}") from error


def trace_job(row: dict[str, str]) -> TraceJob:
    """The job a row of the file stands for.

    :raises ValueError: or `ArithmeticError`, if it stands for none.
    """
    duration_ms = int(Decimal(row["duration"]) * 1000)
    return TraceJob(_milliseconds(row["timestamp"]), duration_ms, int(row["num_gpus"]), row["cluster"])


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def window(jobs: list[TraceJob], from_ms: int, until_ms: int) -> tuple[list[TraceJob], list[TraceJob]]:
    """The jobs that were running when a window opened (with what they had left), and those submitted within it."""
    running = [
        TraceJob(from_ms, job.ends_ms - from_ms, job.gpus, job.group)
        for job in jobs
        if job.submitted_ms < from_ms < job.ends_ms
    ]
    return running, [job for job in jobs if from_ms <= job.submitted_ms < until_ms]
