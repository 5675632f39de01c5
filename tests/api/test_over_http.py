"""The same API on a real socket: what only a wire can show."""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
import pytest

from pumasi.client.client import Client
from tests.api.kit import Api, job_body, served

CHUNK = 64 * 1024
GIBIBYTE_CHUNKS = 16 * 1024


def _refused_early(api: Api, url: str, headers: str) -> tuple[bytes, int]:
    """Send a body of 1 GiB until the server has had enough; its answer and how many chunks went out."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as wire:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n{headers}\r\n\r\n"
        wire.sendall(head.encode())
        chunk = b"%x\r\n" % CHUNK + b" " * CHUNK + b"\r\n" if "chunked" in headers else b" " * CHUNK
        sent = 0
        try:
            while sent < GIBIBYTE_CHUNKS:
                wire.sendall(chunk)
                sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return wire.recv(65536), sent
        except ConnectionResetError:
            return b"", sent


@pytest.mark.parametrize("headers", ["Transfer-Encoding: chunked", f"Content-Length: {2**30}"])
def test_a_gibibyte_is_cut_off_early_and_changes_nothing(api: Api, headers: str) -> None:
    before = api.digest()
    with served(api) as url:
        answer, sent = _refused_early(api, url, headers)
        assert httpx2.get(f"{url}/healthz").status_code == 200
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
    assert sent < GIBIBYTE_CHUNKS // 20
    assert api.digest() == before


def test_a_polite_sender_of_too_much_reads_why(api: Api) -> None:
    with served(api) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.putrequest("POST", "/v1/jobs")
        connection.putheader("Authorization", f"Bearer {api.token}")
        connection.putheader("Content-Length", str(2**30))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "body-too-large")
        connection.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/fleet HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \x00\r\n\r\n",
        b"GET /v1/fleet HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_http_is_answered_with_400(api: Api, raw: bytes) -> None:
    with served(api) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as wire:
            wire.sendall(raw)
            wire.shutdown(socket.SHUT_WR)
            assert wire.recv(100).startswith(b"HTTP/1.1 4")


def test_the_same_key_from_many_at_once_makes_the_jobs_once(api: Api) -> None:
    with served(api) as url, ThreadPoolExecutor(8) as pool:

        def submit(_: int) -> int:
            with Client(url, api.token) as client:
                return client.submit(job_body(), key="the-one")

        assert set(pool.map(submit, range(24))) == {1}
    assert api.plane.state.next_job == 2


def test_the_client_and_the_api_speak_the_same_language(api: Api) -> None:
    with served(api) as url, Client(url, api.token) as client:
        jobs = client.submit([job_body(name=f"job-{number}", held=True) for number in range(3)])
        assert [job["id"] for job in client.jobs(state="held")] == jobs[::-1]
        client.release(jobs[0])
        client.cancel(jobs[1])
        assert client.why(jobs[2])["note"]
        assert client.check(job_body())["admissible"]
        assert client.fleet()["gpus_total"] == 64
        assert [pool["id"] for pool in client.pools()] == ["north-b200", "south-b200"]
        assert client.shares()["loans"] == []
        assert client.usage(by="owner")["total"]["gpu_milliseconds"] == 0
        client.drain("north-b200-00001", "fan")
        client.resume("north-b200-00001")
        events = client.events(0)
        assert [next(events).seq for _ in range(5)] == [1, 2, 3, 4, 5]
        events.close()  # type: ignore[attr-defined]
