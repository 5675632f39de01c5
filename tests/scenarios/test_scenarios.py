"""Every script tells the story it says it tells. After a change that is meant: `pytest tests/scenarios --rewrite`."""

from pathlib import Path

import pytest

from pumasi.testing.script import replay

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_story_is_as_written(script: Path, request: pytest.FixtureRequest) -> None:
    told = replay(script.read_text(encoding="utf-8"))
    if request.config.getoption("--rewrite", default=False):
        script.write_text(told, encoding="utf-8")
    assert told == script.read_text(encoding="utf-8")


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 8
