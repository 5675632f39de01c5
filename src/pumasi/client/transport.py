"""HTTP: one place for headers, retries, and turning answers into values or errors."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from pumasi import __version__
from pumasi.client.config import Connection, is_loopback
from pumasi.client.errors import InvalidRequest, PumasiError, ServerFault, TimedOut, Unreachable, problem_error

TRIES = 4
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
SAFE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Transport:
    """Calls to one server. A call is repeated only if doing it twice does no harm, or if it was never sent."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_seconds: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.connection = connection
        self._sleep = sleep
        headers = {"Accept": "application/json", "User-Agent": f"pumasi/{__version__}"}
        if connection.token:
            headers["Authorization"] = f"Bearer {connection.token}"
        self._http = httpx2.Client(
            base_url=connection.server,
            headers=headers,
            timeout=timeout_seconds,
            # A proxy cannot reach this machine's loopback; the environment also says whose certificates are good.
            trust_env=connection.server.startswith("https:") or not is_loopback(connection.server),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Send a request and return the decoded answer (None if it is empty).

        :raises PumasiError: of the kind that fits.
        """
        content = _encoded(body)
        request = self._http.build_request(
            method,
            path,
            params=_flatten(parameters or {}),
            content=content,
            headers={**(headers or {}), **({"Content-Type": "application/json"} if content else {})},
            timeout=timeout_seconds if timeout_seconds is not None else httpx2.USE_CLIENT_DEFAULT,
        )
        return _decoded(self._send_with_retries(request))

    def _send_with_retries(self, request: httpx2.Request) -> httpx2.Response:
        repeatable = request.method in SAFE_METHODS or "Idempotency-Key" in request.headers
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES
            try:
                response = self._http.send(request)
            except httpx2.ConnectError as error:  # nothing was sent: repeating is always safe
                if last:
                    raise _as_error(error, self.connection.server) from error
            except httpx2.RequestError as error:
                if last or not repeatable:
                    raise _as_error(error, self.connection.server) from error
            else:
                if response.status_code not in RETRIED_STATUSES or last or not repeatable:
                    return response
                self._pause(attempt, response.headers.get("Retry-After", ""))
                continue
            self._pause(attempt, "")
        raise AssertionError("the last try returns or raises")

    def _pause(self, attempt: int, retry_after: str) -> None:
        longest = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
        asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        jitter = random.uniform(longest / 2, longest)  # noqa: S311  (spreads retries; guards nothing)
        self._sleep(min(LONGEST_PAUSE_SECONDS, max(asked, jitter)))

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """Open a stream of server-sent events. The server sends at least a comment every 15 s."""
        try:
            with self._http.stream("GET", path, headers=dict(headers), timeout=60.0) as response:
                if response.status_code != 200:
                    response.read()
                    _decoded(response)
                yield iter(httpx2.EventSource(response))
        except httpx2.RequestError as error:
            raise _as_error(error, self.connection.server) from error


def _encoded(body: object) -> bytes | None:
    """The body as JSON. Text of a terminal or a file name may hold bytes that are no UTF-8."""
    if body is None:
        return None
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise InvalidRequest(f"this cannot be sent as JSON: {error}", code="body-invalid") from error


def _decoded(response: httpx2.Response) -> Any:
    if not response.is_success:
        raise _problem(response)
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise ServerFault("the answer is not JSON; this is not a Pumasi server", code="not-pumasi") from error


def _problem(response: httpx2.Response) -> PumasiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    return problem_error(response.status_code, problem if isinstance(problem, dict) else {})


def _as_error(error: httpx2.RequestError, server: str) -> PumasiError:
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
        return TimedOut(f"{server} did not answer in time", code="timed-out")
    reason = " ".join(str(error).split()) or type(error).__name__
    return Unreachable(f"cannot reach {server}: {reason}", code="unreachable")


def _flatten(parameters: Mapping[str, Any]) -> httpx2.QueryParams:
    """Query parameters: None and "" are left out, a list repeats its name."""
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in parameters.items():
        values = value if isinstance(value, list | tuple) else [value]
        texts = [str(item) for item in values if item is not None and item != ""]
        pairs += [(name, text.encode("utf-8", "replace").decode()) for text in texts]
    return httpx2.QueryParams(pairs)
