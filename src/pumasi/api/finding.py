"""What a path names: jobs among the live and the ended, nodes by their names."""

import asyncio
import re

from pumasi.api.call import Call
from pumasi.api.problems import unknown
from pumasi.control.access import Action, Resource, site_scope
from pumasi.control.views.jobs import site_of
from pumasi.model.hostlist import node_index
from pumasi.model.ids import JobId, PoolId
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job

_NUMBER = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


async def find_job(call: Call, number: str) -> Job | None:
    """The job of a number, live or ended."""
    if not _NUMBER.fullmatch(number):
        return None
    return await job_by_id(call, int(number))


async def job_by_id(call: Call, job: JobId) -> Job | None:
    """The job, live or ended. The archive is read in a thread: it is on a disk.

    One submitted while a plan is made is in the state once the plan is; who asks for it waits that long.
    """
    if job >= call.state.next_job:
        await call.service.settled()
    if job in call.state.jobs:
        return call.state.jobs[job]
    if job >= call.state.next_job:
        return None
    await call.service.archived()
    return await asyncio.to_thread(call.service.store.get, job)


def job_resource(state: FleetState, job: Job, action: Action) -> Resource:
    """What the right to do this to a job hangs on: its queue, and who submitted it.

    Those at the site it runs at may see it there, and no more: draining the node is their say, the job is its owner's.
    """
    site = site_of(state, job) if action is Action.JOB_READ else None
    scopes = (job.spec.queue,) if site is None else (job.spec.queue, site_scope(site))
    return Resource(scopes, user=job.by)


def parse_node(call: Call) -> tuple[PoolId, int]:
    """The pool and index of the node in the path.

    :raises Problem: 404 if there is no such node.
    """
    name = call.path["node"]
    found = node_index(name)
    if found is None or found[0] not in call.state.pools or found[1] >= call.state.pools[found[0]].declared.nodes:
        raise unknown("node", name)
    return found
