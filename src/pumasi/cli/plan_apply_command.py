"""`pumasi plan apply`: check a plan file here, then give it to the control plane."""

import click

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import print_json
from pumasi.cli.session import open_client


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--as-of", metavar="DATE", default="", help="Stages as planned for this day; today by default.")
@click.option("--dry-run", is_flag=True, help="Only say what it would change.")
@click.pass_context
def apply(context: click.Context, file: str, as_of: str, dry_run: bool) -> None:
    """Apply a fleet plan: all of it, or nothing if it contradicts the running state."""
    import msgspec

    from pumasi.plans.locate import find_plan
    from pumasi.plans.problems import PlanError
    from pumasi.plans.reader import load_plan

    try:
        plan = load_plan(find_plan(file))
    except FileNotFoundError as error:
        raise CommandError(str(error), ExitCode.NOT_FOUND) from error
    except PlanError as error:
        count = len(error.problems)
        lines = tuple(str(problem) for problem in error.problems)
        raise CommandError(f"{file} cannot be applied: {count} mistakes", ExitCode.FAILED, lines=lines) from error
    print_json(open_client(context).apply_plan(msgspec.to_builtins(plan), as_of=as_of, dry_run=dry_run))
