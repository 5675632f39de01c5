"""The heart is deterministic because nothing in it could be otherwise."""

import ast

import pytest

from tests.tidy.pure_rules import PURE_PACKAGES, violations
from tests.tidy.tree import parsed, python_files, shown


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("import time", "take `at_ms`"),
        ("from time import monotonic", "take `at_ms`"),
        ("from datetime import datetime\ndatetime.now()", "take `at_ms`"),
        ("import datetime\ndatetime.datetime.utcnow()", "take `at_ms`"),
        ("from datetime import date\ndate.today()", "take `at_ms`"),
        ("import random", "order by id"),
        ("import uuid", "take the id"),
        ("import os.path", "adapters read the environment"),
        ("import logging", "return reasons"),
        ("import asyncio", "return the decision"),
        ("import threading", "one thread"),
        ("from socket import socket", "return the decision"),
        ("open('plan')", "return the decision"),
        ("print(1)", "return the decision"),
        ("share = 0.5", "count in integers"),
        ("share: float = 1", "count in integers"),
        ("share = float('1')", "count in integers"),
        ("share = 1 / 2", "use //"),
        ("for owner in {'a', 'b'}: pass", "sort it first"),
        ("owners = list(set(names))", "sort it first"),
        ("owners = [name for name in set(a) - set(b)]", "sort it first"),
        ("seed = hash('a')", "SHA-256"),
        ("import sqlalchemy", "standard library and msgspec"),
    ],
)
def test_each_ban_bites_once_and_says_what_to_do(source: str, advice: str) -> None:
    found = violations("state", ast.parse(source))
    assert len(found) == 1
    assert advice in found[0]


def test_what_is_allowed_passes() -> None:
    source = "import numpy\nfrom msgspec import Struct\nfrom pumasi.model import ids\nsorted(set(names))\n7 // 2"
    assert violations("scheduler", ast.parse(source)) == []
    assert len(violations("ledger", ast.parse(source))) == 1  # numpy is for state and scheduler


@pytest.mark.parametrize("package", PURE_PACKAGES)
def test_pure_packages_are_pure(package: str) -> None:
    files = python_files(f"src/pumasi/{package}")
    assert files, f"src/pumasi/{package} is gone; so should its rule be"
    assert [f"{shown(path)}:{found}" for path in files for found in violations(package, parsed(path))] == []
