"""`pumasi plan` as a user meets it: output, exit codes, files written."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.plan_commands import plan
from tests.plans.snippets import SOUND, edited, write

SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str | Path) -> Result:
    """Run `pumasi plan` with these arguments."""
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


def refusal(result: Result) -> CommandError:
    """The error a command ended with; the entry point prints it."""
    assert isinstance(result.exception, CommandError)
    return result.exception


def test_check_says_what_is_there() -> None:
    """A sound plan: one line, exit code 0."""
    result = run("check", "korea", "campus")
    assert result.exit_code == ExitCode.OK
    assert "korea: sound: 260,000 GPUs, 9 owners" in result.stdout
    assert "campus: sound: 96 GPUs, 3 owners, 3 sites, 4 pools, 9 queues" in result.stdout


def test_check_lists_every_mistake_on_stderr(tmp_path: Path) -> None:
    """A bad plan: each mistake with file and line, exit code 1, nothing on stdout."""
    path = write(tmp_path, edited("site: mill", "site: mil", edited("kind: public", "kind: pubic")))
    result = run("check", path)
    assert result.exit_code == ExitCode.FAILED
    assert result.stdout == ""
    assert f"{path}:8: owners.north.kind: " in result.stderr
    assert f"{path}:15: pools.hall.site: there is no site 'mil' (did you mean mill?)" in result.stderr
    assert "2 mistakes" in result.stderr


def test_check_goes_on_after_a_bad_file(tmp_path: Path) -> None:
    """Every file is checked; a missing one makes the exit code 3."""
    bad, good = write(tmp_path, "name: x", "bad.yaml"), write(tmp_path, SOUND)
    assert run("check", bad, good).exit_code == ExitCode.FAILED
    result = run("check", tmp_path / "none.yaml", good)
    assert result.exit_code == ExitCode.NOT_FOUND
    assert "sound" in result.stdout


@pytest.mark.parametrize("command", [["show"], ["diff", "korea"]])
def test_bad_and_missing_files_are_errors_of_the_command(command: list[str], tmp_path: Path) -> None:
    """`show` and `diff` end with the mistakes (1) or not found (3)."""
    bad = refusal(run(*command, write(tmp_path, edited("site: mill", "site: mil"))))
    assert (bad.code, len(bad.lines)) == (ExitCode.FAILED, 1)
    missing = refusal(run(*command, tmp_path / "none.yaml"))
    assert missing.code == ExitCode.NOT_FOUND
    assert "korea" in missing.hint


def test_show_json_has_the_totals_at_its_top() -> None:
    """The keys scripts rely on."""
    document = json.loads(run("show", "korea", "-o", "json", "--as-of", "2027-12-31").stdout)
    assert document["gpus_total"] == 260_000
    assert document["gpus_by_owner"]["naver"] == 60_000
    assert list(document["gpus_by_stage"]) == ["announced", "ordered", "delivered", "accepted", "in_service"]
    assert sum(document["gpus_by_stage"].values()) == 260_000
    assert document["gpus_entitled_by_owner"]["nhn"] == 1_536
    assert document["as_of"] == "2027-12-31"


def test_show_json_with_sources() -> None:
    """Every figure with its basis, and the address of each source."""
    document = json.loads(run("show", "korea", "-o", "json", "--sources").stdout)
    figure = next(figure for figure in document["figures"] if figure["path"] == "pools.nhn-b200-4k.nodes")
    assert (figure["value"], figure["basis"]["confidence"]) == ("510", "H")
    assert all(tag in document["sources"] for tag in figure["basis"]["sources"])


def test_show_prints_tables_and_bars() -> None:
    """All four groupings, totals, and a bar per owner."""
    output = run("show", "korea", "--as-of", "2027-12-31").stdout
    for by in ("owner", "site", "model", "stage"):
        assert f"GPUs by {by}, 2027-12-31" in output
    assert output.count("260,000") >= 5
    assert "█ in service" in output
    assert any(line.startswith("naver ") and "█" in line and line.endswith("60,000") for line in output.splitlines())


def test_show_sources_in_words() -> None:
    """Assumptions say that they are."""
    output = run("show", "campus", "--sources", "--by", "owner").stdout
    assert "assumption: an example" in " ".join(output.split())


@pytest.mark.parametrize("by", ["owner", "site", "model", "stage"])
def test_show_csv_adds_up(by: str) -> None:
    """Plain numbers that a spreadsheet can add, for any grouping."""
    rows = list(csv.DictReader(io.StringIO(run("show", "korea", "-o", "csv", "--by", by).stdout)))
    assert sum(int(row["gpus"]) for row in rows) == 260_000


def test_show_wide_has_more_columns() -> None:
    """`wide` adds pools, nodes, power and titles."""
    assert "kilowatts" in run("show", "campus", "--by", "owner", "-o", "wide").stdout
    assert "kilowatts" not in run("show", "campus", "--by", "owner").stdout


def test_picture_is_drawn(tmp_path: Path) -> None:
    """A well-formed SVG whose segments add up to the fleet, drawn beside the usual output."""
    path = tmp_path / "korea.svg"
    result = run("show", "korea", "-o", "json", "--picture", path, "--as-of", "2027-12-31")
    assert json.loads(result.stdout)["gpus_total"] == 260_000
    root = ET.parse(path).getroot()
    words = [title.text or "" for title in root.iter(f"{SVG}title")]
    owners = {
        "Republic of Korea (public sector)",
        "Samsung Electronics",
        "SK Group",
        "Hyundai Motor Group",
        "Naver Cloud",
    }
    segments = [word.split(": ") for word in words if word.split(": ")[0] in owners]
    assert sum(int(gpus.split()[0].replace(",", "")) for _, gpus in segments) == 260_000
    assert "http" not in path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")


def test_picture_that_cannot_be_written(tmp_path: Path) -> None:
    """No such folder: an error of the command, not a traceback."""
    assert refusal(run("show", "campus", "--picture", tmp_path / "none" / "x.svg")).code == ExitCode.FAILED


@pytest.mark.parametrize(
    "arguments", [["show", "korea", "--as-of", "tomorrow"], ["show", "korea", "--by", "colour"], ["check"]]
)
def test_usage_errors(arguments: list[str]) -> None:
    """Wrong options are usage errors, exit code 2."""
    assert run(*arguments).exit_code == ExitCode.USAGE


def test_diff_in_words_and_json(tmp_path: Path) -> None:
    """Both forms name the change and the totals it moves."""
    grown = edited("nodes: 3", "nodes: 4", edited("south: 8}", "south: 16}"))
    before, after = write(tmp_path, SOUND), write(tmp_path, grown, "grown.yaml")
    text = run("diff", before, after, "--as-of", "2026-06-01").stdout
    assert "~ pool hall (+8 GPUs)" in text
    assert "    nodes: 3 -> 4" in text
    assert "  gpus_total: 24 -> 32 (+8)" in text
    document = json.loads(run("diff", before, after, "-o", "json", "--as-of", "2026-06-01").stdout)
    assert document["changes"][0]["id"] == "hall"
    assert {"total": "gpus_total", "key": "", "before": 24, "after": 32} in document["totals"]


def test_brackets_in_a_plan_are_text(tmp_path: Path) -> None:
    """What looks like terminal markup in a stranger's plan is printed as it stands."""
    path = write(tmp_path, "title: '[/bold] small'\n" + edited("title: North", "title: '[/red] [link=x]North'"))
    output = run("show", path, "-o", "wide", "--sources").stdout
    assert "[/bold] small" in output
    assert "[/red] [link=x]North" in output


def test_name_too_long_for_a_file_is_not_found() -> None:
    """No traceback from the operating system's limits."""
    assert run("check", "x" * 5_000).exit_code == ExitCode.NOT_FOUND
