"""One process that serves any number of sites, and their enrolment."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import structlog
from msgspec import Struct

from pumasi.agents.engines import open_engine
from pumasi.agents.identity import (
    Identity,
    Membership,
    load_identity,
    load_key,
    lock_site,
    save_membership,
    site_directory,
)
from pumasi.agents.journal import Journal
from pumasi.agents.link import Link
from pumasi.agents.site_agent import SiteAgent, SiteSettings, Superseded
from pumasi.agents.site_files import read_admission
from pumasi.agents.site_policy import Admission
from pumasi.agents.spawner import Spawner
from pumasi.model.ids import SiteId
from pumasi.ports.engine import Engine

_AGAIN_SECONDS = 5.0

EngineFactory: TypeAlias = Callable[[Identity, Path], Engine]

_log = structlog.get_logger("pumasi.agent")


class AgentSettings(Struct, frozen=True, kw_only=True):
    """`server`: the control plane's URL. `data`: a directory of this agent's own. `end_runs`: leave nothing running."""

    server: str
    data: Path
    sites: tuple[SiteId, ...]
    site_settings: SiteSettings = SiteSettings()
    end_runs: bool = False


async def enrol(server: str, data: Path, site: SiteId, token: str) -> Membership:
    """Trade a one-use token for the right to speak for a site; key and answer are kept under `data`.

    An agent that spoke for the site before, here or elsewhere, is superseded.

    :raises LinkRefused: if the token is not good.
    :raises LinkTrouble: if no answer came.
    :raises SiteInUse: if an agent runs from the same directory.
    """
    directory = site_directory(data, site)
    key = load_key(directory)
    link = Link(server)
    with contextlib.closing(lock_site(directory)):
        try:
            enrolled = await link.enrol(site, key, token)
        finally:
            await link.close()
        membership = Membership(fleet=enrolled.fleet, generation=enrolled.generation)
        save_membership(directory, membership)
    return membership


async def run_agent(
    settings: AgentSettings,
    stopping: asyncio.Event,
    engine_factory: EngineFactory | None = None,
) -> None:
    """Serve all sites until `stopping` is set.

    :param engine_factory: makes a site's engine; the one its directory says if None.
    :raises NotEnrolled: if a site has no identity here; nothing was served then.
    :raises SiteInUse: if another process serves one of them from the same directory.
    :raises PolicyProblem: if a site's policy cannot be used.
    :raises SiteProblem: if a site's table of its engine cannot be used.
    :raises Superseded: when every site has been taken over by another agent.
    """
    directories = {site: site_directory(settings.data, site) for site in settings.sites}
    identities = [load_identity(directory, site) for site, directory in directories.items()]
    admissions = {site: read_admission(directory) for site, directory in directories.items()}
    link, spawner = Link(settings.server), Spawner()

    def own_engine(identity: Identity, directory: Path) -> Engine:
        return open_engine(identity, directory, spawner)

    with contextlib.ExitStack() as locks:
        for identity in identities:
            locks.enter_context(lock_site(site_directory(settings.data, identity.site)))
        host = _Host(settings, link, engine_factory or own_engine, stopping, admissions)
        try:
            served = await asyncio.gather(*(host.serve(identity) for identity in identities))
        finally:
            await link.close()
            spawner.close()
    if served and not any(served):
        raise Superseded("every site of this agent has been taken over by another agent")


class _Host:
    """Keeps the agents of all sites going, whatever happens to one of them."""

    def __init__(
        self,
        settings: AgentSettings,
        link: Link,
        engine_factory: EngineFactory,
        stopping: asyncio.Event,
        admissions: Mapping[SiteId, Admission | None],
    ) -> None:
        self._settings = settings
        self._link = link
        self._engine_factory = engine_factory
        self._admissions = admissions
        self._stopping = stopping

    async def serve(self, identity: Identity) -> bool:
        """Serve a site until told to stop; False if another agent has taken it over."""
        while not self._stopping.is_set():
            try:
                await self._agent(identity).run(self._stopping, self._settings.end_runs)
            except Superseded as error:
                _log.error("superseded", site=identity.site, problem=str(error))
                return False
            except Exception:  # noqa: BLE001  (one site's trouble, even our own bug, must not take the others down)
                _log.exception("site agent failed", site=identity.site)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _AGAIN_SECONDS)
        return True

    def _agent(self, identity: Identity) -> SiteAgent:
        directory = site_directory(self._settings.data, identity.site)
        engine = self._engine_factory(identity, directory)
        journal = Journal(directory / "journal")
        admission = self._admissions[identity.site]
        return SiteAgent(identity, self._link, engine, journal, self._settings.site_settings, admission)
