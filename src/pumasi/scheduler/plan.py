"""One cycle: `plan(state, now_ms)` says what to place, stop, reserve and recharge now, and why the rest waits."""

from msgspec import Struct

from pumasi.events.facts import Event
from pumasi.model.ids import JobId
from pumasi.scheduler.board import Board
from pumasi.scheduler.borrow import borrow_pass
from pumasi.scheduler.demand import Demands
from pumasi.scheduler.explain import explain
from pumasi.scheduler.fairshare import share_trees
from pumasi.scheduler.home import home_pass
from pumasi.scheduler.loans import settle_loans
from pumasi.scheduler.power import settle_power
from pumasi.scheduler.reasons import Reasons
from pumasi.scheduler.reservations import settle_reservations
from pumasi.state.fleet_state import FleetState


class Plan(Struct, frozen=True):
    """What to do now: facts in an order the fold accepts, and reasons for every waiting job that is not placed."""

    events: tuple[Event, ...]
    reasons: dict[JobId, Reasons]


def plan(state: FleetState, now_ms: int) -> Plan:
    """Decide one cycle. The state is not changed; the same state and time give the same plan.

    Home work of every owner goes before any borrowed work; what a pass has refused once it does not try again.
    """
    board = Board(state, now_ms)
    settle_reservations(board)
    settle_power(board)
    settle_loans(board)
    demands = Demands(state)
    trees = share_trees(board, demands)
    for tree in trees:
        home_pass(board, tree)
        tree.refill()
    settle_power(board)
    demands.ask_again()
    borrow_pass(board, trees)
    return Plan(tuple(board.events), explain(board, trees))
