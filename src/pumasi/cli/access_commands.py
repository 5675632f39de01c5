"""People, services and their tokens."""

import click

from pumasi.cli.durations import parse_duration
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import Column, Output, Row, dash, output_options, print_rows, safe
from pumasi.cli.session import open_client
from pumasi.cli.times import format_time
from pumasi.model.access import Role


@click.group()
def principal() -> None:
    """List and declare people and services."""


def _bindings(row: Row) -> str:
    return ",".join(f"{binding['role']}@{binding['scope']}" for binding in row.get("bindings") or ()) or "-"


PRINCIPAL_COLUMNS = [
    Column("PRINCIPAL", lambda row: str(row["id"])),
    Column("TITLE", lambda row: dash(row.get("title"))),
    Column("ROLES", _bindings),
]


@principal.command("list")
@output_options
@click.pass_context
def list_principals(context: click.Context, output: Output) -> None:
    """List people and services, and their roles."""
    print_rows(open_client(context).principals(), PRINCIPAL_COLUMNS, output)


@principal.command("declare")
@click.argument("name")
@click.option("--title", default="", help="The name in full.")
@click.option("--role", "roles", multiple=True, type=click.Choice([role.value for role in Role]), help="A role ...")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="... and where: '*', a queue, or site:NAME.")
@click.pass_context
def declare_principal(
    context: click.Context, name: str, title: str, roles: tuple[str, ...], scopes: tuple[str, ...]
) -> None:
    """Declare a person or service with all its roles; those it had before and are not named here are gone.

    Repeat --role and --scope in pairs for several roles.
    """
    if len(roles) != len(scopes):
        raise CommandError("each --role needs its --scope", ExitCode.USAGE, "for example --role user --scope public")
    bindings = [{"role": role, "scope": scope} for role, scope in zip(roles, scopes, strict=True)]
    open_client(context).declare_principal(name, title, bindings)
    click.echo(f"Declared {safe(name)}")


@click.group()
def token() -> None:
    """List, issue and revoke tokens."""


TOKEN_COLUMNS = [
    Column("ID", lambda row: str(row["id"])),
    Column("KIND", lambda row: str(row["kind"])),
    Column("PRINCIPAL", lambda row: dash(row.get("principal"))),
    Column("SITE", lambda row: dash(row.get("site"))),
    Column("EXPIRES", lambda row: format_time(row.get("expires_at"))),
]


@token.command("list")
@output_options
@click.pass_context
def list_tokens(context: click.Context, output: Output) -> None:
    """List tokens; their secrets are known to nobody."""
    print_rows(open_client(context).tokens(), TOKEN_COLUMNS, output)


@token.command("issue")
@click.option("--principal", "principal_name", metavar="NAME", help="Whose it is; your own by default.")
@click.option("--kind", type=click.Choice(["personal", "service", "enrol"]), default="personal", show_default=True)
@click.option("--site", metavar="NAME", help="With --kind=enrol: the site whose agent it enrols.")
@click.option("--expires-in", metavar="TIME", help="How long it is good for: 12h, 30d.")
@click.pass_context
def issue_token(
    context: click.Context, principal_name: str | None, kind: str, site: str | None, expires_in: str | None
) -> None:
    """Issue a token and print its secret, once, alone on standard output."""
    if (kind == "enrol") != bool(site):
        raise CommandError("--kind=enrol and --site=NAME go together", ExitCode.USAGE)
    seconds = parse_duration(expires_in) if expires_in else None
    if expires_in and not seconds:
        raise CommandError(f"{expires_in!r} is no duration; write for example 12h or 30d", ExitCode.USAGE)
    issued = open_client(context).issue_token(kind=kind, principal=principal_name, site=site, lifetime_seconds=seconds)
    click.echo(safe(issued["token"]))


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@click.pass_context
def revoke_token(context: click.Context, token_id: str) -> None:
    """Revoke a token at once, by its id in the list."""
    open_client(context).revoke_token(token_id)
    click.echo(f"Revoked {token_id}")
