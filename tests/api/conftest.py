"""One running API per test; starting one takes milliseconds."""

from collections.abc import Iterator

import pytest
import structlog

from tests.api.kit import Api


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """Nothing is logged, unless a test captures it."""
    structlog.configure(processors=[_drop])


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


@pytest.fixture
def api() -> Iterator[Api]:
    """The API over the small fleet."""
    with Api() as running:
        yield running
