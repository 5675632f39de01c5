"""Reading requests: bodies within their limits, JSON strictly, queries without guesses."""

import asyncio
from typing import Any, get_origin

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from pumasi.api import strict_json
from pumasi.api.problems import Problem
from pumasi.api.shapes import WrongShape, convert, is_whole_number
from pumasi.control.refusals import FieldProblem

_EMPTY_BODIES = (b"", b"{}")
_CLOSE = {"Connection": "close"}  # what is still on its way is not read


async def read_body(request: Request, limit_bytes: int, limit_seconds: int) -> bytes:
    """The whole body; never more than `limit_bytes` of it is kept, however long it says or turns out to be.

    :raises Problem: 413 if it is too large, 408 if it is too slow, 400 if the caller went away.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limit_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(408, "body-too-slow", f"it took more than {limit_seconds} seconds", headers=_CLOSE) from None
    except ClientDisconnect:
        raise Problem(400, "body-not-json", "the connection ended before the body did", headers=_CLOSE) from None
    return b"".join(chunks)


def _too_large(limit_bytes: int) -> Problem:
    return Problem(413, "body-too-large", f"this route takes at most {limit_bytes} bytes", headers=_CLOSE)


def parse_body(request: Request, body: bytes, shape: Any, *, tolerant: bool = False) -> Any:
    """The body as a value of `shape`; None for a route that takes no body.

    :raises Problem: if it is not JSON, or not of that shape.
    """
    if shape is None:
        if body.strip() not in _EMPTY_BODIES:
            raise Problem(422, "body-invalid", "this route takes no body")
        return None
    if not body.strip():
        raise Problem(422, "body-missing", "the body is empty")
    _check_media_type(request)
    try:
        return convert(strict_json.read(body), shape, tolerant=tolerant)
    except strict_json.NotStrictJson as error:
        raise Problem(400, "body-not-json", str(error)) from None
    except WrongShape as error:
        raise invalid(error.problems) from None


def invalid(problems: list[FieldProblem]) -> Problem:
    """The body has not the right shape."""
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Problem(422, "body-invalid", f"{first.path or 'the body'}: {first.problem}{more}", problems)


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Problem(415, "media-type-unsupported", "send the body as application/json")


def parse_query(request: Request, shape: type[msgspec.Struct]) -> Any:
    """The query parameters as a value of `shape`. An empty value counts as none.

    :raises Problem: for an unknown parameter, one that may not repeat, or a wrong value.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in fields:
            raise _query_problem(name, "it is not known here")
        if value == "":
            continue
        if get_origin(fields[name].type) is tuple:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise _query_problem(name, "it may be given once")
        else:
            given[name] = value
    for name, value in given.items():
        if is_whole_number(shape, name) and not (value.isascii() and value.isdigit()):
            raise _query_problem(name, "a number is written in digits alone")
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        raise _query_problem(where.rstrip("`"), message[:1].lower() + message[1:]) from None


def _query_problem(name: str, problem: str) -> Problem:
    name = ascii(name[:60])[1:-1]
    return Problem(422, "query-invalid", f"{name}: {problem}", [FieldProblem(name, problem)])
