"""Lists in pages: an opaque cursor holds the key of the last item, so that nothing is skipped or doubled by changes."""

import base64
import binascii
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from pumasi.api.problems import Problem

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")


class Page(Struct, Generic[R], frozen=True):
    """Some of a list. `next_cursor` gives the next ones; null: there are no more."""

    items: tuple[R, ...]
    next_cursor: str | None


def page(
    items: Iterable[T],
    limit: int,
    key: Callable[[T], object],
    row: Callable[[T], R],
    *,
    seen_to: int | None = None,
) -> Page[R]:
    """The first `limit` of `items`, which begin after the cursor's key, as rows.

    `seen_to`: the search behind a list of jobs, newest first, was left off at this number: the page ends there at the
    latest, and the next one goes on from there.
    """
    found = list(islice(items, limit + 1))
    more = len(found) > limit
    if not more and seen_to is not None:
        reached = [item for item in found if key(item) >= seen_to]  # type: ignore[operator]
        return Page(tuple(row(item) for item in reached), _write(seen_to))
    cursor = _write(key(found[limit - 1])) if more else None
    return Page(tuple(row(item) for item in found[:limit]), cursor)


def after(cursor: str, key_type: type[K]) -> K | None:
    """The key in a cursor; None for the first page.

    :raises Problem: if it is none of ours.
    """
    if not cursor:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=key_type)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        raise Problem(422, "query-invalid", "cursor: it is not one this list gave") from None


def _write(key: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()
