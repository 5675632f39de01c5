"""Log files stay small, and trouble with them is nobody else's trouble."""

from contextlib import closing
from pathlib import Path

from pumasi.adapters.rotating_file import RotatingFile


def test_a_full_file_becomes_the_file_before(tmp_path: Path) -> None:
    with closing(RotatingFile(tmp_path / "control.log", 25)) as log:
        for number in range(7):
            log.write(f"line {number:04}\n")
    assert (tmp_path / "control.log").read_text() == "line 0006\n"
    assert (tmp_path / "control.log.1").read_text() == "line 0004\nline 0005\n"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_is_there_goes_on(tmp_path: Path) -> None:
    for text in ("one\n", "two\n", "three\n"):
        with closing(RotatingFile(tmp_path / "control.log", 10)) as log:
            log.write(text)
    assert (tmp_path / "control.log").read_text() == "three\n"
    assert (tmp_path / "control.log.1").read_text() == "one\ntwo\n"


def test_a_line_larger_than_the_file_is_written_all_the_same(tmp_path: Path) -> None:
    with closing(RotatingFile(tmp_path / "control.log", 5)) as log:
        log.write("a long line\n")
    assert (tmp_path / "control.log").read_text() == "a long line\n"
    assert not (tmp_path / "control.log.1").exists()


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with closing(RotatingFile(Path("/dev/full"), 1000)) as log:
        assert log.write("lost\n") == len("lost\n")
