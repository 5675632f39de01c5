"""The jobs a twin is fed with: what the user asks for, and what the trace or the model says really happens."""

from msgspec import Struct

from pumasi.model.jobs import JobSpec

NEVER = -1


class TwinJob(Struct, frozen=True, kw_only=True, gc=False):
    """One job of a workload. The control plane sees `spec` alone; the simulated engines know the rest.

    `submit_ms`: Unix milliseconds. `runtime_ms`: work to do, milliseconds on its GPUs from the first start on; a rerun
    does what is left of it after its last checkpoint (`spec.checkpoint_seconds`; 0: all of it). `exit_code`: how it
    ends when its work is done. `cancel_after_ms`: its user cancels it so long after submission, NEVER if not.
    `saves_on_notice`: given notice, it saves all its work and leaves after `leaves_after_ms`; else it runs on until it
    is killed.
    """

    submit_ms: int
    spec: JobSpec
    runtime_ms: int
    exit_code: int = 0
    cancel_after_ms: int = NEVER
    saves_on_notice: bool = False
    leaves_after_ms: int = 30_000
