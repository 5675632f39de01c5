"""How routes are declared: each says which action it is, what it reaches, what it takes and what it gives."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from pumasi.api.bodies import NoQuery
from pumasi.api.call import Call
from pumasi.control.access import Action

Handler: TypeAlias = Callable[[Call], Awaitable[Any]]


class Reach(StrEnum):
    """What a route is about, and so what the gate asks `decide` before the route runs."""

    OPEN = "open"  # anybody: the route carries its own proof, or tells nothing
    SITE = "site"  # the site whose agent signed the request
    COMMON = "common"  # what belongs to everybody with a role
    FLEET = "fleet"  # the whole fleet
    ROWS = "rows"  # many things: the route asks for each; the gate asks whether any role could allow it
    QUEUE = "queue"  # the queue in the path
    JOB = "job"  # the job in the path
    HALL = "hall"  # the site in the path
    NODE = "node"  # the node in the path


class BodySize(StrEnum):
    """How large a body may be; `ApiSettings` has the bytes."""

    NORMAL = "normal"
    BATCH = "batch"
    PLAN = "plan"


class Route(Struct, frozen=True, kw_only=True):
    """A route. `answer`: the type of its JSON, or None for another form or no content.

    `tolerant`: unknown keys in the body are passed over, for callers that may be newer than we are.
    """

    method: str
    path: str
    action: Action
    reach: Reach
    handler: Handler
    title: str
    query: type[Struct] = NoQuery
    body: Any = None
    tolerant: bool = False
    body_size: BodySize = BodySize.NORMAL
    answer: Any = None
    status: int = 200
    media_type: str = "application/json"
    tag: str = ""


class Table:
    """Routes of one kind of thing, gathered by decorators."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.routes: list[Route] = []

    def route(
        self, method: str, path: str, action: Action, reach: Reach, **details: Any
    ) -> Callable[[Handler], Handler]:
        """Declare a route; the first line of the handler's docstring is its title."""

        def declare(handler: Handler) -> Handler:
            title = (handler.__doc__ or "").partition("\n")[0].rstrip(".")
            self.routes.append(
                Route(
                    method=method,
                    path=path,
                    action=action,
                    reach=reach,
                    handler=handler,
                    title=title,
                    tag=self.tag,
                    **details,
                )
            )
            return handler

        return declare
