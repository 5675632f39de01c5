"""Who you are: login, logout, whoami."""

import os
import sys

import click

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import dash, print_json, safe
from pumasi.cli.session import open_client, principal_name
from pumasi.cli.times import format_time
from pumasi.client.config import Connection, find_connection, forget_token, store_connection

TOKEN_PREFIX = "pumasi_"  # noqa: S105  (what tokens begin with, not one)
SETUP_PREFIX = "pumasi_setup_"


@click.command()
@click.argument("server", required=False)
@click.option("--setup", metavar="TOKEN", help="The one-use token a new fleet printed: become its first administrator.")
@click.option("--principal", metavar="NAME", default="admin", show_default=True, help="With --setup: your name.")
@click.option("--title", metavar="TEXT", default="", help="With --setup: your name in full.")
@click.pass_context
def login(context: click.Context, server: str | None, setup: str | None, principal: str, title: str) -> None:
    """Store a server and a token for later calls.

    The token is asked for, or read from standard input or $PUMASI_TOKEN; it is not an argument, where others could see
    it. With --setup there is none yet: the setup token is used up, and the token it buys is stored.
    """
    from pumasi.client.client import Client

    address = server or context.obj.server
    with Client(address, "") as client:
        token = str(client.setup(setup, principal, title)["token"]) if setup else _read_token()
        address = client.connection.server
    with Client(address, token) as client:
        name = principal_name(client.whoami())
    path = store_connection(Connection(address, token))
    click.echo(f"Logged in to {address} as {safe(name)}; the token is in {path}")


def _read_token() -> str:
    token = os.environ.get("PUMASI_TOKEN", "")
    if not token:
        token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    token = token.strip()
    if not token.startswith(TOKEN_PREFIX):
        raise CommandError(f"this is no token of Pumasi; tokens begin with {TOKEN_PREFIX}", ExitCode.USAGE)
    if token.startswith(SETUP_PREFIX):
        raise CommandError("this is a setup token; give it as --setup", ExitCode.USAGE)
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
    click.echo(f"Principal  {safe(principal_name(who))} {safe(who['principal'].get('title', ''))}".rstrip())
    click.echo(f"Server     {client.connection.server}")
    click.echo(f"Fleet      {safe(dash(who.get('fleet')))}")
    click.echo(f"Token      good until {format_time(who.get('token_expires_at'))}")
    for binding in who["principal"]["bindings"]:
        click.echo(f"Role       {safe(binding['role'])} at {safe(binding['scope'])}")
