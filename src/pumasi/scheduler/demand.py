"""Waiting jobs, gathered by owner and shape: what is found out for one is known for all of the same demand."""

from pumasi.model.ids import OwnerId
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.eligibility import eligible
from pumasi.scheduler.reasons import Verdict
from pumasi.scheduler.shapes import Fit, ShapeKey, shape_key
from pumasi.state.fleet_state import FleetState


class Demand:
    """All waiting jobs of an owner that need the same. `is_refused`: no pool takes it for the rest of this pass.

    `home_fits`: the pools among `fits` where the owner is due something.
    """

    __slots__ = ("fits", "home_fits", "is_refused", "owner", "spec", "verdicts")

    def __init__(self, state: FleetState, owner: OwnerId, spec: JobSpec) -> None:
        self.owner = owner
        self.spec = spec
        self.fits: tuple[Fit, ...]
        self.verdicts: tuple[Verdict, ...]
        self.fits, self.verdicts = eligible(state, spec)
        self.home_fits = tuple(fit for fit in self.fits if state.pools[fit.pool].declared.entitlements.get(owner))
        self.is_refused = False

    @property
    def may_borrow(self) -> bool:
        """True if it may run on other owners' entitlements."""
        return self.spec.may_borrow and not self.spec.stays_home


class Demands:
    """The demands of a cycle, each judged once."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._known: dict[tuple[OwnerId, ShapeKey], Demand] = {}

    def of(self, owner: OwnerId, spec: JobSpec) -> Demand:
        """The demand a job belongs to."""
        key = (owner, shape_key(spec))
        demand = self._known.get(key)
        if demand is None:
            demand = self._known[key] = Demand(self._state, owner, spec)
        return demand

    def ask_again(self) -> None:
        """Forget the refusals of a pass."""
        for demand in self._known.values():
            demand.is_refused = False
