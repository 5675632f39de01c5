"""Eligibility: each rule gives its own verdict, and one pool that fits is enough."""

from typing import Any

import pytest
from msgspec.structs import replace

from pumasi.model.fleet import CpuArch, OwnerKind, Queue, Quota, Site, Stage
from pumasi.model.jobs import Level, Topology
from pumasi.scheduler.eligibility import eligible, never_admissible
from pumasi.scheduler.reasons import ReasonCode
from pumasi.state.fleet_state import FleetState
from pumasi.testing.builders import HGX, NVL72, START_MS, fleet_facts, owner, pool, spec, state_of

LENDS_NOTHING = {"ant": 32}


def fleet() -> FleetState:
    """Pool p: 8 HGX nodes in racks of 4, ant's and bee's. Pool n: two racks of 18 NVL72 nodes, bee's."""
    return state_of(
        fleet_facts(
            [
                owner("ant"),
                owner("bee", 50, refuses_owners=("cat",), refuses_kinds=(OwnerKind.FOREIGN,)),
                owner("cat"),
                owner("elk", kind=OwnerKind.FOREIGN),
            ],
            [
                replace(pool("p", {"ant": 32, "bee": 32}, site="here"), cpus_per_node=64, memory_mib_per_node=1024),
                pool("n", {"bee": 144}, model=NVL72, nodes_per_rack=18, site="there"),
            ],
            [Queue(id="ant/small", quotas={"p": Quota(nominal=4, borrowing_limit=4)})],
            sites=[Site(id="here", title="", operator="ant", clearances=("health",))],
        )
    )


CASES: list[tuple[ReasonCode, dict[str, Any]]] = [
    (ReasonCode.OTHER_POOL_ASKED, {"pools": ("n",)}),
    (ReasonCode.OTHER_POOL_ASKED, {"sites": ("there",)}),
    (ReasonCode.SITE_REFUSES, {"refused_by": ("p",)}),
    (ReasonCode.GPU_MODEL, {"gpu_models": ("gb300",)}),
    (ReasonCode.GPU_MEMORY, {"memory_gib_per_gpu": 200}),
    (ReasonCode.CPU_ARCHITECTURE, {"cpu_arch": CpuArch.ARM64}),
    (ReasonCode.CPUS, {"cpus_per_gpu": 9}),
    (ReasonCode.CPUS, {"cpus_per_node": 65}),
    (ReasonCode.CPUS, {"gpus": 2, "cpus_per_node": 17}),
    (ReasonCode.HOST_MEMORY, {"host_memory_mib_per_gpu": 129}),
    (ReasonCode.HOST_MEMORY, {"gpus": 12, "gpus_per_node": 2, "host_memory_mib_per_node": 257}),
    (ReasonCode.DATA_CLASS, {"data_class": "defence"}),
    (ReasonCode.GANG_SHAPE, {"gpus_per_node": 16, "gpus": 16}),
    (ReasonCode.GANG_SHAPE, {"gpus_per_node": 3}),
    (ReasonCode.GANG_TOO_LARGE, {"gpus": 9, "gpus_per_node": 1}),
    (ReasonCode.TOPOLOGY_TOO_NARROW, {"gpus": 40, "topology": Topology(level=Level.RACK, required=True)}),
    (ReasonCode.SEGMENT, {"gpus": 16, "segment_nodes": 2}),
    (ReasonCode.STAYS_HOME, {"queue": "cat", "stays_home": True}),
    (ReasonCode.ENTITLEMENT_TOO_SMALL, {"gpus": 40, "may_borrow": False}),
    (ReasonCode.LENDING_LIMIT, {"gpus": 56}),
    (ReasonCode.LENDER_REFUSES_OWNER, {"queue": "cat"}),
    (ReasonCode.LENDER_REFUSES_KIND, {"queue": "elk"}),
]


@pytest.mark.parametrize(("code", "fields"), CASES, ids=lambda value: str(value)[:60])
def test_each_rule_gives_its_verdict(code: ReasonCode, fields: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"queue": "ant", "gpus": 8} | fields
    _, verdicts = eligible(fleet(), spec(**asked), START_MS)
    assert code in {verdict.code for verdict in verdicts if verdict.pool == "p"}
    assert all(verdict.detail for verdict in verdicts)


def test_a_cleared_site_takes_its_data_class() -> None:
    fits, _ = eligible(fleet(), spec("ant", 8, data_class="health"), START_MS)
    assert [fit.pool for fit in fits] == ["p"]


def test_gpus_come_with_their_share_of_a_node() -> None:
    asked = {"cpus_per_gpu": 8, "cpus_per_node": 16, "host_memory_mib_per_gpu": 128, "host_memory_mib_per_node": 256}
    fits, _ = eligible(fleet(), spec("bee", 2, **asked), START_MS)
    assert [fit.pool for fit in fits] == ["p", "n"], "n declares no CPUs and no memory, so it is not judged by them"


def test_a_job_that_may_run_somewhere_has_no_verdict() -> None:
    assert never_admissible(fleet(), spec("ant", 48), START_MS) == []
    assert never_admissible(fleet(), spec("ant", 8, may_borrow=False), START_MS) == []


def test_what_no_pool_can_run_gets_a_verdict_for_each() -> None:
    verdicts = never_admissible(fleet(), spec("ant", 1000), START_MS)
    assert [verdict.pool for verdict in verdicts] == ["p", "n"]


def test_a_pool_that_is_not_in_service_is_no_pool() -> None:
    state = state_of(fleet_facts([owner("ant")], [pool("p", LENDS_NOTHING)], stages={"p": Stage.DELIVERED}))
    assert [verdict.code for verdict in never_admissible(state, spec("ant", 1), START_MS)] == [
        ReasonCode.NOT_IN_SERVICE
    ]


def test_a_fleet_without_pools_admits_nothing() -> None:
    verdicts = never_admissible(state_of(fleet_facts([owner("ant")], [])), spec("ant", 1), START_MS)
    assert [verdict.code for verdict in verdicts] == [ReasonCode.NO_POOL]


def test_a_queue_cannot_ask_beyond_its_borrowing_limit() -> None:
    assert never_admissible(fleet(), spec("ant/small", 8, pools=("p",)), START_MS) == []
    verdicts = never_admissible(fleet(), spec("ant/small", 12, gpus_per_node=4, pools=("p",)), START_MS)
    assert ReasonCode.QUEUE_LIMIT_TOO_SMALL in {verdict.code for verdict in verdicts}


@pytest.mark.parametrize(
    ("nodes", "segment", "level", "fits"),
    [
        (36, 18, Level.POOL, True),
        (18, 9, Level.RACK, True),
        (20, 10, Level.POOL, True),
        (30, 10, Level.POOL, False),
        (20, 10, Level.RACK, False),
        (38, 19, Level.POOL, False),
        (20, 9, Level.POOL, False),
    ],
)
def test_segments_must_fit_nvlink_domains(nodes: int, segment: int, level: Level, fits: bool) -> None:
    topology = Topology(level=level, required=True)
    job = spec("bee", 4 * nodes, gpus_per_node=4, segment_nodes=segment, pools=("n",), topology=topology)
    assert (never_admissible(fleet(), job, START_MS) == []) == fits


def test_a_domain_of_one_node_has_no_wider_segments() -> None:
    assert HGX.nvlink_nodes == 1
    fits, _ = eligible(fleet(), spec("ant", 16, segment_nodes=1), START_MS)
    assert "p" in [fit.pool for fit in fits]
