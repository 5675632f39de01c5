"""What a diff says: parts added, removed, changed, and the totals that move."""

from pumasi.cli.plan_tables import difference_lines
from pumasi.plans.difference import ChangeKind, Difference, compare
from tests.plans.snippets import SOUND, edited, sound

MORE_POOLS = """\
  attic:
    site: mill
    model: rtx-pro-6000
    owner: south
    nodes: 2
    entitlements: {south: 16}
    stages: {announced: 2026-01-01}
queues:
"""


def difference(before: str, after: str) -> Difference:
    """The difference of two texts on a day after all stages."""
    return compare(sound(before).plan, sound(after).plan, "2026-06-01")


def test_same_plans_do_not_differ() -> None:
    """Nothing changes, and the diff says so in words."""
    same = difference(SOUND, SOUND + "# a comment\n")
    assert not same.changes
    assert difference_lines(same) == ["The two plans declare the same fleet."]


def test_added_pool_moves_totals() -> None:
    """A pool more: its GPUs appear in the totals of its owner, site, model and stage."""
    change = difference(SOUND, edited("queues:\n", MORE_POOLS))
    added = [item for item in change.changes if item.kind is ChangeKind.ADDED]
    assert [(item.part, item.id, item.gpus_after) for item in added] == [
        ("pool", "attic", 16),
        ("gpu model", "rtx-pro-6000", 0),
    ]
    totals = {(total.total, total.key): (total.before, total.after) for total in change.totals}
    assert totals[("gpus_total", "")] == (24, 40)
    assert totals[("gpus_by_owner", "south")] == (0, 16)
    assert totals[("gpus_entitled_by_owner", "south")] == (8, 24)
    assert totals[("gpus_by_stage", "announced")] == (0, 16)
    assert ("gpus_by_owner", "north") not in totals


def test_removed_is_added_the_other_way_round() -> None:
    """Every change has its opposite."""
    more = edited("queues:\n", MORE_POOLS)
    there, back = difference(SOUND, more), difference(more, SOUND)
    assert {(c.part, c.id) for c in there.changes} == {(c.part, c.id) for c in back.changes}
    assert "- pool attic (-16 GPUs)" in difference_lines(back)
    assert {(t.total, t.key, t.before, t.after) for t in there.totals} == {
        (t.total, t.key, t.after, t.before) for t in back.totals
    }


def test_changed_fields_are_named() -> None:
    """A changed date and a changed lending contract, field by field, without a total that moves."""
    later = edited("2026-03-01", "2026-04-01", edited("lendable_percent: 50", "lendable_percent: 40"))
    lines = difference_lines(difference(SOUND, later))
    assert "    stages.in_service: 2026-03-01 -> 2026-04-01" in lines
    assert "    lending.lendable_percent: 50 -> 40" in lines
    assert lines[-1] == "No total changes."


def test_policy_is_compared() -> None:
    """The rules of the fleet are part of the plan."""
    (change,) = difference(SOUND, "policy: {requeue_limit: 3}\n" + SOUND).changes
    assert [(field.field, field.before, field.after) for field in change.fields] == [("requeue_limit", 20, 3)]
