"""The complaints museum: every script reproduces what users of other schedulers report, and shows what happens here.

After a change that is meant: `pytest tests/museum --rewrite`, read what changed, then `make docs`.
"""

import pytest

from pumasi.testing.script import replay
from scripts.write_museum import PAGE, Exhibit, exhibits, page

EXHIBITS = exhibits()


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_the_story_is_as_written(exhibit: Exhibit, request: pytest.FixtureRequest) -> None:
    told = replay(exhibit.text)
    if request.config.getoption("--rewrite", default=False):
        exhibit.path.write_text(told, encoding="utf-8")
    assert told == exhibit.path.read_text(encoding="utf-8")


def test_at_least_twenty_threads_on_at_least_six_topics() -> None:
    assert len({thread for exhibit in EXHIBITS for thread in exhibit.threads}) >= 20
    assert len({exhibit.topic for exhibit in EXHIBITS}) >= 6


def test_every_exhibit_decides_something() -> None:
    quiet = [each.name for each in EXHIBITS if "    job" not in each.text and "    never" not in each.text]
    assert quiet == []


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(EXHIBITS), "run `make docs`"
