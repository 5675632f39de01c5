"""A control plane of one's own: `pumasi up` in a child process, ready and with an administrator's token."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from pumasi.client.client import Client

START_SECONDS = 60
STOP_SECONDS = 60


class ServerFailed(Exception):
    """The control plane did not start or did not stop; the message says what it wrote last."""


class Server(Struct, frozen=True):
    """A running control plane: where it is, its process, and a token of its administrator."""

    url: str
    pid: int
    token: str
    log: Path


@contextmanager
def serving(folder: Path, arguments: Sequence[str]) -> Iterator[Server]:
    """`pumasi up` with its data in `folder`, on a free port, until the context ends; nothing of it is left then.

    :raises ServerFailed: if it does not start or stop.
    """
    process, ready = launch(folder, arguments)
    try:
        yield connect(process, ready, folder / "server.log")
    finally:
        stop(process)


def launch(folder: Path, arguments: Sequence[str]) -> tuple["subprocess.Popen[bytes]", Path]:
    """Start it in a session of its own, so that Ctrl-C at the terminal reaches the caller alone."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pumasi", "up", "--port", "0", "--data", str(folder / "data")]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process, ready


def connect(process: "subprocess.Popen[bytes]", ready: Path, log: Path) -> Server:
    """Wait until it serves, and become its administrator."""
    details = _wait_until_ready(process, ready, log)
    with Client(server=details["url"], token="") as client:
        token = client.setup(details["setup"], "admin", "the demo's administrator")["token"]
    return Server(details["url"], process.pid, token, log)


def _wait_until_ready(process: "subprocess.Popen[bytes]", ready: Path, log: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready.exists():
            details: dict[str, str] = json.loads(ready.read_text(encoding="utf-8"))
            return details
        time.sleep(0.02)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise ServerFailed(f"the control plane did not start: {''.join(last) or 'it wrote nothing'}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to stop and wait until it and its agents are gone."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise ServerFailed(f"the control plane did not stop within {STOP_SECONDS} seconds") from error
