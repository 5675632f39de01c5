"""Small fleets and jobs for tests: declare what matters, everything else has a plain default."""

from collections.abc import Iterable
from typing import Any

from pumasi.events import facts
from pumasi.events.facts import Event
from pumasi.model.fleet import (
    CpuArch,
    GpuModel,
    LendingContract,
    MigProfile,
    Owner,
    OwnerKind,
    Policy,
    Pool,
    Queue,
    Site,
    Stage,
)
from pumasi.model.ids import OwnerId, PoolId, QueueId, queue_owner
from pumasi.model.jobs import JobSpec
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply

SHARDS = 7  # of a GPU that is shared
START_MS = 1_760_000_000_000
HOUR_SECONDS = 3600

HGX = GpuModel(
    id="b200", title="HGX B200", gpus_per_node=8, nvlink_nodes=1, memory_gib=180, cpu_arch=CpuArch.X86_64,
    gpu_watts=1000, planning_watts=1700, mig_profiles=(MigProfile("1g.23gb", 7), MigProfile("3g.90gb", 2)),
)  # fmt: skip
NVL72 = GpuModel(
    id="gb300", title="GB300 NVL72", gpus_per_node=4, nvlink_nodes=18, memory_gib=288, cpu_arch=CpuArch.ARM64,
    gpu_watts=1400, planning_watts=1900,
)  # fmt: skip


def owner(name: OwnerId, lends: int = 0, kind: OwnerKind = OwnerKind.COMMERCIAL, **contract: Any) -> Owner:
    """An owner that lends `lends` percent; further arguments are fields of its lending contract."""
    return Owner(id=name, title=name, kind=kind, lending=LendingContract(lendable_percent=lends, **contract))


def pool(
    name: PoolId,
    entitlements: dict[OwnerId, int],
    *,
    model: GpuModel = HGX,
    nodes_per_rack: int = 4,
    racks_per_block: int = 2,
    site: str = "",
    cut: str = "",
    cpus: int = 0,
    memory_mib: int = 0,
) -> Pool:
    """A pool with as many nodes as its entitlements add up to, at a site of its own unless one is named.

    `cut`: the MIG profile its GPUs are cut into, or SHARD; the entitlements are slices, or shards, then. `cpus`,
    `memory_mib`: of each node.
    """
    profile = model.profile(cut) or MigProfile(cut, SHARDS if cut else 1)
    gpus, gpus_per_node = sum(entitlements.values()), model.gpus_per_node * profile.per_gpu
    assert gpus % gpus_per_node == 0, "entitlements must add up to whole nodes"
    return Pool(
        id=name, site=site or f"{name}-site", model=model.id, owner=next(iter(entitlements)),
        nodes=gpus // gpus_per_node, gpus_per_node=gpus_per_node, nodes_per_rack=nodes_per_rack,
        racks_per_block=racks_per_block, entitlements=entitlements, slice=profile.name, slices_per_gpu=profile.per_gpu,
        cpus_per_node=cpus, memory_mib_per_node=memory_mib,
    )  # fmt: skip


def fleet_facts(
    owners: Iterable[Owner],
    pools: Iterable[Pool],
    queues: Iterable[Queue] = (),
    *,
    policy: Policy | None = None,
    sites: Iterable[Site] = (),
    stages: dict[PoolId, Stage] | None = None,
) -> list[Event]:
    """The facts that declare a fleet in service with every site connected. Root queues and sites come by themselves."""
    owners, pools, declared = list(owners), list(pools), {site.id: site for site in sites}
    for each in pools:
        declared.setdefault(each.site, Site(id=each.site, title=each.site, operator=each.owner))
    roots = {queue.id for queue in queues if queue.id == queue_owner(queue.id)}
    all_queues = [Queue(id=each.id) for each in owners if each.id not in roots] + list(queues)
    found: list[Event] = [facts.PolicyDeclared(at_ms=START_MS, policy=policy or Policy())]
    found += [facts.GpuModelDeclared(at_ms=START_MS, model=model) for model in (HGX, NVL72)]
    found += [facts.OwnerDeclared(at_ms=START_MS, owner=each) for each in owners]
    found += [facts.SiteDeclared(at_ms=START_MS, site=site) for site in declared.values()]
    for each in pools:
        stage = (stages or {}).get(each.id, Stage.IN_SERVICE)
        found.append(facts.PoolDeclared(at_ms=START_MS, pool=each, stage=stage))
    found += [facts.QueueDeclared(at_ms=START_MS, queue=queue) for queue in all_queues]
    found += [facts.SiteEnrolled(at_ms=START_MS, site=site, public_key="key", generation=1) for site in declared]
    return found


def state_of(events: Iterable[Event]) -> FleetState:
    """The state after these facts."""
    state = FleetState()
    for event in events:
        apply(state, event)
    return state


def spec(queue: QueueId, gpus: int, **fields: Any) -> JobSpec:
    """A job of an hour."""
    plain: dict[str, Any] = {"name": "job", "script": "true", "time_limit_seconds": HOUR_SECONDS}
    return JobSpec(queue=queue, gpus=gpus, **(plain | fields))
