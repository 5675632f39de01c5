"""The commands `pumasi agent enrol` and `pumasi agent run`."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import click
import structlog

from pumasi.agents.agent import AgentSettings, enrol, run_agent
from pumasi.agents.identity import NotEnrolled, SiteInUse
from pumasi.agents.link import LinkRefused, LinkTrouble, is_loopback
from pumasi.agents.site_agent import SiteSettings, Superseded
from pumasi.model.ids import is_name

_DENIED, _CONFLICT, _UNREACHABLE = 4, 5, 7  # as docs/reference/exit-codes.md lists them
_PLAIN_HTTP = "pumasi.agents.plain_http"
_EXIT_CODES: dict[type[Exception], int] = {
    NotEnrolled: _DENIED,
    LinkRefused: _DENIED,
    Superseded: _DENIED,
    SiteInUse: _CONFLICT,
    LinkTrouble: _UNREACHABLE,
}


def _failure(error: Exception) -> click.exceptions.Exit:
    """Say what went wrong in one line; returns what to raise for its exit code."""
    click.echo(f"pumasi: {error}", err=True)
    return click.exceptions.Exit(_EXIT_CODES[type(error)])


def _site_names(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for site in value:
        if not is_name(site):
            raise click.BadParameter(f"{site!r} is no site name: a-z, 0-9 and inner hyphens, at most 63")
    return value


def _note_plain_http(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[_PLAIN_HTTP] = value


def _server_url(context: click.Context, _parameter: click.Parameter, value: str) -> str:
    secret = value.startswith("https://") or is_loopback(value)
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is no address of a server: https://...")
    if not secret and not context.meta[_PLAIN_HTTP]:
        raise click.BadParameter(
            "jobs carry secrets: use https:// to another machine, or say --plain-http if the way there is safe"
        )
    return value


_server = click.option(
    "--server", envvar="PUMASI_SERVER", required=True, callback=_server_url, help="URL of the control plane."
)
_plain_http = click.option(
    "--plain-http",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_plain_http,
    help="Allow http:// to another machine.",
)
_data = click.option(
    "--data", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of this agent's own."
)


@click.group()
def agent() -> None:
    """Enrol and run the agent of a site.

    An agent runs at the site. It dials out to the control plane, fetches orders, and has the site's engine run them.
    """


@agent.command("enrol")
@_plain_http
@_server
@_data
@click.option("--site", "sites", required=True, multiple=True, callback=_site_names, help="The site the token is for.")
@click.option(
    "--token", envvar="PUMASI_ENROL_TOKEN", help="The one-use token; asked for, or read from a pipe, if absent."
)
def enrol_command(server: str, data: Path, sites: tuple[str, ...], token: str | None) -> None:
    """Trade a one-use token for the right to speak for a site.

    Makes the site's key on first use. An agent that was enrolled for the site before is superseded.
    """
    if len(sites) != 1:
        raise click.UsageError("a token is for one site: give --site once")
    secret = token or _asked_token()
    try:
        membership = asyncio.run(enrol(server, data, sites[0], secret))
    except tuple(_EXIT_CODES) as error:
        raise _failure(error) from error
    click.echo(f"site {sites[0]} of fleet {membership.fleet} is enrolled (generation {membership.generation})")


@agent.command("run")
@_plain_http
@_server
@_data
@click.option(
    "--site", "sites", required=True, multiple=True, callback=_site_names, help="A site to serve; repeatable."
)
@click.option(
    "--clock-rate", type=click.IntRange(min=1), default=1, show_default=True, help="Fleet seconds per real second."
)
@click.option(
    "--end-runs", is_flag=True, help="End all runs when the agent stops; else they go on and are found again."
)
@click.option("--with-parent", is_flag=True, help="Leave, and leave the runs alone, when the starting process is gone.")
def run_command(
    server: str,
    data: Path,
    sites: tuple[str, ...],
    clock_rate: int,
    end_runs: bool,
    with_parent: bool,
) -> None:
    """Serve sites until SIGTERM or SIGINT; logs JSON lines to stderr."""
    _log_to_stderr()
    settings = AgentSettings(
        server=server,
        data=data,
        sites=tuple(dict.fromkeys(sites)),
        site_settings=SiteSettings(clock_rate=clock_rate),
        end_runs=end_runs,
    )
    try:
        asyncio.run(_run_until_signal(settings, os.getppid() if with_parent else None))
    except tuple(_EXIT_CODES) as error:
        raise _failure(error) from error


async def _run_until_signal(settings: AgentSettings, parent: int | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if parent is not None:
        _leave_without(parent)
    await run_agent(settings, stopping)


def _leave_without(parent: int) -> None:
    """End this process at once when its parent is gone: to the journal that is a crash, and the runs go on."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(0)
    asyncio.get_running_loop().add_reader(descriptor, os._exit, 0)


def _asked_token() -> str:
    """A token does not belong on a command line, where every user of the machine can read it."""
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True))
    token = sys.stdin.readline().strip()
    if not token:
        raise click.UsageError("no token: give it on standard input, or by PUMASI_ENROL_TOKEN")
    return token


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
