"""Exact max-min fair shares: GPUs divided by weight, each claimant within its least and its most, in whole GPUs.

Claimants stand at *levels*: what they have used, and the GPUs they are given, for their weight. Water fills the lowest
first: all who could take more end at one level. A tree is filled from the root down. Levels are compared in parts of a
GPU (`UNIT`); what is given is rounded down, and odd GPUs go by largest remainder, then in the order of the claimants.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

UNIT = 1 << 30

Array = NDArray[np.int64]


class Claims(Struct, frozen=True):
    """Claimants of one or more budgets, side by side. `starts`: where the claimants of each budget begin.

    `used`: what counts as used beforehand, in parts of a GPU; below 0 for who is owed. `least` and `most` are in GPUs.
    """

    starts: Array
    weights: Array
    used: Array
    least: Array
    most: Array


def divide(budgets: Array, claims: Claims) -> Array:
    """GPUs for each claimant. Every budget is between the sums of its claimants' `least` and `most`, and is used up."""
    counts = np.diff(claims.starts, append=len(claims.weights))
    budget_of = np.repeat(np.arange(len(budgets)), counts)
    most = np.minimum(claims.most, budgets[budget_of])
    low, high = claims.used + claims.least * UNIT, claims.used + most * UNIT
    begin, end = low // claims.weights, -(-high // claims.weights)
    target = budgets * UNIT - np.add.reduceat(claims.least * UNIT, claims.starts)
    level = _reached(target, claims, budget_of, begin, end)[budget_of]
    given = np.clip(np.clip(level, begin, end) * claims.weights, low, high) - claims.used
    return _whole_gpus(budgets, claims.starts, budget_of, given, most)


def _reached(target: Array, claims: Claims, budget_of: Array, begin: Array, end: Array) -> Array:
    """The level each budget reaches when it gives `target` parts of a GPU more than everyone's least.

    Each claimant takes its weight for each step of the level from its `begin` to its `end`. Walking over these points
    in order, what has been given by each of them is known, and so between which two the level lies. The points are
    rounded outwards: the level is never too high.
    """
    points, owner = np.concatenate((begin, end)), np.concatenate((budget_of, budget_of))
    order = _in_order(points, owner)
    points, owner = points[order], owner[order]
    rate = np.cumsum(np.concatenate((claims.weights, -claims.weights))[order])  # 0 where a budget's points end
    given = np.zeros_like(points)
    given[1:] = np.cumsum(rate[:-1] * np.diff(points))
    firsts = claims.starts * 2
    given -= given[firsts][owner]
    last = firsts + np.add.reduceat(given <= target[owner], firsts, dtype=np.int64) - 1
    return points[last] + (target - given[last]) // np.maximum(rate[last], 1)


def _whole_gpus(budgets: Array, starts: Array, budget_of: Array, given: Array, most: Array) -> Array:
    """Round down, and give the odd GPUs of each budget by largest remainder to those who may take one more."""
    gpus = given // UNIT
    odd = budgets - np.add.reduceat(gpus, starts)
    places = np.arange(len(given))
    order = _in_order(np.where(gpus < most, UNIT - given % UNIT, UNIT + 1) << 32 | places, budget_of)
    rank = places - starts[budget_of]
    gpus[order[rank < odd[budget_of]]] += 1
    return gpus


def _in_order(keys: Array, groups: Array) -> Array:
    """The order by group, then key; equals in any order. Six times as fast as one sort by both."""
    order = np.argsort(keys)
    return order[np.argsort(groups.astype(np.min_scalar_type(groups[-1]))[order], kind="stable")]


class Caps(Struct, frozen=True):
    """What quotas do to the nodes of a tree, one row for each budget, in GPUs.

    `guaranteed`: what nobody else may use. `above`: the most a node may use above that.
    """

    guaranteed: Array
    above: Array


class Tree:
    """A tree of claimants. Parents stand before their children, and the children of one stand together.

    :param parents: the place of each node's parent; the root stands first and is its own.
    """

    def __init__(self, parents: Sequence[int], weights: Sequence[int]) -> None:
        self._weights = np.array(weights, np.int64)
        depth = [0]
        for parent in parents[1:]:
            depth.append(depth[parent] + 1)
        self._tops = bisect_right(depth, 1)  # the root and its children
        self._levels = [
            self._level(parents, bisect_left(depth, level), bisect_right(depth, level))
            for level in range(1, depth[-1] + 1)
        ]

    @staticmethod
    def _level(parents: Sequence[int], begin: int, end: int) -> tuple[slice, Array, Array]:
        """The nodes of one depth, where the siblings begin among them, and whose children they are."""
        above = np.array(parents[begin:end], np.int64)
        starts = np.flatnonzero(np.diff(above, prepend=-1))
        return slice(begin, end), starts, above[starts]

    def shares(self, budgets: Array, wanted: Array, used: Array, caps: Caps | None = None) -> Array:
        """GPUs for each node: a row for each budget, a column for each node.

        :param wanted: GPUs each node wants for itself, beside what those below it want.
        :param used: what counts as used beforehand by each node and those below it, in parts of a GPU.
        """
        least, most = self._bounds(wanted, caps)
        kept = caps.guaranteed.sum(axis=1) if caps else np.zeros_like(budgets)
        shares = np.zeros_like(wanted)
        shares[:, 0] = np.minimum(most[:, 0], least[:, 0] + budgets - kept)
        if (short := budgets < kept).any():  # faults leave less than is guaranteed: there is nothing else to divide
            shares[short, 0] = np.minimum(least[short, 0], budgets[short])
            most[short, : self._tops] = least[short, : self._tops]
            least[short] = 0
        for nodes, starts, parents in self._levels:
            width = nodes.stop - nodes.start
            rows = np.arange(len(budgets))[:, None]
            claims = Claims(
                starts=(rows * width + starts).ravel(),
                weights=np.tile(self._weights[nodes], len(budgets)),
                used=used[:, nodes].ravel(),
                least=least[:, nodes].ravel(),
                most=most[:, nodes].ravel(),
            )
            shares[:, nodes] = divide(shares[:, parents].ravel(), claims).reshape(-1, width)
        return shares

    def _bounds(self, wanted: Array, caps: Caps | None) -> tuple[Array, Array]:
        """The least and the most of each node with those below it. What is guaranteed and wanted is in the least."""
        least, beyond = np.zeros_like(wanted), wanted.copy()
        for nodes, starts, parents in reversed(self._levels):
            if caps:
                guaranteed = np.minimum(beyond[:, nodes], caps.guaranteed[:, nodes])
                least[:, nodes] += guaranteed
                beyond[:, nodes] = np.minimum(beyond[:, nodes] - guaranteed, caps.above[:, nodes])
            least[:, parents] += np.add.reduceat(least[:, nodes], starts, axis=1)
            beyond[:, parents] += np.add.reduceat(beyond[:, nodes], starts, axis=1)
        return least, least + beyond
