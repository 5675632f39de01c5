"""Hierarchical fair share: at every level the child that has used least for its weight goes first.

A queue's use is its decayed past plus what it uses now; GPUs in use count as if held for one half-life, which weighs
them like a steady past. Keys are exact integers: use × (least common multiple of the siblings' weights ÷ own weight).
Only the child at the top of a heap ever changes its key, so a placement costs one heap step a level.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from math import lcm

from pumasi.model.ids import JobId, OwnerId, QueueId
from pumasi.scheduler.board import NEVER_MS, Board
from pumasi.scheduler.demand import Demand
from pumasi.state.backlog import Line
from pumasi.state.records import Job

Turn = tuple[Job, Demand]
Head = tuple[tuple[int, JobId], int]  # the next job of a file, and which file


class File:
    """The jobs of one queue with one demand, in their order; `at`: the first that has not been placed.

    In a queue of strict order all its jobs are in one file, and `demand` is that of the one at `at`. `begin_ms`: the
    earliest begin time among those that may not begin yet.
    """

    __slots__ = ("at", "begin_ms", "demand", "is_strict", "line")

    def __init__(self, demand: Demand, line: Line, *, is_strict: bool = False) -> None:
        self.demand = demand
        self.line = line
        self.is_strict = is_strict
        self.at = 0
        self.begin_ms = NEVER_MS


class ShareNode:
    """A queue with work in it or below it. A queue with both is a node whose own work is one more child."""

    __slots__ = ("children", "files", "heads", "heap", "parent", "position", "queue", "refused", "scale", "use")

    def __init__(self, queue: QueueId, parent: "ShareNode | None", position: int, use: int) -> None:
        self.queue = queue
        self.parent = parent
        self.position = position
        self.use = use
        self.scale = 1
        self.children: list[ShareNode] = []
        self.heap: list[tuple[int, int, ShareNode]] = []
        self.files: list[File] = []
        self.heads: list[Head] = []
        self.refused: set[Demand] = set()

    @property
    def key(self) -> tuple[int, int, "ShareNode"]:
        """Least goes first; equals in the order their queues were declared."""
        return (self.use * self.scale, self.position, self)

    def next_turn(self, board: Board) -> Turn | None:
        """The next job of this leaf that is worth a try; None when there is none left."""
        heads, refused, jobs = self.heads, self.refused, board.state.jobs
        while heads:
            (_, job_id), number = heads[0]
            file, job = self.files[number], jobs[job_id]
            if file.is_strict:
                file.demand = board.rules.demand_of(job.owner, job.spec)
            if file.demand.is_refused or file.demand in refused:
                heappop(heads)
                continue
            if job.spec.begin_at_ms > board.now_ms:
                file.begin_ms = min(file.begin_ms, job.spec.begin_at_ms)
            elif not board.is_settled(job_id):
                return job, file.demand
            self._advance(file, number)
        return None

    def _advance(self, file: File, number: int) -> None:
        file.at += 1
        if file.at < len(file.line):
            heapreplace(self.heads, (file.line[file.at], number))
        else:
            heappop(self.heads)

    def refill(self) -> bool:
        """Start a new pass over what is left; True if there is anything."""
        if self.children:
            self.heap = [child.key for child in self.children if child.refill()]
            heapify(self.heap)
            return bool(self.heap)
        self.heads = [
            (file.line[file.at], number) for number, file in enumerate(self.files) if file.at < len(file.line)
        ]  # fmt: skip
        heapify(self.heads)
        self.refused.clear()
        for file in self.files:
            file.demand.is_refused = False
        return bool(self.heads)


class ShareTree:
    """The queues of one owner that have work worth a try, and whose turn it is."""

    def __init__(self, board: Board, owner: OwnerId, demands: Iterable[Demand]) -> None:
        self.owner = owner
        self._board = board
        self._half_life_ms = board.rules.half_life_ms
        self._files: dict[QueueId, list[File]] = {}
        for demand in demands:
            for queue, line in board.state.backlogs.by_need[demand.key].lines.items():
                if queue not in board.rules.strict:
                    self._files.setdefault(queue, []).append(File(demand, line))
                elif line[0] == (waiting := board.state.queues[queue].waiting)[0]:
                    self._files[queue] = [File(demand, waiting, is_strict=True)]
        self._below = self._busy_children()
        self._nodes: dict[QueueId, ShareNode] = {}
        self.has_work = bool(self._files)
        if self._files:
            self.root = self._grow(owner, None, 0)
            self._count_reserved()
            self.refill()

    def refill(self) -> None:
        """Start a new pass over what is left."""
        self.has_work = bool(self._files) and self.root.refill()

    def next(self) -> tuple[ShareNode, Turn] | None:
        """The leaf whose turn it is and its next job; None when the pass is over."""
        while self.has_work:
            leaf = self.root
            while leaf.heap:
                leaf = leaf.heap[0][2]
            turn = leaf.next_turn(self._board)
            if turn is not None:
                return leaf, turn
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

    def files(self) -> Iterable[File]:
        """Every file of every queue."""
        for files in self._files.values():
            yield from files

    def _drop(self, node: ShareNode) -> None:
        while node.parent is not None:
            heappop(node.parent.heap)
            if node.parent.heap:
                return
            node = node.parent
        self.has_work = False

    def _busy_children(self) -> dict[QueueId, list[QueueId]]:
        """The children with work in them or below them, in order of declaration, of each queue that has any."""
        below: dict[QueueId, list[QueueId]] = {}
        queues = self._board.state.queues
        for queue in self._files:
            child, parent = queue, queues[queue].parent
            while parent is not None:
                if parent in below:
                    if child not in below[parent]:
                        below[parent].append(child)
                    break
                below[parent] = [child]
                child, parent = parent, queues[parent].parent
        for children in below.values():
            children.sort(key=self._board.rules.position.__getitem__)
        return below

    def _count_reserved(self) -> None:
        """GPUs reserved for a job count as used by its queue: they are held for it."""
        for job, reservation in self._board.reserved.items():
            queue: QueueId | None = self._board.state.jobs[job].spec.queue
            while queue is not None:
                if queue in self._nodes:
                    self._nodes[queue].use += sum(charge.gpus for charge in reservation.charges) * self._half_life_ms
                queue = self._board.state.queues[queue].parent

    def _grow(self, queue: QueueId, parent: ShareNode | None, position: int) -> ShareNode:
        node = self._nodes[queue] = ShareNode(queue, parent, position, self._use(queue))
        below = self._below.get(queue)
        if not below:
            node.files = self._files[queue]
            return node
        node.children = [self._grow(child, node, place) for place, child in enumerate(below)]
        weights = [max(1, self._board.state.queues[child].declared.weight) for child in below]
        if queue in self._files:
            node.children.append(self._own_work(node, len(below)))
            weights.append(1)
        common = lcm(*weights)
        for child, weight in zip(node.children, weights, strict=True):
            child.scale = common // weight
        return node

    def _own_work(self, parent: ShareNode, position: int) -> ShareNode:
        children = self._board.state.queues[parent.queue].children
        below = sum(self._use(child) for child in children)
        own = ShareNode(parent.queue, parent, position, max(0, parent.use - below))
        own.files = self._files[parent.queue]
        return own

    def _use(self, queue: QueueId) -> int:
        record = self._board.state.queues[queue]
        past = record.past_at(self._board.now_ms, self._half_life_ms)
        return past + record.gpus_in_use * self._half_life_ms


def share_trees(board: Board, demands: Iterable[Demand]) -> list[ShareTree]:
    """A tree for every owner with one of these demands, in the order the owners were declared."""
    by_owner: dict[OwnerId, list[Demand]] = {}
    for demand in demands:
        by_owner.setdefault(demand.owner, []).append(demand)
    if len(by_owner) > 1:
        by_owner = {owner: by_owner[owner] for owner in board.state.owners if owner in by_owner}
    return [ShareTree(board, owner, found) for owner, found in by_owner.items()]
