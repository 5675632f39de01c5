"""Hierarchical fair share: at every level the child that has used least for its weight goes first.

A queue's use is its decayed past plus what it uses now; GPUs in use count as if held for one half-life, which weighs
them like a steady past. Keys are exact integers: use × (least common multiple of the siblings' weights ÷ own weight).
Only the child at the top of a heap ever changes its key, so a placement costs one heap step a level.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from math import lcm
from typing import Any

from pumasi.model.fleet import PARTS_PER_GPU
from pumasi.model.ids import JobId, OwnerId, QueueId
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import NO_LIMIT_SECONDS, Demand
from pumasi.scheduler.outlook import NEVER_MS
from pumasi.scheduler.rooms import may_have_room
from pumasi.scheduler.shapes import Fit
from pumasi.state.backlog import Line
from pumasi.state.records import Job

Turn = tuple[Job, Demand]
Judge = Callable[[Board, Demand, Fit], bool]
Head = tuple[tuple[int, JobId], int]  # the next job of a file, and which file


# What a node that has not been opened has in it. Most never are, so they share these, which nobody changes.
_NONE: list[Any] = []
_NOBODY: set[Any] = set()
_NOBODY_LATE: dict[Any, int] = {}


class File:
    """The jobs of one queue with one demand, in their order; `at`: the first that has not been placed.

    `passed`: the first that was passed over because it would delay a planned start. `begin_ms`: the earliest begin time
    among those that may not begin yet. In a queue of strict order all its jobs are in one file, and `demand` is that of
    the one at `at`.
    """

    __slots__ = ("at", "begin_ms", "demand", "is_strict", "line", "passed")

    def __init__(self, demand: Demand, line: Line, *, is_strict: bool = False) -> None:
        self.demand = demand
        self.line = line
        self.is_strict = is_strict
        self.at = 0
        self.begin_ms = NEVER_MS
        self.passed = len(line)


class ShareNode:
    """A queue with work in it or below it. A queue with both is a node whose own work is one more child.

    What is below a node is only read from the state when its turn comes. `refused`: what found no room in a queue that
    shares its quotas; `held_back`: from what time limit on a job of this queue would delay what is promised;
    `demands`: what is asked for below it, if all queues there share them, and `logs_left`: how many of the tree's
    demands were not refused when its heap was thinned.
    """

    __slots__ = (
        "children", "demands", "files", "heads", "heap", "held_back", "is_open", "logs_left", "parent", "position",
        "queue", "refused", "scale", "use",
    )  # fmt: skip

    def __init__(self, queue: QueueId, parent: "ShareNode | None", position: int, use: int) -> None:
        self.queue = queue
        self.parent = parent
        self.position = position
        self.use = use
        self.scale = 1
        self.is_open = False
        self.children: list[ShareNode] = _NONE
        self.heap: list[tuple[int, int, ShareNode]] = _NONE
        self.files: list[File] = _NONE
        self.heads: list[Head] = _NONE
        self.demands: list[Demand] = _NONE
        self.logs_left = -1
        self.refused: set[Demand] = _NOBODY
        self.held_back: dict[Demand, int] = _NOBODY_LATE

    @property
    def key(self) -> tuple[int, int, "ShareNode"]:
        """Least goes first; equals in the order their queues were declared."""
        return (self.use * self.scale, self.position, self)

    @property
    def is_hopeless(self) -> bool:
        """True if all that is asked for in this queue and below it was refused by the quotas they share."""
        demands = self.demands
        return bool(demands) and all(demand.is_refused or demand in self.refused for demand in demands)

    def next_turn(self, board: Board) -> Turn | None:
        """The next job of this leaf that is worth a try; None when there is none left."""
        heads, refused, jobs = self.heads, self.refused, board.state.jobs
        while heads:
            (_, job_id), number = heads[0]
            file, job = self.files[number], jobs[job_id]
            if file.is_strict:
                file.demand = board.rules.demand_of(job.owner, job.spec)
            if job.spec.begin_at_ms > board.now_ms:
                file.begin_ms = min(file.begin_ms, job.spec.begin_at_ms)
            elif not board.is_settled(job_id):
                if file.demand.is_refused or file.demand in refused:
                    heappop(heads)
                    continue
                held_back_seconds = file.demand.held_back_seconds
                if self.held_back:
                    held_back_seconds = min(held_back_seconds, self.held_back.get(file.demand, NO_LIMIT_SECONDS))
                if job.spec.time_limit_seconds < held_back_seconds:
                    return job, file.demand
                file.passed = min(file.passed, file.at)
            self._advance(file, number)
        return None

    def _advance(self, file: File, number: int) -> None:
        file.at += 1
        if file.at < len(file.line):
            heapreplace(self.heads, (file.line[file.at], number))
        else:
            heappop(self.heads)

    def refill(self) -> bool:
        """Start a new pass over what is left; False if there is surely nothing."""
        if not self.is_open:
            return True
        if self.children:
            self.logs_left = -1
            self.heap = [child.key for child in self.children if child.refill()]
            heapify(self.heap)
            return bool(self.heap)
        for file in self.files:
            file.at, file.passed = min(file.at, file.passed), len(file.line)
        self.heads = [
            (file.line[file.at], number) for number, file in enumerate(self.files) if file.at < len(file.line)
        ]  # fmt: skip
        heapify(self.heads)
        self.held_back = _NOBODY_LATE
        return bool(self.heads)


class ShareTree:
    """The queues of one owner that have work worth a try, and whose turn it is. `placed`: by demand, how many."""

    def __init__(self, board: Board, owner: OwnerId, demands: list[Demand], reserved: dict[QueueId, int]) -> None:
        self.owner = owner
        self.demands = demands
        self.placed = dict.fromkeys(demands, 0)
        self._board = board
        self._half_life_ms = board.rules.half_life_ms
        self._logs = [(demand, board.state.backlogs.by_need[demand.key]) for demand in demands]
        self._reserved = reserved
        self._files: list[File] = []
        self._may_have_room: Judge = may_have_room
        self._refused: dict[QueueId, set[Demand]] = {}
        self.root = ShareNode(owner, None, 0, self._use(owner))
        self.has_work = True

    def begin(self, may_have_room: Judge, is_worth_a_turn: Callable[[Board, Demand], bool]) -> None:
        """Start a pass over what is left. What surely finds no room has no turn, unless it `is_worth_a_turn` anyway."""
        self._may_have_room = may_have_room
        for demand in self.demands:
            is_worth_it = is_worth_a_turn(self._board, demand)
            demand.reopen()
            self.narrow(demand)
            demand.is_refused = not demand.open_fits and not is_worth_it
        for refused in self._refused.values():
            refused.clear()
        self.has_work = self.root.refill()

    def narrow(self, demand: Demand) -> None:
        """Only pools that may have room for the demand as things stand are looked at for the rest of the pass."""
        demand.close_all_but(tuple([fit for fit in demand.open_fits if self._may_have_room(self._board, demand, fit)]))

    def next(self) -> tuple[ShareNode, Turn] | None:
        """The leaf whose turn it is and its next job; None when the pass is over."""
        while self.has_work and not all(demand.is_refused for demand in self.demands):
            leaf = self.root
            while True:
                if not leaf.is_open:
                    self._open(leaf)
                if not leaf.heap:
                    break
                leaf = leaf.heap[0][2]
            turn = leaf.next_turn(self._board)
            if turn is not None:
                return leaf, turn
            self._drop(leaf)
        self.has_work = False
        return None

    def used(self, leaf: ShareNode, job: Job, demand: Demand) -> None:
        """Count the GPUs given to the leaf whose turn it is."""
        if demand in self.placed:
            self.placed[demand] += 1
        use = job.spec.gpus * self._half_life_ms
        if job.spec.slice:
            use = _parts_of(self._board, job) * self._half_life_ms // PARTS_PER_GPU
        node = leaf
        node.use += use
        while node.parent is not None:
            heapreplace(node.parent.heap, node.key)
            node = node.parent
            node.use += use

    def begins(self) -> Iterator[tuple[int, Demand]]:
        """When jobs that were passed over may begin: the earliest of each file."""
        return ((file.begin_ms, file.demand) for file in self._files if file.begin_ms < NEVER_MS)

    def blocked(self) -> Iterator[Demand]:
        """The demands of which a job stands first in a queue of strict order and found no room."""
        return (file.demand for file in self._files if file.is_strict and file.at < len(file.line))

    def _drop(self, node: ShareNode) -> None:
        while node.parent is not None:
            heappop(node.parent.heap)
            node = node.parent
            if node.demands:
                self._thin(node)
            if node.heap:
                return
        self.has_work = False

    def _thin(self, node: ShareNode) -> None:
        """Leave out the children that only ask for what the quotas they share have refused."""
        logs = [log for demand, log in self._logs if not demand.is_refused and demand not in node.refused]
        if len(logs) != node.logs_left:
            node.logs_left = len(logs)
            asking = {name for log in logs for name in log.below.get(node.queue, ())}
            if any(node.queue in log.lines for log in logs):
                asking.add(node.queue)
            node.heap = [entry for entry in node.heap if entry[2].queue in asking]
            heapify(node.heap)

    def _open(self, node: ShareNode) -> None:
        """Read from the state what is in a queue and below it."""
        rules = self._board.rules
        node.refused = self._refused.setdefault(rules.room_class(node.queue), set())
        if node.queue not in rules.divided:
            node.demands = [demand for demand, log in self._logs if log.has(node.queue)]
        if node.is_hopeless:
            return
        node.is_open = True
        files = self._files_of(node.queue)
        names: dict[QueueId, None] = {}
        if node.parent is None or node.parent.queue != node.queue:
            for _, log in self._logs:
                names.update(log.below.get(node.queue, ()))
        if names:
            self._open_children(node, sorted(names, key=self._board.rules.position.__getitem__), bool(files))
        else:
            node.files = files
            self._files += files
        node.refill()

    def _open_children(self, node: ShareNode, names: list[QueueId], has_own_work: bool) -> None:
        queues, position = self._board.state.queues, self._board.rules.position
        node.children = [ShareNode(name, node, position[name], self._use(name)) for name in names]
        weights = [max(1, queues[name].declared.weight) for name in names]
        if has_own_work:
            below = sum(self._use(child) for child in queues[node.queue].children)
            own = ShareNode(node.queue, node, len(position), max(0, self._use(node.queue) - below))
            node.children.append(own)
            weights.append(1)
        common = lcm(*weights)
        for child, weight in zip(node.children, weights, strict=True):
            child.scale = common // weight

    def _files_of(self, queue: QueueId) -> list[File]:
        if queue not in self._board.rules.strict:
            return [File(demand, log.lines[queue]) for demand, log in self._logs if queue in log.lines]
        asking = [demand for demand, log in self._logs if queue in log.lines]
        waiting = self._board.state.queues[queue].waiting
        first = self._first_with_a_turn(waiting) if asking else None
        return [File(asking[0], waiting, is_strict=True)] if asking and (first is None or first in self.placed) else []

    def _first_with_a_turn(self, waiting: Line) -> Demand | None:
        """The demand of the first job in a line of strict order that needs a turn now; unless it is worth a try, it
        blocks all behind it.
        """
        board = self._board
        jobs = (board.state.jobs[number] for _, number in waiting if not board.is_settled(number))
        first = next((job for job in jobs if job.spec.begin_at_ms <= board.now_ms), None)
        return None if first is None else board.rules.demand_of(first.owner, first.spec)

    def _use(self, queue: QueueId) -> int:
        """GPUs reserved for its jobs count as used: they are held for it."""
        record = self._board.state.queues[queue]
        past = record.past_at(self._board.now_ms, self._half_life_ms)
        return past + (record.parts_in_use + self._reserved.get(queue, 0)) * self._half_life_ms // PARTS_PER_GPU


def share_trees(board: Board, demands: Iterable[Demand]) -> list[ShareTree]:
    """A tree for every owner with one of these demands, in the order the owners were declared."""
    by_owner: dict[OwnerId, list[Demand]] = {}
    for demand in demands:
        by_owner.setdefault(demand.owner, []).append(demand)
    if len(by_owner) > 1:
        by_owner = {owner: by_owner[owner] for owner in board.state.owners if owner in by_owner}
    reserved = _reserved_parts(board) if by_owner else {}
    return [ShareTree(board, owner, found, reserved) for owner, found in by_owner.items()]


def _reserved_parts(board: Board) -> dict[QueueId, int]:
    """What is reserved for the jobs of each queue and of those below it, or given to them in this cycle already."""
    found: dict[QueueId, int] = {}
    for number in (*board.reserved, *board.placed):
        job = board.state.jobs[number]
        parts = _parts_of(board, job)
        queue: QueueId | None = job.spec.queue
        while queue is not None:
            found[queue] = found.get(queue, 0) + parts
            queue = board.state.queues[queue].parent
    return found


def _parts_of(board: Board, job: Job) -> int:
    """What a job placed in this cycle or with a reservation is given, in parts of a GPU."""
    if not job.spec.slice:
        return job.spec.gpus * PARTS_PER_GPU
    pool = board.placed[job.id] if job.id in board.placed else board.reserved[job.id].pool
    return board.state.pools[pool].declared.parts(job.spec.gpus)
