"""Slices over the API: what a class asks for and gets, and how it shows wherever GPUs are counted."""

from collections.abc import Iterator

import msgspec
import pytest

from pumasi.model.fleet import FleetPlan, Queue, Quota
from tests.api.kit import Api, assert_problem, job_body, small_plan, small_pool

SLICE, HOUR_MS = "1g.23gb", 3_600_000


def school_plan() -> FleetPlan:
    """North has four nodes of whole GPUs; South's four nodes are cut into 56 slices each."""
    cut = small_pool("south", gpus_per_node=56, slice=SLICE, slices_per_gpu=7, entitlements={"south": 224})
    queues = [queue for queue in small_plan().queues if queue.id != "south"]
    queues.insert(-1, Queue(id="south", quotas={"south-b200": Quota(nominal=224)}))
    return small_plan(pools=(small_pool("north"), cut), queues=tuple(queues))


@pytest.fixture
def school() -> Iterator[Api]:
    with Api(school_plan()) as api:
        yield api


def lesson(api: Api, students: int = 20) -> list[int]:
    """Everybody of a class asks for one slice."""
    jobs = [api.submit("", "south/lab", gpus=1, slice=SLICE) for _ in range(students)]
    api.cycle()
    return jobs


def test_a_class_gets_slices_and_its_statement_shows_gpus(school: Api) -> None:
    jobs = lesson(school)
    school.clock.advance(HOUR_MS)
    found = [school.get(f"/v1/jobs/{job}") for job in jobs]
    assert {(job["state"], job["gpus"], job["slice"], job["pool"]) for job in found} == {
        ("active", 1, SLICE, "south-b200")
    }
    for by in ("queue", "pool", "owner,day"):
        usage = school.get(f"/v1/usage?by={by}")
        assert usage["total"]["gpu_milliseconds"] == sum(item["gpu_milliseconds"] for item in usage["items"])
        assert usage["total"]["gpu_milliseconds"] == 20 * HOUR_MS // 7
    assert [row["slice"] for row in school.get("/v1/allocations?owner=south")["items"]] == [SLICE] * 20


def test_pools_count_slices_and_what_adds_them_up_counts_gpus(school: Api) -> None:
    """20 slices in use are three GPUs begun; 204 are left, 29 whole GPUs."""
    lesson(school)
    pool, node = school.get("/v1/pools/south-b200"), school.get("/v1/nodes/south-b200-00001")
    assert (pool["gpus"], pool["gpus_in_use"], pool["gpus_free"], pool["slices_per_gpu"]) == (224, 20, 204, 7)
    assert (node["gpus"], node["gpus_in_use"], node["slice"]) == (56, 20, SLICE)
    fleet, site = school.get("/v1/fleet"), school.get("/v1/sites/south-dc")
    assert (fleet["gpus_total"], fleet["gpus_in_service"], fleet["gpus_by_owner"]) == (
        64, 64, {"north": 32, "south": 32},
    )  # fmt: skip
    assert (fleet["gpus_in_use"], fleet["gpus_free"], fleet["gpus_down"], fleet["gpus_reserved"]) == (3, 61, 0, 0)
    assert (site["gpus"], site["gpus_in_use"], site["gpus_free"]) == (32, 3, 29)
    assert site["power_planned_kilowatts"] == 5  # 20 / 7 of a GPU at 1.7 kW
    book = next(row for row in school.get("/v1/shares")["owners"] if row["owner"] == "south")
    assert (book["pools"]["south-b200"]["home"], book["total"]["home"]) == (20, 3)
    assert (book["total"]["entitled"], book["total"]["due"], book["total"]["idle"]) == (32, 32, 29)
    queue = school.get("/v1/queues/south")
    assert (queue["in_use"], queue["gpus_in_use"], queue["gpus_nominal"]) == ({"south-b200": 20}, 3, 32)
    assert f'pumasi_gpus{{owner="south",use="home"}} {20 / 7}' in school.call("GET", "/metrics").text


def test_a_slice_nobody_has_is_refused_with_those_there_are(school: Api) -> None:
    refused = school.call("POST", "/v1/jobs", json=job_body(slice="3g.90gb"))
    assert_problem(refused, 422, "slice-unknown")
    assert refused.json()["detail"] == "no pool is cut into 3g.90gb; there are 1g.23gb"
    assert_problem(school.call("POST", "/v1/jobs", json=job_body(slice="half")), 422, "body-invalid")
    never = school.call("POST", "/v1/jobs", json=job_body(slice=SLICE, pools=["north-b200"]))
    assert_problem(never, 422, "never-admissible")
    assert "its GPUs are not cut, the job asks for 1g.23gb" in never.text


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"slice": "3g.91gb"}, "pools.south-b200.slice"),
        ({"slices_per_gpu": 4}, "pools.south-b200.slices_per_gpu"),
        ({"slice": ""}, "pools.south-b200.slices_per_gpu"),
        ({"gpus_per_node": 57, "entitlements": {"south": 228}}, "pools.south-b200.slices_per_gpu"),
    ],
)
def test_a_plan_cuts_gpus_as_they_can_be(school: Api, change: dict[str, object], path: str) -> None:
    plan = msgspec.json.decode(msgspec.json.encode(school_plan()))
    plan["pools"][1] |= change
    refused = school.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=plan)
    assert_problem(refused, 422, "plan-invalid")
    assert path in [error["path"] for error in refused.json()["errors"]]


def test_a_pool_in_the_fleet_is_not_cut_anew(school: Api) -> None:
    plan = msgspec.json.decode(msgspec.json.encode(school_plan()))
    plan["pools"][1] |= {"slice": "", "slices_per_gpu": 1, "gpus_per_node": 8, "entitlements": {"south": 32}}
    plan["queues"][-2]["quotas"]["south-b200"]["nominal"] = 32
    refused = school.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=plan)
    assert_problem(refused, 409, "plan-contradicts-state")
    assert {"path": "pools.south-b200.slice", "problem": "it is 1g.23gb and cannot become none"} in refused.json()[
        "errors"
    ]
