"""Progress of the twin's commands where there is no terminal."""

import pytest

from pumasi.cli.twin_commands import told_in_lines


def test_progress_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    tell = told_in_lines("2 runs")
    for done, day in ((0, ""), (99, "2026-01-01"), (100, "2026-01-02"), (150, ""), (420, ""), (1000, "2026-01-09")):
        tell(done, day)
    assert capsys.readouterr().err.splitlines() == [
        "2 runs: 10 % done, at 2026-01-02",
        "2 runs: 40 % done",
        "2 runs: 100 % done, at 2026-01-09",
    ]
