"""The one way in: every route is read, authenticated and decided on here, in this order, before its handler runs."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import Request, Response

from pumasi.api.auth import Nonces, authenticate, authenticate_agent
from pumasi.api.call import Call, not_authorised
from pumasi.api.finding import find_job, job_resource, parse_node
from pumasi.api.problems import Problem, unknown
from pumasi.api.reading import parse_body, parse_query, read_body
from pumasi.api.routing import BodySize, Reach, Route
from pumasi.api.settings import ApiSettings
from pumasi.control.access import COMMON, FLEET, Action, Extent, Resource, extent, site_scope
from pumasi.control.service import Service
from pumasi.ports.event_log import LogBroken

_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})

encode = msgspec.json.Encoder().encode


class Gate:
    """Makes ASGI endpoints of routes."""

    def __init__(self, service: Service, settings: ApiSettings) -> None:
        self._service = service
        self._settings = settings
        self._nonces = Nonces()
        self._limits = {
            BodySize.NORMAL: settings.body_bytes,
            BodySize.BATCH: settings.batch_bytes,
            BodySize.PLAN: settings.plan_bytes,
        }

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """What answers requests for a route."""

        async def answer(request: Request) -> Response:
            call = Call(request, self._service, self._settings)
            request.scope["pumasi.route"] = route.path
            await self._let_in(route, call)
            try:
                result = await route.handler(call)
            except LogBroken:
                raise Problem(503, "log-broken", "nothing can be accepted until the control plane restarts") from None
            return _response(route, call, result)

        return answer

    async def _let_in(self, route: Route, call: Call) -> None:
        """Identity first: for nobody, nothing is parsed. Only an agent's signature needs the body beforehand."""
        takes_body = route.method in _BODY_METHODS
        if route.reach not in (Reach.OPEN, Reach.SITE):
            authenticate(call)
            call.request.scope["pumasi.principal"] = call.principal.id
        if takes_body:
            limit_bytes = self._limits[route.body_size]
            call.raw_body = await read_body(call.request, limit_bytes, self._settings.body_seconds)
        if route.reach is Reach.SITE:
            authenticate_agent(call, self._nonces)
            call.request.scope["pumasi.principal"] = f"site:{call.site}"
        call.query = parse_query(call.request, route.query)
        await decide_reach(route, call)
        if takes_body:
            call.body = parse_body(call.request, call.raw_body, route.body, tolerant=route.tolerant)


async def decide_reach(route: Route, call: Call) -> None:
    """Ask whether the caller may do this to what the route is about.

    :raises Problem: 403 if not; 404 if that would tell the caller of something it may not know of.
    """
    match route.reach:
        case Reach.COMMON:
            call.require(route.action, COMMON)
        case Reach.FLEET:
            call.require(route.action, FLEET)
        case Reach.ROWS:
            if extent(call.principal, route.action, COMMON) is Extent.NONE:
                raise not_authorised(f"no role of {call.principal.id} allows {route.action}")
        case Reach.QUEUE:
            _decide_queue(route, call)
        case Reach.JOB:
            await _decide_job(route, call)
        case Reach.HALL:
            _decide_site(route, call, call.path["site"])
        case Reach.NODE:
            _decide_node(route, call)


def _decide_queue(route: Route, call: Call) -> None:
    queue = call.path["queue"]
    if queue not in call.state.queues or not call.may(Action.QUEUE_READ, Resource((queue,))):
        raise unknown("queue", queue)
    call.require(route.action, Resource((queue,)))


async def _decide_job(route: Route, call: Call) -> None:
    number = call.path["job"]
    job = await find_job(call, number)
    if job is None or not call.may(Action.JOB_READ, job_resource(call.state, job, Action.JOB_READ)):
        raise unknown("job", number)
    call.found = job
    call.require(route.action, job_resource(call.state, job, route.action))


def _decide_node(route: Route, call: Call) -> None:
    """Nodes are no secret to those of the fleet, so a refusal may say so."""
    call.require(Action.FLEET_READ, COMMON)
    pool, _ = parse_node(call)
    if route.action is not Action.FLEET_READ:
        _decide_site(route, call, call.state.pools[pool].declared.site)


def _decide_site(route: Route, call: Call, name: str) -> None:
    """Sites are no secret either: what is done to one is a matter of its operator and of the fleet."""
    call.require(Action.FLEET_READ, COMMON)
    if name not in call.state.sites:
        raise unknown("site", name)
    site = call.state.sites[name].declared
    call.require(route.action, Resource((site_scope(site.id), site.operator)))


def _response(route: Route, call: Call, result: Any) -> Response:
    if isinstance(result, Response):
        return result
    if route.status == 204:
        return Response(status_code=204, headers=call.headers)
    return Response(encode(result), route.status, call.headers, media_type=route.media_type)
