"""A client with a server that speaks the contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pumasi import Client
from tests.cli.contract_server import TOKEN, ContractServer


@pytest.fixture
def server() -> Iterator[ContractServer]:
    """A server that speaks the contract."""
    contract_server = ContractServer()
    contract_server.start()
    yield contract_server
    contract_server.stop()


@pytest.fixture
def pauses() -> list[float]:
    """How long the client wanted to wait, in seconds, each time."""
    return []


@pytest.fixture
def client(
    server: ContractServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Client]:
    """A client that notes its pauses instead of sleeping."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with Client(server.address, TOKEN, sleep=pauses.append, timeout_seconds=5) as found:
        yield found
