"""The reference pages say what the commands do."""

from pathlib import Path

from pumasi.cli.errors import ExitCode
from scripts.write_cli_reference import CLI_PAGE, JOB_FILE_PAGE, REFERENCE, cli_page, job_file_page

WRITE = "run scripts/write_cli_reference.py"


def test_the_page_on_commands_is_current() -> None:
    assert CLI_PAGE.read_text(encoding="utf-8") == cli_page(), WRITE


def test_the_page_on_job_files_is_current_and_its_example_is_a_job(tmp_path: Path) -> None:
    from pumasi.cli.submission.job_file import read_job_file

    page = JOB_FILE_PAGE.read_text(encoding="utf-8")
    assert page == job_file_page(), WRITE
    example = page.split("```yaml\n")[1].split("```")[0]
    assert read_job_file(example, "example")[1] == []


def test_every_exit_code_is_documented() -> None:
    page = (REFERENCE / "exit-codes.md").read_text(encoding="utf-8")
    rows = {int(line.split("|")[1]) for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()}
    assert rows == {int(code) for code in ExitCode}


def test_the_guides_script_is_taken_as_it_stands() -> None:
    from pumasi.cli.submission.directives import read_directives
    from pumasi.cli.submission.draft import Draft, Manner, apply_settings

    guide = (REFERENCE.parent / "guides/from-slurm.md").read_text(encoding="utf-8")
    script = guide.split("```sh\n")[1].split("```")[0]
    found = read_directives(script)
    assert [*found.problems, *apply_settings(Draft(), Manner(), found.settings, frozenset())] == []
    assert len(found.settings) == 8
