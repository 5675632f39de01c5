"""The fleet over the API: totals, pools, nodes, loans, metering, reclaims, plans."""

import msgspec
import pytest

from pumasi.control.commands import HearSite
from pumasi.model.access import Role
from pumasi.model.calendar import DAY_MS, KOREA_OFFSET_MS
from pumasi.model.fleet import Place, PlacementRule, Policy, Work
from pumasi.model.jobs import Outcome
from pumasi.protocol.messages import RunEnded, RunKey
from tests.api.kit import Api, assert_problem, job_body, small_plan, small_pool


def test_totals_add_up_while_gpus_are_used_drained_and_held(api: Api) -> None:
    api.submit(gpus=12, gpus_per_node=4)
    api.submit("", "south/lab", gpus=32)
    api.cycle()
    for name in ("north-b200-00001", "north-b200-00004"):
        assert api.call("POST", f"/v1/nodes/{name}/drain", json={"reason": "fan"}).status_code == 200
    fleet = api.get("/v1/fleet")
    parts = ("gpus_in_use", "gpus_free", "gpus_reserved", "gpus_down")
    assert fleet["gpus_in_service"] == fleet["gpus_total"] == 64 == sum(fleet[part] for part in parts)
    assert fleet["gpus_in_use"] == 44
    assert fleet["gpus_by_owner"] == {"north": 32, "south": 32}
    assert fleet["gpus_by_stage"]["in_service"] == 64
    for pool in api.get("/v1/pools")["items"]:
        assert pool["gpus"] == sum(pool[part] for part in parts)
        assert sum(pool["node_states"].values()) == pool["nodes"] == 4
    nodes = api.get("/v1/nodes?pool=north-b200")["items"]
    counted = {state: [node["state"] for node in nodes].count(state) for state in pool["node_states"]}
    assert counted == api.get("/v1/pools/north-b200")["node_states"]


def test_nodes_are_drained_and_resumed(api: Api) -> None:
    api.submit(gpus=8)
    api.cycle()
    busy, idle = api.get("/v1/jobs/1")["node_list"], "north-b200-00003"
    assert api.call("POST", f"/v1/nodes/{busy}/drain", json={"reason": "fan"}).json()["state"] == "drng"
    assert api.call("POST", f"/v1/nodes/{idle}/drain", json={"reason": "fan"}).json()["state"] == "drain"
    assert [node["name"] for node in api.get("/v1/nodes?state=drain&state=drng")["items"]] == sorted([busy, idle])
    assert api.get(f"/v1/nodes/{idle}")["reason"] == "fan"
    resumed = api.call("POST", f"/v1/nodes/{idle}/resume").json()
    assert (resumed["state"], resumed["reason"], resumed["gpus_free"]) == ("idle", "", 8)
    for name in ("north-b200-00005", "north-b200-1", "north-b200", "nowhere-00001", "north-b200-00000"):
        assert_problem(api.call("POST", f"/v1/nodes/{name}/drain", json={"reason": "x"}), 404, "node-unknown")


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_nodes_page_across_pools(api: Api, limit: int) -> None:
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"/v1/nodes?limit={limit}&cursor={cursor}")
        names += [node["name"] for node in page["items"]]
        cursor = page["next_cursor"]
    assert names == [f"{pool}-{n:05}" for pool in ("north-b200", "south-b200") for n in range(1, 5)]


def test_pools_that_are_not_in_service_are_planned() -> None:
    pools = (small_pool("north", stages={}), small_pool("south"))
    with Api(small_plan(pools=pools)) as api:
        pool = api.get("/v1/pools/north-b200")
        assert (pool["stage"], pool["gpus_free"], pool["gpus_down"]) == ("announced", 0, 0)
        assert pool["node_states"]["planned"] == 4
        assert {node["state"] for node in api.get("/v1/nodes?pool=north-b200")["items"]} == {"planned"}
        assert api.get("/v1/fleet")["gpus_in_service"] == 32


def test_a_rule_is_listed_and_a_job_against_it_is_refused_by_its_name() -> None:
    rule = PlacementRule(
        id="stay", title="lab work stays", work=Work(queues=("north/lab",)), only_at=Place(pools=("south-b200",)),
        until_day="2100-01-01",
    )  # fmt: skip
    with Api(small_plan(policy=Policy(version="9", rules=(rule,)))) as api:
        (listed,) = api.get("/v1/rules")["rules"]
        assert (listed["id"], listed["in_force"], listed["from_day"]) == ("stay", True, None)
        refused = api.call("POST", "/v1/jobs", json=job_body(pools=["north-b200"]))
        assert_problem(refused, 422, "never-admissible")
        assert "rule stay of policy 9: lab work stays" in refused.text


def test_loans_show_on_both_sides(api: Api) -> None:
    assert api.get("/v1/shares")["loans"] == []
    for _ in range(2):
        api.submit(gpus=32)
    api.cycle()
    shares = api.get("/v1/shares")
    assert shares["loans"] == [{"lender": "south", "borrower": "north", "pool": "south-b200", "gpus": 32}]
    totals = {owner["owner"]: owner["total"] for owner in shares["owners"]}
    assert (totals["north"]["home"], totals["north"]["borrowed"]) == (32, 32)
    assert (totals["south"]["lent"], totals["south"]["idle"]) == (32, 0)


def test_a_queue_shows_what_it_is_due(api: Api) -> None:
    for _ in range(2):
        api.submit(gpus=32)
    assert api.get("/v1/queues/north")["fair_share"] == {"north-b200": 32}
    api.cycle()
    row = api.get("/v1/queues/north")
    assert (row["gpus_in_use"], row["gpus_fair_share"], row["dominant_permille"]) == (64, 32, 1000)
    listed = {item["id"]: item["gpus_fair_share"] for item in api.get("/v1/queues")["items"]}
    assert (listed["north"], listed["south"]) == (32, 0), "of its owner's GPUs: what it borrows is nobody's due"


def test_both_sides_of_a_loan_see_the_allocation_and_the_transfer(api: Api) -> None:
    for _ in range(2):
        api.submit(gpus=32)
    api.cycle()
    api.clock.advance(10_000)
    lender = api.principal("lender", Role.AUDITOR, "south")
    borrower = api.principal("borrower", Role.AUDITOR, "north/lab")
    assert [item["pool"] for item in api.get("/v1/allocations", lender)["items"]] == ["south-b200"]
    assert len(api.get("/v1/allocations", borrower)["items"]) == 2
    assert api.get("/v1/usage?by=lender", lender)["total"]["borrowed_gpu_milliseconds"] == 320_000
    assert api.get("/v1/usage?by=lender", borrower)["total"]["gpu_milliseconds"] == 640_000
    assert api.get("/v1/allocations?owner=south")["items"][0]["charges"] == [{"owner": "south", "gpus": 32}]


def test_usage_adds_up_by_any_keys_and_over_midnight(api: Api) -> None:
    api.submit(gpus=8)
    api.submit("", "south/lab", gpus=16)
    api.cycle()
    now_ms = api.clock.now_ms()
    to_midnight = DAY_MS - (now_ms + KOREA_OFFSET_MS) % DAY_MS
    api.clock.advance(to_midnight + 5_000)
    total = 24 * (to_midnight + 5_000)
    for by in ("owner", "queue", "pool", "day", "lender", "owner,day", "queue,pool,day,lender,owner"):
        found = api.get(f"/v1/usage?by={by}")
        assert found["total"]["gpu_milliseconds"] == total
        assert sum(item["gpu_milliseconds"] for item in found["items"]) == total
    days = {item["by"]["day"]: item["gpu_milliseconds"] for item in api.get("/v1/usage?by=day")["items"]}
    assert list(days.values()) == [24 * to_midnight, 24 * 5_000]
    second = list(days)[1]
    assert api.get(f"/v1/usage?from={second}")["total"]["gpu_milliseconds"] == 24 * 5_000
    assert api.get(f"/v1/usage?until={second}")["total"]["gpu_milliseconds"] == 24 * to_midnight
    assert api.get(f"/v1/usage?until={second}T00:00:00%2B09:00")["total"]["gpu_milliseconds"] == 24 * to_midnight
    assert_problem(api.call("GET", f"/v1/usage?until={second}T00:00:01%2B09:00"), 422, "query-invalid")


@pytest.mark.parametrize("query", ["by=colour", "by=owner,owner", "by=,", "from=yesterday", "from=2026-02-30"])
def test_usage_queries_that_make_no_sense(api: Api, query: str) -> None:
    assert_problem(api.call("GET", f"/v1/usage?{query}"), 422, "query-invalid")


def test_a_reclaim_is_recorded_against_its_promise(api: Api) -> None:
    for _ in range(2):
        api.submit(gpus=32)
    api.cycle()
    claimant = api.submit("", "south/lab", gpus=32)
    api.cycle()
    opened = api.get("/v1/reclaims")["items"][0]
    assert (opened["state"], opened["claimant"], opened["owner"], opened["kept"]) == ("open", claimant, "south", None)
    assert (opened["evicted_gpus"], opened["requested_gpus"], opened["promised_seconds"]) == (32, 32, 90)
    victim = opened["victims"][0]
    stopped = api.get(f"/v1/jobs/{victim}")["attempts"][0]["stop"]
    assert (stopped["cause"], stopped["claimant"]) == ("reclaim", claimant)
    api.clock.advance(60_001)
    ended = RunEnded(run=RunKey(victim, 1), outcome=Outcome.RECLAIMED, signal=15)
    api.do(HearSite(by="site:south-dc", site="south-dc", reports=(ended,)))
    api.cycle()
    kept = api.get("/v1/reclaims")["items"][0]
    assert (kept["state"], kept["kept"], kept["took_seconds"], kept["took_milliseconds"]) == (
        "fulfilled", True, 61, 60_001,
    )  # fmt: skip
    outsider = api.principal("outsider", Role.AUDITOR, "north")
    assert api.get("/v1/reclaims", outsider)["items"] == []
    assert api.get("/v1/reclaims?owner=north")["items"] == []


def test_a_power_cap_stops_borrowed_work_and_lets_nothing_start_beyond_it(api: Api) -> None:
    """South's 4 nodes draw 54.4 kW in full; 28 kW carry two of them."""
    for queue in ("north/lab", "south/lab", "north/lab", "south/lab"):
        api.submit("", queue, gpus=8, pools=["south-b200"])
    api.cycle()
    row = api.call("PUT", "/v1/sites/south-dc/power", json={"kilowatts": 28, "notice_seconds": 60}).json()
    assert (row["power_cap_kilowatts"], row["power_limit_kilowatts"], row["power_planned_kilowatts"]) == (0, 28, 55)
    api.cycle()
    stopping = [job["id"] for job in api.get("/v1/jobs")["items"] if job["reason"] == "power"]
    attempts = [api.get(f"/v1/jobs/{job}")["attempts"][0] for job in stopping]
    assert [(each["charges"][0]["owner"], each["stop"]["cause"]) for each in attempts] == [("south", "power")] * 2
    assert [api.get(f"/v1/jobs/{job}")["queue"] for job in stopping] == ["north/lab"] * 2
    waiting = api.submit("", "south/lab", gpus=8, pools=["south-b200"])
    api.cycle()
    assert api.get(f"/v1/jobs/{waiting}")["state"] == "waiting"
    assert api.call("PUT", "/v1/sites/nowhere/power", json={"kilowatts": 28}).status_code == 404
    for body in ({"kilowatts": -1}, {"kilowatts": 1, "notice_seconds": 0}, {"kilowatts": 10**9}, {}):
        assert api.call("PUT", "/v1/sites/south-dc/power", json=body).status_code == 422
    assert api.call("PUT", "/v1/sites/south-dc/power", json={"kilowatts": 0}).json()["power_limit_kilowatts"] == 0


def test_a_plan_is_tried_applied_and_applied_again(api: Api) -> None:
    plan = small_plan(pools=(small_pool("north", nodes=6, entitlements={"north": 48}), small_pool("south")))
    body = {**msgspec.to_builtins(plan), "queues": [{"id": queue.id} for queue in plan.queues]}
    before = api.digest()
    tried = api.call("PUT", "/v1/fleet/plan?dry_run=1&as_of=2026-11-25", json=body)
    assert tried.json()["dry_run"] is True
    assert "pool north-b200" in tried.json()["changes"]
    assert api.digest() == before
    applied = api.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=body).json()
    assert applied["changes"] == tried.json()["changes"]
    assert api.get("/v1/fleet")["gpus_total"] == 80
    before = api.digest()
    assert api.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=body).json()["changes"] == []
    assert api.digest() == before


@pytest.mark.parametrize("as_of", ["2026-13-01", "2026-02-30", "tomorrow", "20261125"])
def test_a_plan_is_as_of_a_day(api: Api, as_of: str) -> None:
    answer = api.call("PUT", f"/v1/fleet/plan?as_of={as_of}", json=msgspec.to_builtins(small_plan()))
    assert_problem(answer, 422, "query-invalid")


def test_things_that_are_not_there(api: Api) -> None:
    assert_problem(api.call("GET", "/v1/sites/atlantis"), 404, "site-unknown")
    assert_problem(api.call("GET", "/v1/pools/atlantis"), 404, "pool-unknown")
    assert_problem(api.call("GET", "/v1/queues/north/none"), 404, "queue-unknown")
    assert_problem(api.call("GET", "/v1/nodes?pool=atlantis"), 404, "pool-unknown")


def test_metrics_tell_what_the_fleet_tells(api: Api) -> None:
    api.submit(gpus=8)
    api.cycle()
    text = api.call("GET", "/metrics").text
    assert 'pumasi_gpus{owner="north",use="home"} 8.0' in text
    assert 'pumasi_fleet_gpus{state="free"} 56.0' in text
    assert 'pumasi_jobs{state="starting"} 1.0' in text
    assert 'pumasi_http_request_seconds_count{method="POST",route="/v1/jobs",status="201"} 1.0' in text
    assert "root" not in text
