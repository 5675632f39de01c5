"""How facts and job records become bytes, and how each adapter knows that the bytes are still the same ones."""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from pumasi.events import codec
from pumasi.events.facts import Event
from pumasi.model.ids import QueueId
from pumasi.ports.event_log import JobFilter, LogBroken
from pumasi.state.records import Job

DIGEST_BYTES = 32
GENESIS = bytes(DIGEST_BYTES)

_encoder = msgspec.msgpack.Encoder()
_job_decoder = msgspec.msgpack.Decoder(Job)


def encode_facts(events: Sequence[Event]) -> list[bytes]:
    """The facts as the log keeps them.

    :raises LogBroken: if a fact cannot be written down. Whoever folded it already is ahead of the log for good.
    """
    try:
        return [codec.encode(event) for event in events]
    except (ValueError, OverflowError, TypeError) as error:
        raise LogBroken(f"a fact cannot be encoded: {error}") from error


def decode_fact(seq: int, body: bytes) -> Event:
    """The fact that `encode_facts` wrote.

    :raises LogBroken: naming the number of the fact, if it cannot be read.
    """
    try:
        return codec.decode(body)
    except codec.UnreadableFact as error:
        raise LogBroken(f"fact {seq} cannot be read: {error}") from error


def encode_jobs(jobs: Sequence[Job]) -> list[bytes]:
    """The records of jobs that have ended, sealed.

    :raises LogBroken: if a job has not ended or cannot be written down.
    """
    refuse_live(jobs)
    try:
        return [seal(_encoder.encode(job)) for job in jobs]
    except (ValueError, OverflowError, TypeError) as error:
        raise LogBroken(f"a job cannot be encoded: {error}") from error


def refuse_live(jobs: Sequence[Job]) -> None:
    """Return if all of the jobs have ended.

    :raises LogBroken: if one has not.
    """
    for job in jobs:
        if not job.is_terminal:
            raise LogBroken(f"job {job.id} is {job.state}: only jobs that have ended go to the archive")


def decode_job(sealed: bytes) -> Job:
    """The job in a sealed record.

    :raises LogBroken: if the record is not what was written.
    """
    try:
        return _job_decoder.decode(unseal(sealed, "the record of an ended job"))
    except msgspec.MsgspecError as error:
        raise LogBroken(f"the record of an ended job cannot be read: {error}") from error


def link(previous: bytes, body: bytes) -> bytes:
    """The digest of a fact in the chain: it covers the fact and, through `previous`, every fact before it."""
    return blake2b(previous + body, digest_size=DIGEST_BYTES).digest()


def seal(body: bytes) -> bytes:
    """The body with its digest in front."""
    return link(b"", body) + body


def unseal(sealed: bytes, what: str) -> bytes:
    """The body of `seal`.

    :raises LogBroken: naming `what`, if a bit of it has changed.
    """
    digest, body = sealed[:DIGEST_BYTES], sealed[DIGEST_BYTES:]
    if link(b"", body) != digest:
        raise LogBroken(f"{what} is damaged: its digest does not fit")
    return body


def matches(wanted: JobFilter, job: Job) -> bool:
    """True if the ended job is one of those wanted."""
    return (
        (not wanted.queues or any(_is_within(job.spec.queue, queue) for queue in wanted.queues))
        and (not wanted.states or job.state in wanted.states)
        and (not wanted.by or job.by == wanted.by)
        and (wanted.ended_from_ms is None or job.ended_ms >= wanted.ended_from_ms)
        and (wanted.ended_until_ms is None or job.ended_ms < wanted.ended_until_ms)
    )


def _is_within(queue: QueueId, ancestor: QueueId) -> bool:
    return queue == ancestor or queue.startswith(f"{ancestor}/")
