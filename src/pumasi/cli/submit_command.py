"""`pumasi submit`: a batch script or a YAML job in, job numbers out."""

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import safe
from pumasi.cli.session import clock_now, open_client
from pumasi.cli.submission.catalogue import Catalogue
from pumasi.cli.submission.compose import Fleet, compose
from pumasi.cli.submission.directives import Setting, check_script, read_directives
from pumasi.cli.submission.draft import Draft, Manner, apply_settings
from pumasi.cli.submission.job_file import is_job_file, read_job_file
from pumasi.cli.submission.options import BY_NAME, SUPPORTED, UNSUPPORTED, Option, OptionProblem, Takes

if TYPE_CHECKING:
    from pumasi.client.client import Client

SIGNAL_BASE = 128


class Source(NamedTuple):
    """What was read: the draft so far, its name for messages, problems, notes."""

    draft: Draft
    name: str
    problems: list[str]
    notes: list[str]


class SubmitCommand(click.Command):
    """A command whose options are the table of `submission.options`, in the order they were given."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.params += [_click_option(option) for option in SUPPORTED]
        self.params += [_click_option(option, hidden=True) for option in UNSUPPORTED]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but a second file is an error that says what sbatch would have done with it."""
        rest = super().parse_args(ctx, args)
        ctx.params["given"] = {
            name: value for name, value in ctx.params.items() if _option_of(name) and value not in {None, False}
        }
        for name in [name for name in ctx.params if _option_of(name)]:
            del ctx.params[name]
        return rest


def _click_option(option: Option, hidden: bool = False) -> click.Option:
    flags = [f"--{option.name}", _parameter(option), *([f"-{option.short}"] if option.short else [])]
    metavar = option.metavar or None
    if option.takes is Takes.NOTHING:
        return click.Option(flags, is_flag=True, help=option.help, hidden=hidden)
    if option.takes is Takes.PERHAPS:
        return click.Option(flags, is_flag=False, flag_value="", metavar=metavar, help=option.help, hidden=hidden)
    return click.Option(flags, metavar=metavar, help=option.help, hidden=hidden)


def _parameter(option: Option) -> str:
    return f"option_{option.name.replace('-', '_')}"


def _option_of(parameter: str) -> Option | None:
    return BY_NAME.get(parameter.removeprefix("option_").replace("_", "-")) if parameter.startswith("option_") else None


@click.command(cls=SubmitCommand)
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--ignore", metavar="NAMES", default="", help="Options of the script to leave out, such as mem,mail-type."
)
@click.option("--key", metavar="TEXT", help="Idempotency key: a second call with it submits nothing new.")
@click.pass_context
def submit(context: click.Context, file: Path | None, ignore: str, key: str | None, given: dict[str, Any]) -> int:
    """Send a job: a script with #SBATCH lines, or a YAML job (.yaml, .yml). '-' reads a script from standard input.

    Options given here win over $SBATCH_ variables, and those over the lines of the script.
    """
    manner = Manner()
    source = _read_source(file, "option_wrap" in given, manner, _ignored(ignore))
    settings = [*_variables(), *_settings(given)]
    problems = [*source.problems, *apply_settings(source.draft, manner, settings, _ignored(ignore))]
    _raise_problems(source.name, problems)
    for note in source.notes:
        click.echo(f"pumasi: note: {source.name}: {note}", err=True)
    client = open_client(context)
    try:
        jobs = _composed(client, source.draft)
    except OptionProblem as problem:
        raise CommandError(f"{source.name}: {problem}", ExitCode.USAGE) from problem
    return _submit(client, jobs, manner, key)


def _read_source(file: Path | None, wrapped: bool, manner: Manner, ignored: frozenset[str]) -> Source:
    if wrapped and file is None:
        return Source(Draft(), "--wrap", [], [])
    if wrapped or (file is None and sys.stdin.isatty()):
        raise CommandError("submit takes a FILE, '-' for standard input, or --wrap=COMMAND", ExitCode.USAGE)
    content, name = _read_file(file)
    if is_job_file(name):
        draft, problems = read_job_file(_utf8(content, name), Path(name).stem)
        return Source(draft, name, problems, [])
    return _read_script(content, name, manner, ignored)


def _read_file(file: Path | None) -> tuple[bytes, str]:
    if file is None or str(file) == "-":
        return sys.stdin.buffer.read(), "standard input"
    try:
        return file.read_bytes(), str(file)
    except FileNotFoundError:
        raise CommandError(f"there is no file {file}", ExitCode.NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitCode.FAILED) from error


def _utf8(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{name}: not UTF-8 (byte {error.start})", ExitCode.USAGE) from error


def _read_script(content: bytes, name: str, manner: Manner, ignored: frozenset[str]) -> Source:
    try:
        script = check_script(content)
    except OptionProblem as problem:
        raise CommandError(f"{name}: {problem}", ExitCode.USAGE) from problem
    draft = Draft(name="stdin" if name == "standard input" else Path(name).name, script=script)
    found = read_directives(script)
    problems = [*found.problems, *apply_settings(draft, manner, found.settings, ignored)]
    return Source(draft, name, problems, found.notes)


def _ignored(names: str) -> frozenset[str]:
    ignored = frozenset(name.strip().removeprefix("--") for name in names.split(",") if name.strip())
    unknown = sorted(ignored - BY_NAME.keys())
    if unknown:
        raise CommandError(f"--ignore: there is no option {unknown[0]}", ExitCode.USAGE)
    return ignored


def _variables() -> list[Setting]:
    return [
        Setting(option, os.environ[option.variable], f"${option.variable}: ")
        for option in SUPPORTED
        if option.variable and os.environ.get(option.variable)
    ]


def _settings(given: Mapping[str, Any]) -> list[Setting]:
    return [
        Setting(option, "" if value is True else str(value))
        for name, value in given.items()
        if (option := _option_of(name))
    ]


def _raise_problems(name: str, problems: list[str]) -> None:
    if len(problems) == 1:
        raise CommandError(f"{name}: {problems[0]}", ExitCode.USAGE, _ignore_hint(problems))
    if problems:
        message = f"{name}: {len(problems)} things cannot be used; nothing was submitted"
        raise CommandError(message, ExitCode.USAGE, _ignore_hint(problems), tuple(sorted(problems, key=_line_of)))


def _line_of(problem: str) -> int:
    match = re.match(r"line (\d+): ", problem)
    return int(match[1]) if match else sys.maxsize


def _ignore_hint(problems: list[str]) -> str:
    names = re.findall(r"--([a-z-]+): not supported", "\n".join(problems))
    return f"to submit without them: --ignore={','.join(dict.fromkeys(names))}" if names else ""


def _composed(client: "Client", draft: Draft) -> list[dict[str, Any]]:
    named = draft.places or draft.prefers or draft.gpu_types or draft.constraint
    who = client.whoami() if draft.begin or not draft.queue else {}
    if not draft.queue:
        draft.queue = _only_queue(who)
    fleet = Fleet(
        catalogue=Catalogue.of(client.pools() if named else []),
        now=clock_now(who).astimezone(),
        array_id=time.time_ns() // 1_000_000,
    )
    return compose(draft, fleet)


def _only_queue(who: Mapping[str, Any]) -> str:
    """The queue a user may submit to, if there is just one."""
    scopes = {str(binding.get("scope", "")) for binding in who["principal"]["bindings"]}
    queues = sorted(scope for scope in scopes if scope not in {"", "*"} and not scope.startswith("site:"))
    if len(queues) == 1:
        return queues[0]
    known = f" (yours: {', '.join(queues)})" if queues else ""
    raise OptionProblem(f"it names no queue{known}; say --account=QUEUE or set $SBATCH_ACCOUNT")


def _submit(client: "Client", jobs: list[dict[str, Any]], manner: Manner, key: str | None) -> int:
    if manner.test_only:
        return _test(client, jobs[0])
    numbers = [client.submit(jobs[0], key=key)] if len(jobs) == 1 else client.submit(jobs, key=key)
    if manner.parsable:
        click.echo("\n".join(str(number) for number in numbers))
    elif not manner.quiet:
        click.echo(_submitted(numbers))
    if not manner.wait:
        return ExitCode.OK
    sys.stdout.flush()
    return max(job_code(client.wait(number)) for number in numbers)


def _submitted(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"Submitted batch job {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"Submitted batch jobs {numbers[0]}-{numbers[-1]}"
    return f"Submitted batch jobs {' '.join(str(number) for number in numbers)}"


def job_code(job: Mapping[str, Any]) -> int:
    """The exit code that stands for how a job ended: its own, 128 + signal, or 1 if it has none and did not succeed."""
    if job.get("signal"):
        code = SIGNAL_BASE + int(job["signal"])
    elif job.get("exit_code"):
        code = int(job["exit_code"])
    else:
        code = int(ExitCode.OK if job.get("state") == "succeeded" else ExitCode.FAILED)
    if code:
        click.echo(f"pumasi: job {job.get('id')} ended {job.get('state')} with code {code}", err=True)
    return code


def _test(client: "Client", job: dict[str, Any]) -> int:
    found = client.check(job)
    click.echo(safe(found["detail"]))
    for verdict in found["pools"]:
        answer = "yes" if verdict["admissible"] else f"no: {verdict['detail']}"
        click.echo(safe(f"  {verdict['pool']} ({verdict['site']}): {answer}"))
    return ExitCode.OK if found["admissible"] else ExitCode.REFUSED
