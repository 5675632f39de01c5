"""Facts as server-sent events: complete, resumable, and only what one may see."""

import asyncio
import json
from typing import Any, NamedTuple

import pytest

from pumasi.api.auth import digest_of
from pumasi.api.bodies import EventsQuery
from pumasi.api.call import Call
from pumasi.api.routes.events import _Stream
from pumasi.control.commands import RevokeToken
from pumasi.model.access import Role
from tests.api.kit import SETTINGS, Api, assert_problem


class Received(NamedTuple):
    """A server-sent event."""

    seq: int
    type: str
    data: dict[str, Any]


def _parse(chunk: bytes) -> Received | None:
    lines = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if line and not line.startswith(":"))
    return Received(int(lines["id"]), lines["event"], json.loads(lines["data"])) if lines else None


PATIENCE_SECONDS = 30


def _follow(api: Api, token: str, after: int, count: int = 0) -> list[Received]:
    """The first `count` events a principal is sent after a fact; with 0, all until the stream has no more to say."""
    return api.on_loop(_collect(api, token, after, count))


async def _collect(api: Api, token: str, after: int, count: int = 0) -> list[Received]:
    digest = digest_of(token)
    principal = api.plane.state.principals[api.plane.state.tokens[digest].principal]
    call = Call(None, api.service, SETTINGS, principal, digest, query=EventsQuery())  # type: ignore[arg-type]
    stream, found = _Stream(call).bytes(after), []
    assert _parse(await anext(stream)) is None, "a stream begins with a keep-alive"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for chunk in stream:
                event = _parse(chunk)
                found += [event] if event else []
                if (count and len(found) == count) or (not count and event is None):
                    break
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return found


def test_every_fact_comes_once_in_order_with_its_number(api: Api) -> None:
    api.submit()
    api.cycle()
    events = _follow(api, api.token, 0, api.plane.state.seq)
    assert [event.seq for event in events] == list(range(1, api.plane.state.seq + 1))
    assert [event.type for event in events[-2:]] == ["JobSubmitted", "AttemptPlaced"]
    assert events[-1].data["type"] == "AttemptPlaced"
    middle = len(events) // 2
    assert _follow(api, api.token, middle, len(events) - middle) == events[middle:]


def test_what_is_private_is_left_out(api: Api) -> None:
    api.call("POST", "/v1/jobs", json={"name": "a", "queue": "north", "gpus": 1, "script": "canary-1",
             "environment": {"A": "canary-2"}}, headers={"Idempotency-Key": "canary-3"})  # fmt: skip
    sent = json.dumps([event.data for event in _follow(api, api.token, 0, api.plane.state.seq)])
    assert "canary" not in sent
    assert not [digest for digest in api.plane.state.tokens if digest in sent]


def test_one_sees_the_jobs_one_may_read_and_no_people(api: Api) -> None:
    token = api.principal("me", Role.USER, "north/lab")
    start = api.plane.state.seq
    mine, theirs = api.submit(), api.submit("", "south/lab")
    api.cycle()
    for job in (mine, theirs):
        api.call("POST", f"/v1/jobs/{job}/cancel")
    api.principal("someone", Role.USER, "south")
    events = _follow(api, token, start)
    assert [(event.type, event.data["job"]) for event in events] == [
        ("JobSubmitted", mine),
        ("AttemptPlaced", mine),
        ("StopOrdered", mine),
    ]


def test_those_at_a_site_see_what_is_placed_there_and_no_more_once_it_is_elsewhere(api: Api) -> None:
    token = api.principal("op", Role.SITE_OPERATOR, "site:north-dc")
    start = api.plane.state.seq
    here, there = api.submit(pools=["north-b200"]), api.submit("", "south/lab", pools=["south-b200"])
    api.cycle()
    for job in (here, there):
        api.call("POST", f"/v1/jobs/{job}/cancel")
    events = _follow(api, token, start)
    assert [(event.type, event.data["job"]) for event in events] == [("AttemptPlaced", here), ("StopOrdered", here)]


def test_the_stream_ends_when_the_service_leaves(api: Api) -> None:
    async def listen() -> list[Received]:
        waiting = asyncio.ensure_future(_collect(api, api.token, api.plane.durable_seq, 1))
        await asyncio.sleep(0.05)
        api.service.leave()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await waiting

    assert api.on_loop(listen()) == []


def test_events_of_ended_jobs_are_still_their_readers(api: Api) -> None:
    token = api.principal("me", Role.USER, "north/lab")
    mine, theirs = api.submit(held=True), api.submit("", "south/lab", held=True)
    start = api.plane.state.seq
    for job in (mine, theirs):
        api.call("POST", f"/v1/jobs/{job}/cancel")
    assert [event.data["job"] for event in _follow(api, token, start)] == [mine]


def test_new_facts_arrive_while_one_listens(api: Api) -> None:
    async def listen() -> list[Received]:
        waiting = asyncio.ensure_future(_collect(api, api.token, api.plane.durable_seq, 1))
        await asyncio.sleep(0.05)
        headers = {"Authorization": f"Bearer {api.token}"}
        body = {"name": "a", "queue": "north", "gpus": 1, "script": "x"}
        await api.http.request("POST", "/v1/jobs", json=body, headers=headers)
        return await waiting

    assert [event.type for event in api.on_loop(listen())] == ["JobSubmitted"]


def test_the_stream_ends_with_the_token(api: Api) -> None:
    token = api.principal("me", Role.AUDITOR, "*")
    api.do(RevokeToken(by="test", digest=digest_of(token)))
    digest = digest_of(token)
    principal = api.plane.state.principals["me"]
    call = Call(None, api.service, SETTINGS, principal, digest, query=EventsQuery())  # type: ignore[arg-type]

    async def read() -> list[bytes]:
        return [chunk async for chunk in _Stream(call).bytes(0)]

    assert api.on_loop(read()) == [b": keep-alive\n\n"]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 17, "999999"])
def test_places_in_the_log_that_are_none(api: Api, last: str) -> None:
    assert_problem(api.call("GET", "/v1/events", headers={"Last-Event-ID": last}), 422, "query-invalid")
