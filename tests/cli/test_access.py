"""login, logout, whoami, token, principal, completion."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pumasi.cli.main import run
from tests.cli.conftest import RunCommand
from tests.cli.contract_server import TOKEN, WHOAMI, Answer, ContractServer, page, problem

SETUP = "pumasi_setup_" + "b" * 43


@pytest.fixture
def no_token(pumasi: RunCommand, monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """A command line that has not logged in."""
    monkeypatch.delenv("PUMASI_TOKEN")
    return pumasi


def test_login_stores_a_token_for_this_server_alone(
    no_token: RunCommand, server: ContractServer, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = no_token("login", server.address, stdin=f"{TOKEN}\n")
    assert result.code == 0
    assert TOKEN not in result.out + result.err
    credentials = alone / "credentials"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    no_token("whoami")
    assert server.requests[-1].headers["Authorization"] == f"Bearer {TOKEN}"
    monkeypatch.setenv("PUMASI_SERVER", server.address.replace("127.0.0.1", "localhost"))
    no_token("whoami")
    assert "Authorization" not in server.requests[-1].headers


def test_a_stored_server_is_used_without_variables(
    no_token: RunCommand, server: ContractServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_token("login", server.address, stdin=TOKEN)
    monkeypatch.delenv("PUMASI_SERVER")
    assert "Role       user at public/academia" in no_token("whoami").out
    assert no_token("logout").out == f"Forgot the token of {server.address}\n"
    assert no_token("logout").out == f"There was no token of {server.address}\n"


def test_a_setup_token_is_used_up_for_ones_own(no_token: RunCommand, server: ContractServer) -> None:
    server.give("POST /v1/setup", Answer(200, {"principal": "boss", "token": TOKEN}))
    assert no_token("login", "--setup", SETUP, "--principal", "boss", "--title", "The Boss").code == 0
    assert server.sent("POST /v1/setup")[0].body == {"token": SETUP, "principal": "boss", "title": "The Boss"}
    assert "Authorization" not in server.sent("POST /v1/setup")[0].headers
    assert server.requests[-1].headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_token_that_is_refused_is_not_stored(no_token: RunCommand, server: ContractServer, alone: Path) -> None:
    server.give("GET /v1/whoami", problem(401, "not-authenticated", "the token is not known"))
    result = no_token("login", stdin=TOKEN)
    assert result.code == 4
    assert "the token is not known" in result.err
    assert not alone.exists()
    assert no_token("login", stdin="hunter2").code == 2
    assert no_token("login", stdin=SETUP).code == 2


def test_tokens_others_can_read_are_not_used(no_token: RunCommand, server: ContractServer, alone: Path) -> None:
    no_token("login", stdin=TOKEN)
    os.chmod(alone / "credentials", 0o644)
    result = no_token("whoami")
    assert result.code == 4
    assert "chmod 600" in result.err


@pytest.mark.parametrize("text", ["server = 5", "server = ", 'server = "ftp://x"'])
def test_a_broken_configuration_is_a_clear_error(
    no_token: RunCommand, alone: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("PUMASI_SERVER")
    alone.mkdir(parents=True)
    (alone / "config.toml").write_text(text)
    result = no_token("whoami")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1


def test_tokens_and_principals(pumasi: RunCommand, server: ContractServer) -> None:
    token = {"id": "0123", "kind": "enrol", "principal": "", "site": "sejong", "expires_at": "2027-01-31T00:00:00.000Z"}
    server.give("GET /v1/tokens", page(token))
    server.give("POST /v1/tokens", Answer(201, {"id": "0123", "token": TOKEN}))
    server.give("DELETE /v1/tokens/0123", Answer(204))
    server.give("POST /v1/principals", Answer(201, {"id": "lee"}))
    server.give("GET /v1/principals", page({"id": "lee", "title": "이", "bindings": WHOAMI["principal"]["bindings"]}))
    assert pumasi("token", "list", "--no-headers").out.split()[:4] == ["0123", "enrol", "-", "sejong"]
    assert pumasi("token", "issue", "--kind", "enrol", "--site", "sejong", "--expires-in", "12h").out == f"{TOKEN}\n"
    assert pumasi("token", "revoke", "0123").code == 0
    assert pumasi("principal", "declare", "lee", "--role", "user", "--scope", "public/academia").code == 0
    assert server.sent("POST /v1/principals")[0].body["bindings"] == [{"role": "user", "scope": "public/academia"}]
    assert "user@public/academia" in pumasi("principal", "list").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "issue", "--kind", "enrol"),
        ("token", "issue", "--principal", "lee", "--site", "sejong"),
        ("token", "issue", "--expires-in", "soon"),
        ("principal", "declare", "lee", "--role", "king", "--scope", "public"),
        ("principal", "declare", "lee", "--role", "user"),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    pumasi: RunCommand, server: ContractServer, arguments: tuple[str, ...]
) -> None:
    assert pumasi(*arguments).code == 2
    assert server.requests == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_PUMASI_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "position", "found"),
    [
        ("pumasi qu", 1, "plain,queue"),
        ("pumasi submit --gpus-", 2, "plain,--gpus-per-node"),
        ("pumasi plan ap", 2, "plain,apply"),
    ],
)
def test_bash_completes_commands_and_options(words: str, position: int, found: str) -> None:
    variables = {"_PUMASI_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    done = subprocess.run(
        [sys.executable, "-m", "pumasi"],
        env={**os.environ, "PYTHONPATH": "src", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found in done.stdout.splitlines()
