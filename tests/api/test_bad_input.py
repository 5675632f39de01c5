"""Hostile and mistaken input: each gets the right 4xx problem, at once, and changes nothing."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.api import strict_json
from pumasi.api.app import ROUTES
from pumasi.api.bodies import JobBody, spec_of
from pumasi.api.shapes import convert
from pumasi.model.fleet import Queue, Quota, Site
from pumasi.model.jobs import JobSpec
from tests.api.kit import Api, assert_problem, job_body, small_plan, small_pool


def _job(**changes: Any) -> bytes:
    return json.dumps(job_body(**changes)).encode()


def _raw(field: str, literal: str) -> bytes:
    """A job whose `field` is written exactly so."""
    document = job_body()
    document.pop(field, None)
    return json.dumps(document).encode()[:-1] + f', "{field}": {literal}}}'.encode()


NOT_JSON = {
    "NaN": _raw("gpus", "NaN"),
    "infinity": _raw("gpus", "-Infinity"),
    "1e999": _raw("gpus", "1e999"),
    "fraction": _raw("gpus", "8.0"),
    "exponent": _raw("gpus", "1e1"),
    "2^63": _raw("gpus", str(2**63)),
    "2^53 + 1": _raw("priority", str(-(2**53) - 1)),
    "a million digits": _raw("gpus", "9" * 60_000),
    "duplicate keys": _raw("name", '"a", "name": "b"'),
    "duplicate keys, escaped": _raw("name", '"a", "\\u006eame": "b"'),
    "lone surrogate": _raw("name", '"\\ud800"'),
    "lone surrogate in a key": _raw("environment", '{"\\udfff": "x"}'),
    "not UTF-8": b'{"name": "\xff"}',
    "UTF-16": json.dumps(job_body()).encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf" + _job(),
    "cut short": _job()[:-1],
    "two documents": _job() + _job(),
    "deep arrays": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep and unclosed": b"[" * 60_000,
    "deep inside a field": _raw("environment", "[" * 40 + "]" * 40),
    "brackets that do not match": _raw("environment", "[}" * 40),
}

INVALID = {
    "-1": (_job(gpus=-1), "gpus"),
    "0": (_job(gpus=0), "gpus"),
    "true as int": (_job(gpus=True), "gpus"),
    "1_0": (_job(gpus="1_0"), "gpus"),
    "Arabic digits": (_job(gpus="٣"), "gpus"),
    "null": (_job(gpus=None), "gpus"),
    "too many GPUs": (_job(gpus=2**40), "gpus"),
    "negative time": (_job(time_limit_seconds=-1), "time_limit_seconds"),
    "a name with a newline": (_job(name="a\nb"), "name"),
    "a name ending with a newline": (_job(name="a\n"), "name"),
    "a name with an escape sequence": (_job(name="\x1b[31mred"), "name"),
    "a name with a line separator": (_job(name="a\u2028b"), "name"),
    "an empty name": (_job(name=""), "name"),
    "a long name": (_job(name="x" * 201), "name"),
    "an unknown field": (_job(gpu=8), "gpu"),
    "an unknown field inside": (_job(topology={"levle": "rack"}), "topology.levle"),
    "an unknown level": (_job(topology={"level": "galaxy"}), "topology.level"),
    "a script with NUL": (_job(script="a\0b"), "script"),
    "an empty script": (_job(script=""), "script"),
    "a variable with =": (_job(environment={"A=B": "1"}), "environment"),
    "a path for a queue": (_job(queue="../../etc"), "queue"),
    "a list": (b"[]", ""),
    "a text": (b'"job"', ""),
}

REFUSED = {
    "an unknown queue": (_job(queue="north/nowhere"), "queue-unknown"),
    "an unknown GPU model": (_job(gpu_models=["h9000"]), "gpu-model-unknown"),
    "an unknown site": (_job(sites=["atlantis"]), "site-unknown"),
    "an unknown pool": (_job(pools=["no-such-pool"]), "pool-unknown"),
    "a gang larger than the fleet": (_job(gpus=65), "never-admissible"),
    "a gang no node holds evenly": (_job(gpus=16, gpus_per_node=16), "never-admissible"),
    "a begin long past": (_job(begin_at_ms=1), "begin-in-the-past"),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_strict_json(api: Api, name: str) -> None:
    before = api.digest()
    answer = api.call("POST", "/v1/jobs", content=NOT_JSON[name])
    assert_problem(answer, 400, "body-not-json")
    assert api.digest() == before


@pytest.mark.parametrize("name", INVALID)
def test_what_has_the_wrong_shape(api: Api, name: str) -> None:
    body, path = INVALID[name]
    before = api.digest()
    problem = assert_problem(api.call("POST", "/v1/jobs", content=body), 422, "body-invalid")
    assert [error["path"].startswith(path) for error in problem["errors"]] == [True]
    assert api.digest() == before


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_fleet_refuses(api: Api, name: str) -> None:
    body, code = REFUSED[name]
    before = api.digest()
    assert_problem(api.call("POST", "/v1/jobs", content=body), 422, code)
    batch = b'{"jobs": [' + _job() + b"," + body + b"]}"
    problem = assert_problem(api.call("POST", "/v1/jobs/batch", content=batch), 422, code)
    assert problem["errors"][0]["path"].startswith("jobs.1.")
    assert api.digest() == before


def test_everything_wrong_is_said_at_once(api: Api) -> None:
    body = {"jobs": [job_body(gpus=-1, name="a\nb", colour="red"), job_body(), {"queue": "north/lab"}]}
    problem = assert_problem(api.call("POST", "/v1/jobs/batch", json=body), 422, "body-invalid")
    assert [error["path"] for error in problem["errors"]] == [
        "jobs.0.name",
        "jobs.0.gpus",
        "jobs.0.colour",
        "jobs.2.name",
        "jobs.2.script",
        "jobs.2.gpus",
    ]


@pytest.mark.parametrize("name", sorted({*NOT_JSON}))
def test_every_route_that_takes_a_body_reads_it_strictly(api: Api, name: str) -> None:
    before = api.digest()
    for route in (each for each in ROUTES if each.body is not None and each.action != "agent"):
        path = route.path.replace("{node}", "north-b200-00001").replace("{site}", "north-dc")
        answer = api.call(route.method, path, content=NOT_JSON[name])
        assert_problem(answer, 400, "body-not-json")
    assert api.digest() == before


@pytest.mark.parametrize("count", [0, 10_001])
def test_batches_have_a_size(api: Api, count: int) -> None:
    body = b'{"jobs": [' + b",".join([b"{}"] * count) + b"]}"
    assert_problem(api.call("POST", "/v1/jobs/batch", content=body), 422, "body-invalid")


def test_a_body_that_is_too_large_is_not_read_to_its_end(api: Api) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(1024 * 16):  # 1 GiB, if anybody wanted it
            sent += 1
            yield b" " * (64 * 1024)

    assert_problem(api.call("POST", "/v1/jobs", content=endless()), 413, "body-too-large")
    assert sent <= 3


def test_a_body_that_says_it_is_too_large_is_not_read_at_all(api: Api) -> None:
    answer = api.call("POST", "/v1/jobs", content=b" ", headers={"Content-Length": str(2**30)})
    assert_problem(answer, 413, "body-too-large")


def test_media_types_other_than_json_are_refused(api: Api) -> None:
    form = api.call(
        "POST", "/v1/jobs", content=b"gpus=8", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert_problem(form, 415, "media-type-unsupported")


def test_a_missing_body_and_one_too_many(api: Api) -> None:
    job = api.submit()
    assert_problem(api.call("POST", "/v1/jobs"), 422, "body-missing")
    assert_problem(api.call("POST", f"/v1/jobs/{job}/cancel", json={"force": True}), 422, "body-invalid")
    assert api.call("POST", f"/v1/jobs/{job}/cancel", json={}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=1_0", "limit=1e1", "limit=5.0", "limit=true", "limit=%D9%A3", "limit=0x10",
        "limit=99999", "limit=" + "9" * 5000, "limit=1&limit=2", "cursor=%00", "cursor=abc", "cursor=IiI",
        "cursor=W1tbW1tb", "colour=red", "state=sleeping", "state=live&state=x",
    ],
)  # fmt: skip
def test_queries_are_read_strictly(api: Api, query: str) -> None:
    assert_problem(api.call("GET", f"/v1/jobs?{query}"), 422, "query-invalid")


@pytest.mark.parametrize("number", ["0", "-1", "1_0", "01", "1e3", "%D9%A3", "99999999999999999999", "9" * 300, "x"])
def test_job_numbers_are_numbers(api: Api, number: str) -> None:
    for _ in range(15):
        api.submit()
    assert_problem(api.call("GET", f"/v1/jobs/{number}"), 404, "job-unknown")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
def test_idempotency_keys_are_visible_ascii(api: Api, key: str) -> None:
    answer = api.call("POST", "/v1/jobs", json=job_body(), headers={"Idempotency-Key": key.encode()})
    assert_problem(answer, 422, "idempotency-key-invalid")


def test_paths_and_methods_that_are_not_served(api: Api) -> None:
    assert_problem(api.call("GET", "/v1/nothing"), 404, "not-found")
    assert_problem(api.call("PATCH", "/v1/jobs"), 405, "method-not-allowed")
    assert_problem(api.call("GET", "/docs"), 404, "not-found")


# --- plans -----------------------------------------------------------------------------------------------------------


def _plan(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = msgspec.to_builtins(small_plan(**changes))
    return plan


def _queues(*extra: Queue) -> tuple[Queue, ...]:
    return (*small_plan().queues, *extra)


_RULE: dict[str, Any] = {"id": "stay", "title": "", "not_at": {"home": False}}


def _ruled(*rules: dict[str, Any]) -> dict[str, Any]:
    return _plan() | {"policy": {"rules": list(rules)}}


BAD_PLANS = {
    "quotas that do not add up": (
        _plan(queues=_queues(Queue(id="north/big", quotas={"north-b200": Quota(nominal=17)}))),
        "plan-invalid",
        "queues.north.quotas.north-b200",
    ),
    "entitlements that do not add up": (
        _plan(pools=(small_pool("north", entitlements={"north": 31}), small_pool("south"))),
        "plan-invalid",
        "pools.north-b200.entitlements",
    ),
    "a negative quota": (
        _plan(queues=_queues(Queue(id="north/big", quotas={"north-b200": Quota(nominal=-1)}))),
        "plan-invalid",
        "queues.north/big.quotas.north-b200",
    ),
    "a queue without a parent": (_plan(queues=_queues(Queue(id="north/a/b"))), "plan-invalid", "queues.north/a/b"),
    "a queue declared twice": (_plan(queues=_queues(Queue(id="north/lab"))), "plan-invalid", "queues.north/lab"),
    "a site of an unknown operator": (
        _plan(sites=(*small_plan().sites, Site(id="x", title="x", operator="nobody"))),
        "plan-invalid",
        "sites.x.operator",
    ),
    "a half-life of nothing": (
        _plan() | {"policy": {"usage_half_life_seconds": 0}},
        "plan-invalid",
        "policy.usage_half_life_seconds",
    ),
    "two rules of one name": (_ruled(_RULE, _RULE), "plan-invalid", "policy.rules.stay"),
    "a rule about an unknown queue": (
        _ruled({**_RULE, "work": {"queues": ["north/none"]}}),
        "plan-invalid",
        "policy.rules.stay.work.queues",
    ),
    "a rule for an unknown site": (
        _ruled({**_RULE, "not_at": {"sites": ["moon"]}}),
        "plan-invalid",
        "policy.rules.stay.sites",
    ),
    "a rule that names no place": (_ruled({**_RULE, "not_at": {}}), "plan-invalid", "policy.rules.stay"),
    "a rule for both": (_ruled({**_RULE, "only_at": {"home": True}}), "plan-invalid", "policy.rules.stay"),
    "a rule from no day": (_ruled({**_RULE, "from_day": "soon"}), "plan-invalid", "policy.rules.stay"),
    "a rule that ends before it begins": (
        _ruled({**_RULE, "from_day": "2027-01-02", "until_day": "2027-01-01"}),
        "plan-invalid",
        "policy.rules.stay",
    ),
    "an unknown key deep inside": (
        _plan() | {"pools": [{**pool, "colour": "red"} for pool in _plan()["pools"]]},
        "body-invalid",
        "pools.0.colour",
    ),
    "a bool for a number": (
        _plan() | {"pools": [{**pool, "nodes": True} for pool in _plan()["pools"]]},
        "body-invalid",
        "pools.0.nodes",
    ),
}

CONTRADICTIONS = {
    "a pool that is gone": (
        _plan(pools=(small_pool("north"),), queues=(Queue(id="north"), Queue(id="south"))),
        "pools",
    ),
    "a pool that shrinks": (
        _plan(pools=(small_pool("north", nodes=3, entitlements={"north": 24}), small_pool("south"))),
        "pools.north-b200.nodes",
    ),
    "a pool that leaves service under running jobs": (
        _plan(pools=(small_pool("north", stages={"ordered": "2025-01-01"}), small_pool("south"))),
        "pools.north-b200.stages",
    ),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plans_that_contradict_themselves(api: Api, name: str) -> None:
    plan, code, path = BAD_PLANS[name]
    before = api.digest()
    problem = assert_problem(api.call("PUT", "/v1/fleet/plan", json=plan), 422, code)
    assert problem["errors"][0]["path"] == path
    assert api.digest() == before


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_plans_that_contradict_the_running_fleet(api: Api, name: str) -> None:
    plan, path = CONTRADICTIONS[name]
    plan.pop("queues") if name == "a pool that shrinks" else None
    api.submit()
    api.cycle()
    before = api.digest()
    body = {**plan, "queues": [{"id": queue.id} for queue in small_plan().queues]}
    answer = api.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=body)
    problem = assert_problem(answer, 409, "plan-contradicts-state")
    assert problem["errors"][0]["path"].startswith(path)
    assert api.digest() == before


# --- the reader itself -----------------------------------------------------------------------------------------------

_documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(_documents)
def test_any_document_comes_back_as_it_went(document: Any) -> None:
    assert strict_json.read(json.dumps(document).encode()) == document
    assert strict_json.read(json.dumps(document, ensure_ascii=False).encode()) == document


@given(st.binary(max_size=200) | st.text('[]{}",:\\u0dD8 1eE.-+nulltrue', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        document = strict_json.read(body)
    except strict_json.NotStrictJson as error:
        refusal = str(error)
    else:
        assert json.loads(body) == document
        return
    assert 0 < len(refusal) < 300


def test_a_string_full_of_brackets_is_not_deep() -> None:
    script = "[" * 1000 + '"' + "\\" + "}" * 50
    assert strict_json.read(json.dumps({"script": script, "more": [[]] * 40}).encode())["script"] == script


def test_jobs_take_every_field_of_the_model() -> None:

    spec = JobSpec(name="a", queue="north", script="x", gpus=3, time_limit_seconds=60, sites=("s",), begin_at_ms=7)
    body = convert(msgspec.to_builtins(spec), JobBody)
    assert spec_of(body, 5) == spec
    assert set(JobBody.__struct_fields__) == {*JobSpec.__struct_fields__, "held"}
