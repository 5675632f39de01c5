"""From jobs of a trace to jobs of the fleet: whose queue, what they need, and what their users would have asked for."""

from msgspec import Struct, field

from pumasi.model.ids import QueueId
from pumasi.model.jobs import JobSpec
from pumasi.twin.jobs import TwinJob
from pumasi.twin.workloads.trace import WHOLE_GPU_MILLI, TraceJob

LIMIT_SLACK = 5  # users ask for a fifth more time than they need ...
LIMIT_FLOOR_SECONDS = 600  # ... and ten minutes
SCRIPT = "#!/bin/sh\nexec ./train\n"  # never run: simulated engines know the length


class Placing(Struct, frozen=True, kw_only=True):
    """How jobs of a trace become jobs of the fleet.

    `queues`: the queue of each group; jobs of other groups are left out. `gpus_per_gpu`: GPUs for each of the trace's,
    at most `gpus_max` in a job (0: no bound). `checkpoint_seconds`: how often jobs longer than that save their work.
    """

    queues: dict[str, QueueId]
    gpus_per_gpu: int = 1
    gpus_max: int = 0
    checkpoint_seconds: int = 1800
    saves_on_notice: bool = False


class Placed(Struct):
    """Jobs of the fleet, and what of the trace is not among them or not as it was.

    `left_out`: jobs whose group has no queue. `without_gpus`: jobs that need none. `rounded_up`: jobs that needed a
    part of a GPU and are given a whole one, since the fleet's jobs hold whole GPUs.
    """

    jobs: list[TwinJob] = field(default_factory=list)
    left_out: int = 0
    without_gpus: int = 0
    rounded_up: int = 0


def place(trace: list[TraceJob], placing: Placing) -> Placed:
    """Map every job of a trace, keeping the order."""
    placed = Placed()
    for job in trace:
        queue = placing.queues.get(job.group)
        if queue is None:
            placed.left_out += 1
        elif not job.gpus:
            placed.without_gpus += 1
        else:
            placed.rounded_up += job.gpu_milli < WHOLE_GPU_MILLI
            placed.jobs.append(_twin_job(job, queue, placing))
    return placed


def _twin_job(job: TraceJob, queue: QueueId, placing: Placing) -> TwinJob:
    gpus = job.gpus * placing.gpus_per_gpu
    spec = JobSpec(
        name=job.group,
        queue=queue,
        script=SCRIPT,
        gpus=min(gpus, placing.gpus_max) if placing.gpus_max else gpus,
        cpus_per_gpu=-(-job.cpu_milli // (job.gpus * 1000)),
        host_memory_mib_per_gpu=-(-job.memory_mib // job.gpus),
        time_limit_seconds=max(job.asked_ms // 1000, limit_seconds(job.duration_ms)),
        checkpoint_seconds=placing.checkpoint_seconds,
    )
    return TwinJob(
        submit_ms=job.submitted_ms, spec=spec, runtime_ms=job.duration_ms, saves_on_notice=placing.saves_on_notice
    )


def limit_seconds(duration_ms: int) -> int:
    """The time limit a user asks for whose job runs so long."""
    seconds = -(-duration_ms // 1000)
    return seconds + seconds // LIMIT_SLACK + LIMIT_FLOOR_SECONDS
