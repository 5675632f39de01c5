"""Serving: from an empty directory to a control plane that answers, and back."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from pumasi.adapters.clocks import ScaledClock, SystemClock
from pumasi.adapters.rotating_file import RotatingFile
from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.api.app import create_app
from pumasi.bootstrap.embedded_agents import embedded_agents
from pumasi.bootstrap.first_start import prepare
from pumasi.bootstrap.settings import CannotStart, PublicAddress, Settings
from pumasi.control.plane import ControlPlane
from pumasi.control.service import Service
from pumasi.ports.clock import Clock
from pumasi.ports.event_log import LogBroken

LOG_NAME = "fleet.db"
GC_THRESHOLDS = (10_000, 5, 10_000)  # the state has no cycles: looking for some in all of it stops the world for 0.1 s
CONTROL_LOG_BYTES_MAX = 64 * 1024 * 1024  # some 300,000 requests; the file before it is kept too
SWITCH_SECONDS = 0.0005  # a call never waits longer for its turn beside the planning thread (Python's default: 0.005)


class Door(NamedTuple):
    """A listening socket, and with what certificate and key it speaks TLS, if it does."""

    listener: socket.socket
    certificate: str | None = None
    key: str | None = None

    @property
    def port(self) -> int:
        """The port it listens on, whatever was asked for."""
        port: int = self.listener.getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening."""
        self.listener.close()


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `say` gets what a person should read.

    :raises CannotStart: if it cannot; nothing is left running.
    """
    _favour_short_pauses()
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        _log_to(settings.data / "control.log")
    except OSError as error:
        raise CannotStart(f"{settings.data} cannot hold the data: {error.strerror}") from error
    try:
        store = SqliteLog(settings.data / LOG_NAME)
    except LogBroken as error:
        raise CannotStart(str(error)) from error
    with contextlib.closing(store), contextlib.ExitStack() as open_sockets:
        doors = [open_sockets.enter_context(contextlib.closing(door)) for door in _doors(settings)]
        asyncio.run(_serve(settings, store, doors, say))


def _favour_short_pauses() -> None:
    """Set up the interpreter for a large, long-lived state beside short calls."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*GC_THRESHOLDS)


def _log_to(path: Path) -> None:
    """Structured lines go to a file that cannot fill the disk; the terminal is for people."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, RotatingFile(path, CONTROL_LOG_BYTES_MAX))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


class _ToStructlog(logging.Handler):
    """Takes what libraries say to the same file."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        structlog.get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def verify(data: Path) -> tuple[int, str]:
    """Check the whole log of a control plane that does not run; returns how many facts, and the digest over them all.

    :raises CannotStart: if there is none, it is in use, or something in it was changed.
    """
    if not (data / LOG_NAME).exists():
        raise CannotStart(f"there is no log in {data}")
    try:
        with contextlib.closing(SqliteLog(data / LOG_NAME)) as store:
            store.verify()
            head = store.head()
    except LogBroken as error:
        raise CannotStart(str(error)) from error
    return head.seq, head.digest.hex()


def _doors(settings: Settings) -> Iterator[Door]:
    """The loopback one, in the clear; then the public one, with TLS, if there is to be one."""
    if settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise CannotStart(f"{settings.host} is not loopback; --public with a certificate lets other machines in")
    yield Door(_bind(settings.host, settings.port))
    public = settings.public
    if public is not None:
        _check_certificate(public)
        yield Door(_bind(public.host, public.port), str(public.certificate), str(public.key))


def _check_certificate(public: PublicAddress) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(public.certificate, public.key)
    except OSError as error:  # an SSLError is one too
        reason = error.strerror or str(error)
        raise CannotStart(f"{public.certificate} and {public.key} are no certificate and key: {reason}") from error


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _clock(settings: Settings, not_before_ms: int) -> Clock:
    wall = SystemClock(not_before_ms)
    return wall if settings.clock_rate == 1 else ScaledClock(settings.clock_rate, wall.now_ms())


async def _serve(settings: Settings, store: SqliteLog, doors: list[Door], say: Callable[[str], None]) -> None:
    plane = _recovered(settings, store)
    url = f"http://{settings.host}:{doors[0].port}"
    service = Service(plane, store)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with service.running(), _http(service, doors):
        if settings.public is not None:
            say(f"Other machines reach it at https://{settings.public.host}:{doors[1].port}")
        await prepare(settings, service, url, say)
        async with embedded_agents(settings, service, url, say):
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
async def _http(service: Service, doors: list[Door]) -> AsyncIterator[None]:
    app = create_app(service)
    servers = [_Uvicorn(_configured(app, door)) for door in doors]
    serving = [
        asyncio.create_task(server.serve(sockets=[door.listener])) for server, door in zip(servers, doors, strict=True)
    ]
    try:
        while not all(server.started for server in servers):  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        yield
    finally:
        service.leave()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)


def _configured(app: ASGIApp, door: Door) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=3,
        access_log=False,
        ssl_certfile=door.certificate,
        ssl_keyfile=door.key,
    )
