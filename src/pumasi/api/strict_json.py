"""JSON read strictly: what could mean two things, or nothing, is refused before anything else looks at it.

Python's own reader takes NaN and 1e999, keeps the last of duplicate keys, makes strings of lone surrogates that no
encoder will write, and exhausts its stack on deep nesting. Quantities here are whole numbers, so a fraction or an
exponent is a mistake too.
"""

import json
import re
from typing import Any, Never

DEPTH_LIMIT = 32
INTEGER_LIMIT = 2**53
_DIGITS_LIMIT = len(str(INTEGER_LIMIT)) + 1  # with its sign

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # an unclosed one goes to the end: linear on any input
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class NotStrictJson(Exception):
    """The body is not JSON as this API takes it; the message says what is wrong and never repeats much of the body."""


def read(body: bytes) -> Any:
    """The document in a body.

    :raises NotStrictJson: if it is no JSON, or JSON that is ambiguous, too deep or out of range.
    """
    _check_depth(body)
    try:
        text = body.decode("utf-8")
        document = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise NotStrictJson(f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    if _SURROGATE_ESCAPE.search(body) and _has_lone_surrogate(document):
        raise NotStrictJson("a string holds half of a surrogate pair, which is no character")
    return document


def _check_depth(body: bytes) -> None:
    """Peel one level of brackets per round; nothing is left of a document that is not too deep."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_LIMIT:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(DEPTH_LIMIT):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise NotStrictJson(f"brackets are nested deeper than {DEPTH_LIMIT} levels, or do not match")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise NotStrictJson(f"the key {_short(twice)} occurs twice in one object")
    return document


def _integer(literal: str) -> int:
    if len(literal) > _DIGITS_LIMIT or abs(value := int(literal)) > INTEGER_LIMIT:
        raise NotStrictJson(f"the number {_short(literal)} is out of range: whole numbers go to 2^53")
    return value


def _no_number(literal: str) -> Never:
    raise NotStrictJson(f"{_short(literal)} is not a whole number, and all quantities here are")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...").strip("'")


def _has_lone_surrogate(value: Any) -> bool:
    match value:
        case str():
            return _LONE_SURROGATE.search(value) is not None
        case dict():
            return any(_has_lone_surrogate(key) or _has_lone_surrogate(item) for key, item in value.items())
        case list():
            return any(_has_lone_surrogate(item) for item in value)
    return False


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number
)
