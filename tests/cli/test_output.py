"""Output: what scripts parse, what terminals show, and that nothing in a name can break a row."""

import csv
import io
import json

import pytest
from rich.cells import cell_len

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import Column, Format, Output, print_rows, safe

COLUMNS = [
    Column("NAME", lambda row: str(row["name"])),
    Column("GPUS", lambda row: int(row["gpus"])),
    Column("EXTRA", lambda row: str(row["extra"]), wide=True),
]
ROWS = [{"name": "학습", "gpus": 8, "extra": "x"}, {"name": "train", "gpus": 1024, "extra": "y,z"}]
TABLE = Output(Format.TABLE, (), True, "")


def _printed(capsys: pytest.CaptureFixture[str], output: Output, rows: list[dict[str, object]] | None = None) -> str:
    print_rows(ROWS if rows is None else rows, COLUMNS, output)
    return capsys.readouterr().out


def test_wide_characters_keep_columns_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(capsys, TABLE).splitlines()
    assert lines == ["NAME   GPUS", "학습      8", "train  1024"]
    assert len({cell_len(line) for line in lines}) == 1


def test_wide_shows_more_and_columns_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert "EXTRA" in _printed(capsys, TABLE._replace(format=Format.WIDE))
    chosen = _printed(capsys, TABLE._replace(columns=("EXTRA", "NAME"), headers=False))
    assert [line.split() for line in chosen.splitlines()] == [["x", "학습"], ["y,z", "train"]]


def test_csv_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    printed = _printed(capsys, TABLE._replace(format=Format.CSV))
    assert list(csv.reader(io.StringIO(printed)))[2] == ["train", "1024", "y,z"]


def test_json_is_one_document_of_the_rows_as_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(_printed(capsys, TABLE._replace(format=Format.JSON))) == {"items": ROWS}


def test_sorts_numbers_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [{"name": str(gpus), "gpus": gpus, "extra": ""} for gpus in (9, 100, 20)]
    names = _printed(capsys, TABLE._replace(sort_by="-GPUS", columns=("NAME",), headers=False), rows)
    assert names.split() == ["100", "20", "9"]


def test_an_unknown_column_is_a_clear_error() -> None:
    with pytest.raises(CommandError) as caught:
        print_rows(ROWS, COLUMNS, TABLE._replace(columns=("NODES",)))
    assert caught.value.code is ExitCode.USAGE
    assert "NAME, GPUS, EXTRA" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202eabc", "\\u202eabc"), ("한국", "한국"), ("\ud800", "\\ud800")],
)
def test_nothing_in_a_name_steers_the_terminal(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_an_empty_list_has_headings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(capsys, TABLE, []) == "NAME  GPUS\n"
