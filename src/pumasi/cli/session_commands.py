"""Who you are: login, logout, whoami."""

import os
import sys

import click

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import dash, print_json, safe
from pumasi.cli.session import open_client
from pumasi.client.config import Connection, find_connection, forget_token, store_connection

SETUP_PREFIX = "pumasi_setup_"


@click.command()
@click.argument("server", required=False)
@click.option("--principal", metavar="NAME", default="admin", show_default=True, help="With a setup token: your name.")
@click.option("--title", metavar="TEXT", default="", help="With a setup token: your name in full.")
@click.pass_context
def login(context: click.Context, server: str | None, principal: str, title: str) -> None:
    """Store a server and a token for later calls.

    The token is asked for, or read from standard input or $PUMASI_TOKEN; never give it as an argument, where others can
    see it. A setup token of a new fleet is used up: it makes you the first fleet admin, and your own token is stored.
    """
    from pumasi.client.client import Client

    token = _read_token()
    with Client(server or context.obj.server, token) as client:
        if token.startswith(SETUP_PREFIX):
            token = str(client.setup(token, principal, title)["token"])
        address = client.connection.server
    with Client(address, token) as client:
        who = client.whoami()
    path = store_connection(Connection(address, token))
    click.echo(f"Logged in to {address} as {safe(who['principal'])}; the token is in {path}")


def _read_token() -> str:
    token = os.environ.get("PUMASI_TOKEN", "")
    if not token:
        token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    token = token.strip()
    if not token.startswith("pumasi_"):
        raise CommandError("this is no token of Pumasi; tokens begin with pumasi_", ExitCode.USAGE)
    return token


@click.command()
@click.pass_context
def logout(context: click.Context) -> None:
    """Forget the stored token of the server in use. The token itself stays valid until it is revoked."""
    server = find_connection(context.obj.server, "").server
    known = forget_token(server)
    click.echo(f"Forgot the token of {server}" if known else f"There was no token of {server}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def whoami(context: click.Context, as_json: bool) -> None:
    """Show who you are to the server, and what you may do."""
    client = open_client(context)
    who = client.whoami()
    if as_json:
        print_json(who)
        return
    click.echo(f"Principal  {safe(who['principal'])}")
    click.echo(f"Server     {client.connection.server}")
    click.echo(f"Fleet      {safe(dash(who.get('fleet')))}")
    for binding in who.get("bindings") or ():
        click.echo(f"Role       {safe(binding['role'])} at {safe(binding['scope'])}")
