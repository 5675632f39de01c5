"""Which pools could run a job, as callers see it: nothing is submitted."""

from msgspec import Struct

from pumasi.model.jobs import JobSpec
from pumasi.scheduler.eligibility import eligible
from pumasi.state.fleet_state import FleetState


class PoolVerdict(Struct, frozen=True):
    """Whether a pool could ever run the job; if not, why."""

    pool: str
    site: str
    admissible: bool
    code: str
    detail: str


def pool_verdicts(state: FleetState, spec: JobSpec, now_ms: int) -> tuple[PoolVerdict, ...]:
    """What every pool says to a job: those that could run it first, then the others, each with its reason."""
    pools = state.pools
    fits, refused = eligible(state, spec, now_ms)
    could = [PoolVerdict(fit.pool, pools[fit.pool].declared.site, True, "", "") for fit in fits]
    never = [
        PoolVerdict(each.pool, pools[each.pool].declared.site, False, each.code, each.detail)
        for each in refused
        if each.pool in pools
    ]
    return (*could, *never)
