"""Where the client finds its server and token: arguments, environment, or files in the user's configuration folder.

`config.toml` holds `server = "..."`; `credentials` (mode 0600) holds one token per server, so that a token is never
sent to a server it was not issued by.
"""

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pumasi.client.errors import Denied, InvalidRequest

DEFAULT_SERVER = "http://127.0.0.1:7878"


class Connection(NamedTuple):
    """A server's address without trailing slash, and a token ("" for none)."""

    server: str
    token: str


def config_folder() -> Path:
    """`$XDG_CONFIG_HOME/pumasi`, by default `~/.config/pumasi`."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".config"
    return root / "pumasi"


def find_connection(server: str | None = None, token: str | None = None) -> Connection:
    """Server and token: what is given, else `PUMASI_SERVER` and `PUMASI_TOKEN`, else what is stored.

    :raises InvalidRequest: if a stored file cannot be read as it should.
    :raises Denied: if others than the user can read the stored tokens.
    """
    address = server or os.environ.get("PUMASI_SERVER") or stored_server() or DEFAULT_SERVER
    address = _checked_address(address)
    secret = token if token is not None else os.environ.get("PUMASI_TOKEN")
    return Connection(address, _read_credentials().get(address, "") if secret is None else secret)


def stored_server() -> str:
    """The server in `config.toml`, or ""."""
    value = _read_toml(config_folder() / "config.toml").get("server", "")
    if not isinstance(value, str):
        raise InvalidRequest("config.toml: server must be a string", code="config-invalid")
    return value


def store_connection(connection: Connection) -> Path:
    """Remember the server and its token. Returns the file with the token."""
    folder = config_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder / "config.toml", f"server = {_quoted(connection.server)}\n")
    return _write_credentials(_read_credentials() | {connection.server: connection.token})


def forget_token(server: str) -> bool:
    """Drop the stored token of `server`. Returns whether there was one."""
    tokens = _read_credentials()
    known = tokens.pop(server, None) is not None
    if known:
        _write_credentials(tokens)
    return known


def is_loopback(server: str) -> bool:
    """True if the address is this machine's own."""
    return urlsplit(server).hostname in {"127.0.0.1", "localhost", "::1"}


def _checked_address(address: str) -> str:
    address = address.rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", address):
        raise InvalidRequest(f"the server must be an http or https address, not {address!r}", code="server-invalid")
    if address.startswith("http://") and not is_loopback(address):
        raise InvalidRequest(f"{address} would carry tokens in the clear; use https", code="server-invalid")
    return address


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path}: {error}", code="config-invalid") from error


def _read_credentials() -> dict[str, str]:
    path = config_folder() / "credentials"
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Denied(f"others can read {path}; make it yours alone: chmod 600 {path}", code="credentials-exposed")
    tokens = _read_toml(path).get("tokens", {})
    if not isinstance(tokens, dict) or not all(isinstance(value, str) for value in tokens.values()):
        raise InvalidRequest(f"{path}: expected a table [tokens] of strings", code="config-invalid")
    return tokens


def _write_credentials(tokens: dict[str, str]) -> Path:
    lines = [f"{_quoted(server)} = {_quoted(token)}" for server, token in sorted(tokens.items())]
    return _write(config_folder() / "credentials", "\n".join(["[tokens]", *lines, ""]))


def _write(path: Path, text: str) -> Path:
    """Replace a file in one step; it is never readable by others, not even while it is written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
    return path


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string is a TOML basic string
