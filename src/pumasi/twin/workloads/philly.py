"""Reader for the Philly trace (msr-fiddle/philly-traces, ATC'19): GPU training jobs of a multi-tenant cluster, 2017."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from pumasi.twin.workloads.trace import TraceJob, read_rows

COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")


def read_philly(path: Path) -> list[TraceJob]:
    """All jobs of the file, in order of submission; the group is the virtual cluster.

    :raises TraceProblem: if the file cannot be read or a line is not a job.
    """
    return read_rows(path, COLUMNS, trace_job)


def trace_job(row: dict[str, str]) -> TraceJob:
    """The job a row of the file stands for.

    :raises ValueError: or `ArithmeticError`, if it stands for none.
    """
    if not row["cluster"]:
        raise ValueError("the cluster is missing")
    duration_ms = int(Decimal(row["duration"]) * 1000)
    return TraceJob(_milliseconds(row["timestamp"]), duration_ms, int(row["num_gpus"]), row["cluster"])


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
