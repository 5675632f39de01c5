"""What the tidy tests look at: the files of this checkout, and the Python ones parsed."""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

FOLDERS = (".ci", "bench", "docs", "openapi", "plans", "requirements", "scripts", "src", "tests")
_BINARY = {".gz", ".ico", ".jpg", ".png", ".whl", ".woff2", ".zst"}


@cache
def python_files(folder: str) -> tuple[Path, ...]:
    """The Python files below a folder of the checkout, sorted; none if it does not exist."""
    return tuple(path for path in _walk(ROOT / folder) if path.suffix == ".py")


@cache
def text_files() -> tuple[Path, ...]:
    """Every file a person may read or write, sorted: code, documents, settings."""
    top = (path for path in sorted(ROOT.iterdir()) if path.is_file() and path.name != ".git")  # a file in a worktree
    below = (path for folder in FOLDERS for path in _walk(ROOT / folder))
    return tuple(path for path in (*top, *below) if path.suffix not in _BINARY)


def markdown_files() -> tuple[Path, ...]:
    """Every Markdown document, sorted."""
    return tuple(path for path in text_files() if path.suffix == ".md")


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    """The dotted name a file under `src` is imported by."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    """The path as a person at the root of the checkout would type it."""
    return str(path.relative_to(ROOT))


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files))
