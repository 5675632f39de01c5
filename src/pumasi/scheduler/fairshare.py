"""Hierarchical fair share: at every level the child that has used least for its weight goes first.

A queue's use is its decayed past plus what it uses now; GPUs in use count as if held for one half-life, which weighs
them like a steady past. Keys are exact integers: use × (least common multiple of the siblings' weights ÷ own weight).
Only the child at the top of a heap ever changes its key, so a placement costs one heap step a level.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import Any

from pumasi.model.fleet import PARTS_PER_GPU
from pumasi.model.ids import JobId, OwnerId, QueueId
from pumasi.scheduler.board import Board
from pumasi.scheduler.demand import NO_LIMIT_SECONDS, Demand
from pumasi.scheduler.outlook import NEVER_MS
from pumasi.scheduler.rooms import may_have_room
from pumasi.scheduler.shapes import Fit
from pumasi.state.backlog import Backlog, Line
from pumasi.state.records import Job

Turn = tuple[Job, Demand]
Judge = Callable[[Board, Demand, Fit], bool]
Head = tuple[tuple[int, JobId], int]  # the next job of a file, and which file
Log = tuple[Demand, Backlog]


# What a node whose turn has not come has in it. Most never are, so they share these, which nobody changes.
_NONE: list[Any] = []
_NOBODY: set[Any] = set()
_NOBODY_LATE: dict[Any, int] = {}
_NO_CHILDREN: dict[Any, Any] = {}


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

    What is below a node is only read from the state when its turn comes; `pass_number`: in which pass it last came.
    `refused`: what found no room in a queue that shares its quotas; `held_back`: from what time limit on a job of this
    queue would delay what is promised; `logs_left`: how many of the tree's demands were worth a turn below it when its
    heap was filled or thinned. Nodes do not know those above them: a tree without cycles is gone with its last user.
    """

    __slots__ = (
        "children", "files", "heads", "heap", "held_back", "is_own", "logs_left", "pass_number", "position", "queue",
        "refused", "scale", "use",
    )  # fmt: skip

    def __init__(self, queue: QueueId, position: int, use: int, scale: int = 1, *, is_own: bool = False) -> None:
        self.queue = queue
        self.position = position
        self.use = use
        self.scale = scale
        self.is_own = is_own
        self.pass_number = 0
        self.children: dict[QueueId, ShareNode] = _NO_CHILDREN
        self.heap: list[tuple[int, int, ShareNode]] = _NONE
        self.files: list[File] = _NONE
        self.heads: list[Head] = _NONE
        self.logs_left = 0
        self.refused: set[Demand] = _NOBODY
        self.held_back: dict[Demand, int] = _NOBODY_LATE

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
            if job.spec.begin_at_ms > board.now_ms:
                file.begin_ms = min(file.begin_ms, job.spec.begin_at_ms)
            elif not board.is_settled(job_id):
                if file.demand.is_refused or file.demand in refused:
                    heappop(heads)
                    continue
                held_back_seconds = file.demand.held_back_seconds
                if self.held_back:
                    held_back_seconds = min(held_back_seconds, self.held_back.get(file.demand, NO_LIMIT_SECONDS))
                is_own = job_id in board.planned and job_id not in board.held_back  # others wait for its own start
                if job.spec.time_limit_seconds < held_back_seconds or is_own:
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

    def read(self, files: list[File]) -> None:
        """Start a new pass over what is left of these."""
        for file in files:
            file.at, file.passed = min(file.at, file.passed), len(file.line)
        self.files = files
        self.heads = [(file.line[file.at], number) for number, file in enumerate(files) if file.at < len(file.line)]
        heapify(self.heads)
        self.held_back = _NOBODY_LATE


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
        self._files: dict[QueueId, dict[Demand, File]] = {}
        self._may_have_room: Judge = may_have_room
        self._refused: dict[QueueId, set[Demand]] = {}
        self._root = ShareNode(owner, 0, self._use(owner))
        self._path = [self._root]  # down to the leaf whose turn it is
        self._pass_number = 0
        self.has_work = True

    def begin(self, may_have_room: Judge, is_worth_a_turn: Callable[[Board, Demand], bool]) -> None:
        """Start a pass over what is left. What surely finds no room has no turn, unless it `is_worth_a_turn` anyway."""
        self._may_have_room = may_have_room
        self._board.held_back.clear()
        for demand, log in self._logs:
            is_worth_it = is_worth_a_turn(self._board, demand)
            demand.reopen()
            self.narrow(demand)
            is_done = self.placed[demand] >= log.jobs
            demand.is_refused = is_done or not (demand.open_fits or is_worth_it)
        for refused in self._refused.values():
            refused.clear()
        self._pass_number += 1
        self.has_work = not all(demand.is_refused for demand in self.demands)

    def narrow(self, demand: Demand) -> None:
        """Only pools that may have room for the demand as things stand are looked at for the rest of the pass."""
        demand.close_all_but(tuple([fit for fit in demand.open_fits if self._may_have_room(self._board, demand, fit)]))

    def next(self) -> tuple[ShareNode, Turn] | None:
        """The leaf whose turn it is and its next job; None when the pass is over."""
        while self.has_work and not all(demand.is_refused for demand in self.demands):
            leaf = self._descend()
            turn = leaf.next_turn(self._board)
            if turn is not None:
                return leaf, turn
            self._drop_leaf()
        self.has_work = False
        return None

    def used(self, job: Job, demand: Demand) -> None:
        """Count the GPUs given to the job whose turn it is."""
        if demand in self.placed:
            self.placed[demand] += 1
        use = job.spec.gpus * self._half_life_ms
        if job.spec.slice:
            use = _parts_of(self._board, job) * self._half_life_ms // PARTS_PER_GPU
        path = self._path
        for level in range(len(path) - 1, 0, -1):
            node = path[level]
            node.use += use
            heapreplace(path[level - 1].heap, node.key)
        path[0].use += use

    def begins(self) -> Iterator[tuple[int, Demand]]:
        """When jobs that were passed over may begin: the earliest of each file."""
        return ((file.begin_ms, file.demand) for file in self._all_files() if file.begin_ms < NEVER_MS)

    def blocked(self) -> Iterator[Demand]:
        """The demands of which a job stands first in a queue of strict order and found no room."""
        return (
            file.demand for file in self._all_files() if file.is_strict and min(file.at, file.passed) < len(file.line)
        )

    def _all_files(self) -> Iterator[File]:
        return (file for files in self._files.values() for file in files.values())

    def _descend(self) -> ShareNode:
        """Follow those whose turn it is down to a leaf."""
        node = self._root
        self._path = [node]
        while True:
            if node.pass_number != self._pass_number:
                self._fill(node)
            if not node.heap:
                return node
            node = node.heap[0][2]
            self._path.append(node)

    def _drop_leaf(self) -> None:
        """Leave out the leaf whose turn it was, and all above it that have nothing else."""
        for node in reversed(self._path[:-1]):
            heappop(node.heap)
            self._thin(node)
            if node.heap:
                return
        self.has_work = False

    def _thin(self, node: ShareNode) -> None:
        """Leave out the children that only ask for what has been refused since."""
        logs = self._logs_worth_a_turn(node)
        if len(logs) != node.logs_left:
            node.logs_left = len(logs)
            asking = _asking(node, logs)
            node.heap = [entry for entry in node.heap if entry[2].queue in asking]
            heapify(node.heap)

    def _logs_worth_a_turn(self, node: ShareNode) -> list[Log]:
        """Of the tree's demands, those not refused; nor by the quotas that all below a node share, if they do."""
        logs = [log for log in self._logs if not log[0].is_refused]
        if node.refused and node.queue not in self._board.rules.divided:
            return [log for log in logs if log[0] not in node.refused]
        return logs

    def _fill(self, node: ShareNode) -> None:
        """Read from the state what is asked for in a queue and below it, as far as it is worth a turn in this pass."""
        node.pass_number, node.heap, node.heads = self._pass_number, _NONE, _NONE
        node.refused = self._refused.setdefault(self._board.rules.room_class(node.queue), set())
        logs = self._logs_worth_a_turn(node)
        asking = _asking(node, logs)
        if len(asking) > 1 or node.queue not in asking:
            node.logs_left = len(logs)
            node.heap = [(node.children.get(name) or self._new_child(node, name)).key for name in asking]
            heapify(node.heap)
        else:
            node.read(self._files_of(node.queue, logs))

    def _new_child(self, node: ShareNode, name: QueueId) -> ShareNode:
        """A queue below a node; or the node's own work, as a child of weight 1 after all others."""
        rules, is_own = self._board.rules, name == node.queue
        use = self._own_use(node) if is_own else self._use(name)
        position = len(rules.position) if is_own else rules.position[name]
        weight = 1 if is_own else max(1, self._board.state.queues[name].declared.weight)
        child = ShareNode(name, position, use, rules.common_weight(node.queue) // weight, is_own=is_own)
        if not node.children:
            node.children = {}
        node.children[name] = child
        return child

    def _own_use(self, node: ShareNode) -> int:
        """What a queue with queues below it uses itself; what was placed in an earlier pass of this cycle counts."""
        known, below = node.children, self._board.state.queues[node.queue].children
        return max(0, node.use - sum(known[name].use if name in known else self._use(name) for name in below))

    def _files_of(self, queue: QueueId, logs: list[Log]) -> list[File]:
        """The files of a queue with what is worth a turn in it; each is made once."""
        files = self._files.setdefault(queue, {})
        if queue in self._board.rules.strict:
            self._make_strict(queue, files, logs)
            return list(files.values())
        for demand, log in logs:
            if queue in log.lines and demand not in files:
                files[demand] = File(demand, log.lines[queue])
        return [files[demand] for demand, _ in logs if demand in files]

    def _make_strict(self, queue: QueueId, files: dict[Demand, File], logs: list[Log]) -> None:
        """One file for all that waits in the queue, unless what stands first in it is not worth a try."""
        asking = [demand for demand, log in logs if queue in log.lines]
        if asking and not files:
            waiting = self._board.state.queues[queue].waiting
            first = self._first_with_a_turn(waiting)
            if first is None or first in self.placed:
                files[asking[0]] = File(asking[0], waiting, is_strict=True)

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


def _asking(node: ShareNode, logs: list[Log]) -> dict[QueueId, None]:
    """The queues right below a node in which or below which some of this waits, and its own if that has some itself."""
    asking: dict[QueueId, None] = {}
    queue, has_own_work = node.queue, False
    for _, log in logs:
        if queue in log.lines:
            has_own_work = True
        if queue in log.below and not node.is_own:
            asking.update(log.below[queue])
    if has_own_work:
        asking[queue] = None
    return asking


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
