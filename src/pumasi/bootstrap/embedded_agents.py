"""The agents a control plane brings along: one child process that serves the sites of this machine."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from pumasi.agents.agent import enrol
from pumasi.agents.identity import NotEnrolled, load_identity, site_directory
from pumasi.bootstrap.first_start import issue
from pumasi.bootstrap.settings import AGENT_SCOPES, Settings
from pumasi.control.service import Service
from pumasi.model.access import TokenKind
from pumasi.model.fleet import Engine
from pumasi.model.ids import SiteId

ENROL_MINUTES = 10
AGENT_STOP_SECONDS = 20
AGENT_RESTART_SECONDS = 2.0
AGENTS_LOG_BYTES_MAX = 64 * 1024 * 1024


@contextlib.asynccontextmanager
async def embedded_agents(
    settings: Settings, service: Service, url: str, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """An agent process for the sites this process looks after, enrolled, and started again should it die.

    On leaving, it ends all it runs and reports that, while the API still answers.
    """
    sites, all_sites = _own_sites(settings, service), len(service.plane.state.sites)
    if len(sites) < all_sites:
        elsewhere = f"{all_sites - len(sites)} of {all_sites} sites are served by agents of their own"
        say(f"{elsewhere} ('pumasi agent' enrols one; --agents all runs their jobs on this machine)")
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
    secret = await issue(service, TokenKind.ENROL, ENROL_MINUTES * 60, site)
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
            self._make_room()
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            await self._process.wait()
            if not self._stopping:
                await asyncio.sleep(AGENT_RESTART_SECONDS)

    def _make_room(self) -> None:
        """Agents say little, but a file that only ever grows is a full disk some day."""
        if self._log.exists() and self._log.stat().st_size > AGENTS_LOG_BYTES_MAX:
            self._log.replace(self._log.with_name(f"{self._log.name}.1"))
        self._log.touch(mode=0o600)

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
