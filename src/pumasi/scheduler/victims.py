"""Who could make room for a claim, and at what cost each node could be had.

Prices are worked out once a cycle for an owner and a pool, and again only where something changed since: a hundred
claims in a row cost little more than one.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

from msgspec import Struct

from pumasi.events.facts import NodeState
from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.scheduler.board import Board
from pumasi.scheduler.loans import kill_at_by_contract_ms, kill_at_ms, lost_gpu_milliseconds
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Job

# Costs compare first by how many victims are not on the claimant's own entitlement, only then by work lost.
OTHER_LENDERS_VICTIM = 1 << 70
OVER_DUE_VICTIM = 1 << 90


class Victim(Struct):
    """A job whose GPUs can come free in time: `pieces`, masks by node. `returned`: charged to the claimant's owner."""

    job: Job
    pieces: dict[int, int]
    cost: int
    kill_at_ms: int
    returned: int = 0
    is_stopping: bool = False

    @property
    def cost_on_each_node(self) -> int:
        """Its cost spread over its nodes: who frees four nodes costs a quarter on each."""
        return self.cost // max(1, len(self.pieces))


class Opening(Struct, order=True, frozen=True):
    """A node (or a segment of nodes) that can be had: at what cost, where, and who must go for it."""

    cost: int
    first: int
    victims: tuple[JobId, ...]


class Candidates:
    """Every job of a pool whose GPUs come free by `due_ms` if it is told now, for claims of one owner."""

    def __init__(self, board: Board, owner: OwnerId, pool: PoolId, due_ms: int) -> None:
        self._board = board
        self._owner = owner
        self._pool = pool
        self._due_ms = due_ms
        self._tenants = board.tenants(pool)
        self._seen = len(self._tenants.touched)
        self._over_due = dict.fromkeys(_over_due(board, owner, pool))
        if self._over_due:
            board.look_again_ms = board.now_ms  # which of them are in excess hangs on the work they would lose
        self._openings: dict[int, Openings] = {}
        self.victims: dict[JobId, Victim] = {}
        for job in (*self._tenants.borrowers(), *self._tenants.stopping, *self._over_due):
            self._judge(job)

    def refresh(self) -> None:
        """Follow what changed in the pool since the last look."""
        changed = dict.fromkeys(self._tenants.touched[self._seen :])
        self._seen = len(self._tenants.touched)
        occupancy = self._board.state.occupancy[self._pool]
        for job in dict.fromkeys(job for node in changed for job in occupancy.jobs_on(node)):
            if job in self.victims:
                changed.update(dict.fromkeys(self.victims[job].pieces))
                self._judge(job)
        for openings in self._openings.values():
            openings.price(changed)

    def openings(self, each: int) -> "Openings":
        """The nodes that could have `each` free GPUs."""
        found = self._openings.get(each)
        if found is None:
            nodes = dict.fromkeys(node for victim in self.victims.values() for node in victim.pieces)
            found = self._openings[each] = Openings(self, each)
            found.price(nodes)
        return found

    def free(self) -> FreeMap:
        """The pool's free GPUs."""
        return self._board.free(self._pool)

    def on(self, node: int) -> list[tuple[int, JobId, int]]:
        """The candidates on a node, cheapest first: cost, job, GPUs."""
        jobs = self._board.state.occupancy[self._pool].jobs_on(node)
        victims = [self.victims[job] for job in jobs if job in self.victims]
        return sorted(
            (victim.cost_on_each_node, victim.job.id, victim.pieces[node].bit_count())
            for victim in victims if node in victim.pieces
        )  # fmt: skip

    def _judge(self, job_id: JobId) -> None:
        """Enter a job as things stand now, or leave it out."""
        self.victims.pop(job_id, None)
        victim = self._victim(self._board.state.jobs[job_id])
        if victim is None:
            return
        if victim.kill_at_ms <= self._due_ms:
            self.victims[job_id] = victim
        else:
            self._look_again(victim)

    def _look_again(self, victim: Victim) -> None:
        """Note when time alone brings a job within the window: once its end is near, or its protected time is."""
        window_ms = self._due_ms - self._board.now_ms
        at_ms = victim.kill_at_ms - window_ms
        self._board.look_again_ms = min(self._board.look_again_ms, at_ms)

    def _victim(self, job: Job) -> Victim | None:
        board, tenants = self._board, self._tenants
        if job.id in tenants.stopping:
            return Victim(job, self._pieces(job), 0, tenants.stopping[job.id], is_stopping=True)
        if job.owner == self._owner:
            return None
        charges, lost = tenants.charges(job), job.spec.gpus + lost_gpu_milliseconds(board, job)
        if any(charge.owner != job.owner for charge in charges):
            returned = sum(charge.gpus for charge in charges if charge.owner == self._owner)
            cost = lost + (0 if returned else OTHER_LENDERS_VICTIM)
            return Victim(job, self._pieces(job), cost, kill_at_ms(board, job), returned)
        if job.id in self._over_due:
            kill_ms = kill_at_by_contract_ms(board, job.attempts[-1], self._owner)
            return Victim(job, self._pieces(job), lost + OVER_DUE_VICTIM, kill_ms)
        return None

    def _pieces(self, job: Job) -> dict[int, int]:
        """The GPUs a job would leave to others: on nodes that are up, and not held by a reservation already."""
        states = self._board.state.occupancy[self._pool].node_states
        pieces = {}
        for span in job.attempts[-1].spans:
            for node in range(span.first, span.first + span.nodes):
                mask = span.gpu_mask & ~self._tenants.held(node)
                if mask and states.get(node, NodeState.UP) is NodeState.UP:
                    pieces[node] = mask
        return pieces


class Openings:
    """The price of every node that does not have `each` free GPUs but could: `by_node`, and the cheapest at hand."""

    def __init__(self, candidates: Candidates, each: int) -> None:
        self._candidates = candidates
        self._each = each
        self.by_node: dict[int, Opening] = {}
        self._heap: list[Opening] = []

    def price(self, nodes: Iterable[int]) -> None:
        """Work out the price of these nodes anew."""
        free = self._candidates.free()
        for node in nodes:
            self.by_node.pop(node, None)
            opening = self._opening(node, self._each - free.masks[node].bit_count())
            if opening is not None:
                self.by_node[node] = opening
                heappush(self._heap, opening)

    def cheapest(self) -> Opening | None:
        """The node that costs least."""
        while self._heap and self.by_node.get(self._heap[0].first) is not self._heap[0]:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _opening(self, node: int, missing: int) -> Opening | None:
        """The least that must go for a node that lacks GPUs; None if it lacks none, or all that could go do not do."""
        if missing <= 0:
            return None
        chosen: list[tuple[int, JobId, int]] = []
        for entry in self._candidates.on(node):
            if missing > 0:
                chosen.append(entry)
                missing -= entry[2]
        if missing > 0:
            return None
        for entry in reversed(chosen[:]):
            if missing + entry[2] <= 0:
                chosen.remove(entry)
                missing += entry[2]
        return Opening(sum(cost for cost, _, _ in chosen), node, tuple(job for _, job, _ in chosen))


def _over_due(board: Board, owner: OwnerId, pool: PoolId) -> list[JobId]:
    """Home work that other owners run above what faults have left them due, the least lost first."""
    found: list[JobId] = []
    for other, account in board.books(pool).items():
        over = account.home - account.due
        if other == owner or over <= 0:
            continue
        tenants, jobs = board.tenants(pool), board.state.jobs
        home = [jobs[job] for job in board.state.active[pool] if jobs[job].owner == other]
        home = [job for job in home if len(tenants.charges(job)) == 1 and tenants.charges(job)[0].owner == other]
        over -= sum(job.spec.gpus for job in home if job.id in tenants.stopping)
        for job in sorted(home, key=lambda job: (lost_gpu_milliseconds(board, job), job.id)):
            if over > 0 and job.id not in tenants.stopping:
                found.append(job.id)
                over -= job.spec.gpus
    return found
