"""What the pure packages may not do, each with what to do instead.

The same log must give the same state, and the same state the same plan, on every machine and in every run. So the heart
reads no clock, draws no random number, mints no id, does no I/O, and counts in integers.
"""

import ast
import sys
from collections.abc import Iterator

PURE_PACKAGES = ("model", "events", "state", "scheduler", "ledger")
ARRAY_PACKAGES = ("state", "scheduler")  # may use numpy

_NO_CLOCK = "take `at_ms` or `now_ms` as an argument"
_NO_CHANCE = "take the number as an argument, or order by id"
_NO_IO = "return the decision as a value; adapters and agents act on it"
_NO_ENVIRONMENT = "take the value as an argument; adapters read the environment"
_ONE_THREAD = "the heart has one thread, its caller's"

BANNED_MODULES = {
    "asyncio": _NO_IO,
    "calendar": _NO_CLOCK,
    "concurrent": _ONE_THREAD,
    "contextvars": "pass it as an argument",
    "ctypes": "write it in Python, or measure and argue in an ADR",
    "getpass": _NO_ENVIRONMENT,
    "io": _NO_IO,
    "logging": "return reasons as values; control logs them",
    "multiprocessing": _ONE_THREAD,
    "os": _NO_ENVIRONMENT,
    "pathlib": _NO_IO,
    "pickle": "encode with msgspec, which gives the same bytes everywhere",
    "platform": _NO_ENVIRONMENT,
    "random": _NO_CHANCE,
    "secrets": "take the secret as an argument; adapters draw it",
    "select": _NO_IO,
    "shutil": _NO_IO,
    "signal": _NO_IO,
    "socket": _NO_IO,
    "sqlite3": _NO_IO,
    "ssl": _NO_IO,
    "subprocess": _NO_IO,
    "tempfile": _NO_IO,
    "threading": _ONE_THREAD,
    "time": _NO_CLOCK,
    "urllib": _NO_IO,
    "uuid": "take the id as an argument; control numbers jobs, adapters mint the rest",
    "warnings": "return reasons as values",
    "weakref": "hold things by id; when memory is freed must not show",
    "zoneinfo": "take the offset as an argument; time zone files differ between machines",
}
BANNED_CALLS = {
    "open": _NO_IO,
    "print": _NO_IO,
    "input": _NO_IO,
    "breakpoint": "remove it",
    "eval": "name the function",
    "exec": "name the function",
    "hash": "hashes of text differ in every process: sort, or take a SHA-256",
    "id": "addresses differ in every run: use the thing's own id",
    "float": "count in integers: GPUs, milliseconds, per mille; or use fractions.Fraction",
}
_CLOCK_READERS = {"now", "utcnow", "today"}


def violations(package: str, tree: ast.Module) -> list[str]:
    """What is banned in a module of a pure package: `line: what: what to do instead`, by line."""
    found = [*_imports(package, tree), *_calls(tree), *_floats(tree), *_unordered(tree)]
    return [f"{line}: {text}" for line, text in sorted(found)]


def _imports(package: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        else:
            continue
        for name in names:
            advice = _import_advice(package, name.partition(".")[0])
            if advice:
                yield node.lineno, f"import of {name}: {advice}"


def _import_advice(package: str, root: str) -> str | None:
    if root in BANNED_MODULES:
        return BANNED_MODULES[root]
    if root in {"pumasi", "msgspec"} or root in sys.stdlib_module_names:
        return None
    if root == "numpy" and package in ARRAY_PACKAGES:
        return None
    return "the heart stands on the standard library and msgspec (numpy in state and scheduler)"


def _calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                yield node.lineno, f"call of {name}(): {BANNED_CALLS[name]}"
            case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name) if name in _CLOCK_READERS:
                yield node.lineno, f"{name}(): {_NO_CLOCK}"
            case ast.Attribute(value=ast.Attribute(attr="datetime" | "date"), attr=name) if name in _CLOCK_READERS:
                yield node.lineno, f"{name}(): {_NO_CLOCK}"


def _floats(tree: ast.Module) -> Iterator[tuple[int, str]]:
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex() as value):
                yield node.lineno, f"float {value}: {BANNED_CALLS['float']}"
            case ast.Name(id="float") if id(node) not in called:
                yield node.lineno, f"float: {BANNED_CALLS['float']}"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, "division that gives a float: use //, cross-multiply, or make a Fraction(a, b)"


def _unordered(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.For(iter=source) | ast.comprehension(iter=source):
                pass
            case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "next" | "enumerate"), args=[source, *_]):
                pass
            case _:
                continue
        if _is_set(source):
            yield source.lineno, "a set has no order of its own: sort it first"


def _is_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, right=right, op=ast.Sub() | ast.BitAnd() | ast.BitOr() | ast.BitXor()):
            return _is_set(left) or _is_set(right)
    return False
