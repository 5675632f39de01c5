"""Whatever a script, a job file or an option holds, the answer is a list of problems and never a traceback."""

import string

from hypothesis import example, given
from hypothesis import strategies as st

from pumasi.cli.durations import parse_duration
from pumasi.cli.output import safe
from pumasi.cli.submission.directives import read_directives
from pumasi.cli.submission.draft import Draft, Manner, apply_settings
from pumasi.cli.submission.job_file import KEYS, read_job_file
from pumasi.cli.submission.options import SUPPORTED, Takes
from pumasi.cli.times import parse_begin
from tests.cli.test_times import NOW

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=60)
DIGITISH = st.text(st.sampled_from("0123456789:-+.@,%_eE²٣ "), max_size=20)


@given(st.lists(ANYTHING, max_size=5))
def test_any_directive(lines: list[str]) -> None:
    script = "#!/bin/sh\n" + "\n".join(f"#SBATCH {line}" for line in lines)
    found = read_directives(script)
    for problem in [*found.problems, *apply_settings(Draft(), Manner(), found.settings, frozenset())]:
        assert problem.startswith("line ")


@given(st.sampled_from([option for option in SUPPORTED if option.takes is Takes.VALUE]), ANYTHING | DIGITISH)
def test_any_value_of_any_option(option: object, value: str) -> None:
    from pumasi.cli.submission.directives import Setting
    from pumasi.cli.submission.options import Option

    assert isinstance(option, Option)
    problems = apply_settings(Draft(), Manner(), [Setting(option, value, "line 1: ")], frozenset())
    assert len(problems) <= 1


@given(ANYTHING)
@example("a: \ud800")
@example("\x00")
def test_any_text_as_a_job_file(text: str) -> None:
    _, problems = read_job_file(text, "job")
    assert problems


@given(st.sampled_from(sorted(KEYS)), ANYTHING | DIGITISH | st.text(string.printable, max_size=40))
def test_any_value_of_any_key(key: str, value: str) -> None:
    _, problems = read_job_file(f"{key}: {value}", "job")
    assert all(isinstance(problem, str) for problem in problems)


@given(ANYTHING | DIGITISH)
def test_any_text_as_a_time(text: str) -> None:
    seconds = parse_duration(text)
    assert seconds is None or seconds >= 0
    assert parse_begin(text, NOW) is None or text.strip()


@given(ANYTHING)
def test_what_is_shown_is_one_line_and_can_be_printed(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    shown.encode()
