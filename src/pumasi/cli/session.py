"""What commands that call the server share: the client, and the fleet's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pumasi.cli.errors import from_client
from pumasi.cli.times import parse_time
from pumasi.client.errors import Denied, PumasiError, Unreachable

if TYPE_CHECKING:
    from pumasi.client.client import Client


T = TypeVar("T")


def open_client(context: click.Context) -> Client:
    """The client for the server in use; it is closed when the command ends.

    :raises PumasiError: if what is stored cannot be used.
    """
    from pumasi.client.client import Client

    return context.with_resource(Client(server=context.obj.server if context.obj else None))


def fleet_now(client: Client) -> datetime:
    """The time by the fleet's clock, which may be compressed or simulated."""
    return clock_now(client.whoami())


def principal_name(whoami: dict[str, Any]) -> str:
    """The name of the principal in an answer to `whoami`."""
    return str(whoami["principal"]["id"])


def clock_now(whoami: dict[str, Any]) -> datetime:
    """The fleet's time in an answer to `whoami`; the time here if it has none."""
    return parse_time((whoami.get("clock") or {}).get("now")) or datetime.now(UTC)


def act_on_each(items: Iterable[T], act: Callable[[T], None], noun: str = "") -> int:
    """Act on every item, go on after a failure, and return the exit code of the first one.

    :raises PumasiError: at once, if the server cannot be reached or the token is good for nothing.
    """
    code = 0
    for item in items:
        try:
            act(item)
        except PumasiError as error:
            if isinstance(error, Unreachable | Denied):
                raise
            click.echo(f"pumasi: {noun}{item}: {error.detail}", err=True)
            code = code or int(from_client(error).code)
    return code
