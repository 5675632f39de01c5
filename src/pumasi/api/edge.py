"""Around every request: a trace id, headers browsers heed, one line in the access log, and never a traceback."""

import itertools
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any, cast

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pumasi.api.metrics import Metrics
from pumasi.api.problems import MEDIA_TYPE, Problem, document

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"
_PROCESS = secrets.token_hex(8)  # a trace id is unique, not secret: randomness once, then a counter
_COUNT = itertools.count(1)

_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

log = structlog.get_logger("pumasi.api")


class Edge:
    """The outermost of our middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception:
            log.exception("request_failed", trace_id=exchange.trace_id, route=exchange.route)
            await exchange.fail(receive)
        finally:
            self._record(exchange)

    def _record(self, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.began
        self._metrics.observe(exchange.method, exchange.route, exchange.status, seconds)
        log.info(
            "request",
            method=exchange.method,
            route=exchange.route,
            status=exchange.status,
            milliseconds=round(seconds * 1000, 1),
            principal=exchange.principal,
            trace_id=exchange.trace_id,
        )


class _Exchange:
    """A request and what has been answered so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.began = time.perf_counter()
        self.status = 0
        self.trace_id = scope["pumasi.trace_id"] = _trace_id(scope)
        self.method = scope["method"] if scope["method"] in _METHODS else "OTHER"

    @property
    def route(self) -> str:
        """The route's template: paths themselves would make a metric per job."""
        return cast(str, self._scope.get("pumasi.route", _UNMATCHED))

    @property
    def principal(self) -> str:
        """Who called, as far as is known."""
        return cast(str, self._scope.get("pumasi.principal", ""))

    async def send(self, message: Message) -> None:
        """Pass on what is answered, with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            _add_headers(message, self.trace_id)
        await self._send(message)

    async def fail(self, receive: Receive) -> None:
        """Answer that we failed, unless an answer is under way."""
        if self.status == 0:
            problem = Problem(500, "internal-error", "it has been logged under this trace id")
            await problem_response(problem, self.trace_id)(self._scope, receive, self.send)


def problem_response(problem: Problem, trace_id: str) -> Response:
    """A problem as a response."""
    return Response(document(problem, trace_id), problem.status, problem.headers, media_type=MEDIA_TYPE)


def _add_headers(message: MutableMapping[str, Any], trace_id: str) -> None:
    headers = [*message.get("headers", ()), *_SECURITY_HEADERS, (b"x-trace-id", trace_id.encode())]
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append((b"cache-control", b"no-store"))
    message["headers"] = headers


def _trace_id(scope: Scope) -> str:
    """The caller's W3C trace id, if it sent one; else a fresh one."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            found = _TRACE_PARENT.fullmatch(value.decode("latin-1"))
            if found:
                return found[1]
    return f"{_PROCESS}{next(_COUNT):016x}"
