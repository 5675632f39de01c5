"""What can go wrong with a call, by whose move it is next. Light to import, so that the command line can catch it."""

from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN_SUFFIX = "-unknown"  # codes such as queue-unknown: something the request names does not exist
MALFORMED_CODES = frozenset(
    {
        "begin-in-the-past",
        "body-invalid",
        "body-missing",
        "idempotency-key-invalid",
        "idempotency-key-reused",
        "plan-invalid",
        "power-invalid",
        "query-invalid",
        "reservation-invalid",
    }
)


class PumasiError(Exception):
    """A call failed.

    `code`: the server's stable problem code, or our own (`unreachable`, `timed-out`). `status`: of HTTP, 0 if there was
    no answer. `errors`: pairs of path and problem. `trace_id`: what the operator finds the call by.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        status: int = 0,
        errors: Sequence[tuple[str, str]] = (),
        trace_id: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.errors = tuple(errors)
        self.trace_id = trace_id


class InvalidRequest(PumasiError):
    """The request makes no sense, whatever the state of the fleet."""


class NotFound(PumasiError):
    """What the request names does not exist, or the caller may not know of it."""


class Denied(PumasiError):
    """Not logged in, or the token is not good for this."""


class Conflict(PumasiError):
    """The request makes sense, but not in the present state."""


class Refused(PumasiError):
    """A rule of the fleet says no: a quota, or a job that no pool can ever run."""


class ServerFault(PumasiError):
    """The server failed."""


class Unreachable(PumasiError):
    """No answer: nobody listens there, or the connection broke."""


class TimedOut(PumasiError):
    """The answer, or what was waited for, took longer than the time given."""


_BY_STATUS: dict[int, type[PumasiError]] = {
    400: InvalidRequest,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    429: Unreachable,
    502: Unreachable,
    503: Unreachable,
    504: Unreachable,
}


def problem_error(status: int, problem: Mapping[str, Any]) -> PumasiError:
    """The error for an answer of HTTP `status` with an RFC 9457 problem as its body (or an empty mapping)."""
    code = str(problem.get("code", ""))
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
    raw = problem.get("errors")
    errors = [_pair(item) for item in raw] if isinstance(raw, list) else []
    return _kind(status, code)(
        detail, code=code, status=status, errors=errors, trace_id=str(problem.get("trace_id", ""))
    )


def _kind(status: int, code: str) -> type[PumasiError]:
    if code.endswith(UNKNOWN_SUFFIX):
        return NotFound
    if status == 422:
        return InvalidRequest if code in MALFORMED_CODES else Refused
    return _BY_STATUS.get(status, ServerFault if status >= 500 else InvalidRequest)


def _pair(item: object) -> tuple[str, str]:
    if isinstance(item, Mapping):
        return str(item.get("path", "")), str(item.get("problem", ""))
    return "", str(item)
