"""The one place that wires ports to adapters: `pumasi up`, from an empty directory to a serving control plane."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import uvicorn
from msgspec import Struct

from pumasi.adapters.clocks import ScaledClock, SystemClock
from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.agents.agent import enrol
from pumasi.agents.identity import NotEnrolled, load_identity, site_directory
from pumasi.api.app import create_app
from pumasi.control.commands import ApplyPlan, IssueToken, RevokeToken
from pumasi.control.plane import ControlPlane
from pumasi.control.refusals import Refusal
from pumasi.control.service import Service
from pumasi.model.access import Token, TokenKind
from pumasi.model.fleet import Engine, FleetPlan
from pumasi.model.ids import SiteId
from pumasi.ports.clock import Clock
from pumasi.ports.event_log import LogBroken

KOREA = timezone(timedelta(hours=9))
SETUP_HOURS = 24
ENROL_MINUTES = 10
AGENT_STOP_SECONDS = 20
AGENT_RESTART_SECONDS = 2.0


class AgentScope(Struct, frozen=True):
    """Which sites get an agent of this process' own: those whose engine is `local`, all of them, or none."""

    local: bool
    others: bool


AGENT_SCOPES = {
    "local": AgentScope(local=True, others=False),
    "all": AgentScope(local=True, others=True),
    "none": AgentScope(local=False, others=False),
}


class Settings(Struct, frozen=True, kw_only=True):
    """What `pumasi up` was asked for. `plan` is applied at the start. `clock_rate`: fleet seconds per second."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 7878
    plan: FleetPlan | None = None
    as_of: str = ""
    clock_rate: int = 1
    agents: str = "local"
    ready_file: Path | None = None


class CannotStart(Exception):
    """Why the control plane does not start, in one line."""


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `say` gets what a person should read.

    :raises CannotStart: if it cannot; nothing is left running.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        store = SqliteLog(settings.data / "fleet.db")
    except LogBroken as error:
        raise CannotStart(str(error)) from error
    with contextlib.closing(store), contextlib.closing(_bind(settings)) as listener:
        asyncio.run(_serve(settings, store, listener, say))


def _bind(settings: Settings) -> socket.socket:
    """The listening socket. Loopback only: TLS is not built in yet, and tokens do not travel in the clear."""
    if settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise CannotStart(f"{settings.host} is not loopback; put a TLS proxy in front of 127.0.0.1 instead")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise CannotStart(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    return listener


def _clock(settings: Settings, not_before_ms: int) -> Clock:
    wall = SystemClock(not_before_ms)
    return wall if settings.clock_rate == 1 else ScaledClock(settings.clock_rate, wall.now_ms())


async def _serve(settings: Settings, store: SqliteLog, listener: socket.socket, say: Callable[[str], None]) -> None:
    plane = _recovered(settings, store)
    address = listener.getsockname()
    url = f"http://{settings.host}:{address[1]}"
    service = Service(plane, store)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with service.running(), _http(service, listener):
        await _prepare(settings, service, url, say)
        async with _agents(settings, service, url):
            await _until_stopped(stop, service)
            service.pause()
    if service.broken is not None:
        raise CannotStart(f"stopped: {service.broken}")


def _recovered(settings: Settings, store: SqliteLog) -> ControlPlane:
    last = next((event.at_ms for _, event in store.read(store.last_seq() - 1)), 0) if store.last_seq() else 0
    plane = ControlPlane(_clock(settings, last), settings.clock_rate)
    try:
        plane.recover(store)
    except LogBroken as error:
        raise CannotStart(str(error)) from error
    return plane


async def _until_stopped(stop: asyncio.Event, service: Service) -> None:
    """Return on a signal, or when the log breaks: a control plane that cannot write must not go on."""
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(service.failed.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers: agents must be able to report while we stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def _http(service: Service, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        create_app(service), log_config=None, lifespan="off", timeout_graceful_shutdown=3, access_log=False
    )
    server = _Uvicorn(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await serving


# --- the first start -------------------------------------------------------------------------------------------------


async def _prepare(settings: Settings, service: Service, url: str, say: Callable[[str], None]) -> None:
    if settings.plan is not None:
        await _apply(settings.plan, settings, service)
    state = service.plane.state
    gpus = sum(record.declared.gpus for record in state.pools.values())
    say(f"Pumasi serves {state.plan_name or 'an empty fleet'} ({gpus:,} GPUs) at {url}")
    setup = "" if state.principals else await _issue_setup_token(service)
    if setup:
        say("First start: become its administrator with the one-use token")
        say(f"  pumasi --server {url} login --setup {setup}")
    if settings.ready_file is not None:
        _write_private(settings.ready_file, json.dumps({"url": url, "setup": setup, "pid": os.getpid()}))


async def _apply(plan: FleetPlan, settings: Settings, service: Service) -> None:
    as_of = settings.as_of or datetime.now(KOREA).date().isoformat()
    answer = await service.do(ApplyPlan(by="setup", plan=plan, as_of=as_of))
    if isinstance(answer, Refusal):
        raise CannotStart("; ".join([answer.detail, *(f"{error.path}: {error.problem}" for error in answer.errors)]))


async def _issue_setup_token(service: Service) -> str:
    """A fresh setup token; one that was printed at an earlier start and never used is revoked."""
    for token in list(service.plane.state.tokens.values()):
        if token.kind is TokenKind.SETUP:
            await service.do(RevokeToken(by="setup", digest=token.digest))
    return await _issue(service, TokenKind.SETUP, SETUP_HOURS * 3600)


async def _issue(service: Service, kind: TokenKind, lives_seconds: int, site: str = "") -> str:
    secret = f"pumasi_{kind}_{secrets.token_urlsafe(32)}"
    token = Token(
        digest=sha256(secret.encode()).hexdigest(),
        kind=kind,
        site=site,
        expires_at_ms=service.plane.now_ms() + lives_seconds * 1000,
    )
    answer = await service.do(IssueToken(by="setup", token=token))
    if isinstance(answer, Refusal):
        raise CannotStart(answer.detail)
    return secret


def _write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


# --- embedded agents -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _agents(settings: Settings, service: Service, url: str) -> AsyncIterator[None]:
    """An agent process for the sites this process looks after, enrolled, and started again should it die.

    On leaving, it ends all it runs and reports that, while the API still answers.
    """
    sites = _own_sites(settings, service)
    data = settings.data / "agents"
    for site in sites:
        await _enrol_if_new(service, url, data, site)
    if not sites:
        yield
        return
    command = [sys.executable, "-m", "pumasi", "agent", "run", "--server", url, "--data", str(data), "--end-runs"]
    command += ["--with-parent", "--clock-rate", str(settings.clock_rate)]
    command += [argument for site in sites for argument in ("--site", site)]
    keeper = _AgentKeeper(command, settings.data / "agents.log")
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield
    finally:
        await keeper.stop()
        await keeping


def _own_sites(settings: Settings, service: Service) -> list[SiteId]:
    scope = AGENT_SCOPES[settings.agents]
    return [
        site
        for site, record in service.plane.state.sites.items()
        if (scope.local if record.declared.engine is Engine.LOCAL else scope.others)
    ]


async def _enrol_if_new(service: Service, url: str, data: Path, site: SiteId) -> None:
    """Enrol unless the identity on disk is the one the fleet knows."""
    with contextlib.suppress(NotEnrolled):
        identity = load_identity(site_directory(data, site), site)
        if identity.generation == service.plane.state.sites[site].generation:
            return
    secret = await _issue(service, TokenKind.ENROL, ENROL_MINUTES * 60, site)
    await enrol(url, data, site, secret)


class _AgentKeeper:
    """Keeps one agent process alive until told to stop."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def keep(self) -> None:
        """Start it, and again whenever it ends by itself; what it ran goes on, and the next one adopts it."""
        while not self._stopping:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            await self._process.wait()
            if not self._stopping:
                await asyncio.sleep(AGENT_RESTART_SECONDS)

    async def stop(self) -> None:
        """Ask it to end its runs and itself; if it does not within a while, end it."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(AGENT_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
