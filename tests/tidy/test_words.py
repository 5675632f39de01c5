"""Words that may not be left behind in any file of the checkout. Here they are put together, so as not to be found."""

import re

import pytest

from tests.tidy.tree import shown, text_files

_HOSTS = (
    "py" + "pi",
    "python" + "hosted",
    "npm" + "js",
    "crates" + r"\.io",
    "proxy\\.golang",
    "ghcr" + r"\.io",
    "docker" + r"\.io",
)
_PLACES = ("wo" + r"rk/(main|shared|\.library)\b", "ro" + "ot/", "home/[a-z]+/", "opt/whe" + "els", "tmp/br" + "ief")
FORBIDDEN = {
    "unfinished work: do it, or file it": rf"\b({'TO' + 'DO'}|{'FIX' + 'ME'}|{'XX' + 'X'})\b",
    "a registry's host: users may have another": rf"\b({'|'.join(_HOSTS)})\b|\bregistry\.[a-z]+\.[a-z]+",
    "a path of somebody's machine": rf"(?<![\w.])/({'|'.join(_PLACES)})",
    "a conflict left by a merge": r"^(<{7}|>{7}) ",
}


def found_in(text: str) -> list[str]:
    """What of the forbidden is in a text: line, what it is, and the words."""
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {why}: {match.group()}"
        for why, pattern in FORBIDDEN.items()
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "# TO" + "DO: later",
        "https://py" + "pi.org/simple",
        "https://registry." + "example.org",
        "cd /wo" + "rk/main",
        "<" * 7 + " HEAD",
    ],
)
def test_each_is_found(text: str) -> None:
    assert len(found_in(text)) == 1


def test_what_looks_alike_is_not() -> None:
    assert found_in("the work of a node, https://docs.example.org/wo" + "rk/of/art, root/, registry.get(name)") == []


def test_nothing_forbidden_is_left_behind() -> None:
    offenders = []
    for path in text_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        offenders += [f"{shown(path)}:{found}" for found in found_in(text)]
    assert offenders == []
