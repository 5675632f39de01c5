"""The Python client: what it sends, what it repeats, and what it raises."""

import pytest

from pumasi import Client
from pumasi.client.client import PAGE_ROWS
from pumasi.client.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    PumasiError,
    Refused,
    ServerFault,
    TimedOut,
    Unreachable,
)
from pumasi.model.jobs import JobSpec, Level, Topology
from tests.cli.contract_server import JOB, TOKEN, Answer, ContractServer, page, problem

SPEC = JobSpec(
    name="n",
    queue="public",
    script="#!/bin/sh\n",
    gpus=8,
    time_limit_seconds=60,
    topology=Topology(level=Level.RACK, required=True),
)


def test_submits_a_spec_or_many(client: Client, server: ContractServer) -> None:
    server.give("POST /v1/jobs/batch", Answer(201, {"jobs": [1, 2]}))
    assert client.submit(SPEC) == 7
    assert client.submit([SPEC, {"name": "m"}], held=True) == [1, 2]
    body = server.sent("POST /v1/jobs")[0].body
    assert body["topology"] == {"level": "rack", "required": True, "spread": False}
    assert "requeue" not in body
    assert [job["held"] for job in server.sent("POST /v1/jobs/batch")[0].body["jobs"]] == [True, True]


def test_each_submission_has_a_key_of_its_own_unless_given(client: Client, server: ContractServer) -> None:
    client.submit(SPEC)
    client.submit(SPEC)
    client.submit(SPEC, key="mine")
    keys = [request.headers["Idempotency-Key"] for request in server.sent("POST /v1/jobs")]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_a_submission_survives_lost_answers(client: Client, server: ContractServer, pauses: list[float]) -> None:
    server.give(
        "POST /v1/jobs", Answer(0), Answer(502), Answer(429, headers=(("Retry-After", "3"),)), Answer(201, {"id": 5})
    )
    assert client.submit(SPEC) == 5
    assert len({request.headers["Idempotency-Key"] for request in server.sent("POST /v1/jobs")}) == 1
    assert pauses[2] >= 3
    assert all(0 < pause <= 10 for pause in pauses)


def test_it_gives_up(client: Client, server: ContractServer, pauses: list[float]) -> None:
    server.give("GET /v1/fleet", Answer(503))
    with pytest.raises(Unreachable):
        client.fleet()
    assert len(server.sent("GET /v1/fleet")) == 4
    assert len(pauses) == 3


@pytest.mark.parametrize("answer", [Answer(0), Answer(503)])
def test_what_may_not_be_repeated_is_not(client: Client, server: ContractServer, answer: Answer) -> None:
    server.give("POST /v1/jobs/7/cancel", answer)
    with pytest.raises(Unreachable):
        client.cancel(7)
    assert len(server.sent("POST /v1/jobs/7/cancel")) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "json-invalid", InvalidRequest),
        (401, "not-authenticated", Denied),
        (403, "not-authorised", Denied),
        (404, "job-unknown", NotFound),
        (409, "job-ended", Conflict),
        (413, "body-too-large", InvalidRequest),
        (422, "body-invalid", InvalidRequest),
        (422, "queue-unknown", NotFound),
        (422, "never-admissible", Refused),
        (500, "internal", ServerFault),
    ],
)
def test_problems_are_errors_by_kind(
    client: Client, server: ContractServer, status: int, code: str, kind: type[PumasiError]
) -> None:
    errors = [{"path": "gpus", "problem": "too many"}]
    server.give("GET /v1/jobs/7", problem(status, code, "no", errors=errors, trace_id="t1"))
    with pytest.raises(PumasiError) as caught:
        client.job(7)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.status, error.detail, error.trace_id) == (code, status, "no", "t1")
    assert error.errors == (("gpus", "too many"),)


def test_an_answer_that_is_no_problem_document(client: Client, server: ContractServer) -> None:
    server.give("GET /v1/jobs/7", Answer(418, b"<html>"))
    with pytest.raises(InvalidRequest, match="the server answered 418"):
        client.job(7)


@pytest.mark.parametrize("value", ["\ud800", float("nan")])
def test_what_cannot_be_sent_is_not(client: Client, server: ContractServer, value: object) -> None:
    with pytest.raises(InvalidRequest, match="cannot be sent as JSON"):
        client.submit({"name": value})
    assert server.requests == []


def test_names_stay_where_they_belong(client: Client, server: ContractServer) -> None:
    server.give("DELETE /v1/tokens/..%2Fjobs", Answer(204))
    client.revoke_token("../jobs")
    list(client.jobs(user="\ud800&limit=1"))
    assert server.sent("GET /v1/jobs")[0].query["user"] == ["?&limit=1"]


def test_a_server_that_is_something_else(client: Client, server: ContractServer) -> None:
    server.give("GET /v1/fleet", Answer(200, b"<html>hello"))
    with pytest.raises(ServerFault, match="not a Pumasi server"):
        client.fleet()


def test_lists_are_read_to_the_end_or_to_the_limit(client: Client, server: ContractServer) -> None:
    server.give("GET /v1/jobs", page({"id": 3}, {"id": 2}, cursor="c"), page({"id": 1}))
    assert [job["id"] for job in client.jobs(state=["waiting", "held"], user=None)] == [3, 2, 1]
    first = server.sent("GET /v1/jobs")[0].query
    assert first == {"state": ["waiting", "held"], "limit": [str(PAGE_ROWS)]}
    server.give("GET /v1/jobs", page({"id": 3}, {"id": 2}, cursor="c"))
    assert len(list(client.jobs(limit=2))) == 2


def test_waits_until_a_job_has_ended(client: Client, server: ContractServer, pauses: list[float]) -> None:
    server.give("GET /v1/jobs/7", Answer(200, JOB), Answer(200, JOB), Answer(200, {**JOB, "state": "succeeded"}))
    assert client.wait(7)["state"] == "succeeded"
    assert pauses == sorted(pauses)
    server.give("GET /v1/jobs/7", Answer(200, JOB))
    with pytest.raises(TimedOut, match="job 7 is still active"):
        client.wait(7, timeout_seconds=0.05)


def test_a_token_is_sent_to_its_server_and_no_redirect_is_followed(client: Client, server: ContractServer) -> None:
    server.give("GET /v1/fleet", Answer(307, None, (("Location", "/v1/whoami"),)))
    with pytest.raises(PumasiError):
        client.fleet()
    assert [request.path for request in server.requests] == ["/v1/fleet"]
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("address", ["file:///etc/passwd", "pumasi.example", "http://", "https://a b", "http://u@h"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(InvalidRequest, match="http or https"):
        Client(address, TOKEN)


def test_no_token_travels_in_the_clear() -> None:
    with pytest.raises(InvalidRequest, match="in the clear"):
        Client("http://pumasi.example", TOKEN)
    assert Client("https://pumasi.example/", TOKEN).connection.server == "https://pumasi.example"
