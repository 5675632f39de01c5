"""The transition tables: one per state machine, each edge named by the fact that causes it.

The fold asks the table before it changes anything; what is not listed cannot happen. The diagrams in
`docs/reference/state-machines.md` are drawn from these tables.
"""

from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from pumasi.events.facts import AdvanceReservationState, LinkState, NodeState, ReservationState
from pumasi.model.jobs import AttemptState, JobState

S = TypeVar("S", bound=StrEnum)


class IllegalTransition(Exception):
    """A fact that cannot follow on the present state. Nothing was changed. It is our bug or a damaged log."""


class Edge(NamedTuple, Generic[S]):
    """From `source` (None: it comes to be) to `target`, caused by the fact named `cause`."""

    source: S | None
    cause: str
    target: S


class Machine(Generic[S]):
    """A transition table that answers whether a step is listed."""

    def __init__(self, name: str, edges: tuple[Edge[S], ...]) -> None:
        self.name = name
        self.edges = edges
        self._listed = frozenset(edges)

    def check(self, key: object, source: S | None, cause: str, target: S) -> None:
        """Return if the step is listed; `key` names the thing for the message.

        :raises IllegalTransition: if not.
        """
        if (source, cause, target) not in self._listed:
            raise IllegalTransition(f"{self.name} {key}: {source} --{cause}--> {target} is not in the table")


_J, _A, _N, _L, _R = JobState, AttemptState, NodeState, LinkState, ReservationState

JOB: Machine[JobState] = Machine(
    "job",
    (
        Edge(None, "JobSubmitted", _J.WAITING),
        Edge(None, "JobSubmitted", _J.HELD),
        Edge(_J.WAITING, "JobHeld", _J.HELD),
        Edge(_J.HELD, "JobReleased", _J.WAITING),
        Edge(_J.WAITING, "JobCancelled", _J.CANCELLED),
        Edge(_J.HELD, "JobCancelled", _J.CANCELLED),
        Edge(_J.WAITING, "AttemptPlaced", _J.ACTIVE),
        Edge(_J.ACTIVE, "AttemptEnded", _J.WAITING),
        Edge(_J.ACTIVE, "AttemptEnded", _J.SUCCEEDED),
        Edge(_J.ACTIVE, "AttemptEnded", _J.FAILED),
        Edge(_J.ACTIVE, "AttemptEnded", _J.CANCELLED),
        Edge(_J.ACTIVE, "AttemptEnded", _J.EXPIRED),
        Edge(_J.ACTIVE, "AttemptEnded", _J.UNKNOWN_OUTCOME),
    ),
)

ATTEMPT: Machine[AttemptState] = Machine(
    "attempt",
    (
        Edge(None, "AttemptPlaced", _A.PLACED),
        Edge(_A.PLACED, "AttemptStarted", _A.RUNNING),
        Edge(_A.STOPPING, "AttemptStarted", _A.STOPPING),  # the start was under way when the stop was ordered
        Edge(_A.PLACED, "StopOrdered", _A.STOPPING),
        Edge(_A.RUNNING, "StopOrdered", _A.STOPPING),
        Edge(_A.STOPPING, "StopOrdered", _A.STOPPING),  # a sooner end, or a user's cancel during a notice
        Edge(_A.PLACED, "AttemptEnded", _A.ENDED),
        Edge(_A.RUNNING, "AttemptEnded", _A.ENDED),
        Edge(_A.STOPPING, "AttemptEnded", _A.ENDED),
    ),
)

NODE: Machine[NodeState] = Machine(
    "node",
    tuple(
        Edge(source, "NodeChanged", target)
        for source, target in (
            (_N.UP, _N.DRAINED),
            (_N.UP, _N.DOWN),
            (_N.DRAINED, _N.UP),
            (_N.DRAINED, _N.DOWN),
            (_N.DOWN, _N.UP),
            (_N.DOWN, _N.DRAINED),
        )
    ),
)

LINK: Machine[LinkState] = Machine(
    "site link",
    (
        Edge(None, "SiteDeclared", _L.UNENROLLED),
        Edge(_L.UNENROLLED, "SiteEnrolled", _L.CONNECTED),
        Edge(_L.CONNECTED, "SiteEnrolled", _L.CONNECTED),
        Edge(_L.SILENT, "SiteEnrolled", _L.CONNECTED),
        Edge(_L.SILENT, "SiteConnected", _L.CONNECTED),
        Edge(_L.CONNECTED, "SiteSilent", _L.SILENT),
    ),
)

RESERVATION: Machine[ReservationState] = Machine(
    "reservation",
    (
        Edge(None, "ReservationMade", _R.HELD),
        Edge(_R.HELD, "ReservationEnded", _R.FULFILLED),
        Edge(_R.HELD, "ReservationEnded", _R.RELEASED),
    ),
)

_V = AdvanceReservationState

ADVANCE_RESERVATION: Machine[AdvanceReservationState] = Machine(
    "advance reservation",
    (
        Edge(None, "AdvanceReservationMade", _V.SCHEDULED),
        Edge(_V.SCHEDULED, "AdvanceReservationBegan", _V.ACTIVE),
        Edge(_V.SCHEDULED, "AdvanceReservationEnded", _V.CANCELLED),
        Edge(_V.ACTIVE, "AdvanceReservationEnded", _V.ENDED),
    ),
)

MACHINES = (JOB, ATTEMPT, NODE, LINK, RESERVATION, ADVANCE_RESERVATION)
