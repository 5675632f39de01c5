"""A need of an owner's waiting jobs, judged: what is found out for one of them is known for all."""

from collections.abc import Container

from pumasi.model.ids import PoolId
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.eligibility import eligible
from pumasi.scheduler.reasons import Verdict
from pumasi.scheduler.shapes import Fit
from pumasi.state.backlog import DemandKey
from pumasi.state.fleet_state import FleetState

NO_LIMIT_SECONDS = 1 << 62


class Demand:
    """All waiting jobs of an owner that need the same. `is_refused`: no pool takes it for the rest of this pass.

    `home_fits`: the pools among `fits` where the owner is due something. `open_fits` and `open_home_fits`: those of
    either that may have room yet in this pass; `free_home_fits`: those where that may be free. `has_quotas`: in some of
    them the room of a queue may be less than the owner's. `held_back_seconds`: jobs with such a time limit would delay
    a planned start. `only_in`: if set, the pools where something has changed since it found no room in any.
    """

    __slots__ = (
        "fits", "free_home_fits", "has_quotas", "held_back_seconds", "home_fits", "is_refused", "key", "may_borrow",
        "only_in", "open_fits", "open_home_fits", "owner", "spec", "verdicts",
    )  # fmt: skip

    def __init__(self, state: FleetState, key: DemandKey, spec: JobSpec, now_ms: int) -> None:
        self.key = key
        self.owner = key[0]
        self.spec = spec
        self.fits: tuple[Fit, ...]
        self.verdicts: tuple[Verdict, ...]
        self.fits, self.verdicts = eligible(state, spec, now_ms)
        self.home_fits = tuple(fit for fit in self.fits if state.pools[fit.pool].declared.entitlements.get(self.owner))
        self.may_borrow = spec.may_borrow and not spec.stays_home
        self.has_quotas = False
        self.only_in: Container[PoolId] | None = None
        self.reopen()

    def looks_in(self, pool: PoolId) -> bool:
        """True if it looks for room in this pool in this cycle."""
        return self.only_in is None or pool in self.only_in

    def reopen(self) -> None:
        """A new pass: every pool may have room, or those where something has changed."""
        self.is_refused = False
        self.held_back_seconds = NO_LIMIT_SECONDS
        self.open_fits, self.open_home_fits, self.free_home_fits = self.fits, self.home_fits, self.home_fits
        if self.only_in is not None:
            self.close_all_but(tuple([fit for fit in self.fits if self.looks_in(fit.pool)]))

    def close_all_but(self, fits: tuple[Fit, ...]) -> None:
        """Only these pools may have room for the rest of the pass."""
        self.open_fits = fits
        self.open_home_fits = tuple(fit for fit in self.open_home_fits if fit in fits)
        self.free_home_fits = tuple(fit for fit in self.free_home_fits if fit in fits)

    def not_free(self, full: Fit) -> None:
        """No free GPUs of this pool have the shape, or none that the entitlement carries, for the rest of the pass."""
        self.free_home_fits = tuple(fit for fit in self.free_home_fits if fit is not full)
