"""Each kind of mistake is found, at its line, by its path, with what would be right; and all of them at once."""

import pytest

from pumasi.plans.reader import PlanReading, parse_plan
from tests.plans.snippets import SOUND, edited, problems, sound

# name -> (old, new, line, path, words of the message)
MISTAKES: dict[str, tuple[str, str, int, str, str]] = {
    "unknown key": ("    nodes: 3\n", "    nodes: 3\n    noodes: 3\n", 19, "pools.hall.noodes", "did you mean nodes?"),
    "unknown key at the top": ("queues:", "quues:", 21, "quues", "did you mean queues?"),
    "missing key": ("    nodes: 3\n", "", 14, "pools.hall.nodes", "is missing; it must be a whole number"),
    "empty value": ("nodes: 3", "nodes:", 18, "pools.hall.nodes", "nothing is written here"),
    "list for a number": ("nodes: 3", "nodes: [3]", 18, "pools.hall.nodes", "not a list"),
    "mapping for a word": ("site: mill", "site: {a: mill}", 15, "pools.hall.site", "not a mapping"),
    "word for a mapping": ("  south: {}\n", "  south: nothing\n", 26, "queues.south", "must be a mapping"),
    "negative": ("nodes: 3", "nodes: -3", 18, "pools.hall.nodes", "'-3'; it must be a whole number from 1"),
    "zero": ("nodes: 3", "nodes: 0", 18, "pools.hall.nodes", "whole number from 1"),
    "fraction": ("nodes: 3", "nodes: 3.0", 18, "pools.hall.nodes", "(not a whole number)"),
    "not a number": ("nodes: 3", "nodes: .nan", 18, "pools.hall.nodes", "(not a whole number)"),
    "infinite": ("nodes: 3", "nodes: -.inf", 18, "pools.hall.nodes", "(not a whole number)"),
    "1e999": ("nodes: 3", "nodes: 1e999", 18, "pools.hall.nodes", "(not a whole number)"),
    "truth value": ("nodes: 3", "nodes: true", 18, "pools.hall.nodes", "(a truth value)"),
    "quoted number": ("nodes: 3", "nodes: '3'", 18, "pools.hall.nodes", "(in quotes, which makes it text)"),
    "2^63": ("nodes: 3", "nodes: 9223372036854775808", 18, "pools.hall.nodes", "(too large)"),
    "ten thousand digits": ("nodes: 3", "nodes: " + "9" * 10_000, 18, "pools.hall.nodes", "(too large)"),
    "million nodes too many": ("nodes: 3", "nodes: 2000000", 18, "pools.hall.nodes", "from 1 to 1,000,000"),
    "no such day": ("2026-03-01", "2026-02-30", 20, "pools.hall.stages.in_service", "a day of the calendar"),
    "day in words": ("2026-03-01", "March", 20, "pools.hall.stages.in_service", "such as 2027-12-31"),
    "stages out of order": (
        "2026-03-01",
        "2026-01-14",
        20,
        "pools.hall.stages.in_service",
        "before ordered (2026-01-15)",
    ),
    "unknown stage": ("in_service", "inservice", 20, "pools.hall.stages.inservice", "did you mean in_service?"),
    "no stage": (
        "{ordered: 2026-01-15, in_service: 2026-03-01}",
        "{}",
        20,
        "pools.hall.stages",
        "at least one of announced",
    ),
    "bad name": ("  mill: ", "  Mill_1: ", 12, "sites.Mill_1", "a name has 1 to 63"),
    "unknown site": ("site: mill", "site: mil", 15, "pools.hall.site", "there is no site 'mil' (did you mean mill?)"),
    "unknown model": ("hgx-h200", "hgx-h20", 16, "pools.hall.model", "did you mean hgx-h200?"),
    "unknown owner": ("owner: north", "owner: nord", 17, "pools.hall.owner", "there is no owner 'nord'"),
    "unknown operator": ("operator: north", "operator: nord", 12, "sites.mill.operator", "did you mean north?"),
    "unknown entitled": ("south: 8}", "soth: 8}", 19, "pools.hall.entitlements", "did you mean south?"),
    "unknown data class": ("[secret]", "[secrt]", 12, "sites.mill.clearances", "did you mean secret?"),
    "unknown industry": (
        "industry: research",
        "industry: reserch",
        24,
        "queues.north.children.lab.industry",
        "did you mean research?",
    ),
    "unknown engine": (
        "operator: north",
        "engine: slrm, operator: north",
        12,
        "sites.mill.engine",
        "did you mean slurm?",
    ),
    "unknown kind": ("kind: public", "kind: pubic", 8, "owners.north.kind", "one of public, commercial, foreign"),
    "entitlements do not add up": (
        "north: 16, south",
        "north: 15, south",
        19,
        "pools.hall.entitlements",
        "sum is 23, the pool has 24 GPUs (3 nodes x 8)",
    ),
    "broken racks": (
        "model: hgx-h200",
        "model: gb200-nvl72",
        18,
        "pools.hall.nodes",
        "is 3; whole racks of 18 nodes make 18",
    ),
    "more GPUs than the model": (
        "nodes: 3\n",
        "nodes: 3\n    gpus_per_node: 16\n",
        19,
        "pools.hall.gpus_per_node",
        "from 1 to 8",
    ),
    "no such slice": (
        "nodes: 3\n",
        "nodes: 3\n    slice: 1g.23gb\n",
        19,
        "pools.hall.slice",
        "hgx-h200 has no profile '1g.23gb' (did you mean 1g.35gb?); it has 1g.18gb, 1g.35gb, 2g.35gb",
    ),
    "shards that no GPU divides by": (
        "nodes: 3\n",
        "nodes: 3\n    slice: shard\n    shards_per_gpu: 8\n",
        20,
        "pools.hall.shards_per_gpu",
        "is 8; a GPU is divided into 2, 3, 4, 5, 6, 7, 10, 12, 14, 15, 20, 21, 28, 30, 35, 42 or 60",
    ),
    "more shards than can be told apart": (
        "nodes: 3\n",
        "nodes: 3\n    slice: shard\n    shards_per_gpu: 10\n",
        19,
        "pools.hall.slice",
        "makes 80 slices a node; at most 63 can be told apart",
    ),
    "entitlements of slices do not add up": (
        "nodes: 3\n",
        "nodes: 3\n    slice: 1g.18gb\n",
        20,
        "pools.hall.entitlements",
        "sum is 24, the pool has 168 slices of 1g.18gb (3 nodes x 56)",
    ),
    "power": (
        "kilowatts: 60",
        "kilowatts: 30",
        12,
        "sites.mill.power_cap_kilowatts",
        "is 30 kW on 2026-03-01, but the pools",
    ),
    "power steps out of order": (
        "kilowatts: 60",
        "kilowatts: {2027-01-01: 70, 2026-01-01: 60}",
        12,
        "sites.mill.power_cap_kilowatts",
        "must ascend",
    ),
    "power step without a day": (
        "kilowatts: 60",
        "kilowatts: {soon: 60}",
        12,
        "sites.mill.power_cap_kilowatts",
        "'soon' is no day",
    ),
    "lends more than it is due": (
        "hall: 8}",
        "hall: 17}",
        9,
        "owners.north.lending.lending_limits",
        "north is due only 16 GPUs",
    ),
    "lends of an unknown pool": (
        "{hall: 8}",
        "{hal: 8}",
        9,
        "owners.north.lending.lending_limits",
        "did you mean hall?",
    ),
    "lends what it is not due": (
        "south: {title: South, kind: commercial}",
        "south: {title: South, kind: commercial}\n  east: {kind: public, lending: {lending_limits: {hall: 0}}}",
        11,
        "owners.east.lending.lending_limits",
        "east is due no GPUs of hall",
    ),
    "lends 101 percent": (
        "lendable_percent: 50",
        "lendable_percent: 101",
        9,
        "owners.north.lending.lendable_percent",
        "from 0 to 100",
    ),
    "refuses a stranger": ("[south]", "[sout]", 9, "owners.north.lending.refuses_owners", "did you mean south?"),
    "refuses itself": ("[south]", "[north]", 9, "owners.north.lending.refuses_owners", "cannot refuse itself"),
    "refuses twice": ("[south]", "[south, south]", 9, "owners.north.lending.refuses_owners", "more than once"),
    "refuses an unknown kind": (
        "refuses_owners: [south]",
        "refuses_kinds: [foreigner]",
        9,
        "owners.north.lending.refuses_kinds",
        "did you mean foreign?",
    ),
    "window at hour 25": ("08:00]", "25:00]", 9, "owners.north.lending.windows", "is no window; a window looks like"),
    "window on no day": ("mon-fri", "mon-fry", 9, "owners.north.lending.windows", "is no window"),
    "empty window": ("20:00-08:00", "20:00-20:00", 9, "owners.north.lending.windows", "is no window"),
    "owner without queue": ("  south: {}\n", "", 10, "owners.south", "is due GPUs but has no root queue"),
    "queue without owner": (
        "  south: {}\n",
        "  south: {}\n  west: {}\n",
        27,
        "queues.west",
        "there is no owner 'west'",
    ),
    "shares above 100%": (
        "share: 40%",
        "share: 40.01%",
        23,
        "queues.north.children",
        "add up to 100.01%; north has 100%",
    ),
    "share of 101%": ("share: 40%", "share: 101%", 25, "queues.north.children.rest.share", "from 0% to 100%"),
    "share without sign": ("share: 40%", "share: 40", 25, "queues.north.children.rest.share", "such as 40%"),
    "quotas above the parent": (
        "share: 40%",
        "quotas: {hall: 8}",
        23,
        "queues.north.children",
        "add up to 17 GPUs, but north has 16",
    ),
    "quota of a pool the parent lacks": (
        "share: 40%",
        "quotas: {hal: 1}",
        25,
        "queues.north.children.rest.quotas",
        "north has no quota of a pool 'hal' (did you mean hall?)",
    ),
    "queue lends more than it has": (
        "share: 40%",
        "share: 40%, lending_limit: 7",
        25,
        "queues.north.children.rest.lending_limit",
        "is 7 GPUs, but the queue has only 6",
    ),
    "share of a root queue": (
        "  south: {}\n",
        "  south: {share: 5%}\n",
        26,
        "queues.south.share",
        "does not belong to",
    ),
    "lending limit of a root queue": (
        "  south: {}\n",
        "  south: {lending_limit: 5}\n",
        26,
        "queues.south.lending_limit",
        "the lending contract says",
    ),
    "no owner": ("owners:\n", "owners: {}\nbosses:\n", 5, "owners", "there is none; a fleet has at least one owner"),
    "policy": ("industries:", "policy: {requeue_limit: -1}\nindustries:", 3, "policy.requeue_limit", "from 0 to 1,000"),
    "pool order": (
        "industries:",
        "policy: {pool_order: [price]}\nindustries:",
        3,
        "policy.pool_order",
        "home, site, power",
    ),
    "control character": ("title: Mill", 'title: "M\\nill"', 12, "sites.mill.title", "one printable line"),
    "lone surrogate": ("title: Mill", 'title: "\\ud800"', 12, "sites.mill.title", "one printable line"),
    "endless title": ("title: Mill", "title: " + "M" * 301, 12, "sites.mill.title", "at most 300 letters"),
    "name of the fleet": ("name: small", "name: Small fleet", 1, "name", "a name has 1 to 63"),
    "no basis": (
        "basis: {assumption: made up for a test}",
        "title: Small",
        6,
        "owners.north",
        "nothing says where its figures come from (lending.lendable_percent,",
    ),
    "basis with neither": (
        "{assumption: made up for a test}",
        "{sources: []}",
        2,
        "basis",
        "needs sources and confidence",
    ),
    "unknown source": (
        "{assumption: made up for a test}",
        "{sources: [A9], confidence: H}",
        2,
        "basis.sources",
        "'A9' is not among the plan's sources",
    ),
    "unknown confidence": (
        "{assumption: made up for a test}",
        "{assumption: x, confidence: Q}",
        2,
        "basis.confidence",
        "one of H, M, L",
    ),
    "confident assumption": (
        "{assumption: made up for a test}",
        "{assumption: x, confidence: H}",
        2,
        "basis.confidence",
        "an assumption has no confidence",
    ),
    "unknown basis": (
        "basis: {assumption: made up for a test}",
        "basis: guess",
        2,
        "basis",
        "not among the plan's bases",
    ),
    "basis that covers nothing": (
        "    nodes: 3\n",
        "    nodes: 3\n    basis: {nods: {assumption: x}}\n",
        14,
        "pools.hall.basis.nods",
        "covers no figure",
    ),
    "duplicate key": (
        "    nodes: 3\n",
        "    nodes: 3\n    nodes: 4\n",
        19,
        "pools.hall.nodes",
        "already set in line 18",
    ),
    "anchor": ("nodes: 3", "nodes: &three 3", 18, "pools.hall.nodes", "anchors (&three) are not allowed"),
    "alias": ("  south: {}\n", "  south: *north\n", 26, "queues.south", "aliases (*north) are not allowed"),
    "tag": ("nodes: 3", "nodes: !!int 3", 18, "pools.hall.nodes", "tags (!...) are not allowed"),
    "syntax": ("nodes: 3", "nodes: [3", 19, "", "this is not YAML"),
    "tabulator": ("    nodes: 3", "\tnodes: 3", 18, "", "this is not YAML"),
    "two documents": ("queues:", "---\nqueues:", 21, "", "a second YAML document"),
    "list as a key": ("  south: {}\n", "  ? [a]\n  : {}\n", 26, "queues", "a key must be a word"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found_where_it_is(mistake: str) -> None:
    """The problem stands at the line and path of the mistake and says what would be right."""
    old, new, line, path, words = MISTAKES[mistake]
    found = problems(edited(old, new))
    matching = [problem for problem in found if problem.path == path and words in problem.message]
    assert matching, "\n".join(str(problem) for problem in found)
    assert matching[0].line == line
    assert matching[0].file == "small.yaml"


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name not in {"no basis", "no owner"}])
def test_one_mistake_makes_few_problems(mistake: str) -> None:
    """No avalanche: what follows from a mistake is not reported as further mistakes (references to it may be)."""
    old, new, *_ = MISTAKES[mistake]
    assert len(problems(edited(old, new))) <= 4


def test_sound_plan_is_sound() -> None:
    """The plan the mistakes are made in has none itself."""
    assert sound().plan.name == "small"


def test_all_mistakes_come_at_once() -> None:
    """Independent mistakes in every section are all reported, in the order of the file."""
    text = SOUND
    for name in ("unknown data class", "refuses a stranger", "unknown site", "shares above 100%", "unknown industry"):
        old, new, *_ = MISTAKES[name]
        text = edited(old, new, text)
    found = problems(text)
    assert len(found) == 5
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)


def test_problem_reads_like_a_compiler_message() -> None:
    """`file:line: path: message`, so that editors jump there."""
    (problem,) = problems(edited("north: 16, south", "north: 15, south"))
    expected = "small.yaml:19: pools.hall.entitlements: sum is 23, the pool has 24 GPUs (3 nodes x 8)"
    assert str(problem) == expected


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"- a\n- b\n", b"just words", b"\xff\xfe\x00", b"name: \x00"])
def test_what_is_no_plan_is_refused(data: bytes) -> None:
    """Empty, other shapes, other encodings: one clear problem."""
    assert problems(data)[0].line >= 1


def test_alias_bomb_is_refused_without_growing() -> None:
    """Nested aliases, which a composer would expand to a billion values, end at the first anchors."""
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))
    found = problems(f"l0: &l0 lol\n{levels}\n")
    assert any("aliases" in problem.message for problem in found)
    assert len(found) < 200


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "\n".join(" " * n + "a:" for n in range(200))]
)
def test_depth_is_bounded(text: str) -> None:
    """A hundred thousand levels are refused at the first few, without a traceback."""
    assert any("nested more than" in problem.message for problem in problems(text))


def test_size_and_number_of_values_are_bounded() -> None:
    """A file above 4 MiB is not even parsed; one with too many values is left in the middle."""
    assert "at most 4,194,304" in problems(b"#" * (4 * 1024 * 1024 + 1))[0].message
    assert "more than 100,000 values" in problems("a: [" + "1," * 100_001 + "]")[0].message


def test_number_of_problems_is_bounded() -> None:
    """A file of nothing but mistakes does not fill the memory with them."""
    assert len(problems("".join(f"key-{n}: 1\n" for n in range(5_000)))) == 1_000


def test_yaml_1_1_surprises_are_text() -> None:
    """`no`, `on` and sexagesimal numbers are the words they look like; `017` is seventeen."""
    reading = sound(edited("title: South", "title: no"))
    assert reading.plan.owners[1].title == "no"
    assert isinstance(parse_plan(edited("nodes: 3", "nodes: 003").encode(), "x"), PlanReading)
