"""Scenario and rules files: YAML in, checked values out, or every mistake with its line.

Every key is explained in docs/reference/scenario-file.md.
"""

from pathlib import Path

from msgspec import Struct

from pumasi.model.fleet import BorrowOrder
from pumasi.model.ids import is_queue_path
from pumasi.model.reservations import ReservationPurpose
from pumasi.plans.lending import read_lending
from pumasi.plans.problems import PlanError, Problems, quoted, suggestion
from pumasi.plans.section import Section
from pumasi.plans.yaml_tree import SIZE_LIMIT_BYTES, Mapping, parse_yaml
from pumasi.twin.changes import AddedPool, Change, Delay, PowerCut, Reserve
from pumasi.twin.rules import Rules
from pumasi.twin.scenario import MEASURED, FaultRates

PACKAGE = Path(__file__).resolve().parent
PLACES = (PACKAGE / "data", PACKAGE.parents[2] / "scenarios")  # installed wheel; checkout
READERS = ("philly", "swf", "openb")
GROUPED_BY = ("group", "user", "queue", "partition")  # the columns of the Standard Workload Format that may be groups
YEAR_DAYS = 366
CALL_PLAN = "first-call"  # the plan of the first public call, which is drawn anew for every seed
OPENB_PLAN = "openb-nodes"  # the nodes of the openb trace


class TraceWork(Struct, frozen=True, kw_only=True):
    """Jobs drawn from a published trace. `file`: from the scenario's folder, or from the folder of traces. `group_by`:
    one of GROUPED_BY; "" for traces that know but one kind of group.
    """

    reader: str
    file: str
    group_by: str
    source_from: str
    source_days: int
    load_percent: int
    queues: dict[str, str]
    gpus_per_gpu: int
    gpus_max: int
    checkpoint_seconds: int
    saves_on_notice: bool


class SyntheticLoad(Struct, frozen=True, kw_only=True):
    """Jobs of the industries of the plan's queues: how busy, in per cent of what a queue is due."""

    load_percent: int
    loads: dict[str, int]


class Flood(Struct, frozen=True, kw_only=True):
    """An attack: a queue sends so many jobs of so many GPUs at once, on a day, each so many hours long."""

    name: str
    queue: str
    jobs: int
    gpus: int
    hours: int
    day: int


class ScenarioFile(Struct, frozen=True, kw_only=True):
    """A scenario as written, less its plan and rules files, which are named. `folder`: where it stands."""

    name: str
    title: str
    plan: str
    as_of: str
    start: str
    days: int
    warm_up_days: int
    seeds: int
    cycle_seconds: int
    trace: TraceWork | None
    synthetic: SyntheticLoad | None
    floods: tuple[Flood, ...]
    rules: tuple[str, ...]
    faults: FaultRates
    changes: tuple[Change, ...]
    roll_out: bool
    folder: Path


def find_file(name: str, kind: str = "") -> Path:
    """The file a user means by a name: a path, or what ships with Pumasi (`kind`: `rules` or none, for scenarios).

    :raises FileNotFoundError: if there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    for place in PLACES:
        if name and "/" not in name and (place / kind / f"{name}.yaml").is_file():
            return place / kind / f"{name}.yaml"
    shipped = sorted({path.stem for place in PLACES for path in (place / kind).glob("*.yaml")})
    what = kind or "scenario"
    raise FileNotFoundError(f"there is no {what} file {name!r}, nor does one of that name ship ({', '.join(shipped)})")


def load_scenario(path: Path) -> ScenarioFile:
    """Read and check a scenario file.

    :raises PlanError: with every mistake of the file.
    :raises OSError: if it cannot be read.
    """
    problems, root = _open(path)
    scenario = _scenario(root, path.parent) if root else None
    if scenario is None or problems.count:
        raise PlanError(problems.listed())
    return scenario


def load_rules(path: Path) -> Rules:
    """Read and check a rules file.

    :raises PlanError: with every mistake of the file.
    :raises OSError: if it cannot be read.
    """
    problems, root = _open(path)
    rules = _rules(root) if root else None
    if rules is None or problems.count:
        raise PlanError(problems.listed())
    return rules


def _open(path: Path) -> tuple[Problems, Section | None]:
    problems = Problems(str(path))
    with path.open("rb") as file:
        node = parse_yaml(file.read(SIZE_LIMIT_BYTES + 1), problems)
    if isinstance(node, Mapping):
        return problems, Section(node, "", problems)
    if not problems.count:
        problems.add(1, 1, "", "such a file is a mapping that starts with 'name:'")
    return problems, None


# --- rules -----------------------------------------------------------------------------------------------------------


def _rules(root: Section) -> Rules:
    owners = {}
    for name, section in root.sections("owners"):
        owners[name] = read_lending(section)
        section.finish()
    rules = Rules(
        name=root.name("name", "the name of the rules"),
        title=root.text("title", ""),
        lending=read_lending(root) if root.has("lending") else None,
        owners=owners,
        usage_half_life_seconds=root.integer("usage_half_life_seconds", 0),
        borrow_order=root.choice("borrow_order", BorrowOrder) if root.has("borrow_order") else None,
        planned_starts=root.integer("planned_starts", maximum=1000) if root.has("planned_starts") else None,
        one_owner=_truth(root, "one_owner"),
    )
    root.finish()
    return rules


def _truth(section: Section, key: str) -> bool:
    text = section.text(key, "false", "true or false")
    if text not in {"true", "false"}:
        section.complain(key, f"is {quoted(text)}; it must be true or false")
    return text == "true"


# --- scenarios -------------------------------------------------------------------------------------------------------


def _scenario(root: Section, folder: Path) -> ScenarioFile:
    name = root.name("name", "the name of the scenario")
    work = root.section("workload")
    trace, synthetic = _trace(work), _synthetic(work)
    plan = root.text("plan")
    if trace is None and synthetic is None and plan != CALL_PLAN and work.clean():
        root.complain("workload", "must have a 'trace' or 'synthetic', or both")
    work.finish()
    start = root.date("start")
    days = root.integer("days", minimum=1, maximum=20 * YEAR_DAYS)
    scenario = ScenarioFile(
        name=name,
        title=root.text("title", name),
        plan=plan,
        as_of=root.date("as_of") if root.has("as_of") else start,
        start=start,
        days=days,
        warm_up_days=root.integer("warm_up_days", 0, maximum=max(days - 1, 0)),
        seeds=root.integer("seeds", 1, minimum=1, maximum=1000),
        cycle_seconds=root.integer("cycle_seconds", 60, maximum=3600),
        trace=trace,
        synthetic=synthetic,
        floods=tuple(_flood(name, section, days) for name, section in root.sections("floods")),
        rules=root.words("rules") or ("as-planned",),
        faults=_faults(root),
        changes=tuple(
            change for what, section in root.sections("changes") if (change := _change(what, section, start))
        ),
        roll_out=_truth(root, "roll_out"),
        folder=folder,
    )
    root.finish()
    return scenario


def _trace(work: Section) -> TraceWork | None:
    if not work.has("trace"):
        return None
    section = work.section("trace")
    reader = section.text("reader")
    if reader and reader not in READERS:
        section.complain("reader", f"is {quoted(reader)}; it must be one of {', '.join(READERS)}")
    trace = TraceWork(
        reader=reader,
        file=section.text("file"),
        group_by=_group_by(section, reader),
        source_from=section.date("source_from"),
        source_days=section.integer("source_days", minimum=7, maximum=20 * YEAR_DAYS),
        load_percent=section.integer("load_percent", 100, minimum=1, maximum=1_000_000),
        queues=_queues(section),
        gpus_per_gpu=section.integer("gpus_per_gpu", 1, minimum=1, maximum=100_000),
        gpus_max=section.integer("gpus_max", 0),
        checkpoint_seconds=section.integer("checkpoint_seconds", 1800, maximum=86_400),
        saves_on_notice=_truth(section, "saves_on_notice"),
    )
    if trace.source_days % 7:
        section.complain("source_days", "must be whole weeks, so that every weekday has days to draw from")
    section.finish()
    return trace


def _group_by(section: Section, reader: str) -> str:
    if reader != "swf":
        return ""
    text = section.text("group_by", GROUPED_BY[0])
    if text not in GROUPED_BY:
        section.complain("group_by", f"is {quoted(text)}; it must be one of {', '.join(GROUPED_BY)}")
    return text


def _queues(section: Section) -> dict[str, str]:
    inner = section.section("queues")
    queues = {group: inner.text(group) for group in inner.node.entries}
    for group, queue in queues.items():
        if queue and not is_queue_path(queue):
            inner.complain(group, f"{quoted(queue)} is no queue path")
    return queues


def _synthetic(work: Section) -> SyntheticLoad | None:
    if not work.has("synthetic"):
        return None
    section = work.section("synthetic")
    load = SyntheticLoad(
        load_percent=section.integer("load_percent", 70, maximum=1000), loads=section.integers("loads", maximum=1000)
    )
    section.finish()
    return load


def _flood(name: str, section: Section, days: int) -> Flood:
    flood = Flood(
        name=name,
        queue=section.text("queue"),
        jobs=section.integer("jobs", minimum=1, maximum=1_000_000),
        gpus=section.integer("gpus", minimum=1, maximum=100_000),
        hours=section.integer("hours", minimum=1, maximum=10_000),
        day=section.integer("day", 0, maximum=days - 1),
    )
    section.finish()
    return flood


def _faults(root: Section) -> FaultRates:
    """`none`, `measured`, or rates by name."""
    if isinstance(root.take("faults"), Mapping):
        section = root.section("faults")
        rates = {name: section.integer(name, getattr(FaultRates(), name)) for name in FaultRates.__struct_fields__}
        section.finish()
        return FaultRates(**rates)
    known = {"none": FaultRates(), "measured": MEASURED}
    text = root.text("faults", "none")
    if text not in known:
        root.complain("faults", f"is {quoted(text)}; it must be none, measured, or rates by name")
    return known.get(text, FaultRates())


_CHANGES = ("late_site", "cut_site", "new_pool", "reserve")


def _change(name: str, section: Section, start: str) -> Change | None:
    change: Change | None = None
    if section.has("late_site"):
        change = Delay(section.text("late_site"), section.integer("months", minimum=1, maximum=240))
    elif section.has("cut_site"):
        change = _power_cut(section, start)
    elif section.has("reserve"):
        change = _reserve(name, section, start)
    elif section.has("new_pool"):
        change = AddedPool(
            section.name("new_pool", "the pool's name"),
            section.text("like"),
            section.integer("gpus", minimum=1),
            section.date("in_service"),
        )
    else:
        section.complain("", f"must have one of {', '.join(_CHANGES)}{suggestion('', _CHANGES)}")
    section.finish()
    return change


def _reserve(name: str, section: Section, start: str) -> Reserve:
    purpose = section.choice("reserve", ReservationPurpose)
    if purpose is ReservationPurpose.HAND_OVER:
        section.complain(
            "reserve", "the twin reserves for maintenance or as an award; it has no grantee to hand over to"
        )
    from_day = section.date("from")
    announced = section.date("announced") if section.has("announced") else start
    if not start <= announced <= from_day:
        section.complain("announced", f"must lie between the scenario's start, on {start}, and the day it begins")
    return Reserve(
        name,
        purpose,
        section.text("pool"),
        section.integer("nodes", minimum=1),
        from_day,
        section.integer("hours", minimum=1, maximum=100_000),
        announced,
        section.text("queue") if purpose is ReservationPurpose.AWARD else "",
    )


def _power_cut(section: Section, start: str) -> PowerCut:
    from_day = section.date("from") if section.has("from") else start
    until_day = section.date("until") if section.has("until") else ""
    if from_day < start:
        section.complain("from", f"is before the scenario starts, on {start}")
    if until_day and until_day <= from_day:
        section.complain("until", f"must be after the cut, on {from_day}")
    return PowerCut(
        section.text("cut_site"),
        section.integer("kilowatts", minimum=1),
        from_day,
        until_day,
        section.integer("notice_seconds", 1800, minimum=1, maximum=86_400),
    )
