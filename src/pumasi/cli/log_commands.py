"""`pumasi log`: the log of facts, offline."""

import importlib
from pathlib import Path

import click

from pumasi.cli.errors import CommandError


@click.group()
def log() -> None:
    """Verify the log of facts."""


@log.command("verify")
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
def verify(data: Path) -> None:
    """Check every fact and record of the log in DATA against its chain of digests.

    DATA is the directory a control plane was started with; that control plane must not be running.
    """
    # The command line reaches the fleet over HTTP alone; this command is for when there is no server to ask.
    bootstrap = importlib.import_module("pumasi.bootstrap")
    try:
        facts, digest = bootstrap.verify(data)
    except bootstrap.CannotStart as error:
        raise CommandError(str(error)) from error
    click.echo(f"{facts:,} facts verify; the chain ends in {digest}")
