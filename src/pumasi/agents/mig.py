"""The slices of this machine's GPUs by the names CUDA has for them: it takes no numbers of slices."""

import re
import subprocess

_ASK_SECONDS = 10.0
_SLICE = re.compile(r"MIG\s+(\S+)\s+Device\s+\d+:\s+\(UUID:\s+([^)\s]+)\)")


def slice_names(profile: str) -> tuple[str, ...]:
    """UUIDs of all slices of a profile, GPU by GPU; none where there is no NVIDIA driver to ask.

    :raises OSError: if the driver does not answer.
    """
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )  # fmt: skip
    except FileNotFoundError:
        return ()
    except subprocess.TimeoutExpired as error:
        raise OSError(f"nvidia-smi -L does not answer within {_ASK_SECONDS:.0f} s") from error
    if done.returncode:
        raise OSError(f"nvidia-smi -L: {' '.join((done.stdout + done.stderr).split())}")
    return tuple(uuid for name, uuid in _SLICE.findall(done.stdout) if name.lower() == profile)
