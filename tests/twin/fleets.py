"""Small fleets and workloads for the tests of the twin."""

from random import Random

from pumasi.model.fleet import FleetPlan, LendingContract, Owner, OwnerKind, Policy, Pool, Queue, Site, Stage
from pumasi.model.jobs import JobSpec
from pumasi.testing.builders import HGX, START_MS
from pumasi.twin.jobs import TwinJob
from pumasi.twin.scenario import Scenario

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
LENDS_ALL = LendingContract(lendable_percent=100, notice_seconds=60, teardown_seconds=30)


def village(gpus: dict[str, int], *, pools: int = 1, lending: LendingContract = LENDS_ALL) -> FleetPlan:
    """Owners with so many GPUs each in every pool, all in service, each pool at a site of its own."""
    nodes = sum(gpus.values()) // HGX.gpus_per_node
    assert nodes * HGX.gpus_per_node == sum(gpus.values())
    first = next(iter(gpus))
    names = [f"pool-{number}" for number in range(pools)]
    return FleetPlan(
        name="village",
        gpu_models=(HGX,),
        owners=tuple(Owner(id=name, title=name, kind=OwnerKind.COMMERCIAL, lending=lending) for name in gpus),
        sites=tuple(Site(id=f"{name}-site", title=name, operator=first) for name in names),
        pools=tuple(
            Pool(
                id=name, site=f"{name}-site", model=HGX.id, owner=first, nodes=nodes, gpus_per_node=8,
                nodes_per_rack=4, racks_per_block=2, entitlements=dict(gpus), stages={Stage.IN_SERVICE: "2020-01-01"},
            )
            for name in names
        ),
        queues=tuple(Queue(id=name) for name in gpus),
        policy=Policy(),
    )  # fmt: skip


def job(at_ms: int, gpus: int, runtime_ms: int, queue: str = "a", **fields: object) -> TwinJob:
    """A job submitted `at_ms` after the start that takes `runtime_ms`; `fields` are fields of the job or its spec."""
    own = {name: fields.pop(name) for name in tuple(fields) if name in TwinJob.__struct_fields__}
    limit_seconds = fields.pop("time_limit_seconds", runtime_ms // 1000 + 1)
    plain = {"name": "job", "queue": queue, "script": "true", "gpus": gpus, "time_limit_seconds": limit_seconds}
    spec = JobSpec(**(plain | fields))  # type: ignore[arg-type]
    return TwinJob(submit_ms=START_MS + at_ms, spec=spec, runtime_ms=runtime_ms, **own)  # type: ignore[arg-type]


def drawn_jobs(count: int, queues: tuple[str, ...], seed: int, mean_gap_ms: int = 4 * MINUTE_MS) -> list[TwinJob]:
    """Jobs of mixed sizes and lengths; some fail, some are cancelled, some save their work."""
    chance = Random(seed)
    at_ms, found = 0, []
    for _ in range(count):
        at_ms += round(chance.expovariate(1) * mean_gap_ms)
        gpus = chance.choice((1, 1, 1, 2, 4, 8, 16))
        runtime_ms = max(1000, round(chance.expovariate(1) * HOUR_MS))
        found.append(
            job(
                at_ms, gpus, runtime_ms, chance.choice(queues),
                exit_code=chance.choice((0, 0, 0, 1)), saves_on_notice=chance.random() < 0.5,
                cancel_after_ms=chance.choice((-1,) * 9 + (HOUR_MS,)), checkpoint_seconds=chance.choice((0, 600)),
                time_limit_seconds=max(1, runtime_ms // 1000 * chance.choice((1, 2)) // chance.choice((1, 1, 1, 2))),
            )
        )  # fmt: skip
    return found


def scenario(**fields: object) -> Scenario:
    """A scenario that starts with the workload."""
    return Scenario(**({"start_ms": START_MS} | fields))  # type: ignore[arg-type]
