"""What commands that call the server share: the client, and the fleet's clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pumasi.cli.times import parse_time

if TYPE_CHECKING:
    from pumasi.client.client import Client


def open_client(context: click.Context) -> Client:
    """The client for the server in use; it is closed when the command ends.

    :raises PumasiError: if what is stored cannot be used.
    """
    from pumasi.client.client import Client

    return context.with_resource(Client(server=context.obj.server if context.obj else None))


def fleet_now(client: Client) -> datetime:
    """The time by the fleet's clock, which may be compressed or simulated."""
    return clock_now(client.whoami())


def clock_now(whoami: dict[str, Any]) -> datetime:
    """The fleet's time in an answer to `whoami`; the time here if it has none."""
    return parse_time((whoami.get("clock") or {}).get("now")) or datetime.now(UTC)
