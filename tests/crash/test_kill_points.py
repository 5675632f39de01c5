"""A thousand deaths of the writer: no acknowledged write is lost, no job is doubled, the log is whole each time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POINTS = 250
SEEDS = (1, 2, 3, 4)


def _kill(folder: Path, seed: int, points: int, writer: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.kill_points", str(folder), str(seed), str(points), writer],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_is_there_after_every_death(tmp_path: Path, seed: int) -> None:
    ended = _kill(tmp_path, seed, POINTS, "sound")
    assert (ended.returncode, ended.stderr) == (0, "")
    deaths, acknowledged, in_doubt = (int(word) for word in ended.stdout.split() if word.isdigit())
    assert deaths == POINTS
    assert acknowledged > POINTS  # the writers lived long enough to be worth killing
    assert in_doubt > 0  # and some died between the disk and the answer, the point where asking again could double


@pytest.mark.parametrize(
    ("writer", "finding"), [("hasty", "was acknowledged as job"), ("forgetful", "are in the archive")]
)
def test_a_writer_that_breaks_its_promises_is_found_out(tmp_path: Path, writer: str, finding: str) -> None:
    ended = _kill(tmp_path, 4, POINTS, writer)
    assert ended.returncode == 1
    assert finding in ended.stderr
