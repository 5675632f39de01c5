"""One request on its way through a route: who asks, for what, and how the answer is given."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from msgspec import Struct, field

from pumasi.api.problems import Problem, problem_of
from pumasi.api.settings import ApiSettings
from pumasi.control.access import Action, Resource, decide
from pumasi.control.commands import Command
from pumasi.control.refusals import Refusal
from pumasi.control.service import Service
from pumasi.model.access import Principal
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job

NOBODY = Principal(id="")


class Call(Struct):
    """A request that has been read and let in. `found`: the job the path names, if it names one."""

    request: Request
    service: Service
    settings: ApiSettings
    principal: Principal = NOBODY
    token_digest: str = ""
    site: str = ""  # the site whose agent calls
    query: Any = None
    body: Any = None
    raw_body: bytes = b""
    found: Job | None = None
    headers: dict[str, str] = field(default_factory=dict)  # of the answer

    @property
    def state(self) -> FleetState:
        """The fleet's state."""
        return self.service.plane.state

    @property
    def path(self) -> Mapping[str, str]:
        """What the path names."""
        return self.request.path_params

    @property
    def job(self) -> Job:
        """The job the path names; the route's reach has found it."""
        assert self.found is not None, "only a route whose reach is JOB may ask"
        return self.found

    def may(self, action: Action, resource: Resource) -> bool:
        """True if the caller may."""
        return decide(self.principal, action, resource).allowed

    def require(self, action: Action, resource: Resource) -> None:
        """Return if the caller may.

        :raises Problem: 403 if not. Only for what the caller may know of.
        """
        verdict = decide(self.principal, action, resource)
        if not verdict.allowed:
            raise not_authorised(verdict.reason)

    async def do(self, command: Command) -> Any:
        """Carry out a command and return its result once it is on disk.

        :raises Problem: if it is refused.
        """
        result = await self.service.do(command)
        if isinstance(result, Refusal):
            raise problem_of(result)
        return result


def not_authorised(reason: str) -> Problem:
    """The caller is known and may not."""
    return Problem(403, "not-authorised", reason)
