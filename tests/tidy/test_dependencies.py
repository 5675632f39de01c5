"""What is imported is declared, what is declared is used, and what is installed is locked by its hash."""

import ast
import re
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.tidy.tree import ROOT, parsed, python_files, shown

# Where a package is imported by another name than it is installed by.
IMPORT_NAMES = {"prometheus-client": "prometheus_client", "resvg-py": "resvg_py", "ruamel.yaml": "ruamel"}


def project() -> dict[str, Any]:
    """The settings of the project."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def declared() -> set[str]:
    """Top-level names that the declared runtime dependencies, optional ones included, are imported by."""
    settings = project()["project"]
    texts = [
        *settings["dependencies"],
        *(text for extra in settings.get("optional-dependencies", {}).values() for text in extra),
    ]
    names = {Requirement(text).name for text in texts}
    return {IMPORT_NAMES.get(name, name) for name in names}


def imported() -> dict[str, str]:
    """Top-level names from elsewhere that `src` imports, each with one file that does."""
    found: dict[str, str] = {}
    for path in python_files("src"):
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found.update({name.partition(".")[0]: shown(path) for name in names})
    return {name: where for name, where in found.items() if name != "pumasi" and name not in sys.stdlib_module_names}


def locked(text: str) -> dict[str, tuple[str, int]]:
    """The packages of a requirements file: name -> (version, number of hashes)."""
    entries = re.split(r"^(?=[a-zA-Z])", text, flags=re.MULTILINE)
    heads = [(entry, re.match(r"([\w.-]+)==(\S+)", entry)) for entry in entries]
    return {_canonical(head[1]): (head[2], entry.count("--hash=sha256:")) for entry, head in heads if head}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lock(group: str) -> dict[str, tuple[str, int]]:
    return locked((ROOT / "requirements" / f"{group}.txt").read_text(encoding="utf-8"))


def test_what_is_imported_is_declared() -> None:
    assert {name: where for name, where in imported().items() if name not in declared()} == {}


def test_what_is_declared_is_used() -> None:
    assert sorted(declared() - imported().keys()) == []


@pytest.mark.parametrize("group", ["runtime", "dev"])
def test_every_locked_package_has_hashes(group: str) -> None:
    packages = _lock(group)
    assert packages
    assert [name for name, (_, hashes) in packages.items() if hashes == 0] == []


@pytest.mark.parametrize("group", ["runtime", "dev"])
def test_the_locks_hold_what_the_project_asks_for(group: str) -> None:
    groups = project()["dependency-groups"]
    texts = [*project()["project"]["dependencies"], *groups["build"]]
    texts += [text for text in groups["dev"] if isinstance(text, str)] if group == "dev" else []
    packages = _lock(group)
    missing = [
        text
        for text in texts
        if _canonical(Requirement(text).name) not in packages
        or not Requirement(text).specifier.contains(packages[_canonical(Requirement(text).name)][0])
    ]
    assert missing == [], "run `make lock`"


def test_users_get_what_was_tested() -> None:
    assert _lock("runtime").items() <= _lock("dev").items()
