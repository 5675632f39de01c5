"""Who could make room for a claim: every job of a pool whose GPUs can come free in time, and what its end would cost.

They are judged once a cycle for an owner and a pool, and again only where something changed since: a thousand claims in
a row cost little more than one.
"""

from typing import TypeAlias

from pumasi.events.facts import NodeState
from pumasi.model.ids import JobId, OwnerId, PoolId
from pumasi.model.jobs import Span
from pumasi.scheduler.board import Board
from pumasi.scheduler.loans import kill_at_by_contract_ms, lost_gpu_milliseconds
from pumasi.scheduler.openings import Openings, Victim
from pumasi.scheduler.shapes import Need
from pumasi.state.freemap import FreeMap
from pumasi.state.records import Job

# Costs compare first by how many victims are not on the claimant's own entitlement, only then by work lost.
OTHER_LENDERS_VICTIM = 1 << 70
OVER_DUE_VICTIM = 1 << 90

_NO_PIECES: dict[int, int] = {}


Kept: TypeAlias = tuple[tuple[Span, ...], ...]


class Candidates:
    """Every job of a pool whose GPUs come free by `due_ms` if it is told now, for claims of one owner.

    `kept`: nodes that are reserved for others, of which nothing is for these claims.
    """

    def __init__(self, board: Board, owner: OwnerId, pool: PoolId, due_ms: int, *, kept: Kept) -> None:
        self._board = board
        self._owner = owner
        self._pool = pool
        self._due_ms = due_ms
        self._kept = kept
        self._kept_nodes = {
            node: None for spans in kept for span in spans for node in range(span.first, span.first + span.nodes)
        }
        self._tenants = board.tenants(pool)
        self._occupancy = board.state.occupancy[pool]
        self._full_mask = self._occupancy.free.full_mask
        self._nodes_seen, self._jobs_seen = len(self._tenants.touched), len(self._tenants.told)
        self._over_due = dict.fromkeys(_over_due(board, owner, pool))
        if self._over_due:
            board.look_again_ms = board.now_ms  # which of them are in excess hangs on the work they would lose
        self._openings: dict[tuple[Need, bool], Openings] = {}
        self.victims: dict[JobId, Victim] = {}
        for job in (*self._tenants.borrowers(), *self._tenants.stopping, *self._over_due):
            self._judge(job)

    @property
    def free(self) -> FreeMap:
        """The free GPUs for these claims, to read."""
        return self._board.shadow(self._pool, self._kept) if self._kept else self._board.free(self._pool)

    def refresh(self) -> None:
        """Follow what changed in the pool since the last look."""
        tenants = self._tenants
        if self._nodes_seen == len(tenants.touched) and self._jobs_seen == len(tenants.told):
            return
        jobs, nodes = dict.fromkeys(tenants.told[self._jobs_seen :]), dict.fromkeys(tenants.touched[self._nodes_seen :])
        self._nodes_seen, self._jobs_seen = len(tenants.touched), len(tenants.told)
        self._follow_holds(nodes)
        for job in jobs:
            before = self.victims.pop(job, None)
            if before is not None and (before.pieces or job not in tenants.stopping):
                self._judge(job)
                nodes.update(dict.fromkeys(before.pieces))
        for openings in self._openings.values():
            openings.note(nodes)

    def _follow_holds(self, nodes: dict[int, None]) -> None:
        """What reservations hold on these nodes is no longer left to others."""
        holders, each = self._occupancy.holders, self._occupancy.free.gpus_per_node
        all_held, victims, is_tight = self._tenants.held, self.victims, bool(self.free.tight)
        for node in nodes:
            held = self._held(node) if is_tight else all_held.get(node, 0)
            for job in set(holders[node * each : (node + 1) * each]) if held else ():
                pieces = victims[job].pieces if job in victims else _NO_PIECES
                left = pieces.pop(node, 0) & ~held
                if left:
                    pieces[node] = left

    def _held(self, node: int) -> int:
        """The GPUs of a node that claims cannot count on: those that reservations hold.

        Where somebody takes more than the share of its GPUs all of them, as what leaves may have taken less than that.
        """
        free = self.free
        return free.full_mask if free.tight and free.tight >> node & 1 else self._tenants.held.get(node, 0)

    def openings(self, need: Need, *, by_size: bool) -> Openings:
        """What could be cleared for a need, at least cost or, `by_size`, so that the fewest GPUs are evicted."""
        found = self._openings.get((need, by_size))
        if found is None:
            found = Openings(need, self.victims, lambda: self.free, self._jobs_on, by_size=by_size)
            self._openings[need, by_size] = found
        return found

    def _jobs_on(self, node: int) -> list[JobId]:
        """Who holds GPUs of a node that is not held whole already: of those that claims touch, most are."""
        return [] if self._tenants.held.get(node) == self._full_mask else self._occupancy.jobs_on(node)

    def _judge(self, job_id: JobId) -> None:
        """Enter a job as things stand now, or leave it out."""
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
        board, tenants, owner = self._board, self._tenants, job.owner
        if job.id in tenants.stopping:
            return Victim(job, self._pieces(job), 0, tenants.stopping[job.id], is_stopping=True)
        if owner == self._owner:
            return None
        charges, lost = tenants.charges(job), job.spec.gpus + lost_gpu_milliseconds(board, job)
        lenders = [charge.owner for charge in charges if charge.owner != owner]
        if lenders:
            returned = sum([charge.gpus for charge in charges if charge.owner == self._owner])
            cost = lost + (0 if returned else OTHER_LENDERS_VICTIM)
            kill_ms = max([kill_at_by_contract_ms(board, job.attempts[-1], lender) for lender in lenders])
            return Victim(job, self._pieces(job), cost, kill_ms, returned)
        if job.id in self._over_due:
            kill_ms = kill_at_by_contract_ms(board, job.attempts[-1], self._owner)
            return Victim(job, self._pieces(job), lost + OVER_DUE_VICTIM, kill_ms)
        return None

    def _pieces(self, job: Job) -> dict[int, int]:
        """The GPUs a job would leave to others: on nodes that are up, and not held already."""
        states, held, kept = self._occupancy.node_states, self._tenants.held, self._kept_nodes
        is_tight = bool(self.free.tight)
        is_plain, pieces = not (states or held or kept or is_tight), {}
        for span in job.attempts[-1].spans:
            nodes = range(span.first, span.first + span.nodes)
            if is_plain:
                pieces.update(dict.fromkeys(nodes, span.gpu_mask))
                continue
            for node in nodes:
                mask = span.gpu_mask & ~(self._held(node) if is_tight else held.get(node, 0))
                if mask and node not in kept and states.get(node, NodeState.UP) is NodeState.UP:
                    pieces[node] = mask
        return pieces


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
