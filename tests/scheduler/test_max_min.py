"""Max-min shares against linear programs, and what must hold of every division whatever its size."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from pumasi.scheduler.max_min import UNIT, Array, Caps, Claims, Tree, divide
from tests.scheduler.linear import Program, lexicographic

NO_LIMIT = 1 << 60


class Claimant(Struct):
    """A node of a tree. `used` in GPUs; what it wants counts only where nobody stands below it."""

    parent: int
    weight: int
    wanted: int
    used: int
    guaranteed: int
    above: int


@st.composite
def trees(draw: st.DrawFn) -> list[Claimant]:
    """A tree of two or three levels, parents before their children."""
    amounts = st.sampled_from((0, 0, 1, 2, 3, 5, 8, 13, 40))
    found = [Claimant(0, 1, 0, 0, 0, NO_LIMIT)]
    level = [0]
    for _ in range(draw(st.integers(1, 3))):
        begin = len(found)
        for parent in level:
            for _ in range(draw(st.integers(0 if parent else 1, 3))):
                weight = draw(st.sampled_from((1, 1, 2, 3, 7, 1000)))
                guaranteed = draw(st.sampled_from((0, 0, 0, 2, 5)))
                above = draw(st.sampled_from((NO_LIMIT, NO_LIMIT, 0, 4)))
                found.append(Claimant(parent, weight, draw(amounts), draw(amounts), guaranteed, above))
        level = list(range(begin, len(found)))
    for parent in {node.parent for node in found[1:]}:
        found[parent].wanted = 0
    return found


def shares(tree: list[Claimant], gpus: int) -> list[int]:
    """What each node is given."""

    def column(name: str) -> Array:
        return np.array([[getattr(node, name) for node in tree]], np.int64)

    built = Tree([node.parent for node in tree], [node.weight for node in tree])
    caps = Caps(column("guaranteed"), column("above"))
    found = built.shares(np.array([gpus]), column("wanted"), column("used") * UNIT, caps)
    return [int(gpus) for gpus in found[0]]


def by_programs(tree: list[Claimant], gpus: int) -> list[float]:
    """The same by linear programs: among the children of each node, the lowest level as high as can be, and so on."""
    program = Program()
    total = [program.variable() for _ in tree]  # what a node and those below it are given
    beyond = [program.variable(high=node.above if node.above < NO_LIMIT else 1e6) for node in tree]  # not guaranteed
    for place, node in enumerate(tree):
        below = [child for child, other in enumerate(tree) if other.parent == place and child]
        if below:
            program.constrain(0, [(total[place], 1), *((total[child], -1) for child in below)], 0)
        else:
            program.fix(total[place], 0, node.wanted)
        taken = [(beyond[child], 1.0) for child in below] or [(total[place], 1.0)]
        program.constrain(-node.guaranteed, [(beyond[place], 1), *((name, -factor) for name, factor in taken)])
    program.fix(beyond[0], 0, gpus - sum(node.guaranteed for node in tree))
    for place in dict.fromkeys(node.parent for node in tree[1:]):
        below = [child for child, other in enumerate(tree) if other.parent == place and child]
        levels = [program.variable() for _ in below]
        for child, level in zip(below, levels, strict=True):
            # level x weight = used + total
            program.constrain(tree[child].used, [(level, tree[child].weight), (total[child], -1)], tree[child].used)
        lexicographic(program, levels)
    return [program.most(name) for name in total]


@settings(max_examples=150, deadline=None)
@given(tree=trees(), gpus=st.integers(0, 60))
def test_shares_are_what_linear_programs_find(tree: list[Claimant], gpus: int) -> None:
    gpus += sum(node.guaranteed for node in tree)
    depth = [0]
    for node in tree[1:]:
        depth.append(depth[node.parent] + 1)
    for found, exact, level in zip(shares(tree, gpus), by_programs(tree, gpus), depth, strict=True):
        assert abs(found - exact) < level + 0.01, "rounding moves less than a GPU on each level"


@settings(max_examples=200, deadline=None)
@given(tree=trees(), gpus=st.integers(0, 80))
def test_shares_add_up_and_nothing_is_left_that_somebody_may_have(tree: list[Claimant], gpus: int) -> None:
    found = shares(tree, gpus)
    kept_back = sum(node.guaranteed for node in tree)
    for place, node in enumerate(tree):
        below = [child for child, other in enumerate(tree) if other.parent == place and child]
        assert not below or found[place] == sum(found[child] for child in below)
        assert below or found[place] <= node.wanted
    assert found[0] <= gpus
    if not kept_back and all(node.above == NO_LIMIT for node in tree):
        assert found[0] == min(gpus, sum(node.wanted for node in tree))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), count=st.integers(1, 1500), budget=st.integers(0, 260_000))
def test_the_whole_fleet_is_divided_to_the_last_gpu(data: st.DataObject, count: int, budget: int) -> None:
    """At full size and with the widest weights: the sum is exact, and nobody is a GPU above who could take more."""
    chance = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    weights = chance.integers(1, data.draw(st.sampled_from((2, 10, 1_000_001))), count)
    used = chance.integers(-1000, 1000, count) * UNIT
    most = chance.integers(0, 2000, count)
    budget = min(budget, int(most.sum()))
    nobody = np.zeros(count, np.int64)
    found = divide(np.array([budget]), Claims(np.array([0]), weights, used, nobody, most))
    assert int(found.sum()) == budget
    assert ((found >= 0) & (found <= most)).all()
    worst_off = min(((used + (found + 1) * UNIT) / weights)[found < most], default=None)
    assert worst_off is None or (((used + (found - 1) * UNIT) / weights)[found > 0] <= worst_off * (1 + 1e-9) + 1).all()
