"""What others may call says what it takes and gives.

A method that carries out a port's or a base's is told there; a test of the shipped test kit is told by its name.
"""

import ast
from collections.abc import Iterator

from tests.tidy.tree import parsed, python_files, shown

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Bases = dict[str, tuple[set[str], set[str]]]  # class -> (its bases, the methods it explains)


def classes_in(trees: list[ast.Module]) -> Bases:
    """Each class of these modules by name: what it derives from, and which methods have a docstring there."""
    found: Bases = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases, methods = found.setdefault(node.name, (set(), set()))
                bases |= {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                methods |= {item.name for item in _definitions(node.body) if ast.get_docstring(item)}
    return found


def unexplained(tree: ast.Module, classes: Bases) -> Iterator[tuple[int, str]]:
    """Public things of a module without a docstring: line and name."""
    if ast.get_docstring(tree) is None:
        yield 1, "the module"
    for node in _public(tree.body):
        if ast.get_docstring(node) is None:
            yield node.lineno, node.name
        if isinstance(node, ast.ClassDef):
            told = _told_by_bases(node.name, classes)
            for method in _public(node.body):
                if ast.get_docstring(method) is None and method.name not in told and not _overrides(method):
                    yield method.lineno, f"{node.name}.{method.name}"


def _told_by_bases(name: str, classes: Bases) -> set[str]:
    told: set[str] = set()
    seen, waiting = {name}, list(classes.get(name, (set(), set()))[0])
    while waiting:
        base = waiting.pop()
        if base in classes and base not in seen:
            seen.add(base)
            waiting.extend(classes[base][0])
            told |= classes[base][1]
    return told


def _overrides(node: Definition) -> bool:
    return any(
        ast.unparse(decorator).rpartition(".")[2] in {"override", "overload"} for decorator in node.decorator_list
    )


def _definitions(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in body if isinstance(node, Definition)]


def _public(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in _definitions(body) if not node.name.startswith(("_", "test_"))]


def test_the_check_finds_what_is_not_told() -> None:
    tree = ast.parse(
        "class Port:\n    'told'\n    def take(self):\n        'told'\n"
        "class Adapter(Port):\n    'told'\n    def take(self): ...\n    def give(self): ...\n    def _own(self): ...\n"
        "def act(): ...\n"
    )
    assert list(unexplained(tree, classes_in([tree]))) == [(1, "the module"), (8, "Adapter.give"), (10, "act")]


def test_public_things_have_docstrings() -> None:
    files = python_files("src")
    classes = classes_in([parsed(path) for path in files])
    assert [f"{shown(path)}:{line} {name}" for path in files for line, name in unexplained(parsed(path), classes)] == []
