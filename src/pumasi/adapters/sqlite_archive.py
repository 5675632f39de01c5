"""Ended jobs in SQLite: what is written for one, and how a page is found among a million."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice

from pumasi.adapters.records import decode_job, matches
from pumasi.model.ids import JobId, QueueId
from pumasi.model.jobs import TERMINAL_STATES
from pumasi.ports.event_log import JobFilter, LogBroken
from pumasi.state.records import Job

_SELECTS_AT_ONCE = 100  # SQLite joins at most 500 SELECTs in one statement
_FEW_JOBS = 1000
_BEYOND_ALL = 2**63 - 1

_ALSO_IN_QUEUES = (
    " AND EXISTS (SELECT 1 FROM ended_scopes AS other WHERE other.scope IN (SELECT value FROM json_each(?))"
    " AND other.state = listed.state AND other.id = listed.id)"
)

_Key = tuple[str, str]  # scope, state


def insert(connection: sqlite3.Connection, jobs: Sequence[Job], records: Sequence[bytes]) -> None:
    """Archive jobs within the open transaction; one that is there already is an IntegrityError."""
    rows = [(job.id, job.ended_ms, record) for job, record in zip(jobs, records, strict=True)]
    connection.executemany("INSERT INTO ended_jobs VALUES (?, ?, ?)", rows)
    connection.executemany(
        "INSERT INTO ended_scopes VALUES (?, ?, ?, ?)",
        [(scope, job.state.value, job.id, job.ended_ms) for job in jobs for scope in scopes(job)],
    )


def scopes(job: Job) -> list[str]:
    """The scopes a job is listed under: all, its principal, its queue and every queue above it."""
    names = job.spec.queue.split("/")
    above = ["/".join(names[: depth + 1]) for depth in range(len(names))]
    return ["", f"@{job.by}", *above]


def get(connection: sqlite3.Connection, job: JobId) -> Job | None:
    """The record of an ended job."""
    row = connection.execute("SELECT record FROM ended_jobs WHERE id = ?", (job,)).fetchone()
    return None if row is None else decode_job(row[0])


def count(connection: sqlite3.Connection) -> int:
    """How many jobs are archived."""
    (number,) = connection.execute("SELECT count(*) FROM ended_jobs").fetchone()
    return int(number)


def verify(connection: sqlite3.Connection) -> None:
    """Check every record against its seal, and the lists against the records.

    :raises LogBroken: naming the first job that is wrong.
    """
    listed = 0
    for number, ended_ms, record in connection.execute("SELECT id, ended_ms, record FROM ended_jobs"):
        job = decode_job(record)
        rows = [(scope, job.state.value, job.id, job.ended_ms) for scope in scopes(job)]
        if (job.id, job.ended_ms) != (number, ended_ms) or not all(_is_listed(connection, row) for row in rows):
            raise LogBroken(f"ended job {number} is not listed as it ended")
        listed += len(rows)
    (found,) = connection.execute("SELECT count(*) FROM ended_scopes").fetchone()
    if found != listed:
        raise LogBroken(f"{found} listings of ended jobs, {listed} expected")


def _is_listed(connection: sqlite3.Connection, row: tuple[str, str, int, int]) -> bool:
    statement = "SELECT 1 FROM ended_scopes WHERE scope = ? AND state = ? AND id = ? AND ended_ms = ?"
    return connection.execute(statement, row).fetchone() is not None


def page(connection: sqlite3.Connection, wanted: JobFilter, before: JobId | None, limit: int) -> list[Job]:
    """At most `limit` records, newest number first, below `before`."""
    below = _BEYOND_ALL if before is None else before
    few = _few_ended_then(connection, wanted, below)
    if few is not None:
        return list(islice((job for job in few if matches(wanted, job)), max(limit, 0)))
    ids = _newest_ids(connection, wanted, below, max(limit, 0))
    rows = connection.execute(
        "SELECT record FROM ended_jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id DESC",
        (json.dumps(ids),),
    )
    return [decode_job(record) for (record,) in rows]


def _few_ended_then(connection: sqlite3.Connection, wanted: JobFilter, before: JobId) -> Iterator[Job] | None:
    """The jobs that ended in the time wanted, if it is so short a time that looking at each of them is fastest."""
    if wanted.ended_from_ms is None and wanted.ended_until_ms is None:
        return None
    from_ms = 0 if wanted.ended_from_ms is None else wanted.ended_from_ms
    until_ms = _BEYOND_ALL if wanted.ended_until_ms is None else wanted.ended_until_ms
    statement = "SELECT id FROM ended_jobs WHERE ended_ms >= ? AND ended_ms < ? LIMIT ?"
    rows = connection.execute(statement, (from_ms, until_ms, _FEW_JOBS + 1)).fetchall()
    if len(rows) > _FEW_JOBS:
        return None
    newest_first = sorted((number for (number,) in rows if number < before), reverse=True)
    return (job for number in newest_first if (job := get(connection, number)))


def _newest_ids(connection: sqlite3.Connection, wanted: JobFilter, before: JobId, limit: int) -> list[JobId]:
    keys = iter(_keys(wanted))
    found: list[JobId] = []
    while batch := list(islice(keys, _SELECTS_AT_ONCE)):
        found += _newest_of(connection, wanted, batch, before, limit)
    return sorted(found, reverse=True)[:limit]


def _keys(wanted: JobFilter) -> Iterator[_Key]:
    """Disjoint parts of the index that together hold what is wanted."""
    states = sorted(TERMINAL_STATES.intersection(wanted.states) if wanted.states else TERMINAL_STATES)
    wanted_scopes = [f"@{wanted.by}"] if wanted.by else _topmost(wanted.queues) or [""]
    return ((scope, state.value) for scope in wanted_scopes for state in states)


def _topmost(queues: tuple[QueueId, ...]) -> list[QueueId]:
    """The queues without those that lie below another of them: no job may be listed twice."""
    names = set(queues)
    return sorted(queue for queue in names if not _ancestors(queue) & names)


def _ancestors(queue: QueueId) -> set[QueueId]:
    names = queue.split("/")
    return {"/".join(names[:depth]) for depth in range(1, len(names))}


def _newest_of(
    connection: sqlite3.Connection, wanted: JobFilter, keys: list[_Key], before: JobId, limit: int
) -> list[JobId]:
    condition, values = _condition(wanted)
    # Only constants of this module are put into the text; every value is bound.
    select = f"SELECT id FROM (SELECT id FROM ended_scopes AS listed{condition} ORDER BY id DESC LIMIT ?)"  # noqa: S608
    parameters = [value for key in keys for value in (*key, before, *values, limit)]
    rows = connection.execute(" UNION ALL ".join([select] * len(keys)), parameters)
    return [number for (number,) in rows]


def _condition(wanted: JobFilter) -> tuple[str, list[object]]:
    """What the prefix of the key does not settle, as SQL and its values."""
    condition, values = " WHERE scope = ? AND state = ? AND id < ?", list[object]()
    if wanted.ended_from_ms is not None:
        condition, values = f"{condition} AND ended_ms >= ?", [*values, wanted.ended_from_ms]
    if wanted.ended_until_ms is not None:
        condition, values = f"{condition} AND ended_ms < ?", [*values, wanted.ended_until_ms]
    if wanted.by and wanted.queues:
        condition, values = f"{condition}{_ALSO_IN_QUEUES}", [*values, json.dumps(wanted.queues)]
    return condition, values
