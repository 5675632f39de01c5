"""`pumasi demo`: see the custom happen."""

import importlib
from pathlib import Path

import click
from rich.console import Console

from pumasi.cli.errors import CommandError


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the control plane running at the end, and say where.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the closing tables as SVG.")
@click.option("--slurm", is_flag=True, help="On five real Slurm clusters, started here, instead.")
def demo(keep: bool, picture: Path | None, slurm: bool) -> None:
    """See lending and reclaim happen on the Korean fleet.

    Starts a control plane on all 260,000 GPUs with an agent for every site, submits real jobs of the Philly trace, and
    shows an idle owner's GPUs lent and given back within the promised time. Takes two minutes; leaves nothing behind.
    """
    # The command line reaches the fleet over HTTP alone; the demo starts a fleet of its own, so it is found by name.
    main = importlib.import_module("pumasi.demo.slurm" if slurm else "pumasi.demo.main")
    try:
        main.run(Console(), keep, picture)
    except main.FAILURES as error:
        raise CommandError(f"the demo failed: {error}") from error
