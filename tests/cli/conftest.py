"""A command line with a server to talk to, in an environment of its own."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pumasi.cli.main import run
from tests.cli.contract_server import TOKEN, ContractServer


class Result(NamedTuple):
    """What a command left: its exit code, what it printed, what it said on the error stream."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[ContractServer]:
    """A server that speaks the contract."""
    contract_server = ContractServer()
    contract_server.start()
    yield contract_server
    contract_server.stop()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No configuration, no variables that steer the command line, UTC; returns the configuration folder."""
    for name in ("PUMASI_SERVER", "PUMASI_TOKEN", "PUMASI_DEBUG", "NO_COLOR", "FORCE_COLOR", "SBATCH_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("pumasi.client.transport.FIRST_PAUSE_SECONDS", 0.001)
    return tmp_path / "config" / "pumasi"


@pytest.fixture
def pumasi(
    alone: Path, server: ContractServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunCommand:
    """Run a command line against the server."""
    monkeypatch.setenv("PUMASI_SERVER", server.address)
    monkeypatch.setenv("PUMASI_TOKEN", TOKEN)

    def run_command(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = run(list(arguments))
        out, err = capsys.readouterr()
        return Result(int(code), out, err)

    return run_command
