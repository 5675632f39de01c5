"""Options that several commands of the agent have in common."""

from pathlib import Path

import click

from pumasi.agents.link import is_loopback
from pumasi.model.ids import is_name

_PLAIN_HTTP = "pumasi.agents.plain_http"


def site_names(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names of sites."""
    for site in value:
        if not is_name(site):
            raise click.BadParameter(f"{site!r} is no site name: a-z, 0-9 and inner hyphens, at most 63")
    return value


def one_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Check the name of a site or an owner."""
    if not is_name(value):
        raise click.BadParameter(f"{value!r} is no name: a-z, 0-9 and inner hyphens, at most 63")
    return value


def _note_plain_http(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[_PLAIN_HTTP] = value


def server_url(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check the address of a control plane, if there is one."""
    if value is None:
        return None
    secret = value.startswith("https://") or is_loopback(value)
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is no address of a server: https://...")
    if not secret and not context.meta[_PLAIN_HTTP]:
        raise click.BadParameter(
            "jobs carry secrets: use https:// to another machine, or say --plain-http if the way there is safe"
        )
    return value


server = click.option(
    "--server", envvar="PUMASI_SERVER", required=True, callback=server_url, help="URL of the control plane."
)
plain_http = click.option(
    "--plain-http",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_plain_http,
    help="Allow http:// to another machine.",
)
data = click.option(
    "--data", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of this agent's own."
)
one_site = click.option("--site", required=True, callback=one_name, help="The site.")
