"""Runs Slurm's commands: an argument list, a clean environment, a time limit. Nothing of a user's is ever in them."""

import os
import subprocess
from typing import NamedTuple, Protocol

from pumasi.agents.environment import SYSTEM_PATH


class CommandTimedOut(Exception):
    """The command did not end in time and was killed; what it had asked for may have been done."""


class Answer(NamedTuple):
    """What a command said."""

    code: int
    output: str
    errors: str


class Runner(Protocol):
    """Runs a command of Slurm's by its name."""

    def run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        """Run it with `text` as its standard input.

        :raises CommandTimedOut: if it took longer than `seconds`.
        :raises OSError: if it could not be started.
        """
        ...


class ProcessRunner:
    """Runs the real commands. `commands`: their directory. `slurm_conf`: picks the cluster, if not empty."""

    def __init__(self, commands: str, slurm_conf: str) -> None:
        self._commands = commands
        # Times as Unix seconds, the same in every version and language. No variable of the agent's own gets through:
        # SBATCH_*, SLURM_* and SLURM_JWT among them would change what the commands do.
        self._environment = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": "/", "SLURM_TIME_FORMAT": "%s"}
        if slurm_conf:
            self._environment["SLURM_CONF"] = slurm_conf

    def run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        """As the protocol says."""
        try:
            done = subprocess.run(
                [os.path.join(self._commands, name), *arguments],
                input=text.encode(),
                capture_output=True,
                env=self._environment,
                cwd="/",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandTimedOut(f"{name} did not answer within {seconds:g} s") from error
        return Answer(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
