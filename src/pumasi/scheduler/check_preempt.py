"""The judge's rules about preemption inside an owner: who may be stopped for whom, and that all of them are needed."""

from collections.abc import Iterator

from pumasi.events.facts import ReservationMade, StopOrdered
from pumasi.model.fleet import Preemption
from pumasi.model.ids import OwnerId, PoolId, QueueId
from pumasi.model.jobs import StopCause, span_gpus
from pumasi.scheduler.check_rest import nodes_short_for_others
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job


def preempted(state: FleetState, event: StopOrdered) -> Iterator[str]:
    """What is wrong with stopping a job for another of its owner, given the state before it is told."""
    victim, claimant = state.jobs[event.job], state.jobs.get(event.claimant)
    attempt = victim.attempts[-1]
    if claimant is None or claimant.owner != victim.owner or attempt.stop is not None:
        yield f"{event}: work is preempted once, for work of its own owner"
        return
    if victim.spec.priority >= claimant.spec.priority:
        yield f"job {victim.id} is preempted for job {claimant.id}, which does not go before it"
    if victim.preemptions >= state.policy.preemption_limit:
        yield f"job {victim.id} is preempted again after {victim.preemptions} times"
    if any(charge.owner != victim.owner for charge in attempt.charges):
        yield f"job {victim.id} borrows, and its end returns nothing to its owner"
    asking = [queue for queue in _upwards(state, claimant.spec.queue) if queue in _upwards(state, victim.spec.queue)]
    if not any(state.queues[queue].declared.preemption is Preemption.LOWER_PRIORITY for queue in asking):
        yield f"job {victim.id} is preempted for job {claimant.id}, and no queue of both asks for that"
    contract = state.owners[victim.owner].declared.lending
    began_ms = attempt.started_ms or attempt.placed_ms
    end_ms = max(event.at_ms + contract.notice_seconds * 1000, began_ms + contract.protected_seconds * 1000)
    if event.kill_at_ms < end_ms:
        yield f"job {victim.id} gets less time than its owner's contract gives it"


def needless(state: FleetState, event: ReservationMade, victims: list[int], holders: dict[int, None]) -> Iterator[str]:
    """Preempted jobs with none of the reserved GPUs nor too much beside them, without whose end the books carry it."""
    owner, pool = state.jobs[event.job].owner, event.pool
    if state.powered.get(pool) is not None or any(state.queues[queue].declared.quotas for queue in state.queues):
        return
    account = state.books[pool][owner]
    spare = account.idle + ending_home(state, owner, pool) - span_gpus(event.spans)
    nodes = {node for span in event.spans for node in range(span.first, span.first + span.nodes)}
    for job in (state.jobs[number] for number in victims):
        frees_rest = nodes & nodes_short_for_others(state.pools[pool].declared, job)
        if job.id not in holders and not frees_rest and spare >= job.spec.gpus:
            yield f"job {job.id} is preempted for job {event.job} and need not be"


def is_preempted(job: Job) -> bool:
    """True if a live job was told to stop for other work of its owner."""
    stop = job.attempts[-1].stop
    return stop is not None and stop.cause is StopCause.PREEMPT


def ending_home(state: FleetState, owner: OwnerId, pool: PoolId) -> int:
    """GPUs of an owner's entitlement that its own stopping jobs will leave."""
    ending = [state.jobs[job] for job in state.active[pool] if state.jobs[job].attempts[-1].stop is not None]
    charges = [charge for job in ending if job.owner == owner for charge in job.attempts[-1].charges]
    return sum(charge.gpus for charge in charges if charge.owner == owner)


def _upwards(state: FleetState, queue: QueueId) -> list[QueueId]:
    found = [queue]
    while (parent := state.queues[found[-1]].parent) is not None:
        found.append(parent)
    return found
