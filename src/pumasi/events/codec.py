"""Facts to bytes and back. JSON, so that an auditor can read the log with any tool.

Old facts stay readable for ever: `UPCASTS` maps a tag that is no longer written to the function that turns its document
into one of today's. It is empty as long as no fact has changed its meaning.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pumasi.events.facts import Event

Document = dict[str, Any]

UPCASTS: dict[str, Callable[[Document], Document]] = {}

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class UnreadableFact(Exception):
    """The log holds a fact this version cannot read: it is damaged or was written by a newer version."""


def encode(event: Event) -> bytes:
    """The fact as one JSON document."""
    return _encoder.encode(event)


def decode(body: bytes) -> Event:
    """The fact in a JSON document, upcast if it is an old one.

    :raises UnreadableFact: if it is no fact this version knows.
    """
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        return _decode_old(body, error)


def _decode_old(body: bytes, error: msgspec.MsgspecError) -> Event:
    try:
        document = msgspec.json.decode(body, type=Document)
        while document.get("type") in UPCASTS:
            document = UPCASTS[document["type"]](document)
        event: Event = msgspec.convert(document, type=Event)
        return event
    except msgspec.MsgspecError:
        raise UnreadableFact(f"{error}: {body[:120]!r}") from error
