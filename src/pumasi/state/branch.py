"""A second state that starts as this one and goes its own way: what-if questions are asked of it.

Everything is copied but the records of jobs, which are many: both states share them, and whichever changes one first
makes a copy of it for itself (`FleetState.own`). Branch between commands, never in the middle of one's facts.
"""

from copy import copy

from pumasi.state.fleet_state import FleetState
from pumasi.state.records import QueueRecord


def branch(state: FleetState) -> FleetState:
    """A branch of the state. Either may be changed from now on without the other noticing."""
    twin = FleetState()
    twin.seq, twin.at_ms, twin.next_job = state.seq, state.at_ms, state.next_job
    twin.plan_name, twin.policy, twin.waiting_jobs = state.plan_name, state.policy, state.waiting_jobs
    twin.jobs = dict(state.jobs)
    state.shared = set(state.jobs)
    twin.shared = set(state.jobs)
    twin.pools, twin.gpu_models = dict(state.pools), dict(state.gpu_models)
    twin.principals, twin.tokens = dict(state.principals), dict(state.tokens)
    twin.requests, twin.node_reasons, twin.strikes = dict(state.requests), dict(state.node_reasons), dict(state.strikes)
    twin.owners = {name: copy(record) for name, record in state.owners.items()}
    twin.sites = {name: copy(record) for name, record in state.sites.items()}
    twin.queues = {name: _queue(record) for name, record in state.queues.items()}
    twin.reservations = {job: copy(reservation) for job, reservation in state.reservations.items()}
    twin.planned = dict(state.planned)
    twin.advance_reservations = {name: copy(record) for name, record in state.advance_reservations.items()}
    twin.active = {pool: dict(jobs) for pool, jobs in state.active.items()}
    _branch_derived(state, twin)
    return twin


def _queue(record: QueueRecord) -> QueueRecord:
    mine = copy(record)
    mine.children, mine.waiting, mine.in_use = list(record.children), list(record.waiting), dict(record.in_use)
    return mine


def _branch_derived(state: FleetState, twin: FleetState) -> None:
    twin.occupancy = {pool: occupancy.branch() for pool, occupancy in state.occupancy.items()}
    twin.books = {pool: {owner: copy(each) for owner, each in books.items()} for pool, books in state.books.items()}
    twin.powered = dict(state.powered)
    twin.backlogs = state.backlogs.branch()
    twin.guests = {pool: dict(jobs) for pool, jobs in state.guests.items()}
    twin.changes = state.changes.branch()
