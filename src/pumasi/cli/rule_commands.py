"""The placement rules of the fleet, for people."""

import click

from pumasi.cli.output import Column, Output, Row, dash, output_options, print_json, print_rows
from pumasi.cli.session import open_client

EVERYTHING = "all"


def conditions(part: Row | None) -> str:
    """`data_classes=nct,csap-mid home=yes`, as the plan file writes it."""
    given = {name: value for name, value in (part or {}).items() if value not in (None, [])}
    return " ".join(f"{name}={_shown(value)}" for name, value in given.items()) or EVERYTHING


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _place(row: Row) -> str:
    return f"only at {conditions(row['only_at'])}" if row["only_at"] else f"not at {conditions(row['not_at'])}"


COLUMNS = [
    Column("RULE", lambda row: str(row["id"])),
    Column("HOLDS", lambda row: "yes" if row["in_force"] else "no"),
    Column("WORK", lambda row: conditions(row["work"])),
    Column("MAY RUN", _place),
    Column("FROM", lambda row: dash(row["from_day"])),
    Column("UNTIL", lambda row: dash(row["until_day"])),
    Column("TITLE", lambda row: str(row["title"]), wide=True),
]


@click.command()
@output_options
@click.pass_context
def rules(context: click.Context, output: Output) -> None:
    """List the placement rules: which work may run where, and from when until when."""
    found = open_client(context).rules()
    if output.json:
        print_json(found)
        return
    print_rows(list(found["rules"]), COLUMNS, output)
