"""The judge's rules about power: who may be stopped for it, and that enough are."""

from collections.abc import Iterator

from pumasi.events.facts import StopOrdered
from pumasi.model.ids import PoolId
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job


def stopped_for_power(state: FleetState, event: StopOrdered) -> Iterator[str]:
    """What is wrong with stopping a job for want of power, given the state before it is told."""
    victim = state.jobs[event.job]
    pool = victim.attempts[-1].pool
    if _overload(state, pool) <= 0:
        yield f"job {victim.id} is stopped for power, and there is enough for all that run in {pool}"
    if event.claimant or victim.attempts[-1].stop is not None or event.kill_at_ms <= event.at_ms:
        yield f"{event}: power is nobody's claim, is asked for once, and leaves time to stop"
    running = _running(state, pool)
    if _borrows(victim):
        equals = [job for job in running if _borrows(job)]
    else:
        equals = [job for job in running if job.owner == victim.owner and not _borrows(job)]
        if any(_borrows(job) for job in running):
            yield f"job {victim.id} is stopped at home for power while others borrow in {pool}"
        if _above_due(state, pool, victim.owner) <= 0:
            yield f"job {victim.id} is stopped for power, and {victim.owner} runs no more than it is due"
    if any(job.spec.priority < victim.spec.priority for job in equals):
        yield f"job {victim.id} is stopped for power before work of lower priority"


def beyond_power(state: FleetState) -> Iterator[str]:
    """Pools that run more than power carries, with somebody left to stop."""
    for pool in state.powered:
        running = _running(state, pool)
        could_stop = [job for job in running if _borrows(job) or _above_due(state, pool, job.owner) > 0]
        if _overload(state, pool) > 0 and could_stop:
            yield f"{pool} runs {_overload(state, pool)} GPUs more than its power carries"


def usable(state: FleetState, pool: PoolId) -> int:
    """GPUs that power lets run at once; all of them if nothing caps it."""
    return state.powered.get(pool, state.pools[pool].declared.gpus)


def power_left(state: FleetState, pool: PoolId) -> int:
    """GPUs that power still carries beside those in use or reserved."""
    occupancy = state.occupancy[pool]
    taken = sum(
        (used | reserved).bit_count() for used, reserved in zip(occupancy.used, occupancy.reserved, strict=True)
    )
    return usable(state, pool) - taken


def _running(state: FleetState, pool: PoolId) -> list[Job]:
    jobs = [state.jobs[job] for job in state.active[pool]]
    return [job for job in jobs if job.attempts[-1].stop is None]


def _borrows(job: Job) -> bool:
    return any(charge.owner != job.owner for charge in job.attempts[-1].charges)


def _overload(state: FleetState, pool: PoolId) -> int:
    """GPUs that run or will by a reservation, less those that power lets run."""
    running = sum(job.spec.gpus for job in _running(state, pool))
    reserved = sum(state.jobs[job].spec.gpus for job, held in state.reservations.items() if held.pool == pool)
    return running + reserved - usable(state, pool)


def _above_due(state: FleetState, pool: PoolId, owner: str) -> int:
    account = state.books[pool][owner]
    ending = [state.jobs[job] for job in state.active[pool] if state.jobs[job].attempts[-1].stop is not None]
    own = [job.attempts[-1].charges for job in ending if job.owner == owner]
    stopping = sum(charge.gpus for charges in own for charge in charges if charge.owner == owner)
    return account.home + account.promised - stopping - account.due
