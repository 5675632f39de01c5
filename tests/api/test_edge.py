"""What is around every request: trace ids, headers, the access log, and answers when we ourselves fail."""

import json

import pytest
from structlog.testing import capture_logs

from pumasi.ports.event_log import LogBroken
from tests.api.kit import Api, assert_problem, job_body


def test_trace_ids_are_taken_from_the_caller_or_made(api: Api) -> None:
    sent = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{sent}-00f067aa0ba902b7-01"}
    assert api.call("GET", "/healthz", headers=headers).headers["x-trace-id"] == sent
    for bad in ("00-xyz-1-01", "", sent, f"00-{sent.upper()}-00f067aa0ba902b7-01"):
        made = {api.call("GET", "/healthz", headers={"traceparent": bad}).headers["x-trace-id"] for _ in range(2)}
        assert len(made) == 2
        assert all(len(each) == 32 for each in made)


@pytest.mark.parametrize("path", ["/healthz", "/v1/fleet", "/nothing", "/v1/jobs/0"])
def test_every_answer_has_the_headers_browsers_heed(api: Api, path: str) -> None:
    headers = api.call("GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_the_access_log_has_a_bounded_line_per_request_and_no_secret(api: Api) -> None:
    with capture_logs() as lines:
        job = api.submit(script="echo canary-script", environment={"A": "canary-value"})
        api.call("GET", f"/v1/jobs/{job}?x=canary-query")
        api.call("GET", "/v1/" + "canary-path" * 500, token="canary-token")
    assert [(line["method"], line["route"], line["status"], line["principal"]) for line in lines] == [
        ("POST", "/v1/jobs", 201, "root"),
        ("GET", "/v1/jobs/{job}", 422, "root"),
        ("GET", "unmatched", 404, ""),
    ]
    text = json.dumps(lines)
    assert "canary" not in text
    assert api.token not in text


def test_our_own_failure_is_a_problem_without_a_traceback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.plane, "ledger", None)
    with capture_logs() as lines:
        problem = assert_problem(api.call("GET", "/v1/usage"), 500, "internal-error")
    assert "ledger" not in json.dumps(problem)
    failure = next(line for line in lines if line["event"] == "request_failed")
    assert failure["trace_id"] == problem["trace_id"]
    assert failure["exc_info"]
    assert api.call("GET", "/healthz").status_code == 200


def test_a_broken_log_stops_writes_and_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise LogBroken("the disk is full")

    assert api.call("GET", "/readyz", token=None).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(api.store, "append", fail)
        assert_problem(api.call("POST", "/v1/jobs", json=job_body()), 503, "log-broken")
        assert_problem(api.call("POST", "/v1/jobs", json=job_body()), 503, "log-broken")
    assert_problem(api.call("GET", "/readyz", token=None), 503, "not-ready")
    assert api.call("GET", "/healthz", token=None).status_code == 200
