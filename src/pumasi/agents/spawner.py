"""The agent's side of the program that forks supervisors. One per agent process, shared by its sites."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from pumasi.agents import supervisor

_ANSWER_SECONDS = 10
_CLOSE_SECONDS = 5


class SpawnFailed(Exception):
    """No supervisor could be forked; the message says why. Nothing was started."""


class SpawnerAway(Exception):
    """The program went away before it answered; it may have forked a supervisor or not."""


class Spawner:
    """Forks supervisors. Thread-safe; starts its program when first needed and again if it went away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def spawn(self, directory: Path) -> int:
        """Have a supervisor forked for a run directory; returns its pid.

        :raises SpawnFailed: if the system refused.
        :raises SpawnerAway: if it is not known whether there is one.
        """
        with self._lock:
            channel = self._channel or self._open()
            try:
                channel.send(os.fsencode(directory))
                answer = channel.recv(32)
            except OSError as error:
                self._close()
                raise SpawnerAway(str(error)) from error
            if not answer:
                self._close()
                raise SpawnerAway("the program that forks supervisors has ended")
        number = int(answer)
        if number < 0:
            raise SpawnFailed(os.strerror(-number))
        return number

    def close(self) -> None:
        """End the program. Supervisors and their runs go on."""
        with self._lock:
            self._close()

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_SECONDS)
        # Isolated and without site packages: it starts in milliseconds, and no upgrade takes away what it needs.
        # A session of its own keeps a terminal's Ctrl-C from reaching it.
        command = [sys.executable, "-I", "-S", "-X", "utf8", supervisor.__file__]
        self._program = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True, cwd="/", env={}
        )
        theirs.close()
        self._channel = ours
        return ours

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._program is not None:
            try:
                self._program.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                self._program.kill()
                self._program.wait()
            self._program = None
