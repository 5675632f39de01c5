"""One cycle: `plan(state, now_ms)` says what to place, stop, reserve and recharge now, and why the rest waits."""

from collections.abc import Mapping

from msgspec import Struct

from pumasi.events.facts import Event
from pumasi.model.ids import JobId
from pumasi.scheduler.explain import WhyWaiting
from pumasi.scheduler.planner import Planner
from pumasi.scheduler.reasons import Reasons
from pumasi.state.fleet_state import FleetState


class Plan(Struct, frozen=True):
    """What to do now: facts in an order the fold accepts, and reasons for every waiting job that is not placed.

    The reasons are worked out when they are read; read them before the facts are folded.
    """

    events: tuple[Event, ...]
    reasons: Mapping[JobId, Reasons]


def plan(state: FleetState, now_ms: int, planner: Planner | None = None) -> Plan:
    """Decide one cycle. The state is not changed; the same state and time give the same plan.

    Home work of every owner goes before any borrowed work; what a pass has refused once it does not try again. A
    `planner` of this state makes the same plan sooner.
    """
    board = (planner or Planner(state)).decide(now_ms)
    return Plan(tuple(board.events), WhyWaiting(board))
