"""A small fleet under a control plane with a clock set by hand and a log in memory."""

from collections.abc import Callable
from typing import Any

import pytest

from pumasi.adapters.memory_log import MemoryLog
from pumasi.control.commands import ApplyPlan, EnrolSite, IssueToken
from pumasi.control.plane import ControlPlane
from pumasi.control.refusals import Refusal
from pumasi.model.access import Token, TokenKind
from pumasi.model.fleet import (
    CpuArch,
    FleetPlan,
    GpuModel,
    LendingContract,
    Owner,
    OwnerKind,
    Pool,
    Queue,
    Quota,
    Site,
    Stage,
)
from pumasi.model.jobs import JobSpec
from pumasi.state.invariants import violations


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def pass_seconds(self, seconds: int) -> None:
        self.at_ms += seconds * 1000


def small_plan() -> FleetPlan:
    """Two owners, a site each, 4 nodes of 8 GPUs at each; everything is lent, at a minute's notice."""
    lending = LendingContract(lendable_percent=100, notice_seconds=60, teardown_seconds=30)
    model = GpuModel(
        id="b200",
        title="HGX B200",
        gpus_per_node=8,
        nvlink_nodes=1,
        memory_gib=180,
        cpu_arch=CpuArch.X86_64,
        gpu_watts=1000,
        planning_watts=1790,
    )
    kind = OwnerKind.COMMERCIAL
    owners = tuple(Owner(id=name, title=name, kind=kind, lending=lending) for name in ("north", "south"))
    pools = tuple(
        Pool(
            id=f"{name}-b200",
            site=f"{name}-dc",
            model="b200",
            owner=name,
            nodes=4,
            gpus_per_node=8,
            nodes_per_rack=4,
            racks_per_block=1,
            entitlements={name: 32},
            stages={Stage.IN_SERVICE: "2026-01-01"},
        )
        for name in ("north", "south")
    )
    queues = tuple(
        queue
        for name in ("north", "south")
        for queue in (Queue(id=name, quotas={f"{name}-b200": Quota(nominal=32)}), Queue(id=f"{name}/lab"))
    )
    sites = tuple(Site(id=f"{name}-dc", title=name, operator=name) for name in ("north", "south"))
    return FleetPlan(name="small", gpu_models=(model,), owners=owners, sites=sites, pools=pools, queues=queues)


class Bench:
    """A control plane and its surroundings; every step is checked against the invariants."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.log = MemoryLog()
        self.plane = ControlPlane(self.clock)
        self.plan = small_plan()

    @classmethod
    def ready(cls) -> "Bench":
        """The small fleet, applied and with both agents enrolled."""
        bench = cls()
        result = bench.do(ApplyPlan(by="root", plan=bench.plan, as_of="2026-11-25"))
        assert not isinstance(result, Refusal), result
        for site in ("north-dc", "south-dc"):
            bench.enrol(site)
        return bench

    def do(self, command: object) -> Any:
        result = self.plane.execute(command)  # type: ignore[arg-type]
        self.plane.flush(self.log)
        assert violations(self.plane.state) == []
        return result

    def cycle(self) -> None:
        self.plane.cycle()
        self.plane.flush(self.log)
        assert violations(self.plane.state) == []

    def enrol(self, site: str) -> None:
        token = Token(digest=f"enrol-{site}", kind=TokenKind.ENROL, site=site, expires_at_ms=2**52)
        assert not isinstance(self.do(IssueToken(by="root", token=token)), Refusal)
        assert self.do(EnrolSite(by=f"site:{site}", site=site, public_key="key", used_up=token.digest)) == 1


@pytest.fixture
def bench() -> Bench:
    """A bench of each test's own."""
    return Bench.ready()


@pytest.fixture
def spec() -> Callable[..., JobSpec]:
    """Makes a job's spec; keywords override."""

    def make(**fields: object) -> JobSpec:
        base: dict[str, object] = {
            "name": "train",
            "queue": "north/lab",
            "script": "true",
            "gpus": 8,
            "time_limit_seconds": 3600,
        }
        return JobSpec(**(base | fields))  # type: ignore[arg-type]

    return make
