"""What sites' agents call: enrolment, signatures, replays, clones, and output on demand."""

import asyncio
import base64
import time
from typing import Any

import httpx2
import msgspec

from pumasi.model.access import TokenKind
from pumasi.protocol import signing
from pumasi.protocol.messages import LogChunk, SyncRequest, SyncResponse
from pumasi.protocol.signing import new_key
from tests.api.kit import Api, assert_problem

SYNC = "/v1/agent/sync"


def _sync(api: Api, caller: str = "north-dc", **changes: Any) -> httpx2.Response:
    """A sync signed by the agent of `caller`; `changes` make it wrong."""
    body = msgspec.json.encode(SyncRequest(after_seq=0))
    signed: dict[str, Any] = {
        "private_key": api.keys[caller].private,
        "site": caller,
        "generation": 1,
        "method": "POST",
        "path": SYNC,
        "body": body,
        "now_seconds": int(time.time()),
        "nonce": str(time.perf_counter_ns()),
    }
    header = signing.authorization(signing.sign(**(signed | changes)))
    return api.call("POST", SYNC, content=body, headers={"Authorization": header}, token=None)


def test_an_agent_is_told_to_start_what_was_placed_at_its_site(api: Api) -> None:
    job = api.submit()
    api.cycle()
    orders = msgspec.json.decode(_sync(api).content, type=SyncResponse)
    assert [order.run.job for order in orders.starts] == [job]
    assert orders.whole
    assert msgspec.json.decode(_sync(api, "south-dc").content, type=SyncResponse).starts == ()


def test_signatures_that_are_not_believed(api: Api) -> None:
    before = api.digest()
    for changes in (
        {"private_key": new_key().private},
        {"site": "atlantis"},
        {"path": "/v1/agent/enrol"},
        {"method": "GET"},
        {"body": b"{}"},
        {"now_seconds": int(time.time()) - 3600},
        {"now_seconds": int(time.time()) + 3600},
        {"private_key": api.keys["south-dc"].private},
    ):
        assert_problem(_sync(api, **changes), 401, "signature-invalid")
    for header in ("", "Pumasi-Agent", "Pumasi-Agent a.b.c", "Pumasi-Agent " + "x" * 9000, f"Bearer {api.token}"):
        answer = api.call("POST", SYNC, content=b"{}", headers={"Authorization": header}, token=None)
        assert_problem(answer, 401, "signature-invalid")
    assert api.digest() == before


def test_a_captured_request_is_not_taken_twice(api: Api) -> None:
    assert _sync(api, nonce="once").status_code == 200
    assert_problem(_sync(api, nonce="once"), 401, "replayed")
    assert _sync(api, "south-dc", nonce="once").status_code == 200


def test_an_older_generation_is_a_clone(api: Api) -> None:
    key = api.keys["north-dc"]
    api.enrol("north-dc")
    assert_problem(_sync(api, private_key=key.private), 401, "signature-invalid")
    assert_problem(_sync(api, generation=1), 403, "agent-superseded")
    assert_problem(_sync(api, generation=3), 403, "agent-superseded")
    assert _sync(api, generation=2).status_code == 200


def _start_waiting(api: Api, key: signing.KeyPair, body: bytes) -> asyncio.Future[httpx2.Response]:
    """A sync that the control plane holds open."""
    header = signing.authorization(
        signing.sign(key.private, "north-dc", 1, "POST", SYNC, body, int(time.time()), "waits")
    )

    async def start() -> asyncio.Future[httpx2.Response]:
        waiting = asyncio.ensure_future(api.http.request("POST", SYNC, content=body, headers={"Authorization": header}))
        await asyncio.sleep(0.1)
        return waiting

    waiting = api.on_loop(start())
    assert not waiting.done()
    return waiting


def _end_of(api: Api, waiting: asyncio.Future[httpx2.Response]) -> httpx2.Response:
    async def end() -> httpx2.Response:
        async with asyncio.timeout(15):
            return await waiting

    return api.on_loop(end())


def test_a_control_plane_that_leaves_holds_no_call(api: Api) -> None:
    body = msgspec.json.encode(SyncRequest(after_seq=api.plane.durable_seq, wait_seconds=20))
    waiting = _start_waiting(api, api.keys["north-dc"], body)
    api.run(api.service.leave)
    assert msgspec.json.decode(_end_of(api, waiting).content, type=SyncResponse).starts == ()


def test_an_agent_that_is_superseded_while_it_waits_gets_no_orders(api: Api) -> None:
    old = api.keys["north-dc"]
    body = msgspec.json.encode(SyncRequest(after_seq=api.plane.durable_seq, wait_seconds=20))
    waiting = _start_waiting(api, old, body)
    api.enrol("north-dc")
    api.submit()
    api.cycle()
    assert_problem(_end_of(api, waiting), 403, "agent-superseded")
    orders = msgspec.json.decode(_sync(api, generation=2).content, type=SyncResponse)
    assert len(orders.starts) == 1


def test_an_agent_enrols_once_with_its_token(api: Api) -> None:
    issued = api.call("POST", "/v1/tokens", json={"kind": "enrol", "site": "north-dc"}).json()
    key = new_key()
    body = _enrolment(key, "north-dc", issued["token"])
    before = api.digest()
    for wrong in (
        {**body, "proof": signing.sign_enrolment(new_key().private, "north-dc", issued["token"])},
        {**body, "public_key": new_key().public},
        {**body, "public_key": "short"},
    ):
        assert_problem(api.call("POST", "/v1/agent/enrol", json=wrong, token=None), 401, "signature-invalid")
    elsewhere = _enrolment(key, "south-dc", issued["token"])
    assert_problem(api.call("POST", "/v1/agent/enrol", json=elsewhere, token=None), 403, "token-used")
    assert api.digest() == before
    enrolled = api.call("POST", "/v1/agent/enrol", json=body, token=None)
    assert enrolled.json() == {"fleet": "small", "generation": 2}
    assert_problem(api.call("POST", "/v1/agent/enrol", json=body, token=None), 403, "token-used")
    api.keys["north-dc"] = key
    assert _sync(api, generation=2).status_code == 200


def _enrolment(key: signing.KeyPair, site: str, token: str) -> dict[str, str]:
    proof = signing.sign_enrolment(key.private, site, token)
    return {"site": site, "token": token, "public_key": key.public, "proof": proof}


def test_other_tokens_do_not_enrol(api: Api) -> None:
    for secret in (
        api.token,
        api.secret(TokenKind.SETUP),
        api.secret(TokenKind.ENROL, site="north-dc", expires_at_ms=1),
    ):
        body = _enrolment(new_key(), "north-dc", secret)
        assert_problem(api.call("POST", "/v1/agent/enrol", json=body, token=None), 403, "token-used")


def test_newer_agents_may_say_more(api: Api) -> None:
    body = b'{"after_seq": 0, "mood": "fine"}'
    header = signing.authorization(
        signing.sign(api.keys["north-dc"].private, "north-dc", 1, "POST", SYNC, body, int(time.time()), "n")
    )
    assert api.call("POST", SYNC, content=body, headers={"Authorization": header}, token=None).status_code == 200


def test_output_is_fetched_from_the_site_that_runs_the_job(api: Api) -> None:
    job = api.submit()
    api.cycle()

    async def read() -> httpx2.Response:
        url, headers = f"/v1/jobs/{job}/logs?offset=2", {"Authorization": f"Bearer {api.token}"}
        reading = asyncio.ensure_future(api.http.request("GET", url, headers=headers))
        order = await api.service.sync("north-dc", SyncRequest(after_seq=api.plane.durable_seq, wait_seconds=5))
        assert isinstance(order, SyncResponse)
        wanted = order.log_requests[0]
        data = base64.b64encode(b"llo").decode()
        chunk = LogChunk(id=wanted.id, data=data, size=5, complete=True)
        await api.service.sync("north-dc", SyncRequest(after_seq=order.seq, log_chunks=(chunk,)))
        return await reading

    row = api.on_loop(read()).json()
    assert base64.b64decode(row["data"]) == b"llo"
    assert (row["offset"], row["next_offset"], row["size"], row["complete"]) == (2, 5, 5, True)
