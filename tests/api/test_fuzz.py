"""Good requests with one thing made hostile: never a 5xx, never a traceback, and a refusal changes nothing."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumasi.api.app import ROUTES
from tests.api.kit import Api, job_body, small_plan

GOOD: dict[str, Any] = {
    "/v1/jobs": job_body(topology={"level": "rack", "required": True}, environment={"A": "b"}, gpu_models=["b200"]),
    "/v1/jobs/batch": {"jobs": [job_body(), job_body("south/lab")]},
    "/v1/jobs/check": job_body(sites=["north-dc"], cpu_arch="x86_64", slice="1g.23gb"),
    "/v1/setup": {"token": "x", "principal": "kim", "title": "Kim"},
    "/v1/principals": {"id": "kim", "title": "", "bindings": [{"role": "user", "scope": "north/lab"}]},
    "/v1/tokens": {"kind": "personal", "principal": "root", "lifetime_seconds": 60},
    "/v1/nodes/{node}/drain": {"reason": "fan"},
    "/v1/sites/{site}/power": {"kilowatts": 5, "notice_seconds": 60},
    "/v1/reservations": {
        "name": "rewiring", "purpose": "maintenance", "pool": "north-b200", "duration_seconds": 3600,
        "node_list": "north-b200-00001", "ignore_running": True, "reason": "new cables",
    },
    "/v1/fleet/plan": msgspec.to_builtins(small_plan()),
}  # fmt: skip
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53, -(2**53), "", " ", "\0", "\n", "../..", "*", "site:", "NaN", "٣",
    "x" * 70_000, "north", "\u202e", "'; --", [], {}, [[]], {"": ""}, {"a": {"b": {}}}, [None], [1, "a"],
]  # fmt: skip

# Streams do not end, and output is waited for when no agent is there to give it.
QUICK = [route for route in ROUTES if route.method == "GET" and not route.path.endswith(("/events", "/logs"))]

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_names = st.sampled_from(["north", "north/lab", "north-dc", "north-b200", "north-b200-00001", "1", "2"]) | _texts
_values = st.sampled_from(HOSTILE) | st.integers(-(2**53), 2**53) | _texts


@pytest.fixture(scope="module")
def world() -> Iterator[Api]:
    """A fleet with a few jobs."""
    with Api() as api:
        for gpus in (8, 32, 32):
            api.submit(gpus=gpus)
        api.cycle()
        yield api


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from _places(value, (*path, key))


def _with(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = _with(copy[path[0]], path[1:], value)
    return copy


def test_every_route_with_a_body_is_tried() -> None:
    assert {route.path for route in ROUTES if route.body is not None and route.action != "agent"} == set(GOOD)


@settings(max_examples=400)
@given(data=st.data())
def test_one_hostile_value_anywhere(world: Api, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from([route for route in ROUTES if route.path in GOOD and route.body is not None]))
    place = data.draw(st.sampled_from(list(_places(GOOD[route.path]))))
    body = json.dumps(_with(GOOD[route.path], place, data.draw(_values))).encode()
    before = world.digest()
    path = route.path.replace("{node}", "north-b200-00003")
    answer = world.call(route.method, path, content=body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert world.digest() == before


@settings(max_examples=300)
@given(data=st.data())
def test_any_query_and_any_path(world: Api, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(QUICK))
    path = route.path
    for name in ("{site}", "{pool}", "{node}", "{queue:path}", "{job}"):
        path = path.replace(name, quote(data.draw(_names), safe=""))
    fields = [field.encode_name for field in msgspec.structs.fields(route.query)]
    query = data.draw(st.dictionaries(st.sampled_from([*fields, "colour"]), _texts | st.just("1"), max_size=3))
    before = world.digest()
    answer = world.call("GET", path, params=query)
    assert answer.status_code < 500, answer.text
    assert world.digest() == before
