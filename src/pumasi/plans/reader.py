"""From a plan file to a :class:`FleetPlan`, or to every mistake in it at once."""

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pumasi.model.fleet import FleetPlan, Queue
from pumasi.model.ids import OwnerId, SiteId
from pumasi.plans.basis import Provenance, read_provenance
from pumasi.plans.catalogue import read_gpu_models, shipped_catalogue
from pumasi.plans.checks import check_parts, check_queues, entitlements_of, names_of
from pumasi.plans.drafts import (
    Draft,
    PowerStep,
    read_owners,
    read_policy,
    read_pools,
    read_sites,
    read_titles,
)
from pumasi.plans.placement_rules import check_rules, read_rules
from pumasi.plans.problems import PlanError, PlanProblem, Problems
from pumasi.plans.queues import QueueDraft, read_queues, settle
from pumasi.plans.section import Section
from pumasi.plans.yaml_tree import SIZE_LIMIT_BYTES, Mapping, parse_yaml


class PlanReading(Struct, frozen=True, kw_only=True):
    """A sound plan with what the file says beside it: where figures come from, words it declares, power caps by day."""

    plan: FleetPlan
    title: str
    provenance: Provenance
    data_classes: dict[str, str]
    industries: dict[str, str]
    power_steps: dict[SiteId, tuple[PowerStep, ...]]


def load_plan(path: Path | str) -> FleetPlan:
    """The fleet a plan file declares.

    :raises PlanError: with every mistake of the file.
    :raises FileNotFoundError: if there is no such file; see :func:`pumasi.plans.locate.find_plan` for names.
    """
    reading = read_plan(path)
    if isinstance(reading, PlanReading):
        return reading.plan
    raise PlanError(tuple(reading))


def read_plan(path: Path | str) -> PlanReading | list[PlanProblem]:
    """Read and check a plan file: what it declares, or all its mistakes in the order of the file.

    :raises FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        return [PlanProblem(file=str(path), line=1, column=1, path="", message="this is not a regular file")]
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        return [PlanProblem(file=str(path), line=1, column=1, path="", message=message)]
    return parse_plan(data, str(path))


def parse_plan(data: bytes, file: str) -> PlanReading | list[PlanProblem]:
    """As :func:`read_plan`, for the content of a file; `file` is its name in the problems."""
    problems = Problems(file)
    node = parse_yaml(data, problems)
    if isinstance(node, Mapping):
        reading = _read(Section(node, "", problems, basis=True))
    else:
        reading = None
        if not problems.count:
            problems.add(1, 1, "", "a plan is a mapping that starts with 'name:'")
    if reading is None or problems.count:
        return list(problems.listed())
    return reading


def _read(root: Section) -> PlanReading | None:
    name, title, policy = root.name("name", "the name of the fleet"), root.text("title", ""), read_policy(root)
    provenance = read_provenance(root)
    draft = _read_parts(root)
    trees, rules = read_queues(root), read_rules(root)
    root.finish()
    check_parts(draft)
    check_queues(trees, draft)
    queues = _settle_queues(trees, draft)
    check_rules(rules, names_of(draft, (queue.id for queue in queues)))
    if not root.clean():
        return None
    plan = FleetPlan(
        name=name,
        gpu_models=tuple(entry.model for entry in draft.models.values() if _is_used(entry.model.id, draft)),
        owners=tuple(declared.value for declared in draft.owners.values()),
        sites=tuple(declared.value.site for declared in draft.sites.values()),
        pools=tuple(declared.value for declared in draft.pools.values()),
        queues=queues,
        policy=replace(policy, rules=tuple(each.rule for each in rules)),
    )
    return PlanReading(
        plan=plan,
        title=title or name,
        provenance=provenance,
        data_classes=draft.data_classes,
        industries=draft.industries,
        power_steps={site: declared.value.power_steps for site, declared in draft.sites.items()},
    )


def _read_parts(root: Section) -> Draft:
    data_classes, industries = read_titles(root, "data_classes"), read_titles(root, "industries")
    models = shipped_catalogue().entries | read_gpu_models(root)
    owners, sites, pools = read_owners(root), read_sites(root), read_pools(root, models)
    for key, found in (("owners", owners), ("sites", sites), ("pools", pools)):
        if not found and isinstance(root.take(key), Mapping | None):
            root.complain(key, "there is none; a fleet has at least one owner, one site and one pool")
    return Draft(
        models=models,
        owners=owners,
        sites=sites,
        pools=pools,
        data_classes=data_classes,
        industries=industries,
    )


def _settle_queues(trees: dict[OwnerId, QueueDraft], draft: Draft) -> tuple[Queue, ...]:
    """Quotas are reckoned only on pools without mistakes, so that one mistake does not make ten."""
    if not all(pool.sound for pool in draft.pools.values()):
        return ()
    return tuple(queue for name, tree in trees.items() for queue in settle(tree, entitlements_of(name, draft)))


def _is_used(model: str, draft: Draft) -> bool:
    return any(pool.value.model == model for pool in draft.pools.values())
