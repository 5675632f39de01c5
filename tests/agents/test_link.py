"""The agent's calls, against servers that answer oddly."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pumasi.agents.backoff import Backoff
from pumasi.agents.identity import Identity
from pumasi.agents.link import Link, LinkRefused, LinkTrouble
from pumasi.protocol import signing
from pumasi.protocol.messages import SyncRequest, SyncResponse

IDENTITY = Identity("sejong", signing.new_key().private, "test", 1)
REQUEST = SyncRequest(after_seq=0)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that gives every call the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def sync(server: str) -> SyncResponse:
    async def call() -> SyncResponse:
        link = Link(server)
        try:
            return await link.sync(IDENTITY, REQUEST)
        finally:
            await link.close()

    return asyncio.run(call())


def test_an_answer_is_read() -> None:
    with answering(200, b'{"seq": 4, "whole": true, "unheard_of": 1}') as server:
        assert sync(server) == SyncResponse(seq=4, whole=True)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"\xff\xfe"),
        (200, b'{"seq": "4", "whole": true}'),
        (200, b"[" * 100_000),
        (302, b""),
        (408, b"{}"),
        (429, b'{"code": "too-many"}'),
        (500, b"\xff"),
        (503, b'{"code": 7}'),
    ],
)
def test_what_may_pass_is_trouble(status: int, body: bytes) -> None:
    with answering(status, body) as server, pytest.raises(LinkTrouble):
        sync(server)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, b'{"code": "agent-superseded", "detail": "a newer agent speaks"}', "agent-superseded"),
        (401, b'{"title": "no"}', "401"),
        (422, b"nonsense", "422"),
    ],
)
def test_what_will_not_pass_is_a_refusal_with_its_code(status: int, body: bytes, code: str) -> None:
    with answering(status, body) as server, pytest.raises(LinkRefused) as refusal:
        sync(server)
    assert refusal.value.code == code


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "http://[", "ftp://x", "nonsense", ""])
def test_a_server_that_is_not_there_is_trouble(server: str) -> None:
    with pytest.raises(LinkTrouble):
        sync(server)


def test_waits_grow_to_a_bound_and_start_over() -> None:
    backoff = Backoff()
    waits = [backoff.failed() for _ in range(12)]
    assert all(0.1 <= wait <= 15 for wait in waits)
    assert min(waits[-3:]) >= 7.5
    backoff.succeeded()
    assert backoff.failed() <= 0.2
