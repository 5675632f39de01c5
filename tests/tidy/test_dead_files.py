"""Every module is used by the product. What only tests use is `pumasi.testing`; what nobody uses goes."""

import ast
import re
import tomllib
from collections.abc import Iterator

from tests.tidy.tree import ROOT, module_name, parsed, python_files

_TARGET = re.compile(r"[\w.]+:\w+|pumasi(\.\w+)+")  # "module:attribute" as lazy tables and servers take it, or a module

# Not used by the product yet, each with what it is for. An entry that is used by now, or gone, must go.
AWAITED: dict[str, str] = {}


def used_modules(name: str, is_package: bool, tree: ast.Module) -> Iterator[str]:
    """Modules that module `name` imports, or names in a string as something to be imported later."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module), names=aliases):
                yield module
                yield from (f"{module}.{alias.name}" for alias in aliases)
            case ast.Constant(value=str(text)) if _TARGET.fullmatch(text):
                module = text.partition(":")[0]
                yield from (module, f"{package}.{module}")


def entry_points() -> set[str]:
    """Modules that are started rather than imported: console scripts, and `python -m` in the Makefile."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = {target.partition(":")[0] for target in project["scripts"].values()}
    return scripts | set(re.findall(r"python -m (pumasi[\w.]*)", (ROOT / "Makefile").read_text(encoding="utf-8")))


def test_uses_are_found_in_imports_and_in_lazy_tables() -> None:
    tree = ast.parse("import a.b\nfrom c import d\nTABLE = {'x': 'x_command:x'}\napp = 'pumasi.api.app:make'\n'a b: c'")
    used = set(used_modules("pumasi.cli.main", False, tree))
    assert used == {
        "a.b", "c", "c.d", "x_command", "pumasi.cli.x_command", "pumasi.api.app", "pumasi.cli.pumasi.api.app",
    }  # fmt: skip


def test_every_module_is_used() -> None:
    files = {module_name(path): path for path in python_files("src")}
    packages = {name for name, path in files.items() if path.name == "__init__.py"}
    started = {name for name in files if name.rpartition(".")[2] == "__main__"} | entry_points()
    used = {
        target
        for name, path in files.items()
        for target in used_modules(name, name in packages, parsed(path))
        if target != name
    }
    alive = packages | started | used | {name for name in files if name.startswith("pumasi.testing.")}
    assert sorted(files.keys() - alive) == sorted(AWAITED)


def test_the_test_kit_is_used_by_tests() -> None:
    kit = {module_name(path) for path in python_files("src/pumasi/testing") if path.name != "__init__.py"}
    used = {
        target
        for folder in ("tests", "src/pumasi/testing", "bench")
        for path in python_files(folder)
        for target in used_modules("tests", True, parsed(path))
    }
    assert sorted(kit - used) == []
