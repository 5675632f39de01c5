"""The least GPU-time a reclaim must throw away: a linear program over who is stopped, as an oracle for the benchmark.

Jobs may be stopped in part, and nodes and racks used in part, a node as far as everyone on it is stopped: what must be
whole is only harder. So the program's answer is a bound that no choice of victims can beat.
"""

import highspy
import numpy as np

from bench import scheduler_fleets as fleets
from pumasi.model.ids import PoolId
from pumasi.state.fleet_state import FleetState

SCALE = 1e6  # GPU-milliseconds of one unit of cost
RACK_NODES, RACK_NODE_GPUS = 18, 4


class Program:
    """Columns and rows of the program, gathered one by one."""

    def __init__(self) -> None:
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call]
        self._highs.setOptionValue("output_flag", False)
        self.rows: list[tuple[float, dict[int, float]]] = []
        self.costs: list[float] = []

    def column(self, cost: float = 0.0) -> int:
        """A share between nothing and all, at this cost for all."""
        self.costs.append(cost)
        return len(self.costs) - 1

    def at_least(self, low: float, terms: dict[int, float]) -> None:
        """The terms add up to `low` or more."""
        self.rows.append((low, terms))

    def minimum(self) -> float:
        """The least cost."""
        highs, count = self._highs, len(self.costs)
        highs.addVars(count, np.zeros(count), np.ones(count))
        highs.changeColsCost(count, np.arange(count), np.array(self.costs))
        starts = np.cumsum([0, *(len(terms) for _, terms in self.rows[:-1])])
        columns = np.fromiter((column for _, terms in self.rows for column in terms), np.int32)
        values = np.fromiter((value for _, terms in self.rows for value in terms.values()), np.float64)
        lows = np.array([low for low, _ in self.rows])
        highs.addRows(len(lows), lows, np.full(len(lows), highspy.kHighsInf), len(columns), starts, columns, values)
        highs.run()
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"no bound: {highs.getModelStatus()}")
        return float(highs.getInfo().objective_function_value)


def least_lost(state: FleetState) -> float:
    """GPU-milliseconds of work that any way to meet the benchmark's claims must lose at least."""
    program = Program()
    in_racks = fleets.CLAIMED_GPUS // 2 // (RACK_NODES * RACK_NODE_GPUS)
    racks: dict[int, float] = {}
    small: dict[int, float] = {}
    for name, books in state.books.items():
        if fleets.LENDER in books:
            _pool(program, state, name, racks, small)
    program.at_least(in_racks, racks)
    program.at_least(fleets.CLAIMED_GPUS - in_racks * RACK_NODES * RACK_NODE_GPUS, small)
    return program.minimum() * SCALE


def _pool(program: Program, state: FleetState, name: PoolId, racks: dict[int, float], small: dict[int, float]) -> None:
    """What stopping the lender's borrowers in a pool gives to claims of racks and to small ones."""
    declared = state.pools[name].declared
    victims, returned = _victims(program, state, name)
    taken: dict[int, float] = {}
    for first in range(0, declared.nodes, declared.nodes_per_rack):
        nodes = [node for node in range(first, min(first + declared.nodes_per_rack, declared.nodes)) if node in victims]
        rack = program.column()
        if declared.gpus_per_node == RACK_NODE_GPUS and len(nodes) == RACK_NODES:
            racks[rack], taken[rack] = 1.0, RACK_NODES * RACK_NODE_GPUS
        for node in nodes:
            use = program.column()
            small[use] = taken[use] = declared.gpus_per_node
            for stopped in victims[node]:
                program.at_least(0, {stopped: 1.0, use: -1.0, rack: -1.0})
            program.at_least(-1, {use: -1.0, rack: -1.0})
    program.at_least(
        -state.books[name][fleets.LENDER].idle, returned | {column: -gpus for column, gpus in taken.items()}
    )


def _victims(program: Program, state: FleetState, name: PoolId) -> tuple[dict[int, list[int]], dict[int, float]]:
    """For each node that can be had whole, the columns of those who must stop for it; and what their ends return."""
    occupancy, full = state.occupancy[name], state.occupancy[name].free.full_mask
    left = dict(enumerate(occupancy.free.masks))
    found: dict[int, list[int]] = {node: [] for node in left}
    returned: dict[int, float] = {}
    for job in state.active[name]:
        attempt = state.jobs[job].attempts[-1]
        if attempt.charges[0].owner != state.jobs[job].owner:
            stopped = program.column(fleets.lost_gpu_milliseconds(state, job) / SCALE)
            returned[stopped] = sum(charge.gpus for charge in attempt.charges if charge.owner == fleets.LENDER)
            for node, mask in ((node, span.gpu_mask) for span in attempt.spans
                               for node in range(span.first, span.first + span.nodes)):  # fmt: skip
                left[node] |= mask
                found[node].append(stopped)
    return {node: columns for node, columns in found.items() if left[node] == full}, returned
