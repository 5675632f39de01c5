"""What jobs write: read from the site that runs them, piece by piece."""

import asyncio
import base64

from msgspec import Struct

from pumasi.api.bodies import LogQuery
from pumasi.api.call import Call
from pumasi.api.problems import Problem
from pumasi.api.routing import Reach, Table
from pumasi.control.access import Action
from pumasi.events.facts import LinkState
from pumasi.model.ids import SiteId
from pumasi.protocol.messages import LogChunk, RunKey
from pumasi.state.records import Attempt

TABLE = Table("jobs")

_ASK_AGAIN_SECONDS = 0.5


class OutputRow(Struct, frozen=True, kw_only=True):
    """A piece of output: `data` is base64. `complete`: the attempt is over and there is no more after `next_offset`."""

    job: int
    attempt: int
    stream: str
    data: str
    offset: int
    next_offset: int
    size: int
    complete: bool


@TABLE.route("GET", "/v1/jobs/{job}/logs", Action.JOB_LOGS, Reach.JOB, query=LogQuery, answer=OutputRow)
async def logs(call: Call) -> OutputRow:
    """Read a piece of a job's output."""
    query: LogQuery = call.query
    attempt = _attempt(call, query.attempt)
    site = call.state.pools[attempt.pool].declared.site
    _check_link(call, site)
    deadline = asyncio.get_running_loop().time() + query.wait_seconds
    while True:
        chunk = await _ask(call, site, attempt, query)
        left_seconds = deadline - asyncio.get_running_loop().time()
        if chunk.data or chunk.complete or left_seconds <= 0 or call.service.leaving.is_set():
            return _row(call, attempt, query, chunk)
        await asyncio.sleep(min(_ASK_AGAIN_SECONDS, left_seconds))


def _attempt(call: Call, number: int) -> Attempt:
    attempts = call.job.attempts
    if not attempts or number > len(attempts):
        raise Problem(409, "job-never-ran", f"job {call.job.id} has had {len(attempts)} attempts")
    return attempts[number - 1]  # number 0 is the last


def _check_link(call: Call, site: SiteId) -> None:
    if call.state.sites[site].link is not LinkState.CONNECTED:
        raise Problem(409, "output-unavailable", f"{site} is out of touch; its jobs keep running")


async def _ask(call: Call, site: SiteId, attempt: Attempt, query: LogQuery) -> LogChunk:
    run = RunKey(call.job.id, attempt.number)
    try:
        chunk = await call.service.read_log(site, run, query.stream, query.offset, query.limit)
    except TimeoutError:
        raise Problem(409, "output-unavailable", f"{site} did not answer in time") from None
    if chunk.problem:
        raise Problem(409, "output-unavailable", chunk.problem[:500])
    return chunk


def _row(call: Call, attempt: Attempt, query: LogQuery, chunk: LogChunk) -> OutputRow:
    try:
        written = len(base64.b64decode(chunk.data, validate=True))
    except ValueError:
        raise Problem(409, "output-unavailable", "the site's answer is damaged") from None
    return OutputRow(
        job=call.job.id,
        attempt=attempt.number,
        stream=query.stream,
        data=chunk.data,
        offset=query.offset,
        next_offset=query.offset + written,
        size=chunk.size,
        complete=chunk.complete and query.offset + written >= chunk.size,
    )
