"""CPUs and memory over the API: what a job has of its node, what the node has left, and who is refused."""

import msgspec

from tests.api.kit import Api, assert_problem, job_body, small_plan, small_pool


def test_a_job_has_what_it_asks_for_and_its_node_has_the_rest() -> None:
    counted = small_pool("south", cpus_per_node=100, memory_mib_per_node=1000)
    with Api(small_plan(pools=(small_pool("north"), counted))) as api:
        asked = [{"cpus_per_gpu": 3}, {}, {"cpus_per_node": 50, "host_memory_mib_per_node": 600}]
        jobs = [api.submit("", "south/lab", gpus=2, pools=["south-b200"], **more) for more in asked]
        api.cycle()
        held = [api.get(f"/v1/jobs/{job}")["attempts"][0] for job in jobs]
        assert [(each["cpus_per_node"], each["memory_mib_per_node"]) for each in held] == [
            (6, 250), (25, 250), (50, 600),
        ]  # fmt: skip
        node = api.get(f"/v1/nodes/{held[2]['node_list']}")
        assert (node["jobs"], node["cpus_free"], node["memory_mib_free"]) == ([jobs[2]], 50, 400)
        uncounted = api.get("/v1/nodes/north-b200-00001")
        assert (uncounted["cpus_free"], uncounted["memory_mib_free"]) == (0, 0)


def test_what_no_node_has_is_refused_with_the_numbers() -> None:
    counted = small_pool("south", cpus_per_node=100)
    with Api(small_plan(pools=(small_pool("north"), counted))) as api:
        body = job_body("south/lab", gpus=2, pools=["south-b200"], cpus_per_node=101)
        answer = api.call("POST", "/v1/jobs", json=body)
        assert_problem(answer, 422, "never-admissible")
        assert "its nodes have 100 CPUs, the job asks for 101" in answer.text


def test_a_job_may_ask_for_all_the_memory_of_the_largest_nodes() -> None:
    with Api(small_plan(pools=(small_pool("north"), small_pool("south", memory_mib_per_node=4 << 20)))) as api:
        job = api.submit("", "south/lab", gpus=2, pools=["south-b200"], host_memory_mib_per_node=4 << 20)
        api.cycle()
        assert api.get(f"/v1/jobs/{job}")["attempts"][0]["memory_mib_per_node"] == 4 << 20
        body = job_body("south/lab", host_memory_mib_per_node=10_000_001)
        assert_problem(api.call("POST", "/v1/jobs", json=body), 422, "body-invalid")


def test_nodes_do_not_come_to_have_less_than_jobs_may_hold() -> None:
    counted = small_pool("south", cpus_per_node=100)
    plan = small_plan(pools=(small_pool("north"), counted))
    with Api(plan) as api:
        fewer = msgspec.json.decode(msgspec.json.encode(plan))
        fewer["pools"][1]["cpus_per_node"] = 60
        job = api.submit("", "south/lab", gpus=1, pools=["south-b200"], cpus_per_node=70)
        api.cycle()
        refused = api.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=fewer)
        assert_problem(refused, 409, "plan-contradicts-state")
        assert refused.json()["errors"] == [
            {
                "path": "pools.south-b200.cpus_per_node",
                "problem": f"it is 100 and cannot become 60 while jobs hold what they asked for: {job} is one",
            }
        ]
        fewer["pools"][1]["cpus_per_node"] = 1 << 53
        assert_problem(api.call("PUT", "/v1/fleet/plan?as_of=2026-11-25", json=fewer), 422, "plan-invalid")
