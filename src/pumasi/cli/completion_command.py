"""`pumasi completion`: click's own completion for three shells."""

import click
from click.shell_completion import get_completion_class

from pumasi.cli.main import COMPLETION_VARIABLE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell, for example: eval "$(pumasi completion bash)"."""
    found = get_completion_class(shell)
    if found is None:  # the choice above names only shells click has
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(context.find_root().command, {}, "pumasi", COMPLETION_VARIABLE).source())
