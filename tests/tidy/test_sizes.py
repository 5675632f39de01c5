"""Small things are understood at a glance: functions and modules have a size budget, and this measures it.

A function's lines run from its `def` to its last line; the docstring is not counted: explaining must cost nothing.
"""

import ast
from statistics import median, quantiles
from typing import NamedTuple

from tests.tidy.tree import parsed, python_files, shown

FUNCTION_LINES_MEDIAN = 8
FUNCTION_LINES_NINE_IN_TEN = 30
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
TEST_MODULE_LINES_MAX = 800

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Size(NamedTuple):
    """How many lines a function has, and where it stands."""

    lines: int
    where: str


def function_lines(function: Function) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def function_sizes(folder: str) -> list[Size]:
    """Every function below a folder, the largest first."""
    return sorted(
        (
            Size(function_lines(node), f"{shown(path)}:{node.lineno} {node.name}")
            for path in python_files(folder)
            for node in ast.walk(parsed(path))
            if isinstance(node, Function)
        ),
        reverse=True,
    )


def too_long(folder: str, most_lines: int) -> list[str]:
    """Modules below a folder with more than `most_lines` lines."""
    sizes = [(len(path.read_text(encoding="utf-8").splitlines()), shown(path)) for path in python_files(folder)]
    return [f"{where}: {lines} lines, at most {most_lines}" for lines, where in sizes if lines > most_lines]


def test_a_docstring_costs_no_lines() -> None:
    source = 'def f(a):\n    """Two\n\n    more."""\n    b = a\n    return b\n'
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert function_lines(function) == 3


def test_half_of_all_functions_are_short() -> None:
    lines = [size.lines for size in function_sizes("src")]
    assert median(lines) <= FUNCTION_LINES_MEDIAN


def test_nine_in_ten_functions_fit_a_glance() -> None:
    sizes = function_sizes("src")
    tenth = quantiles([size.lines for size in sizes], n=10, method="inclusive")[-1]
    assert tenth <= FUNCTION_LINES_NINE_IN_TEN, sizes[: len(sizes) // 10]


def test_no_function_is_longer_than_a_screen() -> None:
    sizes = [size for folder in ("src", "scripts", "bench") for size in function_sizes(folder)]
    assert [size for size in sizes if size.lines > FUNCTION_LINES_MAX] == []


def test_modules_keep_to_their_budget() -> None:
    code = [offender for folder in ("src", "scripts", "bench") for offender in too_long(folder, MODULE_LINES_MAX)]
    assert code + too_long("tests", TEST_MODULE_LINES_MAX) == []
