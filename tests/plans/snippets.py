"""A small sound plan, and edits of it, for tests."""

from pathlib import Path

from pumasi.plans.problems import PlanProblem
from pumasi.plans.reader import PlanReading, parse_plan

SOUND = """\
name: small
basis: {assumption: made up for a test}
industries: {research: Research}
data_classes: {secret: Not for everybody}
owners:
  north:
    title: North
    kind: public
    lending: {lendable_percent: 50, lending_limits: {hall: 8}, refuses_owners: [south], windows: [mon-fri 20:00-08:00]}
  south: {title: South, kind: commercial}
sites:
  mill: {title: Mill, operator: north, power_cap_kilowatts: 60, clearances: [secret]}
pools:
  hall:
    site: mill
    model: hgx-h200
    owner: north
    nodes: 3
    entitlements: {north: 16, south: 8}
    stages: {ordered: 2026-01-15, in_service: 2026-03-01}
queues:
  north:
    children:
      lab: {share: 60%, industry: research}
      rest: {share: 40%}
  south: {}
"""


def sound(text: str = SOUND) -> PlanReading:
    """What `text` declares; it must be sound."""
    reading = parse_plan(text.encode(), "small.yaml")
    assert isinstance(reading, PlanReading), [str(problem) for problem in reading]
    return reading


def problems(text: str | bytes) -> list[PlanProblem]:
    """The mistakes of `text`; there must be some."""
    reading = parse_plan(text if isinstance(text, bytes) else text.encode(), "small.yaml")
    assert isinstance(reading, list)
    return reading


def edited(old: str, new: str, text: str = SOUND) -> str:
    """`text` with one occurrence of `old` replaced."""
    assert text.count(old) == 1, (old, text.count(old))
    return text.replace(old, new)


def write(folder: Path, text: str, name: str = "small.yaml") -> Path:
    """`text` as a file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
