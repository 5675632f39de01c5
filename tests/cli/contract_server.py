"""A server that speaks the contract with given answers: for what the real one cannot be made to do, such as failing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

TOKEN = "pumasi_personal_" + "a" * 43

JOB = {
    "id": 7,
    "name": "train",
    "queue": "public/academia",
    "owner": "public",
    "user": "kim",
    "state": "active",
    "display_state": "running",
    "slurm_state": "R",
    "priority": 0,
    "gpus": 16,
    "nodes": 2,
    "pool": "sejong-b200",
    "site": "sejong",
    "node_list": "sejong-b200-[00001-00002]",
    "submitted_at": "2027-01-31T00:00:00.000Z",
    "started_at": "2027-01-31T00:10:00.000Z",
    "ended_at": None,
    "time_limit_seconds": 7200,
    "exit_code": None,
    "signal": None,
    "reason": "",
    "charges": [{"owner": "public", "gpus": 8}, {"owner": "naver", "gpus": 8}],
    "attempts": [],
}
WAITING = {
    **JOB,
    "id": 8,
    "name": "한국어 학습",
    "state": "waiting",
    "display_state": "waiting",
    "slurm_state": "PD",
    "nodes": None,
    "pool": None,
    "site": None,
    "node_list": None,
    "started_at": None,
    "reason": "Resources",
    "charges": [],
}
POOL = {
    "id": "sejong-b200",
    "site": "sejong",
    "model": "hgx-b200",
    "stage": "in_service",
    "link": "connected",
    "nodes": 4,
    "gpus": 32,
    "gpus_free": 8,
    "node_states": {"idle": 1, "mix": 0, "alloc": 2, "drain": 1, "drng": 0, "down": 0, "planned": 0},
}
OTHER_POOL = {
    **POOL,
    "id": "ulsan-gb300",
    "site": "ulsan",
    "model": "gb300-nvl72",
    "link": "silent",
    "nodes": 18,
    "gpus": 72,
    "gpus_free": 72,
    "node_states": {"idle": 18},
}
WHOAMI: dict[str, Any] = {
    "principal": {"id": "kim", "title": "Kim Minji", "bindings": [{"role": "user", "scope": "public/academia"}]},
    "fleet": "korea",
    "token_expires_at": "2027-03-01T00:00:00.000Z",
    "clock": {"now": "2027-01-31T01:00:00.000Z", "rate": 60},
}


class Request(NamedTuple):
    """A request that came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


class Answer(NamedTuple):
    """An answer to give. A status of 0 closes the connection without one, after the request was read."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    """An RFC 9457 problem."""
    return Answer(
        status, {"type": f"urn:pumasi:problem:{code}", "status": status, "code": code, "detail": detail, **more}
    )


def page(*items: Any, cursor: str | None = None) -> Answer:
    """A page of a list."""
    return Answer(200, {"items": list(items), "next_cursor": cursor})


class ContractServer:
    """Gives the answers in `answers` for "METHOD /path": one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {
            "GET /v1/whoami": [Answer(200, WHOAMI)],
            "GET /v1/pools": [page(POOL, OTHER_POOL)],
            "GET /v1/jobs": [page(WAITING, JOB)],
            "GET /v1/jobs/7": [Answer(200, JOB)],
            "GET /v1/jobs/8": [Answer(200, WAITING)],
            "POST /v1/jobs": [Answer(201, {"id": 7})],
        }
        self.requests: list[Request] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def give(self, call: str, *answers: Answer) -> None:
        """Answer "METHOD /path" so."""
        self.answers[call] = list(answers)

    def sent(self, call: str) -> list[Request]:
        """The requests for "METHOD /path"."""
        return [request for request in self.requests if f"{request.method} {request.path}" == call]

    def answer(self, request: Request) -> Answer:
        """The next answer for a request."""
        self.requests.append(request)
        known = self.answers.get(f"{request.method} {request.path}")
        if known is None:
            return problem(404, "route-unknown", f"there is nothing at {request.path}")
        return known.pop(0) if len(known) > 1 else known[0]


def _handler(server: ContractServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            answer = server.answer(
                Request(self.command, split.path, parse_qs(split.query), dict(self.headers.items()), body)
            )
            if answer.status == 0:
                self.close_connection = True
                return
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            raw = isinstance(answer.body, bytes)
            content = answer.body if raw else b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/event-stream" if raw else "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    return Handler
