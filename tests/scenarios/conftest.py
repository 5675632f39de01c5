"""The flag that writes what the scripts now print into them."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the outputs of the scenario scripts anew")
