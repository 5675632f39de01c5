"""`pumasi up` where it cannot start, and where it stops: a person reads a line, and no traceback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import OwnerDeclared
from pumasi.model.fleet import Owner, OwnerKind


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


def test_a_plan_for_another_fleet_than_the_data_holds(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "fleet.db")
    owner = Owner(id="naver", title="Naver", kind=OwnerKind.COMMERCIAL)
    log.append([OwnerDeclared(at_ms=1, by="test", owner=owner)])
    log.close()
    refused(up("--data", str(tmp_path), "--plan", "campus"), "has naver", "--data names another place")


def test_an_address_beyond_this_machine(tmp_path: Path) -> None:
    refused(up("--data", str(tmp_path), "--host", "0.0.0.0"), "not loopback")


def test_a_public_address_without_a_certificate(tmp_path: Path) -> None:
    done = up("--data", str(tmp_path), "--public", "0.0.0.0:8443")
    assert done.returncode == 2
    assert "--tls-certificate and --tls-key go together" in done.stderr


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    files = ["--tls-certificate", str(tmp_path / "no.pem"), "--tls-key", str(tmp_path / "no.pem")]
    refused(up("--data", str(tmp_path), "--public", "127.0.0.1:0", *files), "are no certificate and key")


def test_it_stops_at_once_and_in_silence_though_readers_hold_calls_open(tmp_path: Path) -> None:
    ready, output = tmp_path / "ready.json", tmp_path / "output"
    command = [sys.executable, "-m", "pumasi", "up", "--port", "0", "--agents", "none", "--plan", "campus"]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "data"), "--ready-file", str(ready)],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": "src"},
        )
    try:
        while not ready.exists():
            assert process.poll() is None, output.read_text()
            time.sleep(0.02)
        said = json.loads(ready.read_text())
        setup = json.dumps({"token": said["setup"], "principal": "kim"}).encode()
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{said['url']}/v1/setup", setup, headers)) as answer:
            token = json.load(answer)["token"]
        events = urllib.request.Request(f"{said['url']}/v1/events", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(events) as stream:
            assert stream.readline().startswith(b":")
            process.send_signal(signal.SIGINT)
            stream.read()  # to its proper end: one that is waited for in vain and cut off has none, and this raises
            assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    said = output.read_text().splitlines()
    assert said[0].startswith("Pumasi serves campus (96 GPUs) at ")
    assert said[3].startswith("3 of 3 sites are served by agents of their own")
    assert len(said) == 4, said
