"""Who holds which GPUs, and what is free because of it: checked against a table of every single GPU."""

from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pumasi.events.facts import NodeState
from pumasi.model.jobs import Span
from pumasi.state.freemap import Beyond, FreeMap
from pumasi.state.occupancy import NOBODY, Occupancy

NODES, GPUS, IN_RACK = 11, 4, 3
FULL = (1 << GPUS) - 1
CPUS, MEMORY_MIB = 6, 50  # of a node: a GPU's share of either is no whole number


class Tables(RuleBasedStateMachine):
    """The occupancy of a small pool beside a plain table: holder, reserved and node state of every GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.occupancy = Occupancy(FreeMap(NODES, GPUS, IN_RACK, 2, 1, CPUS, MEMORY_MIB), in_service=True)
        self.holder: dict[tuple[int, int], int] = {}
        self.reserved: list[tuple[Span, ...]] = []
        self.jobs: dict[int, tuple[Span, ...]] = {}
        self.down: dict[int, NodeState] = {}

    def is_reserved(self, node: int, gpu: int) -> bool:
        return any((node, gpu) in set(gpus_of(spans)) for spans in self.reserved)

    def is_free(self, node: int, gpu: int) -> bool:
        return not (node in self.down or (node, gpu) in self.holder or self.is_reserved(node, gpu))

    def left(self, node: int) -> tuple[Fraction, Fraction]:
        """CPUs and MiB of a node that nobody has, and that do not come with GPUs that nobody may have now."""
        kept = sum(not self.is_free(node, gpu) and (node, gpu) not in self.holder for gpu in range(GPUS))
        cpus, memory_mib = Fraction((GPUS - kept) * CPUS, GPUS), Fraction((GPUS - kept) * MEMORY_MIB, GPUS)
        for span in (span for spans in self.jobs.values() for span in spans):
            if span.first <= node < span.first + span.nodes:
                cpus -= span.cpus or Fraction(span.gpu_mask.bit_count() * CPUS, GPUS)
                memory_mib -= span.memory_mib or Fraction(span.gpu_mask.bit_count() * MEMORY_MIB, GPUS)
        return cpus, memory_mib

    def has_rest(self, span: Span, node: int) -> bool:
        """True if a node has the CPUs and the memory for a span."""
        cpus, memory_mib = self.left(node)
        gpus = span.gpu_mask.bit_count()
        return cpus >= (span.cpus or Fraction(gpus * CPUS, GPUS)) and memory_mib >= (
            span.memory_mib or Fraction(gpus * MEMORY_MIB, GPUS)
        )

    @rule(
        first=st.integers(0, NODES - 1),
        nodes=st.integers(1, 4),
        mask=st.sampled_from((FULL, FULL, 1, 6, 8, 0)),
        cpus=st.sampled_from((0, 0, 1, 2, 4)),
        memory_mib=st.sampled_from((0, 0, 1, 13, 40)),
    )
    def occupy(self, first: int, nodes: int, mask: int, cpus: int, memory_mib: int) -> None:
        spans = (Span(first, nodes, mask, cpus, memory_mib),)
        nodes_of_it = range(first, first + nodes)
        if (
            first + nodes <= NODES
            and all(self.is_free(*gpu) for gpu in gpus_of(spans))
            and all(self.has_rest(spans[0], node) for node in nodes_of_it)
        ):
            job = len(self.jobs) + len(self.holder) + 1
            while job in self.jobs:
                job += 1
            assert self.occupancy.free.free_in(spans[0])
            self.occupancy.occupy(job, spans)
            self.jobs[job] = spans
            self.holder.update(dict.fromkeys(gpus_of(spans), job))
        else:
            assert not self.occupancy.free.free_in(spans[0])

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 50))
    def vacate(self, which: int) -> None:
        job = sorted(self.jobs)[which % len(self.jobs)]
        spans = self.jobs.pop(job)
        self.occupancy.vacate(spans)
        for gpu in gpus_of(spans):
            del self.holder[gpu]

    @rule(first=st.integers(0, NODES - 1), nodes=st.integers(1, 3), mask=st.sampled_from((FULL, 3)))
    def reserve(self, first: int, nodes: int, mask: int) -> None:
        spans = (Span(first, nodes, mask),)
        if first + nodes <= NODES and not any(self.is_reserved(*gpu) for gpu in gpus_of(spans)):
            self.occupancy.reserve(spans)
            self.reserved.append(spans)

    @precondition(lambda self: self.reserved)
    @rule(which=st.integers(0, 50))
    def unreserve(self, which: int) -> None:
        self.occupancy.unreserve(self.reserved.pop(which % len(self.reserved)))

    @rule(node=st.integers(0, NODES - 1), state=st.sampled_from(tuple(NodeState)))
    def change_node(self, node: int, state: NodeState) -> None:
        self.occupancy.set_node_state(node, state)
        self.down.pop(node, None)
        if state is not NodeState.UP:
            self.down[node] = state

    @invariant()
    def the_tables_agree(self) -> None:
        free = self.occupancy.free
        for node in range(NODES):
            for gpu in range(GPUS):
                assert self.occupancy.holder(node, gpu) == self.holder.get((node, gpu), NOBODY)
                assert bool(free.masks[node] >> gpu & 1) == self.is_free(node, gpu)
            held = {job for (where, _), job in self.holder.items() if where == node}
            assert self.occupancy.jobs_on(node) == sorted(held)
        assert self.occupancy.used_gpus == len(self.holder)
        assert self.occupancy.capacity_gpus == sum(self.capacity(node) for node in range(NODES))

    @invariant()
    def the_notes_agree(self) -> None:
        free = self.occupancy.free
        for node in range(NODES):
            noted = free.beyond.get(node, Beyond())
            here = [span for spans in self.jobs.values() for span in spans
                    if span.first <= node < span.first + span.nodes]  # fmt: skip
            above = [(span.cpus * GPUS - span.gpu_mask.bit_count() * CPUS) * (span.cpus > 0) for span in here]
            assert noted.cpu_parts == sum(above)
            assert bool(noted.jobs) == bool(free.tight >> node & 1)
            assert (noted != Beyond()) == bool(free.noted >> node & 1) == (node in free.beyond)

    def capacity(self, node: int) -> int:
        if self.down.get(node) is NodeState.DRAINED:
            return sum(where == node for where, _ in self.holder)
        return 0 if node in self.down else GPUS

    @invariant()
    def the_counts_agree(self) -> None:
        assert_counts(self.occupancy.free)


def gpus_of(spans: tuple[Span, ...]) -> list[tuple[int, int]]:
    """Every (node, GPU) of some spans."""
    return [
        (node, gpu)
        for span in spans
        for node in range(span.first, span.first + span.nodes)
        for gpu in range(GPUS)
        if span.gpu_mask >> gpu & 1
    ]


def assert_counts(free: FreeMap) -> None:
    """Files and counters of a free map say what its masks say."""
    counts = [mask.bit_count() for mask in free.masks]
    assert free.free_gpus == sum(counts)
    for count in range(1, free.gpus_per_node + 1):
        assert free.by_free[count] == sum(1 << node for node, had in enumerate(counts) if had == count)
    for rack, whole in enumerate(free.rack_whole):
        nodes = counts[rack * free.nodes_per_rack : (rack + 1) * free.nodes_per_rack]
        assert whole == nodes.count(free.gpus_per_node)
        assert [racks >> rack & 1 for racks in free.racks_by_whole].count(1) == 1
        assert free.racks_by_whole[whole] >> rack & 1
    for block, whole in enumerate(free.block_whole):
        first = block * free.racks_per_block
        assert whole == sum(free.rack_whole[first : first + free.racks_per_block])


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_branch_shares_nothing_that_changes() -> None:
    free = Occupancy(FreeMap(NODES, GPUS, IN_RACK, 2), in_service=True).free
    branch = free.branch()
    branch.take(Span(0, 5, FULL))
    branch.take(Span(6, 1, 1))
    assert free.free_gpus == NODES * GPUS
    assert_counts(free)
    assert_counts(branch)


def test_taking_what_is_not_free_is_a_bug_that_shows() -> None:
    free = Occupancy(FreeMap(NODES, GPUS, IN_RACK, 2), in_service=True).free
    free.take(Span(1, 1, 3))
    with pytest.raises(AssertionError):
        free.give(Span(0, 1, 1))
    with pytest.raises(AssertionError):
        free.take(Span(0, 3, FULL))


@pytest.mark.parametrize(("first", "nodes"), [(-1, 2), (NODES - 1, 2), (NODES, 1)])
def test_nothing_outside_the_pool_is_free(first: int, nodes: int) -> None:
    free = Occupancy(FreeMap(NODES, GPUS, IN_RACK, 2), in_service=True).free
    assert not free.free_in(Span(first, nodes, FULL))


def test_a_pool_before_its_service_has_nothing_to_give_whatever_its_nodes_do() -> None:
    occupancy = Occupancy(FreeMap(NODES, GPUS, IN_RACK, 2), in_service=False)
    for state in (NodeState.DOWN, NodeState.UP, NodeState.DRAINED, NodeState.UP):
        occupancy.set_node_state(3, state)
        assert (occupancy.capacity_gpus, occupancy.free.free_gpus) == (0, 0)
