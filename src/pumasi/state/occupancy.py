"""Who holds which GPUs of a pool, which nodes take work, and what is free as a consequence."""

from array import array
from functools import lru_cache

from pumasi.events.facts import NodeState
from pumasi.model.ids import JobId
from pumasi.model.jobs import Span
from pumasi.state.freemap import FreeMap, no_masks

NOBODY = 0


class Occupancy:
    """The GPUs of one pool. A GPU is free if its node is up and no job uses it or has it reserved.

    `free` may be read and branched by the scheduler; it is changed only here. `used` and `reserved` are masks per node.
    `holders`: GPU by GPU, node after node, the job that holds it, or NOBODY.
    `capacity_gpus`: GPUs that count for entitlements: those of nodes that are up, and those in use on drained ones;
    none before the pool is in service.
    """

    __slots__ = ("capacity_gpus", "free", "holders", "in_service", "node_states", "reserved", "used", "used_gpus")

    def __init__(self, free: FreeMap, *, in_service: bool) -> None:
        """`free`: the map of a pool in which nothing is free yet."""
        nodes, gpus_per_node = free.nodes, free.gpus_per_node
        self.free = free
        self.used = no_masks(nodes, gpus_per_node)
        self.reserved = no_masks(nodes, gpus_per_node)
        self.node_states: dict[int, NodeState] = {}  # only nodes that are not up
        self.holders = array("i", bytes(4 * nodes * gpus_per_node))
        self.used_gpus = 0
        self.capacity_gpus = 0
        self.in_service = in_service
        if in_service:
            self.capacity_gpus = nodes * gpus_per_node
            self.free.give(Span(0, nodes, self.free.full_mask))

    def branch(self) -> "Occupancy":
        """A copy that can be changed without changing this one."""
        twin = Occupancy.__new__(Occupancy)
        twin.free = self.free.branch()
        twin.used = self.used[:]
        twin.reserved = self.reserved[:]
        twin.node_states = dict(self.node_states)
        twin.holders = self.holders[:]
        twin.used_gpus, twin.capacity_gpus, twin.in_service = self.used_gpus, self.capacity_gpus, self.in_service
        return twin

    def node_state(self, node: int) -> NodeState:
        """Whether the node takes work."""
        return self.node_states.get(node, NodeState.UP)

    def jobs_on(self, node: int) -> list[JobId]:
        """The jobs that hold GPUs of the node, in order of their numbers."""
        each = self.free.gpus_per_node
        return sorted(set(self.holders[node * each : (node + 1) * each]) - {NOBODY})

    def holder(self, node: int, gpu: int) -> JobId:
        """The job that holds the GPU, or NOBODY."""
        return self.holders[node * self.free.gpus_per_node + gpu]

    def occupy(self, job: JobId, spans: tuple[Span, ...]) -> None:
        """Give free GPUs to a job."""
        for span in spans:
            self.free.take(span)
            self._set_used(span, job)

    def vacate(self, spans: tuple[Span, ...]) -> None:
        """Take a job's GPUs back; free again unless their node is not up or they are reserved."""
        for span in spans:
            self._set_used(span, NOBODY)
            self._give_back(span)

    def reserve(self, spans: tuple[Span, ...]) -> None:
        """Hold GPUs back from everyone, whether free now or still in use."""
        for node, mask in _each_node(spans):
            self.reserved[node] |= mask
            self._take_free_part(node, mask)

    def unreserve(self, spans: tuple[Span, ...]) -> None:
        """End a reservation: what of it is not in use is free again."""
        for node, mask in _each_node(spans):
            self.reserved[node] &= ~mask
            self._give_unused(node, mask)

    def set_node_state(self, node: int, state: NodeState) -> None:
        """Let a node take work or not. GPUs in use stay with their jobs."""
        self.capacity_gpus -= self._node_capacity(node)
        full = self.free.full_mask
        self._take_free_part(node, full)
        if state is NodeState.UP:
            self.node_states.pop(node, None)
            self._give_unused(node, full)
        else:
            self.node_states[node] = state
        self.capacity_gpus += self._node_capacity(node)

    def _node_capacity(self, node: int) -> int:
        if not self.in_service:
            return 0
        match self.node_state(node):
            case NodeState.UP:
                return self.free.gpus_per_node
            case NodeState.DRAINED:
                return self.used[node].bit_count()
            case NodeState.DOWN:
                return 0

    def _set_used(self, span: Span, job: JobId) -> None:
        each, mask, first, nodes = self.free.gpus_per_node, span.gpu_mask, span.first, span.nodes
        if nodes > 1 and mask == (1 << each) - 1:
            self.used[first : first + nodes] = array(self.used.typecode, (mask if job else 0,)) * nodes
            self.holders[first * each : (first + nodes) * each] = array("i", (job,)) * (nodes * each)
        else:
            used, holder, gpus = self.used, self.holders, _gpus_in(mask)
            for node in range(first, first + nodes):
                used[node] ^= mask  # none of it was used before, all of it is now, or the other way round
                for gpu in gpus:
                    holder[node * each + gpu] = job
        gpus_taken = nodes * mask.bit_count()
        self.used_gpus += gpus_taken if job else -gpus_taken

    def _give_back(self, span: Span) -> None:
        first, nodes = span.first, span.nodes
        held = self.reserved[first] if nodes == 1 else any(self.reserved[first : first + nodes])
        if not (held or self.node_states):
            self.free.give(span)
            return
        self.free.note(span, -1)
        for node in range(first, first + nodes):
            if self.node_state(node) is NodeState.DRAINED:
                self.capacity_gpus -= span.gpu_mask.bit_count()
            self._give_unused(node, span.gpu_mask)

    def _give_unused(self, node: int, mask: int) -> None:
        free = mask & ~self.used[node] & ~self.reserved[node]
        if free and self.in_service and self.node_state(node) is NodeState.UP:
            self.free.give(Span(node, 1, free))

    def _take_free_part(self, node: int, mask: int) -> None:
        free = mask & self.free.masks[node]
        if free:
            self.free.take(Span(node, 1, free))


@lru_cache(maxsize=1 << 16)  # nodes that are cut have more masks than memory holds
def _gpus_in(mask: int) -> tuple[int, ...]:
    """The indices of a mask's GPUs."""
    return tuple(gpu for gpu in range(mask.bit_length()) if mask >> gpu & 1)


def _each_node(spans: tuple[Span, ...]) -> list[tuple[int, int]]:
    return [(node, span.gpu_mask) for span in spans for node in range(span.first, span.first + span.nodes)]
