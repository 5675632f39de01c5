"""`pumasi up` where it cannot start: a line that says why, and no traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pumasi.adapters.sqlite_log import SqliteLog


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it until it gives up."""
    command = [sys.executable, "-m", "pumasi", "up", "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONPATH": "src"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("pumasi: ") and done.stderr.count("\n") == 1, done.stderr
    assert "unexpected" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_data_that_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(up("--data", str(tmp_path / "file" / "data")), "cannot hold the data", "Not a directory")


def test_data_that_another_control_plane_uses(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "fleet.db")
    try:
        refused(up("--data", str(tmp_path)), "in use by another control plane", str(os.getpid()))
    finally:
        log.close()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(up("--data", str(tmp_path), "--port", str(port)), f"127.0.0.1:{port}", "in use")


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org"])
def test_an_address_beyond_this_machine(tmp_path: Path, host: str) -> None:
    refused(up("--data", str(tmp_path), "--host", host), "not loopback")
