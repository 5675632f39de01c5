"""The group `pumasi agent`, and its commands `enrol` and `run`."""

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
from pumasi.agents.joining.commands import doctor, init, leave
from pumasi.agents.link import LinkRefused, LinkTrouble
from pumasi.agents.options import data, plain_http, server, site_names
from pumasi.agents.site_agent import SiteSettings, Superseded
from pumasi.agents.site_policy import PolicyProblem
from pumasi.agents.slurm.site import SiteProblem

_FAILED, _DENIED, _CONFLICT, _UNREACHABLE = 1, 4, 5, 7  # as docs/reference/exit-codes.md lists them
_EXIT_CODES: dict[type[Exception], int] = {
    NotEnrolled: _DENIED,
    LinkRefused: _DENIED,
    Superseded: _DENIED,
    SiteInUse: _CONFLICT,
    LinkTrouble: _UNREACHABLE,
    PolicyProblem: _FAILED,
    SiteProblem: _FAILED,
}


def _failure(error: Exception) -> click.exceptions.Exit:
    """Say what went wrong in one line; returns what to raise for its exit code."""
    click.echo(f"pumasi: {error}", err=True)
    return click.exceptions.Exit(_EXIT_CODES[type(error)])


@click.group()
def agent() -> None:
    """Join a fleet with a site, run the site's agent, and leave again.

    An agent runs at the site. It dials out to the control plane, fetches orders, and has the site's engine run them.
    """


for _command in (init, doctor, leave):
    agent.add_command(_command)


@agent.command("enrol")
@plain_http
@server
@data
@click.option("--site", "sites", required=True, multiple=True, callback=site_names, help="The site the token is for.")
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
@plain_http
@server
@data
@click.option("--site", "sites", required=True, multiple=True, callback=site_names, help="A site to serve; repeatable.")
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
