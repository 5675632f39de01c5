"""Hierarchical fair share: at every level the child that has used least for its weight goes first.

A queue's use is its decayed past plus what it uses now; GPUs in use count as if held for one half-life, which weighs
them like a steady past. Keys are exact integers: use × (least common multiple of the siblings' weights ÷ own weight).
Only the child at the top of a heap ever changes its key, so a placement costs one heap step a level.
"""

from heapq import heapify, heappop, heapreplace
from math import lcm

from pumasi.model.ids import OwnerId, QueueId, queue_owner
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import Demand, Demands
from pumasi.state.records import Job, QueueRecord

Entry = tuple[Job, Demand]


class ShareNode:
    """A queue with work in it or below it. A queue with both is a node whose own work is one more child."""

    __slots__ = ("at", "children", "entries", "heap", "left", "parent", "position", "queue", "refused", "scale", "use")

    def __init__(self, queue: QueueId, parent: "ShareNode | None", position: int, use: int) -> None:
        self.queue = queue
        self.parent = parent
        self.position = position
        self.use = use
        self.scale = 1
        self.children: list[ShareNode] = []
        self.heap: list[tuple[int, int, ShareNode]] = []
        self.entries: list[Entry] = []
        self.at = 0
        self.left: list[Entry] = []
        self.refused: set[Demand] = set()

    @property
    def key(self) -> tuple[int, int, "ShareNode"]:
        """Least goes first; equals in the order their queues were declared."""
        return (self.use * self.scale, self.position, self)

    def next_entry(self) -> Entry | None:
        """The next job of this leaf that is worth a try; None when there is none left."""
        entries, refused, left, at = self.entries, self.refused, self.left, self.at
        while at < len(entries):
            entry = entries[at]
            at += 1
            if not entry[1].is_refused and entry[1] not in refused:
                self.at = at
                return entry
            left.append(entry)
        self.at = at
        return None

    def refill(self) -> bool:
        """Start a new pass over what is left; True if there is anything."""
        if self.children:
            self.heap = [child.key for child in self.children if child.refill()]
            heapify(self.heap)
            return bool(self.heap)
        self.entries, self.left, self.at = self.left, [], 0
        self.refused.clear()
        return bool(self.entries)


class ShareTree:
    """The queues of one owner that have work, and whose turn it is."""

    def __init__(self, board: Board, demands: Demands, owner: OwnerId, waiting: list[QueueId]) -> None:
        self.owner = owner
        self._board = board
        self._demands = demands
        self._half_life_ms = board.state.policy.usage_half_life_seconds * 1000
        self._busy = self._and_above(waiting)
        self.not_yet: list[Job] = []  # their begin time has not come
        self._nodes: dict[QueueId, ShareNode] = {}
        self.root = self._grow(owner, None, 0)
        self._count_reserved()
        self.refill()

    def refill(self) -> None:
        """Start a new pass over what is left."""
        self.has_work = self.root.refill()

    def next(self) -> tuple[ShareNode, Entry] | None:
        """The leaf whose turn it is and its next job; None when the pass is over."""
        while self.has_work:
            leaf = self.root
            while leaf.heap:
                leaf = leaf.heap[0][2]
            entry = leaf.next_entry()
            if entry is not None:
                return leaf, entry
            self._drop(leaf)
        return None

    def used(self, leaf: ShareNode, gpus: int) -> None:
        """Count GPUs given to the leaf whose turn it is."""
        use = gpus * self._half_life_ms
        node = leaf
        node.use += use
        while node.parent is not None:
            heapreplace(node.parent.heap, node.key)
            node = node.parent
            node.use += use

    def leaves(self) -> list[ShareNode]:
        """Every leaf, in order of declaration."""
        found: list[ShareNode] = []
        stack = [self.root]
        while stack:
            node = stack.pop()
            stack += reversed(node.children)
            if not node.children:
                found.append(node)
        return found

    def _drop(self, node: ShareNode) -> None:
        while node.parent is not None:
            heappop(node.parent.heap)
            if node.parent.heap:
                return
            node = node.parent
        self.has_work = False

    def _and_above(self, waiting: list[QueueId]) -> dict[QueueId, None]:
        busy: dict[QueueId, None] = {}
        for queue in waiting:
            up: QueueId | None = queue
            while up is not None and up not in busy:
                busy[up] = None
                up = self._board.state.queues[up].parent
        return busy

    def _count_reserved(self) -> None:
        """GPUs reserved for a job count as used by its queue: they are held for it."""
        for job, reservation in self._board.reserved.items():
            queue: QueueId | None = self._board.state.jobs[job].spec.queue
            while queue is not None:
                if queue in self._nodes:
                    self._nodes[queue].use += sum(charge.gpus for charge in reservation.charges) * self._half_life_ms
                queue = self._board.state.queues[queue].parent

    def _grow(self, queue: QueueId, parent: ShareNode | None, position: int) -> ShareNode:
        record = self._board.state.queues[queue]
        node = self._nodes[queue] = ShareNode(queue, parent, position, self._use(record))
        below = [child for child in record.children if child in self._busy]
        if not below:
            node.left = self._entries(record)
            return node
        node.children = [self._grow(child, node, place) for place, child in enumerate(below)]
        weights = [max(1, self._board.state.queues[child].declared.weight) for child in below]
        if record.waiting:
            node.children.append(self._own_work(record, node))
            weights.append(1)
        common = lcm(*weights)
        for child, weight in zip(node.children, weights, strict=True):
            child.scale = common // weight
        return node

    def _own_work(self, record: QueueRecord, parent: ShareNode) -> ShareNode:
        below = sum(self._use(self._board.state.queues[child]) for child in record.children)
        own = ShareNode(parent.queue, parent, len(record.children), max(0, parent.use - below))
        own.left = self._entries(record)
        return own

    def _use(self, record: QueueRecord) -> int:
        past = record.past_at(self._board.now_ms, self._half_life_ms)
        return past + record.gpus_in_use * self._half_life_ms

    def _entries(self, record: QueueRecord) -> list[Entry]:
        jobs, now_ms = self._board.state.jobs, self._board.now_ms
        settled = self._board.reserved.keys() | self._board.placed.keys()
        waiting = [jobs[job] for _, job in record.waiting if job not in settled]
        self.not_yet += [job for job in waiting if job.spec.begin_at_ms > now_ms]
        return [(job, self._demands.of(self.owner, job.spec)) for job in waiting if job.spec.begin_at_ms <= now_ms]


def share_trees(board: Board, demands: Demands) -> list[ShareTree]:
    """A tree for every owner with waiting jobs, in the order the owners were declared."""
    waiting: dict[OwnerId, list[QueueId]] = {}
    for name, record in board.state.queues.items():
        if record.waiting:
            waiting.setdefault(queue_owner(name), []).append(name)
    return [ShareTree(board, demands, owner, waiting[owner]) for owner in board.state.owners if owner in waiting]
