"""A small control plane for tests of agents: a real HTTP server that speaks the agent protocol, with faults to order.

It decides nothing: a test says what each site should run, and reads what its agent reported.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from pumasi.model.ids import SiteId
from pumasi.model.jobs import StopCause
from pumasi.protocol import signing
from pumasi.protocol.messages import (
    Enrolled,
    Enrolment,
    LogChunk,
    LogRequest,
    Report,
    RunEnded,
    RunKey,
    StartOrder,
    StopOrder,
    SyncRequest,
    SyncResponse,
)


class _Wanted(Struct):
    start: StartOrder
    seq: int
    stop: StopOrder | None = None
    running: bool = False


class _Site(Struct):
    public_key: str = ""
    generation: int = 0
    wanted: dict[RunKey, _Wanted] = field(default_factory=dict)
    withdrawn: dict[RunKey, int] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    log_requests: list[LogRequest] = field(default_factory=list)
    syncs: int = 0


class _Answer(NamedTuple):
    status: int
    body: bytes


class SmallControlPlane:
    """One fleet, any number of sites. Thread-safe. Use as a context manager."""

    def __init__(self, fleet: str = "test") -> None:
        self.fleet = fleet
        self._changed = threading.Condition()
        self._sites: dict[SiteId, _Site] = {}
        self._tokens: dict[str, SiteId] = {}
        self._nonces: set[str] = set()
        self._chunks: dict[str, LogChunk] = {}
        self._seq = 1  # an agent that asks after 0 has acted on nothing
        self._port = 0
        self._answers_to_lose = 0
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "SmallControlPlane":
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

    @property
    def url(self) -> str:
        """Where it listens; the same after it has gone away and come back."""
        return f"http://127.0.0.1:{self._port}"

    # -- faults

    def go_away(self) -> None:
        """Stop listening, and cut calls under way short."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            with self._changed:
                self._changed.notify_all()

    def come_back(self) -> None:
        """Listen (again)."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def lose_answers(self, count: int) -> None:
        """Take in the next `count` reports, and hang up before the answer."""
        with self._changed:
            self._answers_to_lose = count

    # -- what a test says

    def issue_token(self, site: SiteId) -> str:
        """A one-use token for a site."""
        token = f"pumasi_enrol_{secrets.token_urlsafe(32)}"
        with self._changed:
            self._tokens[token] = site
            self._sites.setdefault(site, _Site())
        return token

    def order(self, site: SiteId, *orders: StartOrder) -> None:
        """Want runs."""
        with self._changed:
            for order in orders:
                self._seq += 1
                self._sites[site].wanted[order.run] = _Wanted(order, self._seq)
            self._changed.notify_all()

    def stop(self, site: SiteId, order: StopOrder) -> None:
        """Want a run stopped; one the agent was never told of, too."""
        with self._changed:
            self._seq += 1
            wanted = self._sites[site].wanted.get(order.run)
            if wanted is None:
                self._sites[site].withdrawn[order.run] = self._seq
            else:
                wanted.stop, wanted.seq = order, self._seq
            self._changed.notify_all()

    def repeat(self, site: SiteId, order: StartOrder) -> None:
        """Order a run again, as one that the site is said to have started, whatever has become of it."""
        with self._changed:
            self._seq += 1
            self._sites[site].wanted[order.run] = _Wanted(order, self._seq, running=True)
            self._changed.notify_all()

    def drop(self, site: SiteId, run: RunKey) -> None:
        """Forget about a run without a word; the next whole answer does not have it."""
        with self._changed:
            self._sites[site].wanted.pop(run, None)

    def read_output(self, site: SiteId, run: RunKey, stream: str, offset: int, limit: int) -> LogChunk:
        """Ask the agent for output."""
        request = LogRequest(id=secrets.token_hex(4), run=run, stream=stream, offset=offset, limit=limit)
        with self._changed:
            self._sites[site].log_requests.append(request)
            self._changed.notify_all()
        self.wait(lambda: request.id in self._chunks)
        return self._chunks[request.id]

    # -- what a test reads

    def reports(self, site: SiteId) -> list[Report]:
        """Everything reported so far, repeats included."""
        with self._changed:
            return list(self._sites[site].reports)

    def ended(self, site: SiteId, run: RunKey) -> RunEnded | None:
        """The first report of a run's end."""
        return next((each for each in self.reports(site) if isinstance(each, RunEnded) and each.run == run), None)

    def syncs(self, site: SiteId) -> int:
        """How many calls were believed."""
        with self._changed:
            return self._sites[site].syncs

    def await_end(self, site: SiteId, run: RunKey, seconds: float = 60.0) -> RunEnded:
        """The report of a run's end, once it is there."""
        self.wait(lambda: self.ended(site, run) is not None, seconds)
        ended = self.ended(site, run)
        assert ended is not None
        return ended

    def wait(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for something to be so.

        :raises AssertionError: if it is not within `seconds`.
        """
        give_up_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up_at, "it did not come to be in time"
            time.sleep(0.005)

    # -- the protocol

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:  # the base class's name for it
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = plane._answer(self.path, self.headers.get("Authorization", ""), body)
                if answer is None:
                    self.close_connection = True
                    return
                with contextlib.suppress(ConnectionError):  # an agent that was killed does not wait for its answer
                    self.send_response(answer.status)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:  # the base class's name for it
                pass

        return Handler

    def _answer(self, path: str, authorization: str, body: bytes) -> _Answer | None:
        """None: hang up."""
        if self._server is None:
            return None
        if path == "/v1/agent/enrol":
            return self._enrol(msgspec.json.decode(body, type=Enrolment))
        claims = self._believed(path, authorization, body)
        if isinstance(claims, _Answer):
            return claims
        return self._sync(claims, msgspec.json.decode(body, type=SyncRequest))

    def _enrol(self, message: Enrolment) -> _Answer:
        with self._changed:
            proven = signing.verify_enrolment(message.public_key, message.site, message.token, message.proof)
            if not proven or self._tokens.pop(message.token, None) != message.site:
                return _problem(403, "token-used")
            site = self._sites[message.site]
            site.public_key, site.generation = message.public_key, site.generation + 1
            self._changed.notify_all()
            return _Answer(200, msgspec.json.encode(Enrolled(fleet=self.fleet, generation=site.generation)))

    def _believed(self, path: str, authorization: str, body: bytes) -> signing.AgentClaims | _Answer:
        keys = {name: site.public_key for name, site in self._sites.items()}
        token = signing.token_of(authorization) or ""
        claims = signing.verify(token, keys.get, "POST", path, body, int(time.time()))
        if isinstance(claims, signing.SigningProblem):
            return _problem(401, claims)
        with self._changed:
            if claims.jti in self._nonces:
                return _problem(401, "request-replayed")
            self._nonces.add(claims.jti)
            if claims.gen < self._sites[claims.sub].generation:
                return _problem(403, "agent-superseded")
            self._sites[claims.sub].syncs += 1
        return claims

    def _sync(self, claims: signing.AgentClaims, request: SyncRequest) -> _Answer | None:
        with self._changed:
            site = self._sites[claims.sub]
            self._take_in(site, request)
            if request.reports and self._answers_to_lose:
                self._answers_to_lose -= 1
                return None
            self._changed.wait_for(
                lambda: self._server is None or claims.gen < site.generation or self._has_news(site, request.after_seq),
                request.wait_seconds,
            )
            if self._server is None:
                return None
            # A copy that was superseded while it waited must not carry orders away.
            if claims.gen < site.generation:
                return _problem(403, "agent-superseded")
            return _Answer(200, msgspec.json.encode(self._response(site, request.after_seq)))

    def _take_in(self, site: _Site, request: SyncRequest) -> None:
        for report in request.reports:
            site.reports.append(report)
            if isinstance(report, RunEnded):
                site.wanted.pop(report.run, None)
            elif report.run in site.wanted:
                site.wanted[report.run].running = True
        self._chunks.update({chunk.id: chunk for chunk in request.log_chunks})

    def _has_news(self, site: _Site, after_seq: int) -> bool:
        news = [*(wanted.seq for wanted in site.wanted.values()), *site.withdrawn.values()]
        return after_seq == 0 or bool(site.log_requests) or any(seq > after_seq for seq in news)

    def _response(self, site: _Site, after_seq: int) -> SyncResponse:
        whole = after_seq == 0
        news = [wanted for wanted in site.wanted.values() if whole or wanted.seq > after_seq]
        requests, site.log_requests = tuple(site.log_requests), []
        return SyncResponse(
            seq=self._seq,
            whole=whole,
            starts=tuple(msgspec.structs.replace(each.start, was_running=each.running) for each in news),
            stops=(*_stops(news), *_withdrawn(site, after_seq)),
            log_requests=requests,
        )


def _stops(news: list[_Wanted]) -> Iterator[StopOrder]:
    yield from (each.stop for each in news if each.stop is not None)


def _withdrawn(site: _Site, after_seq: int) -> Iterator[StopOrder]:
    for run, seq in site.withdrawn.items():
        if seq > after_seq:
            yield StopOrder(run=run, cause=StopCause.CANCEL, kill_in_ms=0)


def _problem(status: int, code: str) -> _Answer:
    return _Answer(status, msgspec.json.encode({"code": str(code), "status": status, "detail": f"refused: {code}"}))
