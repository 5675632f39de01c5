"""The parts of a plan file, each read on its own. What concerns two parts at once is for :mod:`pumasi.plans.checks`."""

from itertools import pairwise
from typing import Generic, TypeVar

from msgspec import Struct

from pumasi.model.calendar import is_day
from pumasi.model.fleet import (
    MAX_GPUS_PER_NODE,
    SHARD,
    SHARDS_PER_GPU,
    BorrowOrder,
    Engine,
    GpuModel,
    MigProfile,
    Owner,
    OwnerKind,
    Policy,
    Pool,
    PoolOrder,
    Site,
    Stage,
)
from pumasi.model.ids import GpuModelId, OwnerId, PoolId, SiteId
from pumasi.plans.catalogue import CatalogueEntry
from pumasi.plans.lending import read_lending
from pumasi.plans.problems import quoted, suggestion
from pumasi.plans.section import Section

NODE_LIMIT = 1_000_000
POWER_LIMIT_KILOWATTS = 100_000_000

T = TypeVar("T")


class Declared(Struct, Generic[T]):
    """A part and its place in the file. `sound`: no mistake was found in it, so its figures may be reckoned with."""

    value: T
    section: Section
    sound: bool


class PowerStep(Struct, frozen=True):
    """From this day (ISO; empty: always) a site may draw so much."""

    date: str
    kilowatts: int


class SiteDraft(Struct):
    """A site with every step of its power cap; the site itself carries the last."""

    site: Site
    power_steps: tuple[PowerStep, ...]


class Draft(Struct):
    """All parts of a plan file by id."""

    models: dict[GpuModelId, CatalogueEntry]
    owners: dict[OwnerId, Declared[Owner]]
    sites: dict[SiteId, Declared[SiteDraft]]
    pools: dict[PoolId, Declared[Pool]]
    data_classes: dict[str, str]
    industries: dict[str, str]


def read_titles(root: Section, key: str) -> dict[str, str]:
    """A mapping of names to one line of text, such as `industries`."""
    section = root.section(key)
    return {name: section.text(name) for name in section.node.entries}


def read_owners(root: Section) -> dict[OwnerId, Declared[Owner]]:
    """The section `owners`."""
    found = {}
    for name, section in root.sections("owners"):
        owner = Owner(
            id=name,
            title=section.text("title", name),
            kind=section.choice("kind", OwnerKind),
            lending=read_lending(section),
        )
        section.finish()
        found[name] = Declared(owner, section, section.clean())
    return found


def read_sites(root: Section) -> dict[SiteId, Declared[SiteDraft]]:
    """The section `sites`."""
    return {name: _site(name, section) for name, section in root.sections("sites")}


def _site(name: str, section: Section) -> Declared[SiteDraft]:
    steps = _power_steps(section)
    site = Site(
        id=name,
        title=section.text("title", name),
        operator=section.name("operator", "the id of an owner"),
        region=section.text("region", ""),
        engine=section.choice("engine", Engine, Engine.LOCAL),
        power_cap_kilowatts=steps[-1].kilowatts if steps else 0,
        clearances=section.words("clearances"),
    )
    section.finish()
    return Declared(SiteDraft(site, steps), section, section.clean())


def _power_steps(section: Section) -> tuple[PowerStep, ...]:
    key = "power_cap_kilowatts"
    if not section.has(key):
        return ()
    if not isinstance(section.take(key), type(section.node)):
        return (PowerStep("", section.integer(key, minimum=1, maximum=POWER_LIMIT_KILOWATTS)),)
    by_day = section.integers(key, minimum=1, maximum=POWER_LIMIT_KILOWATTS)
    for day in by_day:
        if not is_day(day):
            section.complain(key, f"{quoted(day)} is no day; steps look like {{2027-06-30: 55000}}")
    if list(by_day) != sorted(by_day):
        section.complain(key, "the days of the steps must ascend")
    return tuple(PowerStep(day, kilowatts) for day, kilowatts in by_day.items())


def read_pools(root: Section, models: dict[GpuModelId, CatalogueEntry]) -> dict[PoolId, Declared[Pool]]:
    """The section `pools`; what a pool leaves open comes from its GPU model's usual node."""
    found = {}
    for name, section in root.sections("pools"):
        pool = _pool(name, section, models)
        section.finish()
        found[name] = Declared(pool, section, section.clean())
    return found


def _pool(name: str, section: Section, models: dict[GpuModelId, CatalogueEntry]) -> Pool:
    model_id = section.name("model", "the id of a GPU model")
    entry = models.get(model_id)
    if entry is None and model_id:
        section.complain("model", f"there is no GPU model {quoted(model_id)}{suggestion(model_id, models)}")
    model, shape = (entry.model, entry.shape) if entry else (None, None)
    profile = _slice(section, model)
    return Pool(
        id=name,
        site=section.name("site", "the id of a site"),
        model=model_id,
        owner=section.name("owner", "the id of an owner"),
        nodes=section.integer("nodes", minimum=1, maximum=NODE_LIMIT),
        gpus_per_node=_gpus_per_node(section, model, profile),
        nodes_per_rack=section.integer("nodes_per_rack", shape.nodes_per_rack if shape else 1, minimum=1, maximum=1024),
        racks_per_block=section.integer("racks_per_block", shape.racks_per_block if shape else 1, minimum=1),
        entitlements=section.integers("entitlements", maximum=64 * NODE_LIMIT),
        stages=_stages(section),
        cpus_per_node=section.integer("cpus_per_node", shape.cpus if shape else 0, maximum=100_000),
        memory_mib_per_node=section.integer("memory_mib_per_node", shape.memory_mib if shape else 0),
        slice=profile.name,
        slices_per_gpu=profile.per_gpu,
    )


def _slice(section: Section, model: GpuModel | None) -> MigProfile:
    """Into what the GPUs are cut; one unnamed slice is a whole GPU."""
    name = section.text("slice", "", "a MIG profile such as 1g.23gb, or shard")
    if name == SHARD:
        return MigProfile(SHARD, _shards_per_gpu(section))
    profile = model.profile(name) if model else None
    if profile is not None:
        return profile
    if name and model:
        known = [profile.name for profile in model.mig_profiles]
        listed = ", ".join(known) or "none"
        section.complain("slice", f"{model.id} has no profile {quoted(name)}{suggestion(name, known)}; it has {listed}")
    return MigProfile("", 1)


def _shards_per_gpu(section: Section) -> int:
    shards = section.integer("shards_per_gpu", minimum=2, maximum=SHARDS_PER_GPU[-1])
    if shards not in SHARDS_PER_GPU and section.clean():
        counts = f"{', '.join(map(str, SHARDS_PER_GPU[:-1]))} or {SHARDS_PER_GPU[-1]}"
        section.complain("shards_per_gpu", f"is {shards}; a GPU is divided into {counts}")
    return shards if shards in SHARDS_PER_GPU else SHARDS_PER_GPU[0]


def _gpus_per_node(section: Section, model: GpuModel | None, profile: MigProfile) -> int:
    """The file says how many whole ones; the pool counts its slices."""
    usual = model.gpus_per_node if model else MAX_GPUS_PER_NODE
    slices = section.integer("gpus_per_node", usual, minimum=1, maximum=usual) * profile.per_gpu
    if slices > MAX_GPUS_PER_NODE:
        section.complain("slice", f"makes {slices} slices a node; at most {MAX_GPUS_PER_NODE} can be told apart")
    return slices


def _stages(section: Section) -> dict[Stage, str]:
    inner = section.section("stages")
    if not inner.node.entries and inner.clean():
        section.complain("stages", f"needs the day of at least one of {', '.join(Stage)}")
    written = {stage: inner.date(stage.value) for stage in Stage if inner.has(stage.value)}
    inner.finish()
    if inner.clean():
        _check_order(inner, written)
    return written


def _check_order(section: Section, days: dict[Stage, str]) -> None:
    for earlier, later in pairwise(days):
        if days[later] < days[earlier]:
            message = f"is {days[later]}, before {earlier.value} ({days[earlier]}); the stages follow in order"
            section.complain(later.value, message)


def read_policy(root: Section) -> Policy:
    """The section `policy`; what it leaves open has the default of the model."""
    section = root.section("policy")
    usual = Policy()
    policy = Policy(
        version=section.text("version", usual.version),
        usage_half_life_seconds=section.integer("usage_half_life_seconds", usual.usage_half_life_seconds, minimum=1),
        link_silent_seconds=section.integer("link_silent_seconds", usual.link_silent_seconds, minimum=1),
        planned_starts=section.integer("planned_starts", usual.planned_starts, maximum=1000),
        requeue_limit=section.integer("requeue_limit", usual.requeue_limit, maximum=1000),
        preemption_limit=section.integer("preemption_limit", usual.preemption_limit, maximum=1000),
        run_silent_seconds=section.integer("run_silent_seconds", usual.run_silent_seconds, minimum=1),
        fast_failure_seconds=section.integer("fast_failure_seconds", usual.fast_failure_seconds, maximum=3600),
        quarantine_percent_max=section.integer("quarantine_percent_max", usual.quarantine_percent_max, maximum=100),
        default_time_limit_seconds=section.integer(
            "default_time_limit_seconds", usual.default_time_limit_seconds, minimum=1
        ),
        borrow_order=section.choice("borrow_order", BorrowOrder, usual.borrow_order),
        pool_order=_pool_order(section) if section.has("pool_order") else usual.pool_order,
    )
    section.finish()
    return policy


def _pool_order(section: Section) -> tuple[PoolOrder, ...]:
    words, known = section.words("pool_order"), list(PoolOrder)
    for word in words:
        if word not in known:
            section.complain("pool_order", f"{word} is not one of {', '.join(known)}")
    return tuple(PoolOrder(word) for word in words if word in known)
