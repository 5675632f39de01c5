"""The real API over a small fleet and a log in memory, driven from synchronous tests.

The service lives on one event loop in a thread of its own, as it does in production; `Api.call` goes through the whole
ASGI application. The clock stands still unless a test moves it, and the cycle runs when a test asks for it.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

import httpx2
import uvicorn

from pumasi.adapters.memory_log import MemoryLog
from pumasi.api.app import create_app
from pumasi.api.auth import digest_of, new_secret
from pumasi.api.settings import ApiSettings
from pumasi.control.commands import ApplyPlan, Command, DeclarePrincipal, EnrolSite, IssueToken
from pumasi.control.plane import ControlPlane
from pumasi.control.refusals import Refusal
from pumasi.control.service import Service
from pumasi.model.access import Principal, Role, RoleBinding, Token, TokenKind
from pumasi.model.fleet import FleetPlan, LendingContract, Owner, OwnerKind, Pool, Queue, Quota, Site, Stage
from pumasi.protocol.signing import KeyPair, new_key
from pumasi.state.snapshot import digest
from pumasi.testing.builders import HGX, START_MS
from pumasi.testing.clocks import ManualClock

R = TypeVar("R")
FAR_MS = 2**52

SETTINGS = ApiSettings(body_bytes=64 * 1024, batch_bytes=256 * 1024, plan_bytes=128 * 1024, keep_alive_seconds=1)


def small_plan(**changes: Any) -> FleetPlan:
    """Two owners, a site each with 4 nodes of 8 GPUs; north has two queues below its root, south one. All is lent."""
    lending = LendingContract(lendable_percent=100, notice_seconds=60, teardown_seconds=30)
    names = ("north", "south")
    fields: dict[str, Any] = {
        "name": "small",
        "gpu_models": (HGX,),
        "owners": tuple(Owner(id=name, title=name, kind=OwnerKind.COMMERCIAL, lending=lending) for name in names),
        "sites": tuple(Site(id=f"{name}-dc", title=name, operator=name) for name in names),
        "pools": tuple(small_pool(name) for name in names),
        "queues": (
            Queue(id="north", quotas={"north-b200": Quota(nominal=32)}),
            Queue(id="north/lab", quotas={"north-b200": Quota(nominal=16)}),
            Queue(id="north/other"),
            Queue(id="south", quotas={"south-b200": Quota(nominal=32)}),
            Queue(id="south/lab"),
        ),
    }
    return FleetPlan(**(fields | changes))


def small_pool(owner: str, **changes: Any) -> Pool:
    """4 nodes of 8 GPUs, all of them the owner's."""
    fields: dict[str, Any] = {
        "id": f"{owner}-b200",
        "site": f"{owner}-dc",
        "model": HGX.id,
        "owner": owner,
        "nodes": 4,
        "gpus_per_node": 8,
        "nodes_per_rack": 4,
        "racks_per_block": 1,
        "entitlements": {owner: 32},
        "stages": {Stage.IN_SERVICE: "2025-01-01"},
    }
    return Pool(**(fields | changes))


def job_body(queue: str = "north/lab", **changes: Any) -> dict[str, Any]:
    """A job of 8 GPUs and an hour."""
    plain: dict[str, Any] = {"name": "train", "script": "true", "gpus": 8, "time_limit_seconds": 3600}
    return {"queue": queue, **plain, **changes}


class Api:
    """A running API. `as_` and `call` make requests; `do` goes past them, straight to the control plane."""

    def __init__(self, plan: FleetPlan | None = None, settings: ApiSettings = SETTINGS) -> None:
        self.clock = ManualClock(START_MS)
        self.store = MemoryLog()
        self.plane = ControlPlane(self.clock)
        self.keys: dict[str, KeyPair] = {}
        self.tokens: dict[tuple[str, str], str] = {}  # secrets that a test wants to find again
        self._plan, self._settings = plan or small_plan(), settings
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.on_loop(self._start())
        self.do(ApplyPlan(by="test", plan=self._plan, as_of="2026-11-25"))
        for site in self._plan.sites:
            self.enrol(site.id)
        self.token = self.principal("root", Role.FLEET_ADMIN, "*")
        return self

    def __exit__(self, *_: object) -> None:
        self.on_loop(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _start(self) -> None:
        self.service = Service(self.plane, self.store)
        self.service.pause()
        self._running = self.service.running()
        await self._running.__aenter__()
        self.app = create_app(self.service, self._settings)
        transport = httpx2.ASGITransport(app=self.app)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://fleet.test")

    async def _stop(self) -> None:
        await self.http.aclose()
        await self._running.__aexit__(None, None, None)

    # --- past the API ------------------------------------------------------------------------------------------------

    def on_loop(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the service's event loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def run(self, work: Callable[[], R]) -> R:
        """Call a function on the service's event loop."""

        async def call() -> R:
            return work()

        return self.on_loop(call())

    def do(self, command: Command) -> Any:
        """Carry out a command; it must not be refused."""
        result = self.on_loop(self.service.do(command))
        assert not isinstance(result, Refusal), result
        return result

    def cycle(self) -> None:
        """Plan once and make it durable."""

        async def cycle() -> None:
            self.plane.cycle()
            await self.service.durable(self.plane.state.seq)

        self.on_loop(cycle())

    def digest(self) -> str:
        """The state's hash: equal before and after whatever changed nothing."""
        return self.run(lambda: digest(self.plane.state))

    def principal(self, name: str, *roles: Role | str, kind: TokenKind = TokenKind.PERSONAL) -> str:
        """Declare a principal with (role, scope) pairs given flat; returns the secret of a token of its own."""
        pairs = zip(roles[::2], roles[1::2], strict=True)
        bindings = tuple(RoleBinding(Role(role), scope) for role, scope in pairs)
        self.do(DeclarePrincipal(by="test", principal=Principal(id=name, bindings=bindings)))
        return self.secret(kind, name)

    def secret(self, kind: TokenKind, principal: str = "", site: str = "", expires_at_ms: int = FAR_MS) -> str:
        """Issue a token and return its secret."""
        secret = new_secret(kind)
        token = Token(digest=digest_of(secret), kind=kind, principal=principal, site=site, expires_at_ms=expires_at_ms)
        self.do(IssueToken(by="test", token=token))
        return secret

    def enrol(self, site: str) -> int:
        """Enrol a site with a real key; returns the agent's generation."""
        self.keys[site] = new_key()
        token = Token(digest=f"enrol-{site}", kind=TokenKind.ENROL, site=site, expires_at_ms=FAR_MS)
        self.do(IssueToken(by="test", token=token))
        command = EnrolSite(by=f"site:{site}", site=site, public_key=self.keys[site].public, used_up=token.digest)
        generation: int = self.do(command)
        return generation

    # --- through the API ---------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, *, token: str | None = "", **arguments: Any) -> httpx2.Response:
        """A request as the holder of `token`: root's if it is "", nobody's if it is None."""
        headers = dict(arguments.pop("headers", {}))
        secret = self.token if token == "" else token
        if secret is not None:
            headers.setdefault("Authorization", f"Bearer {secret}")
        return self.on_loop(self.http.request(method, path, headers=headers, **arguments))

    def get(self, path: str, token: str | None = "", **arguments: Any) -> Any:
        """The JSON at a path; the request must succeed."""
        response = self.call("GET", path, token=token, **arguments)
        assert response.status_code == 200, response.text
        return response.json()

    def submit(self, token: str | None = "", queue: str = "north/lab", **fields: Any) -> int:
        """Submit a job and return its number."""
        response = self.call("POST", "/v1/jobs", token=token, json=job_body(queue, **fields))
        assert response.status_code == 201, response.text
        job: int = response.json()["id"]
        return job


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The response is a whole problem document of this kind; returns it."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    assert problem["type"] == f"urn:pumasi:problem:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["trace_id"] == response.headers["x-trace-id"]
    return problem


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, which belong to the main thread."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@contextlib.contextmanager
def served(api: Api) -> Iterator[str]:
    """The API on a real socket of this machine, on the same event loop; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(api.app, log_config=None, lifespan="off", access_log=False))
    serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), api.loop)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        serving.result(10)
        listener.close()
