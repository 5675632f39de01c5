"""The entry point: a table of commands, each imported only when it is called, and one place where errors end."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

import click

from pumasi import __version__
from pumasi.cli.errors import CommandError, ExitCode, from_client
from pumasi.client.errors import PumasiError


class Entry(NamedTuple):
    """A command: where it is (`module:attribute` in `pumasi.cli`), its section of the help, and its one line there."""

    target: str
    section: str
    help: str


COMMANDS: dict[str, Entry] = {
    "submit": Entry("submit_command:submit", "Jobs", "Send a job: a script with #SBATCH lines, or a YAML job."),
    "queue": Entry("queue_command:queue", "Jobs", "List jobs that wait or run, as squeue does."),
    "job": Entry("job_commands:job", "Jobs", "Show all there is to know of one job."),
    "why": Entry("job_commands:why", "Jobs", "Say what blocks a job, what would start it, and when."),
    "logs": Entry("job_commands:logs", "Jobs", "Print what a job wrote; -f follows it."),
    "cancel": Entry("job_commands:cancel", "Jobs", "Cancel jobs."),
    "hold": Entry("job_commands:hold", "Jobs", "Keep waiting jobs from starting."),
    "release": Entry("job_commands:release", "Jobs", "Let held jobs wait for their turn again."),
    "watch": Entry("watch_command:watch", "Jobs", "Watch the queue and the shares live."),
    "info": Entry("fleet_commands:info", "Fleet", "List pools and node states, as sinfo does."),
    "rules": Entry("rule_commands:rules", "Fleet", "List the placement rules: which work may run where."),
    "shares": Entry("fleet_commands:shares", "Fleet", "Show what each owner is due, uses, lends, borrows."),
    "usage": Entry("usage_commands:usage", "Fleet", "Report GPU-hours, as sreport and sacct do."),
    "reclaims": Entry("usage_commands:reclaims", "Fleet", "List reclaims, each with its promise and the time it took."),
    "events": Entry("watch_command:events", "Fleet", "Print the facts of the log as they come."),
    "drain": Entry("fleet_commands:drain", "Fleet", "Let nodes finish their work and take no more."),
    "resume": Entry("fleet_commands:resume", "Fleet", "Put drained nodes back to work."),
    "reservation": Entry(
        "reservation_commands:reservation", "Fleet", "Reserve nodes in advance: maintenance, awards, hand-over."
    ),
    "power": Entry("power_command:power", "Fleet", "Show what sites draw and may draw; cap one."),
    "plan": Entry("plan_commands:plan", "Fleet", "Check, show, compare and apply fleet plans."),
    "login": Entry("session_commands:login", "Access", "Store a server and a token for later calls."),
    "logout": Entry("session_commands:logout", "Access", "Forget the stored token."),
    "whoami": Entry("session_commands:whoami", "Access", "Show who you are to the server and what you may do."),
    "principal": Entry("access_commands:principal", "Access", "List and declare people and services."),
    "token": Entry("access_commands:token", "Access", "List, issue and revoke tokens."),
    "up": Entry("up_command:up", "Server", "Start a control plane with local agents."),
    "demo": Entry("demo_command:demo", "Server", "See lending and reclaim happen on the Korean fleet."),
    "agent": Entry("agent_commands:agent", "Server", "Enrol and run the agent of a site."),
    "log": Entry("log_commands:log", "Server", "Verify the log of facts."),
    "twin": Entry("twin_commands:twin", "Fleet", "Try rules, fleets and faults in the digital twin."),
    "completion": Entry("completion_command:completion", "Server", "Print shell completion for bash, zsh or fish."),
}

# Commands that groups of other modules get from here: (group, command) -> where it is.
EXTENSIONS: dict[tuple[str, str], str] = {("plan", "apply"): "plan_apply_command:apply"}

COMPLETION_VARIABLE = "_PUMASI_COMPLETE"  # set by the scripts of `pumasi completion`

SECTIONS = ("Jobs", "Fleet", "Access", "Server")


def load_command(target: str) -> click.Command:
    """Import the command at `module:attribute` of this package."""
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(f"pumasi.cli.{module}"), attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{target} is not a command")
    return command


class LazyGroup(click.Group):
    """A group that knows its commands by a table and imports one when it is called; `--help` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's signature)
        """Import the command named, with what this module adds to it."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = load_command(entry.target)
        if isinstance(command, click.Group):
            for (group, name), target in EXTENSIONS.items():
                if group == cmd_name:
                    command.add_command(load_command(target), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a suggestion for a name mistyped."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}{_suggestion(args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's signature)
        """Write the commands by section, from the table alone."""
        for section in SECTIONS:
            rows = [(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Settings:
    """What the options before the command say; commands find it as `ctx.obj`."""

    def __init__(self) -> None:
        self.server: str | None = None
        self.debug = False


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pumasi", message="%(prog)s %(version)s")
@click.option("--server", metavar="URL", help="Address of the control plane; else $PUMASI_SERVER or the stored one.")
@click.option("--debug", is_flag=True, envvar="PUMASI_DEBUG", help="Show the traceback of an unexpected error.")
@click.pass_context
def cli(ctx: click.Context, server: str | None, debug: bool) -> None:
    """Pumasi runs a GPU fleet that belongs to several owners: each keeps its share, and lends what it leaves idle."""
    settings = ctx.ensure_object(Settings)
    settings.server = server
    settings.debug = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code. Nothing but `--debug` ever shows a traceback."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line.

    :returns: the exit code, see :class:`pumasi.cli.errors.ExitCode`.
    """
    settings = Settings()
    try:
        code = _invoke(arguments, settings)
        sys.stdout.flush()
    except BrokenPipeError:
        return _leave_broken_pipe()
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        return _say_usage(error)
    except CommandError as error:
        return _say(error)
    except PumasiError as error:
        return _say(from_client(error))
    except Exception as error:  # noqa: BLE001  (the last line of defence: a bug, too, is one line for the user)
        return _say_bug(error, settings.debug)
    return code


def _invoke(arguments: list[str], settings: Settings) -> int:
    """What `cli.main` does, less its own ways to end on a closed pipe or an interrupt."""
    if COMPLETION_VARIABLE in os.environ:
        cli.main(args=arguments, prog_name="pumasi", complete_var=COMPLETION_VARIABLE, obj=settings)
    try:
        with cli.make_context("pumasi", arguments, obj=settings) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    return code if isinstance(code, int) else ExitCode.OK


def _say(error: CommandError) -> int:
    click.echo(f"pumasi: {error.message}", err=True)
    for line in error.lines:
        click.echo(f"  {line}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.code


def _say_usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "pumasi"
    click.echo(f"pumasi: {error.format_message()}", err=True)
    click.echo(f"hint: '{path} --help' lists what it takes", err=True)
    return error.exit_code


def _say_bug(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    click.echo(f"pumasi: unexpected {type(error).__name__}: {message}", err=True)
    if not debug:
        click.echo("hint: this is a defect of pumasi; 'pumasi --debug ...' shows where it is", err=True)
    return ExitCode.FAILED


def _leave_broken_pipe() -> int:
    # Python flushes stdout once more when it exits, and would complain; let it write to nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.BROKEN_PIPE
