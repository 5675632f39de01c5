"""Which engine a site has: its Slurm if its directory holds a table of one, else the processes of this machine."""

import os
from pathlib import Path

from pumasi.agents.identity import Identity
from pumasi.agents.joining.leaving import LeavingEngine
from pumasi.agents.local_engine import LocalEngine, LocalSettings
from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.engine import SlurmEngine, SlurmSettings
from pumasi.agents.slurm.runner import ProcessRunner
from pumasi.agents.slurm.site import FILE_NAME, SlurmSite, read_site
from pumasi.agents.spawner import Spawner
from pumasi.ports.engine import Engine


def open_engine(identity: Identity, directory: Path, spawner: Spawner) -> Engine:
    """The engine of a site whose files are in `directory`.

    :raises SiteProblem: if its table of Slurm cannot be used.
    """
    if (directory / FILE_NAME).exists():
        return _open_slurm(identity, directory, read_site(directory / FILE_NAME))
    return LocalEngine(LocalSettings(fleet=identity.fleet, site=identity.site, directory=directory), spawner)


def _open_slurm(identity: Identity, directory: Path, table: SlurmSite) -> Engine:
    shared = Path(table.shared_directory) / identity.site if table.shared_directory else directory
    settings = SlurmSettings(fleet=identity.fleet, site=identity.site, directory=shared.resolve())
    commands = SlurmCommands(ProcessRunner(table.commands, table.slurm_conf), os.getuid())
    nodes = {pool.id: len(pool.nodes) for pool in table.pools.values()}
    return LeavingEngine(SlurmEngine(settings, table, commands), directory, nodes)
