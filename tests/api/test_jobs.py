"""Submitting, listing and controlling jobs over the API."""

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumasi.api.routes import jobs as jobs_routes
from pumasi.control.commands import HearSite
from pumasi.model.access import Role
from pumasi.model.jobs import Outcome
from pumasi.protocol.messages import RunEnded, RunKey, RunStarted
from tests.api.kit import Api, assert_problem, job_body


def _start(api: Api, job: int) -> None:
    api.cycle()
    api.do(HearSite(by="site:north-dc", site="north-dc", reports=(RunStarted(run=RunKey(job, 1)),)))


def _end(api: Api, job: int, exit_code: int = 0, attempt: int = 1) -> None:
    ended = RunEnded(run=RunKey(job, attempt), outcome=Outcome.COMPLETED, exit_code=exit_code)
    api.do(HearSite(by="site:north-dc", site="north-dc", reports=(ended,)))


def _numbers(page: Any) -> list[int]:
    return [job["id"] for job in page["items"]]


def test_a_job_from_submission_to_its_end(api: Api) -> None:
    job = api.submit(name="train", time_limit_seconds=0)
    waiting = api.get(f"/v1/jobs/{job}")
    assert (waiting["state"], waiting["display_state"], waiting["slurm_state"]) == ("waiting", "waiting", "PD")
    assert waiting["time_limit_seconds"] == 24 * 3600
    assert waiting["node_list"] is None
    assert waiting["user"] == "root"
    api.cycle()
    starting = api.get(f"/v1/jobs/{job}")
    assert (starting["state"], starting["display_state"], starting["slurm_state"]) == ("active", "starting", "CF")
    assert (starting["pool"], starting["site"], starting["nodes"]) == ("north-b200", "north-dc", 1)
    assert starting["charges"] == [{"owner": "north", "gpus": 8}]
    _start(api, job)
    api.clock.advance(90_500)
    assert api.get(f"/v1/jobs/{job}")["slurm_state"] == "R"
    _end(api, job, exit_code=3)
    ended = api.get(f"/v1/jobs/{job}")
    assert (ended["state"], ended["slurm_state"], ended["exit_code"]) == ("failed", "F", 3)
    assert ended["ended_at"] == "2025-10-09T08:54:50.500Z"
    assert [attempt["outcome"] for attempt in ended["attempts"]] == ["completed"]
    assert api.get("/v1/allocations")["items"] == []


def test_a_run_that_its_site_does_not_name_is_silent(api: Api) -> None:
    job = api.submit()
    _start(api, job)
    for _ in range(12):
        api.clock.advance(60_000)
        api.do(HearSite(by="site:north-dc", site="north-dc", runs=()))
    row = api.get(f"/v1/jobs/{job}")
    assert (row["state"], row["reason"], row["silent_since_at"]) == ("active", "silent", "2025-10-09T08:54:20.000Z")
    assert "pumasi_jobs_silent 1.0" in api.call("GET", "/metrics").text
    api.do(HearSite(by="site:north-dc", site="north-dc", runs=(RunKey(job, 1),)))
    assert api.get(f"/v1/jobs/{job}")["silent_since_at"] is None


def test_hold_release_and_cancel(api: Api) -> None:
    job = api.submit(held=True)
    assert api.get(f"/v1/jobs/{job}")["reason"] == "JobHeldUser"
    api.cycle()
    assert api.get(f"/v1/jobs/{job}")["state"] == "held"
    assert api.call("POST", f"/v1/jobs/{job}/release").json()["state"] == "waiting"
    assert api.call("POST", f"/v1/jobs/{job}/hold").json()["state"] == "held"
    assert api.call("POST", f"/v1/jobs/{job}/cancel").json()["slurm_state"] == "CA"
    assert_problem(api.call("POST", f"/v1/jobs/{job}/cancel"), 409, "job-ended")
    assert_problem(api.call("POST", f"/v1/jobs/{job + 1}/cancel"), 404, "job-unknown")


def test_cancelling_what_runs_stops_it_with_notice(api: Api) -> None:
    job = api.submit()
    _start(api, job)
    row = api.call("POST", f"/v1/jobs/{job}/cancel").json()
    assert (row["display_state"], row["slurm_state"], row["reason"]) == ("stopping", "CG", "cancel")
    assert row["attempts"][0]["stop"]["cause"] == "cancel"
    assert_problem(api.call("POST", f"/v1/jobs/{job}/hold"), 409, "job-not-waiting")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.RECLAIMED, "PR"),
        (Outcome.DRAINED, "CA"),
        (Outcome.NODE_FAILED, "NF"),
        (Outcome.LOST, "NF"),
        (Outcome.TIME_LIMIT, "TO"),
        (Outcome.CANCELLED, "CA"),
    ],
)
def test_slurms_code_of_a_job_that_may_not_run_again(api: Api, outcome: Outcome, code: str) -> None:
    job = api.submit(requeue=False)
    _start(api, job)
    report = RunEnded(run=RunKey(job, 1), outcome=outcome)
    api.do(HearSite(by="site:north-dc", site="north-dc", reports=(report,)))
    assert api.get(f"/v1/jobs/{job}")["slurm_state"] == code


def test_slurms_code_says_how_the_job_ended_and_not_how_an_attempt_before_did(api: Api) -> None:
    job = api.submit()
    _start(api, job)
    report = RunEnded(run=RunKey(job, 1), outcome=Outcome.RECLAIMED)
    api.do(HearSite(by="site:north-dc", site="north-dc", reports=(report,)))
    api.clock.advance(5000)
    api.call("POST", f"/v1/jobs/{job}/cancel")
    ended = api.get(f"/v1/jobs/{job}")
    assert (ended["slurm_state"], ended["attempts"][0]["slurm_state"]) == ("CA", "PR")


def test_batches_are_all_or_none(api: Api) -> None:
    answer = api.call("POST", "/v1/jobs/batch", json={"jobs": [job_body(name=f"job-{n}") for n in range(50)]})
    assert answer.json()["jobs"] == list(range(1, 51))
    mixed = {"jobs": [job_body(held=True), job_body()]}
    assert_problem(api.call("POST", "/v1/jobs/batch", json=mixed), 422, "body-invalid")
    held = api.call("POST", "/v1/jobs/batch", json={"jobs": [job_body(held=True)] * 2}).json()["jobs"]
    assert [api.get(f"/v1/jobs/{job}")["state"] for job in held] == ["held", "held"]


def test_idempotency_keys(api: Api) -> None:
    key = {"Idempotency-Key": "3f1c"}
    first = api.call("POST", "/v1/jobs", json=job_body(), headers=key)
    before = api.digest()
    again = api.call("POST", "/v1/jobs", json=job_body(), headers=key)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (201, {"id": 1})
    other = api.call("POST", "/v1/jobs", json=job_body(gpus=16), headers=key)
    assert_problem(other, 422, "idempotency-key-reused")
    assert api.digest() == before
    someone = api.principal("someone", Role.USER, "north/lab")
    assert api.call("POST", "/v1/jobs", json=job_body(), headers=key, token=someone).json() == {"id": 2}


def test_an_idempotent_answer_outlives_the_jobs(api: Api) -> None:
    key = {"Idempotency-Key": "x"}
    jobs = api.call("POST", "/v1/jobs/batch", json={"jobs": [job_body()] * 3}, headers=key).json()
    for job in jobs["jobs"]:
        api.call("POST", f"/v1/jobs/{job}/cancel")
    assert api.call("POST", "/v1/jobs/batch", json={"jobs": [job_body()] * 3}, headers=key).json() == jobs


def test_a_dry_run_says_where_and_submits_nothing(api: Api) -> None:
    before = api.digest()
    found = api.call("POST", "/v1/jobs/check", json=job_body(gpus=32, stays_home=True)).json()
    assert found["admissible"] is True
    assert {pool["pool"]: pool["admissible"] for pool in found["pools"]} == {"north-b200": True, "south-b200": False}
    never = api.call("POST", "/v1/jobs/check", json=job_body(gpus=65)).json()
    assert never["admissible"] is False
    assert {pool["code"] for pool in never["pools"]} == {"gang_too_large"}
    assert_problem(api.call("POST", "/v1/jobs/check", json=job_body("north/x")), 422, "queue-unknown")
    assert api.digest() == before


def test_why_a_job_waits(api: Api) -> None:
    jobs = [api.submit(gpus=32) for _ in range(3)]
    assert api.get(f"/v1/jobs/{jobs[2]}/reasons")["note"] == "the scheduler has yet to look at it"
    api.cycle()
    why = api.get(f"/v1/jobs/{jobs[2]}/reasons")
    assert why["state"] == "waiting"
    assert why["reasons"][0]["code"]
    assert api.get(f"/v1/jobs/{jobs[2]}")["reason"] == why["reasons"][0]["slurm"]
    assert sum(api.get("/v1/reasons").values()) == 1
    assert "has its GPUs" in api.get(f"/v1/jobs/{jobs[0]}/reasons")["note"]


def test_lists_filter_and_page_over_live_and_ended(api: Api) -> None:
    mine = api.principal("me", Role.USER, "north/lab")
    for number in range(1, 31):
        queue = "south/lab" if number % 5 == 0 else "north/lab"
        api.submit(mine if number % 3 == 0 and queue == "north/lab" else "", queue=queue, held=True)
    for job in range(2, 31, 2):
        api.call("POST", f"/v1/jobs/{job}/cancel")
    assert _pages(api, "/v1/jobs?limit=7") == list(range(30, 0, -1))
    assert _pages(api, "/v1/jobs?limit=4&state=live") == list(range(29, 0, -2))
    assert _pages(api, "/v1/jobs?limit=4&state=ended") == list(range(30, 0, -2))
    assert _pages(api, "/v1/jobs?limit=4&state=cancelled&state=held&queue=south") == [30, 25, 20, 15, 10, 5]
    assert _pages(api, "/v1/jobs?limit=2&user=me") == [n for n in range(30, 0, -1) if n % 3 == 0 and n % 5]
    assert _pages(api, "/v1/jobs?limit=3", mine) == [n for n in range(30, 0, -1) if n % 5]
    assert _pages(api, "/v1/jobs?site=north-dc") == []


def _pages(api: Api, path: str, token: str = "") -> list[int]:
    found: list[int] = []
    cursor = ""
    while True:
        page = api.get(f"{path}&cursor={cursor}", token)
        found += _numbers(page)
        if page["next_cursor"] is None:
            return found
        cursor = page["next_cursor"]


def test_a_page_is_not_disturbed_by_what_happens_meanwhile(api: Api) -> None:
    for _ in range(10):
        api.submit(held=True)
    first = api.get("/v1/jobs?limit=5")
    api.submit(held=True)
    api.call("POST", "/v1/jobs/6/cancel")
    api.call("POST", "/v1/jobs/3/cancel")
    assert _numbers(api.get(f"/v1/jobs?limit=5&cursor={first['next_cursor']}")) == [5, 4, 3, 2, 1]


def test_a_list_by_site_knows_where_jobs_ran(api: Api) -> None:
    job = api.submit()
    _start(api, job)
    assert _numbers(api.get("/v1/jobs?site=north-dc&limit=10")) == [job]
    _end(api, job)
    assert _numbers(api.get("/v1/jobs?site=north-dc&limit=10")) == [job]
    assert _numbers(api.get("/v1/jobs?site=south-dc&limit=10")) == []


@settings(max_examples=30)
@given(steps=st.lists(st.sampled_from(["submit", "cancel", "cycle", "end"]), max_size=25), limit=st.integers(1, 5))
def test_every_job_is_listed_once_whatever_happened(steps: list[str], limit: int) -> None:
    with Api() as api:
        for step in steps:
            _step(api, step)
        submitted = api.plane.state.next_job - 1
        assert _pages(api, f"/v1/jobs?limit={limit}") == list(range(submitted, 0, -1))
        live, ended = (_pages(api, f"/v1/jobs?limit={limit}&state={state}") for state in ("live", "ended"))
        assert sorted(live + ended) == list(range(1, submitted + 1))


def _step(api: Api, step: str) -> None:
    jobs = list(api.plane.state.jobs.values())
    match step:
        case "submit":
            api.submit()
        case "cancel" if jobs:
            api.call("POST", f"/v1/jobs/{jobs[0].id}/cancel")
        case "cycle":
            api.cycle()
        case "end":
            for job in jobs:
                if job.live is not None:
                    _end(api, job.id, attempt=job.live.number)


@pytest.mark.parametrize("path", ["/v1/jobs/{job}/logs", "/v1/jobs/{job}/logs?attempt=2"])
def test_there_is_no_output_of_what_never_ran(api: Api, path: str) -> None:
    job = api.submit()
    assert_problem(api.call("GET", path.format(job=job)), 409, "job-never-ran")


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_a_long_search_goes_on_where_it_was_left_off(api: Api, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_routes, "_ARCHIVE_ROWS", 5)
    monkeypatch.setattr(jobs_routes, "_ARCHIVE_PAGES_MAX", 1)
    token = api.principal("me", Role.USER, "north/lab", Role.VIEWER, "site:north-dc")
    mine = {3, 17, 18, 29}
    for number in range(1, 31):
        api.submit("", "north/lab" if number in mine else "south/lab", held=True)
    for number in range(1, 31):
        if number != 17:
            api.call("POST", f"/v1/jobs/{number}/cancel")
    assert _pages(api, f"/v1/jobs?limit={limit}", token) == sorted(mine, reverse=True)
    assert _pages(api, f"/v1/jobs?limit={limit}&state=ended", token) == sorted(mine - {17}, reverse=True)


def test_names_that_look_like_numbers_are_names(api: Api) -> None:
    assert _numbers(api.get("/v1/jobs?user=1e5")) == []


def test_a_job_submitted_while_a_plan_is_made_is_found_once_it_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, finish = threading.Event(), threading.Event()
    begin_cycle = api.plane.begin_cycle

    def slow_cycle() -> Any:
        work = begin_cycle()

        def plan() -> Any:
            begun.set()
            assert finish.wait(10)
            return work()

        return plan

    monkeypatch.setattr(api.plane, "begin_cycle", slow_cycle)
    cycle = asyncio.run_coroutine_threadsafe(api.service._cycle(), api.loop)
    assert begun.wait(10)
    job = api.submit()
    headers = {"Authorization": f"Bearer {api.token}"}
    show, cancel = (
        asyncio.run_coroutine_threadsafe(api.http.request(method, f"/v1/jobs/{job}{verb}", headers=headers), api.loop)
        for method, verb in (("GET", ""), ("POST", "/cancel"))
    )
    assert api.get("/v1/fleet")["jobs_waiting"] == 0
    assert not show.done()
    finish.set()
    assert show.result(10).json()["id"] == job
    assert cancel.result(10).json()["state"] == "cancelled"
    cycle.result(10)


def test_who_submits_while_a_plan_is_made_finds_the_job_in_the_list_at_once(api: Api) -> None:
    before = api.submit()
    work = api.run(api.plane.begin_cycle)
    mine, held = api.submit(name="mine"), api.submit(held=True)
    listed = api.get("/v1/jobs?limit=2")
    assert [(job["id"], job["state"]) for job in listed["items"]] == [(held, "held"), (mine, "waiting")]
    assert [job["id"] for job in api.get(f"/v1/jobs?cursor={listed['next_cursor']}")["items"]] == [before]
    assert [job["name"] for job in api.get("/v1/jobs?state=waiting")["items"]] == ["mine", "train"]
    api.run(lambda: api.plane.end_cycle(work()))
    assert [job["id"] for job in api.get("/v1/jobs")["items"]] == [held, mine, before]
