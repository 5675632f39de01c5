"""The entry point: fast help, and every end a command can come to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from pumasi.cli.main import COMMANDS, EXTENSIONS, load_command, run
from tests.cli.conftest import RunCommand
from tests.cli.contract_server import TOKEN, Answer, ContractServer

HEAVY = ("sqlalchemy", "fastapi", "numpy", "structlog", "pydantic", "httpx2", "rich", "ruamel", "msgspec", "uvicorn")
HELP_SECONDS_MAX = 0.15


def _python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": "src", **variables}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pumasi.cli.main import run; run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = _python("-c", code)
    assert done.returncode == 0
    loaded = set(done.stderr.split("'")[1::2])
    assert "click" in loaded
    assert not {name for name in HEAVY if name in loaded}


def test_help_takes_less_processor_time_than_one_notices() -> None:
    """Processor time of the best of five: the machine may be busy with other things."""
    used = []
    for _ in range(5):
        before = os.times()
        assert _python("-m", "pumasi", "--help").returncode == 0
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) < HELP_SECONDS_MAX


def test_importing_the_package_is_light_and_gives_the_client() -> None:
    code = "import sys, pumasi; assert 'httpx2' not in sys.modules; from pumasi import Client; print(Client.__name__)"
    assert _python("-c", code).stdout == "Client\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(load_command(COMMANDS[name].target), click.Command)
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: pumasi {name}")


def test_groups_get_their_extensions(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(run([group, command, "--help"]) == 0 for group, command in EXTENSIONS)
    assert "--dry-run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qeue"], "there is no command 'qeue'; did you mean 'queue'?"),
        (["--nope"], "No such option '--nope'"),
        (["queue", "--nope"], "No such option '--nope'"),
        (["job"], "Missing argument 'JOB'"),
        (["drain", "x-00001"], "Missing option '--reason'"),
    ],
)
def test_misuse_is_one_line_a_hint_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert message in lines[0]
    assert lines[1].startswith("hint: 'pumasi")


def test_no_command_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage: pumasi" in capsys.readouterr().err


def test_nobody_there(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--server", "http://127.0.0.1:9", "whoami"]) == 7
    err = capsys.readouterr().err
    assert err.startswith("pumasi: cannot reach http://127.0.0.1:9: ")
    assert "hint: 'pumasi up' starts a server here" in err


def test_a_defect_is_one_line_too(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/jobs/7", Answer(200, {"id": 7}))
    result = pumasi("job", "7")
    assert result.code == 1
    assert result.err.startswith("pumasi: unexpected KeyError: ")
    assert "Traceback" not in result.err
    assert "Traceback" in pumasi("--debug", "job", "7").err


def _start(*arguments: str, server: ContractServer) -> "subprocess.Popen[bytes]":
    variables = {"PYTHONPATH": "src", "PUMASI_SERVER": server.address, "PUMASI_TOKEN": TOKEN}
    return subprocess.Popen(
        [sys.executable, "-m", "pumasi", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
    )


def test_interrupting_a_wait_is_130_and_quiet(alone: Path, server: ContractServer) -> None:
    process = _start("submit", "--wrap", "x", "-G1", "-A", "public", "--wait", server=server)
    deadline = time.monotonic() + 60
    while not server.sent("GET /v1/jobs/7") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"Submitted batch job 7\n", b"")


def test_a_closed_pipe_is_quiet(alone: Path, server: ContractServer) -> None:
    process = _start("queue", "--json", server=server)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
