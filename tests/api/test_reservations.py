"""Reservations over the API: who may make which, what they do to jobs, and what others see of them."""

from typing import Any

import pytest

from pumasi.control.commands import HearSite
from pumasi.events.facts import NodeState
from pumasi.model.access import Role
from pumasi.protocol.messages import NodeHealth, NodeReport
from pumasi.testing.builders import START_MS
from tests.api.kit import Api, assert_problem

HOUR_MS = 3_600_000


def body(purpose: str = "maintenance", **fields: Any) -> dict[str, Any]:
    """An hour of two nodes of north, an hour from now."""
    size = {} if fields.keys() & {"gpus", "node_list"} else {"nodes": 2}
    when = {"start_at_ms": START_MS + HOUR_MS, "duration_seconds": 3600}
    return {"name": "works", "purpose": purpose, "pool": "north-b200", **when, **size, **fields}


def test_a_maintenance_from_plan_to_end(api: Api) -> None:
    made = api.call("POST", "/v1/reservations", json=body(reason="new fans"))
    assert made.status_code == 201
    assert made.json() == {
        "id": "works", "purpose": "maintenance", "state": "scheduled", "start_at": "2025-10-09T09:53:20.000Z",
        "end_at": "2025-10-09T10:53:20.000Z", "duration_seconds": 3600, "pool": "north-b200", "site": "north-dc",
        "nodes": 2, "gpus": 16, "node_list": "north-b200-[00001-00002]", "owner": None, "queue": "", "job": None,
        "reason": "new fans",
    }  # fmt: skip
    first, last = (api.submit(gpus=16, time_limit_seconds=3601, may_borrow=False) for _ in range(2))
    api.cycle()
    assert api.get(f"/v1/jobs/{first}")["node_list"] == "north-b200-[00003-00004]"
    assert api.get(f"/v1/jobs/{last}")["state"] == "waiting"
    api.clock.advance(HOUR_MS)
    api.cycle()
    assert api.get("/v1/reservations/works")["state"] == "active"
    node = api.get("/v1/nodes/north-b200-00001")
    assert (node["state"], node["reason"]) == ("drain", "reservation:works")
    api.clock.advance(HOUR_MS)
    api.cycle()
    assert api.get("/v1/reservations") == {"items": [], "next_cursor": None}
    assert api.get("/v1/nodes/north-b200-00001")["state"] == "idle"
    assert_problem(api.call("GET", "/v1/reservations/works"), 404, "reservation-unknown")


def test_why_a_job_waits_for_a_reservation(api: Api) -> None:
    assert api.call("POST", "/v1/reservations", json=body(nodes=4)).status_code == 201
    job = api.submit(queue="north/other", gpus=8, time_limit_seconds=7200, may_borrow=False)
    api.cycle()
    (reason,) = api.get(f"/v1/jobs/{job}/reasons")["reasons"]
    assert (reason["code"], reason["slurm"]) == ("reserved", "ReqNodeNotAvail")
    assert reason["detail"] == "it might still run when reservation works begins, in 3600 seconds"
    assert reason["would_start"] == "a time limit of at most 3600 seconds"


def test_an_award_is_for_its_queue_and_a_hand_over_is_metered(api: Api) -> None:
    award = body("award", name="call", queue="north/lab", start_at_ms=0)
    hand_over = body("hand_over", name="servers", queue="north/other", start_at_ms=0, gpus=16)
    for made in (award, hand_over):
        assert api.call("POST", "/v1/reservations", json=made).status_code == 201
    api.cycle()
    stranger, own = api.submit(queue="north/other", gpus=8, may_borrow=False), api.submit(gpus=16)
    api.cycle()
    assert api.get(f"/v1/jobs/{own}")["node_list"] == "north-b200-[00001-00002]"
    assert api.get(f"/v1/jobs/{stranger}")["state"] == "waiting"
    held = api.get("/v1/reservations/servers")
    standing = api.get(f"/v1/jobs/{held['job']}")
    assert (standing["name"], standing["state"], standing["gpus"], standing["queue"]) == (
        "servers", "active", 16, "north/other",
    )  # fmt: skip
    api.clock.advance(HOUR_MS)
    api.cycle()
    (row,) = [row for row in api.get("/v1/usage?by=queue")["items"] if row["by"]["queue"] == "north/other"]
    assert row["home_gpu_milliseconds"] == 16 * HOUR_MS
    assert api.get(f"/v1/jobs/{held['job']}")["state"] == "succeeded"


def test_what_is_handed_over_is_no_agents_business(api: Api) -> None:
    api.call("POST", "/v1/reservations", json=body("hand_over", queue="north/lab", start_at_ms=0))
    api.cycle()
    job = api.get("/v1/reservations/works")["job"]
    assert api.call("POST", f"/v1/jobs/{job}/cancel").status_code == 200
    assert api.run(lambda: api.plane.mail("north-dc", 0)).starts == ()
    assert not api.run(lambda: api.plane.has_mail("north-dc", api.plane.durable_seq))
    api.cycle()
    assert api.get(f"/v1/jobs/{job}")["state"] == "cancelled"
    assert api.get("/v1/reservations")["items"] == []


def test_the_site_does_not_end_a_maintenance_by_saying_that_the_node_is_well(api: Api) -> None:
    api.call("POST", "/v1/reservations", json=body(start_at_ms=0))
    api.cycle()
    for ailing in ((NodeReport(pool="north-b200", first=0, nodes=1, state=NodeState.DOWN, reason="off"),), ()):
        health = NodeHealth(pools=("north-b200",), ailing=ailing)
        api.do(HearSite(by="site:north-dc", site="north-dc", nodes=health))
        assert api.get("/v1/nodes/north-b200-00001")["reason"] == "reservation:works"


@pytest.mark.parametrize(
    ("role", "scope", "made", "status"),
    [
        (Role.SITE_OPERATOR, "site:north-dc", body(), 201),
        (Role.SITE_OPERATOR, "site:south-dc", body(), 403),
        (Role.SITE_OPERATOR, "north", body("award", queue="north/lab"), 403),
        (Role.OWNER_ADMIN, "north", body(), 201),
        (Role.OWNER_ADMIN, "north", body("award", queue="north/lab"), 201),
        (Role.OWNER_ADMIN, "north", body("hand_over", queue="north/lab"), 201),
        (Role.OWNER_ADMIN, "north/lab", body("award", queue="north/lab"), 403),
        (Role.OWNER_ADMIN, "south", body("award", queue="north/lab"), 404),
        (Role.FLEET_ADMIN, "*", body("award", queue="north/lab"), 201),
        (Role.QUEUE_ADMIN, "north", body("award", queue="north/lab"), 403),
        (Role.USER, "north/lab", body("award", queue="north/lab"), 403),
    ],
)
def test_who_may_reserve_what(api: Api, role: Role, scope: str, made: dict[str, Any], status: int) -> None:
    token = api.principal("someone", role, scope)
    assert api.call("POST", "/v1/reservations", token=token, json=made).status_code == status
    assert len(api.get("/v1/reservations")["items"]) == (status == 201)
    api.call("DELETE", "/v1/reservations/works")
    assert api.call("POST", "/v1/reservations", json=made).status_code == 201
    assert api.call("DELETE", "/v1/reservations/works", token=token).status_code == (204 if status == 201 else status)


def test_whom_a_reservation_is_for_is_told_to_who_may_read_the_queue(api: Api) -> None:
    api.call("POST", "/v1/reservations", json=body("award", queue="north/lab", reason="call 7"))
    for scope, told in (("north/lab", ("north/lab", "call 7")), ("south", ("", ""))):
        row = api.get("/v1/reservations/works", api.principal("someone", Role.VIEWER, scope))
        assert (row["owner"], row["queue"], row["reason"]) == ("north", *told)


@pytest.mark.parametrize(
    ("made", "status", "code"),
    [
        (body(pool="nowhere"), 404, "pool-unknown"),
        (body("award", queue="north/none"), 404, "queue-unknown"),
        (body("award", queue=""), 422, "reservation-invalid"),
        (body(queue="north/lab"), 422, "reservation-invalid"),
        (body(nodes=1, gpus=8), 422, "reservation-invalid"),
        (body(gpus=12), 422, "reservation-invalid"),
        (body(start_at_ms=START_MS - 1), 422, "reservation-invalid"),
        (body(ignore_running=True), 422, "reservation-invalid"),
        (body(nodes=0, node_list="north-b200-00005"), 404, "node-unknown"),
        (body(nodes=0, node_list="south-b200-00001"), 404, "node-unknown"),
        (
            body(nodes=0, node_list="north-b200-[00001-99999," + ",".join(["00001-99999"] * 900) + "]"),
            404,
            "node-unknown",
        ),
        (body(nodes=5), 409, "reservation-no-room"),
        (body("award", queue="south/lab", nodes=1), 409, "reservation-no-room"),
        (body(duration_seconds=0), 422, "body-invalid"),
    ],
)
def test_what_is_refused(api: Api, made: dict[str, Any], status: int, code: str) -> None:
    before = api.digest()
    assert_problem(api.call("POST", "/v1/reservations", json=made), status, code)
    assert api.digest() == before


def test_names_are_taken_until_the_end(api: Api) -> None:
    assert api.call("POST", "/v1/reservations", json=body()).status_code == 201
    assert_problem(api.call("POST", "/v1/reservations", json=body()), 409, "reservation-exists")
    assert api.call("DELETE", "/v1/reservations/works").status_code == 204
    assert_problem(api.call("DELETE", "/v1/reservations/works"), 404, "reservation-unknown")
    assert api.call("POST", "/v1/reservations", json=body()).status_code == 201


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_reservations_page(api: Api, limit: int) -> None:
    for name in ("c", "a", "b"):
        api.call("POST", "/v1/reservations", json=body(name=name, nodes=1))
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"/v1/reservations?limit={limit}&cursor={cursor}")
        names += [row["id"] for row in page["items"]]
        cursor = page["next_cursor"]
    assert names == ["a", "b", "c"]
