"""Facts as callers see them: without what only some may read, and with what the right to see them hangs on."""

from typing import Any, NamedTuple

import msgspec

from pumasi.control.access import COMMON, FLEET, Action, Resource
from pumasi.control.views.people import token_id
from pumasi.events import facts
from pumasi.events.facts import Event
from pumasi.model.ids import JobId

_PEOPLE = (facts.PrincipalDeclared, facts.TokenIssued, facts.TokenRevoked)
_PRIVATE = ("script", "environment")


class Needed(NamedTuple):
    """The right a caller needs to see a fact: on `job`'s resource if it is set, else on `resource`."""

    action: Action
    resource: Resource
    job: JobId = 0


def needed(event: Event) -> Needed:
    """What it takes to see a fact."""
    if isinstance(event, facts.JobSubmitted):
        return Needed(Action.JOB_READ, Resource((event.spec.queue,), user=event.by))
    if isinstance(event, facts.AdvanceReservationMade) and event.reservation.queue:
        return Needed(Action.QUEUE_READ, Resource((event.reservation.queue,)))
    job = getattr(event, "job", 0)
    if job:
        return Needed(Action.JOB_READ, FLEET, job)
    if isinstance(event, _PEOPLE):
        return Needed(Action.PRINCIPALS_READ, FLEET)
    return Needed(Action.FLEET_READ, COMMON)


def public_fact(event: Event) -> dict[str, Any]:
    """The fact as JSON data: no script, no environment, no idempotency key, and of a token only its public id."""
    fact: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(event, facts.JobSubmitted):
        fact["spec"] = {name: value for name, value in fact["spec"].items() if name not in _PRIVATE}
        fact.pop("request", None)
        fact.pop("request_hash", None)
    elif isinstance(event, facts.TokenIssued):
        fact["token"]["digest"] = token_id(event.token.digest)
    elif isinstance(event, facts.TokenRevoked):
        fact["digest"] = token_id(event.digest)
    return fact
