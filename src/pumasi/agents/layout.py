"""Lays out a run's directory from its order: the same for every engine whose runs a supervisor keeps."""

import os
import pwd
import signal
from typing import NamedTuple

from pumasi.agents.environment import Place, job_environment, node_file, output_name
from pumasi.agents.run_directory import Launch, RunDirectory
from pumasi.model.ids import SiteId
from pumasi.protocol.messages import StartOrder


class UnixUser(NamedTuple):
    """The Unix user that runs jobs."""

    account: str
    home: str

    @classmethod
    def of_this_process(cls) -> "UnixUser":
        """The agent's own."""
        user = pwd.getpwuid(os.getuid())
        return cls(user.pw_name, user.pw_dir)


class Limits(NamedTuple):
    """What a supervisor holds a run to, in milliseconds of real time and bytes; `Launch` says what each means."""

    time_limit_ms: int
    grace_ms: int
    output_limit_bytes: int
    output_check_ms: int
    engine_kill_ms: int = 0


def lay_out(
    directory: RunDirectory,
    order: StartOrder,
    *,
    site: SiteId,
    fleet: str,
    user: UnixUser,
    limits: Limits,
    inherited: tuple[str, ...] = (),
    slices: tuple[str, ...] = (),
) -> None:
    """Write all a supervisor needs. Until it has returned, nothing can start from the directory.

    :param slices: as in `Place`.
    :raises OSError: if the disk does not take it.
    :raises UnicodeEncodeError: if the order holds text that no file can.
    """
    path = str(directory.path)
    working_directory = order.working_directory or f"{path}/work"
    tag = order.run.tag(fleet)
    place = Place(site, tag, user.account, user.home, path, working_directory, slices)
    stdout = output_name(order.stdout, order) or f"{path}/stdout"
    # As in Slurm, a job that names one file for its output gets its errors there too.
    stderr = output_name(order.stderr, order) or (stdout if order.stdout else f"{path}/stderr")
    launch = Launch(
        run=order.run,
        arguments=_command(f"{path}/script", order.script),
        environment=job_environment(order, place),
        working_directory=working_directory,
        stdout=stdout,
        stderr=stderr,
        inherited=inherited,
        **limits._asdict(),
    )
    directory.create(launch, order.script, node_file(order))


def _command(path: str, script: str) -> tuple[str, ...]:
    return (path,) if script.startswith("#!") else ("/bin/sh", path)


def signal_number(name: str) -> int:
    """The number of a signal such as "TERM", "SIGUSR1" or "10"; SIGTERM for what is none.

    A notice that cannot be understood must still be a notice.
    """
    if name.isascii() and name.isdigit():
        return int(name) if int(name) in set(signal.valid_signals()) else signal.SIGTERM
    return getattr(signal.Signals, f"SIG{name.upper().removeprefix('SIG')}", signal.SIGTERM)
