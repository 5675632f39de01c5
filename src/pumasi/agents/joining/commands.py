"""The commands `pumasi agent init`, `doctor` and `leave`."""

import os
import time
from datetime import date
from pathlib import Path

import click

from pumasi.agents import options
from pumasi.agents.identity import site_directory
from pumasi.agents.joining.doctor import Health, examine
from pumasi.agents.joining.inventory import Inventory, take_inventory
from pumasi.agents.joining.leaving import still_here, wish_to_leave
from pumasi.agents.joining.proposal import Proposal, engine_file, plan_file, policy_file, propose
from pumasi.agents.site_files import POLICY_FILE
from pumasi.agents.slurm.commands import SlurmAway
from pumasi.agents.slurm.runner import ProcessRunner
from pumasi.agents.slurm.site import FILE_NAME
from pumasi.plans.catalogue import shipped_catalogue

PLAN_FILE = "plan.yaml"
_FAILED, _UNREACHABLE = 1, 7  # as docs/reference/exit-codes.md lists them
_LOOK_SECONDS = 1.0
_SETTLE_SECONDS = 5.0  # an order that crossed our wish on its way has arrived by then
_MARKS = {Health.GOOD: "ok  ", Health.DOUBTFUL: "note", Health.BAD: "BAD "}

_path = click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True)
_shared = click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True)


@click.command("init")
@click.option("--engine", type=click.Choice(["slurm"]), default="slurm", show_default=True, help="The site's engine.")
@options.one_site
@click.option("--owner", required=True, callback=options.one_name, help="Owner of the site's GPUs.")
@options.data
@click.option(
    "--shared", type=_shared, help="Directory that all nodes see; default: that of --data. Best apart from it."
)
@click.option("--slurm-conf", type=_path, help="The cluster's slurm.conf; default: the one Slurm's commands find.")
@click.option("--commands", default="/usr/bin", show_default=True, help="Directory of Slurm's commands.")
@click.option("--lend", is_flag=True, help="Let any owner's work in, as far as the plan lends; else the owner's alone.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def init(
    engine: str,
    site: str,
    owner: str,
    data: Path,
    shared: Path | None,
    slurm_conf: Path | None,
    commands: str,
    lend: bool,
    force: bool,
) -> None:
    """Look at the cluster and propose how it joins, as files to edit.

    Writes the engine's table, the site's policy and the site's part of the fleet's plan. The cluster is only looked at.
    """
    config = str(slurm_conf or "")
    try:
        inventory = take_inventory(ProcessRunner(commands, config), os.getuid())
    except SlurmAway as error:
        raise _failure(f"{engine} does not answer: {error}", _UNREACHABLE) from error
    models = [entry.model for entry in shipped_catalogue().entries.values()]
    proposal = propose(inventory, site, owner, models)
    if not proposal.pools:
        raise _failure("there is no node with GPUs to bring", _FAILED)
    directory = site_directory(data, site)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _tell(inventory, proposal)
    _write(directory / FILE_NAME, engine_file(proposal, inventory, config, commands, str(shared or "")), force)
    _write(directory / POLICY_FILE, policy_file(proposal, lend), force)
    _write(directory / PLAN_FILE, plan_file(proposal, date.today().isoformat(), models), force)  # noqa: DTZ011
    click.echo(
        "\nRead and edit them. Give plan.yaml to the operator of the fleet, who adds it and sends a one-use token.\n"
        f"Then: pumasi agent enrol --server URL --data {data} --site {site}\n"
        f"      pumasi agent doctor --server URL --data {data} --site {site}\n"
        f"      pumasi agent run --server URL --data {data} --site {site}"
    )


def _tell(inventory: Inventory, proposal: Proposal) -> None:
    click.echo(f"{inventory.version}: {len(inventory.nodes)} nodes")
    for pool in proposal.pools:
        model = pool.model or "a model that the catalogue does not tell: fill it in"
        each = f"{pool.gpus.count} {f'slices of {pool.cut.name}' if pool.cut else 'GPUs'}"
        click.echo(f"  pool {pool.id}: {len(pool.nodes)} nodes x {each} in {pool.partition}, {model}")
    for reason in dict.fromkeys(reason for _, reason in proposal.left_out):
        names = [name for name, why in proposal.left_out if why == reason]
        click.echo(f"  left out: {len(names)} nodes with {reason}, such as {names[0]}")


def _write(path: Path, text: str, force: bool) -> None:
    if path.exists() and not force:
        click.echo(f"kept    {path} (--force writes over it)")
        return
    path.write_text(text, encoding="utf-8")
    click.echo(f"written {path}")


@click.command("doctor")
@options.plain_http
@click.option("--server", envvar="PUMASI_SERVER", callback=options.server_url, help="URL of the control plane.")
@options.data
@options.one_site
def doctor(server: str | None, data: Path, site: str) -> None:
    """Check that a site can serve; every finding says what to do.

    Exit code 1 if something is bad.
    """
    worst = Health.GOOD
    for finding in examine(site_directory(data, site), site, server or ""):
        click.echo(f"{_MARKS[finding.health]} {finding.what}")
        if finding.health is not Health.GOOD:
            click.echo(f"     -> {finding.advice}")
            worst = Health.BAD if Health.BAD in (worst, finding.health) else Health.DOUBTFUL
    if worst is Health.BAD:
        raise click.exceptions.Exit(_FAILED)


@click.command("leave")
@options.data
@options.one_site
@click.option("--wait", "wait_seconds", type=click.IntRange(min=0), default=3600, show_default=True, help="Seconds.")
@click.option("--stay", is_flag=True, help="Take it back: the site's nodes serve again.")
def leave(data: Path, site: str, wait_seconds: int, stay: bool) -> None:
    """Drain the site, wait until nothing of the fleet is left on it, and say what remains to be done.

    The agent must run meanwhile: it tells the fleet that the nodes are drained. Runs end as they would have. Exit code
    1 if some are still there after the wait; the site goes on draining.
    """
    directory = site_directory(data, site)
    if not (directory / "journal").exists():
        raise _failure(f"no agent has served {site} from {data}", _FAILED)
    wish_to_leave(directory, not stay)
    if stay:
        click.echo(f"site {site} stays: its nodes serve again")
        return
    click.echo(f"site {site} takes no more work")
    if not _is_settled(directory, wait_seconds):
        raise _failure(f"work is still here after {wait_seconds} s; the site goes on draining", _FAILED)
    click.echo(
        "nothing of the fleet is left here, and all of it is reported\n"
        "Stop the agent, and have the operator of the fleet take the site out of the plan."
    )


def _is_settled(directory: Path, wait_seconds: int) -> bool:
    """Whether nothing of the fleet was left, for long enough for a last order to have come, before time was up."""
    give_up_at = time.monotonic() + wait_seconds
    quiet_since = time.monotonic()
    shown = -1
    while True:
        live, untold = still_here(directory)
        now = time.monotonic()
        if len(live) != shown:
            click.echo(f"  runs still here: {len(live)}")
            shown = len(live)
        if live or untold:
            quiet_since = now
        elif now - quiet_since >= _SETTLE_SECONDS:
            return True
        if now >= give_up_at:
            return False
        time.sleep(_LOOK_SECONDS)


def _failure(problem: str, code: int) -> click.exceptions.Exit:
    click.echo(f"pumasi: {problem}", err=True)
    return click.exceptions.Exit(code)
