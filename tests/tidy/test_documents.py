"""Documents that cannot go stale unseen: their links lead somewhere, their commands exist, their versions agree."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pumasi import __version__
from pumasi.cli.main import cli
from tests.tidy.tree import ROOT, markdown_files, shown

_FENCE = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_SHELLS = {"", "console", "sh", "bash", "shell"}


def anchors(text: str) -> set[str]:
    """The fragments that headings of a Markdown text can be reached by."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, text: str) -> Iterator[str]:
    """Relative links of a Markdown text at `path` that lead nowhere."""
    for target in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        if not goal.exists() or not goal.is_relative_to(ROOT):
            yield target
        elif fragment and goal.suffix == ".md":
            known = anchors(text if goal == path else goal.read_text(encoding="utf-8"))
            if fragment not in known:
                yield target


def commands(text: str) -> Iterator[list[str]]:
    """The `pumasi` command lines in the code blocks of a Markdown text, as words after `pumasi`."""
    for language, block in _FENCE.findall(text):
        if language in _SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                found = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*pumasi(?: (.*))?$", line.strip())
                if found:
                    yield _words(found[1] or "")


def make_targets(text: str) -> set[str]:
    """The targets that a Markdown text tells the reader to `make`, in code blocks and in code within sentences."""
    blocks = "\n".join(block for language, block in _FENCE.findall(text) if language in _SHELLS)
    spans = "\n".join(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))
    return set(re.findall(r"^(?:\$ )?make (?:[A-Z_]+=\S+ )*([a-z]+)", f"{blocks}\n{spans}", re.MULTILINE))


def _words(line: str) -> list[str]:
    line = re.split(r"\s[|>&#;]|[|;](?=\s)", line)[0]
    return shlex.split(line)


def refused(words: list[str]) -> str | None:
    """Why a command line cannot be one of ours, or None: a command or an option that does not exist."""
    command: click.Command = cli
    context = click.Context(command)
    for word in words:
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0]
            if option not in _options(command, context):
                return f"{context.command_path or 'pumasi'} has no option {option}"
        elif isinstance(command, click.Group):
            child = command.get_command(context, word)
            if child is None:
                return f"no command {word}"
            command, context = child, click.Context(child, parent=context, info_name=word)
    return None


def _options(command: click.Command, context: click.Context) -> set[str]:
    parameters = command.get_params(context)
    return {"-h", "--help"} | {
        name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)
    }


def test_broken_links_are_found() -> None:
    text = "# A title\n[good](#a-title) [file](pyproject.toml) [gone](gone.md) [astray](#elsewhere) [web](https://a.example)"
    assert list(broken_links(ROOT / "README.md", text)) == ["gone.md", "#elsewhere"]


def test_commands_are_found_in_code_blocks() -> None:
    text = "pumasi is a word\n```console\n$ pumasi plan check plans/campus.yaml  # at leisure\npumasi.example\n```\n"
    assert list(commands(text)) == [["plan", "check", "plans/campus.yaml"]]


def test_make_targets_are_found() -> None:
    text = "`make lock` or `make UPGRADE=1 lock`, make do\n```console\n$ make frobnicate TESTS=x\n```\n"
    assert make_targets(text) == {"lock", "frobnicate"}


@pytest.mark.parametrize("line", ["frobnicate", "--frobnicate", "plan frobnicate", "plan show --frobnicate x"])
def test_commands_that_do_not_exist_are_refused(line: str) -> None:
    assert refused(line.split())


@pytest.mark.parametrize("path", markdown_files(), ids=shown)
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", markdown_files(), ids=shown)
def test_commands_in_documents_exist(path: Path) -> None:
    lines = commands(path.read_text(encoding="utf-8"))
    assert [f"pumasi {shlex.join(words)}: {reason}" for words in lines if (reason := refused(words))] == []


@pytest.mark.parametrize("path", markdown_files(), ids=shown)
def test_make_targets_in_documents_exist(path: Path) -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert make_targets(path.read_text(encoding="utf-8")) - known == set()


def test_the_map_leads_to_every_document() -> None:
    pages = [path for path in markdown_files() if path.is_relative_to(ROOT / "docs")]
    text = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    reached = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in _LINK.findall(text)}
    assert [shown(path) for path in pages if path not in reached and path.name != "index.md"] == []


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\]", text, re.MULTILINE)
    assert re.search(r"^## \[Unreleased\]", text, re.MULTILINE)
