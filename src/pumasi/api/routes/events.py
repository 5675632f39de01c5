"""Facts as they happen, as server-sent events. The id of each is its number in the log, so a reader can resume."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec
from fastapi.sse import EventSourceResponse, format_sse_event

from pumasi.api.auth import still_valid
from pumasi.api.bodies import EventsQuery
from pumasi.api.call import Call
from pumasi.api.finding import job_by_id, job_resource
from pumasi.api.problems import Problem
from pumasi.api.routing import Reach, Table
from pumasi.control.access import Action, Resource, site_scope
from pumasi.control.views.events import needed, public_fact
from pumasi.events.facts import AttemptPlaced, Event, JobSubmitted
from pumasi.model.ids import JobId, PoolId, SiteId

TABLE = Table("events")

_KEEP_ALIVE = format_sse_event(data_str=None, comment="keep-alive")
_REMEMBERED_JOBS = 10_000


@TABLE.route("GET", "/v1/events", Action.EVENTS_READ, Reach.COMMON, query=EventsQuery, media_type="text/event-stream")
async def events(call: Call) -> EventSourceResponse:
    """Follow the facts of the log that one may see."""
    stream = _Stream(call).bytes(_start(call))
    return EventSourceResponse(stream, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def _start(call: Call) -> int:
    """The number to begin after: Last-Event-ID, else `after`, else the newest fact."""
    newest = call.service.plane.durable_seq
    last = call.request.headers.get("last-event-id", "")
    if last and not (last.isascii() and last.isdigit() and len(last) <= 16):
        raise Problem(422, "query-invalid", "Last-Event-ID: it is a number of this log")
    start = int(last) if last else call.query.after
    if start is None:
        return newest
    if start > newest:
        raise Problem(422, "query-invalid", f"after: the log ends at {newest}")
    return int(start)


class _Stream:
    """The facts for one reader. Its rights are looked up anew for each, for tokens can be revoked meanwhile."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._jobs: OrderedDict[JobId, Resource] = OrderedDict()

    async def bytes(self, start: int) -> AsyncIterator[bytes]:
        """Events on the wire, and a comment when nothing happened for a while."""
        facts = self._call.service.events_after(start)
        pending = asyncio.ensure_future(anext(facts))
        leaving = asyncio.ensure_future(self._call.service.leaving.wait())
        try:
            yield _KEEP_ALIVE  # so that headers reach the reader at once
            while still_valid(self._call) and not leaving.done():
                await asyncio.wait(
                    {pending, leaving},
                    timeout=self._call.settings.keep_alive_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not pending.done():
                    yield _KEEP_ALIVE
                    continue
                seq, event = pending.result()
                pending = asyncio.ensure_future(anext(facts))
                if await self._may_see(event):
                    yield _event(seq, event)
        finally:
            pending.cancel()
            leaving.cancel()
            await asyncio.gather(pending, leaving, return_exceptions=True)
            await facts.aclose()  # type: ignore[attr-defined]

    async def _may_see(self, event: Event) -> bool:
        need = needed(event)
        if not need.job:
            if isinstance(event, JobSubmitted):
                self._remember(event.job, need.resource)
            return self._call.may(need.action, need.resource)
        resource = await self._resource(need.job)
        if isinstance(event, AttemptPlaced):  # from now on it is also its site's, and no longer another's
            resource = Resource((*resource.scopes[:1], site_scope(self._site(event.pool))), user=resource.user)
            self._remember(need.job, resource)
        return self._call.may(need.action, resource)

    def _site(self, pool: PoolId) -> SiteId:
        return self._call.state.pools[pool].declared.site

    async def _resource(self, number: JobId) -> Resource:
        if number not in self._jobs:
            job = await job_by_id(self._call, number)
            self._remember(number, job_resource(self._call.state, job, Action.JOB_READ) if job else Resource())
        return self._jobs[number]

    def _remember(self, number: JobId, resource: Resource) -> None:
        self._jobs[number] = resource
        if len(self._jobs) > _REMEMBERED_JOBS:
            self._jobs.popitem(last=False)


def _event(seq: int, event: Event) -> bytes:
    data = msgspec.json.encode(public_fact(event)).decode()
    return format_sse_event(data_str=data, event=type(event).__name__, id=str(seq))
