"""Reading `#SBATCH` and `#PUMASI` lines of a batch script, by the rules of sbatch."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from pumasi.cli.submission.options import Option, OptionProblem, Takes, find_long, find_short

SCRIPT_BYTES_MAX = 256 * 1024  # what the API takes

_DIRECTIVE = re.compile(r"#(SBATCH|PUMASI)(?=\s|$)")


class Setting(NamedTuple):
    """An option that was given, its value ("" if it takes none), and where: `line 3: `, `$NAME: ` or ""."""

    option: Option
    value: str
    origin: str = ""


class Directives(NamedTuple):
    """What the lines say, every problem in them, and notes on lines that are not read."""

    settings: list[Setting]
    problems: list[str]
    notes: list[str]


def read_directives(script: str) -> Directives:
    """Read the lines before the first command; as in sbatch, later ones count for nothing (which is noted)."""
    found = Directives([], [], [])
    commands_began = False
    for number, line in enumerate(script.splitlines(), 1):
        match = _DIRECTIVE.match(line)
        if match and commands_began:
            found.notes.append(f"line {number}: {match[0]} after the first command is not read, as in sbatch")
        elif match:
            _read_line(line[match.end() :], match[1], number, found)
        elif line.strip() and not line.startswith("#"):
            commands_began = True
    return found


def _read_line(rest: str, marker: str, number: int, found: Directives) -> None:
    origin = f"line {number}: "
    try:
        for option, value in split_options(list(_words(rest))):
            if option.ours and marker == "SBATCH":
                raise OptionProblem(f"--{option.name} is not an option of sbatch; write it as #PUMASI --{option.name}")
            found.settings.append(Setting(option, value, origin))
    except OptionProblem as problem:
        found.problems.append(f"{origin}#{marker} {problem}")


def _words(rest: str) -> Iterator[str]:
    """The words of a directive; quotes as in the shell, and a word that starts with '#' begins a comment."""
    lexer = shlex.shlex(rest, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        for word in lexer:
            if word.startswith("#"):
                return
            yield word
    except ValueError as error:
        raise OptionProblem(f"{rest.strip()}: a quote is not closed") from error


def split_options(words: list[str]) -> Iterator[tuple[Option, str]]:
    """Pair options with their values: `--name=value`, `--name value`, `-Xvalue`, `-X value`, and clustered flags.

    :raises OptionProblem: for an unknown option, a missing value, or a word that is no option.
    """
    rest = iter(words)
    for word in rest:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            yield _with_value(find_long(name), f"--{name}", value if equals else None, rest)
        elif word.startswith("-") and len(word) > 1:
            yield from _short(word[1:], rest)
        else:
            raise OptionProblem(f"{word}: expected an option")


def _short(letters: str, rest: Iterator[str]) -> Iterator[tuple[Option, str]]:
    while letters:
        option, shown = find_short(letters[0]), f"-{letters[0]}"
        letters = letters[1:]
        if option.takes is Takes.VALUE:
            yield _with_value(option, shown, letters or None, rest)
            return
        yield option, ""


def _with_value(option: Option, shown: str, value: str | None, rest: Iterator[str]) -> tuple[Option, str]:
    if option.takes is Takes.NOTHING and value is not None:
        raise OptionProblem(f"{shown} takes no value")
    if option.takes is Takes.VALUE and value is None:
        value = next(rest, None)
    if option.takes is Takes.VALUE and value is None:
        raise OptionProblem(f"{shown} needs a value")
    return option, value or ""


def check_script(content: bytes) -> str:
    """The script as text.

    :raises OptionProblem: if it is none that sbatch would take, or not UTF-8.
    """
    if len(content) > SCRIPT_BYTES_MAX:
        raise OptionProblem(f"the script is larger than {SCRIPT_BYTES_MAX // 1024} KiB")
    if not content.startswith(b"#!"):
        raise OptionProblem("this is no batch script: its first line must name an interpreter, such as #!/bin/bash")
    if b"\0" in content:
        raise OptionProblem("the script contains NUL bytes")
    if b"\r\n" in content:
        raise OptionProblem("the script has DOS line ends (CRLF); convert it, for example with dos2unix")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OptionProblem(f"the script is not UTF-8 (byte {error.start})") from error
