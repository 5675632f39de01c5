"""The demo's jobs: three hours of the Philly trace on the owners' queues.

Each job of the trace becomes one job here: its time of submission and its duration are the trace's (on a clock that
runs faster), its virtual cluster decides the queue, and its GPUs are multiplied, because Philly's 2,496 GPUs are a
hundredth of this fleet. It really runs: a shell that prints its nodes, waits for its (compressed) duration, and exits.
"""

from pathlib import Path
from typing import Any

from msgspec import Struct

from pumasi.twin.workloads.philly import read_philly
from pumasi.twin.workloads.trace import TraceJob, window

WINDOW_FROM_MS = (
    1_507_788_000_000  # 2017-10-12 06:00, a busy morning: seven virtual clusters, 970 submissions in 3 hours
)
WINDOW_MS = 3 * 3600 * 1000
GPUS_PER_TRACE_GPU = 256  # the trace's clusters hold 2,496 GPUs, this fleet 260,000
GPUS_MAX = 2048  # the largest gangs of the published LLM traces
TIME_LIMIT_SLACK = 5  # users ask for a fifth more time than they need
TRACE = Path(__file__).parent / "data" / "philly_extract.csv"

# Whose queues the trace's virtual clusters stand for. Hyundai Motor Group has no work: its GPUs are idle.
QUEUES = {
    "6214e9": "sk/foundation-models",
    "11cb48": "naver/foundation-models",
    "ee9e8c": "naver/cloud/enterprises",
    "103959": "naver/research",
    "7f04ca": "samsung/consumer-electronics/on-device-models",
    "ed69ec": "samsung/manufacturing/twins",
    "2869ce": "samsung/research",
    "6c71a0": "public/academia/kaist",
    "b436b2": "public/academia/snu",
    "0e4a51": "public/research/etri",
    "e13805": "public/foundation-models/team-a",
}


class DemoJob(Struct, frozen=True):
    """A job and when it is submitted: fleet milliseconds after the demo's start."""

    after_ms: int
    body: dict[str, Any]


def demo_jobs(trace: Path, clock_rate: int) -> list[DemoJob]:
    """The jobs that run when the window opens, then those submitted within it, in order.

    :raises TraceProblem: if the trace cannot be read.
    """
    running, submitted = window(read_philly(trace), WINDOW_FROM_MS, WINDOW_FROM_MS + WINDOW_MS)
    return [_demo_job(job, number, clock_rate) for number, job in enumerate((*running, *submitted), 1)]


def _demo_job(job: TraceJob, number: int, clock_rate: int) -> DemoJob:
    seconds = -(-job.duration_ms // 1000)
    body = {
        "name": f"philly-{number}",
        "queue": QUEUES[job.group],
        "gpus": min(job.gpus * GPUS_PER_TRACE_GPU, GPUS_MAX),
        "time_limit_seconds": seconds + seconds // TIME_LIMIT_SLACK + 600,
        "script": job_script(job.duration_ms, clock_rate),
    }
    return DemoJob(job.submitted_ms - WINDOW_FROM_MS, body)


def job_script(duration_ms: int, clock_rate: int) -> str:
    """A script that runs for a duration of fleet time, and on notice leaves at once, as a trainer that saves does."""
    milliseconds = max(1, duration_ms // clock_rate)
    return f"""#!/bin/sh
trap 'echo "notice: state saved, leaving"; kill $!; exit 143' TERM
echo "$PUMASI_GPUS GPUs on $SLURM_JOB_NODELIST"
sleep {milliseconds // 1000}.{milliseconds % 1000:03d} & wait $!
echo "done"
"""


def big_job(queue: str, pool: str, gpus: int, duration_ms: int, clock_rate: int) -> dict[str, Any]:
    """The idle owner's own large job: one gang in whole racks of one pool."""
    return {
        "name": "atria-pretrain",
        "queue": queue,
        "pools": [pool],
        "gpus": gpus,
        "time_limit_seconds": duration_ms // 1000 * 2,
        "script": job_script(duration_ms, clock_rate),
    }
