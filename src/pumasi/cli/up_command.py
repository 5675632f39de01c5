"""`pumasi up`: a control plane of one's own, in one command."""

import importlib
from datetime import date
from pathlib import Path
from typing import Any

import click

from pumasi.cli.errors import CommandError, ExitCode


def _iso_date(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat() if value else ""
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a date such as 2027-12-31") from error


_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("up")
@click.option(
    "--plan", "plan_name", metavar="NAME|FILE", help="A fleet plan to apply at the start: korea, campus, or a file."
)
@click.option(
    "--as-of", default="", callback=_iso_date, help="Date whose stages the plan's pools are in; default today."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("pumasi-data"),
    show_default=True,
    help="Directory of the log, the agents and their runs.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7878, show_default=True, help="0 chooses a free one.")
@click.option(
    "--public", metavar="HOST:PORT", default="", help="Let other machines in there, by TLS; needs the next two."
)
@click.option("--tls-certificate", type=_PEM, help="PEM file: the server's certificate and those that vouch for it.")
@click.option("--tls-key", type=_PEM, help="PEM file: the certificate's private key.")
@click.option(
    "--agents",
    type=click.Choice(["local", "all", "none"]),
    default="local",
    show_default=True,
    help="Sites that get an agent here, whose jobs are processes of this machine: those with the local engine, or all.",
)
@click.option(
    "--clock-rate", type=click.IntRange(1, 3600), default=1, show_default=True, help="Fleet seconds per second."
)
@click.option(
    "--ready-file", type=click.Path(dir_okay=False, path_type=Path), help="Write address and setup token there."
)
def up(
    plan_name: str | None,
    as_of: str,
    data: Path,
    public: str,
    tls_certificate: Path | None,
    tls_key: Path | None,
    **options: Any,
) -> None:
    """Start a control plane with local agents.

    The first start prints a one-use token for the first administrator. Ctrl-C ends all runs, saves, and stops; started
    again on the same data, it goes on where it was.
    """
    # The command line reaches the fleet over HTTP alone; this one command is the server, so it hands over to it.
    bootstrap = importlib.import_module("pumasi.bootstrap")
    plan = _read_plan(plan_name) if plan_name else None
    address = _public_address(public, tls_certificate, tls_key)
    settings = bootstrap.Settings(data=data, plan=plan, as_of=as_of, public=address, **options)
    try:
        bootstrap.run(settings, click.echo)
    except bootstrap.CannotStart as error:
        raise CommandError(str(error), code=ExitCode.FAILED) from error


def _public_address(public: str, certificate: Path | None, key: Path | None) -> Any:
    if not public and certificate is None and key is None:
        return None
    host, colon, port = public.rpartition(":")
    if certificate is None or key is None or not (host and colon and port.isdigit() and int(port) <= 65535):
        raise click.UsageError("--public HOST:PORT, --tls-certificate and --tls-key go together")
    return importlib.import_module("pumasi.bootstrap").PublicAddress(host.strip("[]"), int(port), certificate, key)


def _read_plan(name: str) -> Any:
    from pumasi.plans.locate import find_plan
    from pumasi.plans.problems import PlanError
    from pumasi.plans.reader import load_plan

    try:
        return load_plan(find_plan(name))
    except FileNotFoundError as error:
        raise CommandError(str(error), code=ExitCode.NOT_FOUND) from error
    except PlanError as error:
        raise CommandError(f"{name} is not a sound plan", hint=f"pumasi plan check {name}") from error
