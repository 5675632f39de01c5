"""#SBATCH lines: what sbatch reads is read, and what cannot be used is an error with its line."""

import pytest

from pumasi.cli.submission.directives import check_script, read_directives
from pumasi.cli.submission.draft import Draft, Manner, apply_settings
from pumasi.cli.submission.options import OptionProblem

SCRIPT = """#!/bin/bash
#SBATCH -J train --nodes=2  # two nodes, don't ask why
#SBATCH --gpus-per-node b200:8
#SBATCH -t2:00:00 -H
#SBATCH --comment="a b # c"
#PUMASI --data-class=nct --stay-home
##SBATCH --mem=4G
# SBATCH --frob

echo hello
#SBATCH --gpus=99
"""


def _apply(script: str, ignored: frozenset[str] = frozenset()) -> tuple[Draft, Manner, list[str]]:
    draft, manner = Draft(), Manner()
    found = read_directives(script)
    return draft, manner, [*found.problems, *apply_settings(draft, manner, found.settings, ignored)]


def test_reads_the_forms_of_sbatch() -> None:
    draft, _, problems = _apply(SCRIPT)
    assert problems == []
    assert (draft.name, draft.nodes, draft.gpus_per_node, draft.gpu_types) == ("train", 2, 8, ("b200",))
    assert (draft.time_limit_seconds, draft.held) == (7200, True)
    assert draft.environment == {"SLURM_JOB_COMMENT": "a b # c"}
    assert draft.fields == {"data_class": "nct", "stays_home": True}


@pytest.mark.parametrize(
    ("option", "per_node", "gpus", "gpu_types"),
    [
        ("--gres=gpu:1g.23gb:2", 2, 0, ()),
        ("--gres=gpu:b200_1G.23GB:2", 2, 0, ("b200",)),
        ("--gpus-per-node=nvidia_b200_1g.23gb:2", 2, 0, ("b200",)),
        ("--gpus=1g.23gb:20", 0, 20, ()),
    ],
)
def test_reads_slices_as_slurm_names_them(option: str, per_node: int, gpus: int, gpu_types: tuple[str, ...]) -> None:
    draft, _, problems = _apply(f"#!/bin/sh\n#SBATCH {option}\n")
    assert (problems, draft.fields) == ([], {"slice": "1g.23gb"})
    assert (draft.gpus_per_node, draft.gpus, draft.gpu_types) == (per_node, gpus, gpu_types)


@pytest.mark.parametrize("option", ["#SBATCH --gres=shard:3", "#PUMASI --slice=shard --gpus-per-node=3"])
def test_reads_shards_as_slurm_names_them(option: str) -> None:
    draft, _, problems = _apply(f"#!/bin/sh\n{option}\n")
    assert (problems, draft.fields, draft.gpus_per_node) == ([], {"slice": "shard"}, 3)


def test_a_later_word_for_whole_gpus_asks_for_no_shards() -> None:
    draft, _, problems = _apply("#!/bin/sh\n#SBATCH --gres=shard:3\n#SBATCH --gres=gpu:2\n")
    assert (problems, draft.fields, draft.gpus_per_node) == ([], {}, 2)


def test_what_follows_the_first_command_is_noted_and_not_read() -> None:
    found = read_directives(SCRIPT)
    assert found.notes == ["line 11: #SBATCH after the first command is not read, as in sbatch"]
    assert all(setting.value != "99" for setting in found.settings)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("#SBATCH --tmp=4G", "line 2: --tmp: not supported: the CPUs and memory of a node are shared out"),
        ("#SBATCH --mem=4X", "is no size of memory"),
        ("#SBATCH --mem=-4", "is no size of memory"),
        ("#SBATCH --mem=99999999T", "is more than any node has"),
        ("#SBATCH -c none", "expected a number"),
        ("#SBATCH -d afterok:5", "line 2: --dependency: not supported"),
        ("#SBATCH --switches=1", "line 2: --switches: not supported: topology is asked for by --segment"),
        ("#SBATCH --acount=x", "line 2: #SBATCH there is no option --acount; did you mean --account?"),
        ("#SBATCH -Z", "line 2: #SBATCH there is no option -Z"),
        ("#SBATCH --nodes", "line 2: #SBATCH --nodes needs a value"),
        ("#SBATCH --hold=yes", "line 2: #SBATCH --hold takes no value"),
        ("#SBATCH two nodes", "line 2: #SBATCH two: expected an option"),
        ("#PUMASI --slice=half", "line 2: --slice: 'half' is no MIG profile, which looks like 1g.23gb, and not shard"),
        ('#SBATCH --comment="open', "a quote is not closed"),
        ("#SBATCH --data-class=nct", "line 2: #SBATCH --data-class is not an option of sbatch; write it as #PUMASI"),
        ("#SBATCH -N 2-4", "a range of nodes is not supported"),
        ("#SBATCH -N 1_0", "expected a number"),
        ("#SBATCH -G 99999999999999999999999", "expected a number"),
        ("#SBATCH --gpus=-4", "expected a number"),
        ("#SBATCH --gres=nvme:2", "only gpu[:TYPE]:N and shard:N are"),
        ("#SBATCH -t 1:2:3:4", "is no duration"),
        ("#SBATCH -t UNLIMITED", "every job has a time limit"),
        ("#SBATCH -a 0-9%4", "(%N) is not supported"),
        ("#SBATCH -a 9-0", "counted upwards"),
        ("#SBATCH -a 0-99999", "1 to 10,000 tasks"),
        ("#SBATCH --signal=KILL@60", "cannot be caught"),
        ("#SBATCH --signal=NOPE", "there is no signal NOPE"),
        ("#SBATCH --qos=gold", "there is no QOS 'gold'"),
        ("#SBATCH --export=NOT_SET_ANYWHERE", "is not set here"),
        ("#SBATCH --account=../x", "is no queue"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_its_line(line: str, problem: str) -> None:
    _, _, problems = _apply(f"#!/bin/sh\n{line}\ntrue\n")
    assert len(problems) == 1
    assert problems[0].startswith("line 2: ")
    assert problem in problems[0]


def test_all_problems_are_told_at_once() -> None:
    _, _, problems = _apply("#!/bin/sh\n#SBATCH --tmp=1 --frob\n#SBATCH -N x\n#SBATCH --tmp=2\n")
    assert len(problems) == 4


def test_an_option_may_be_left_out_on_request_alone() -> None:
    _, _, problems = _apply("#!/bin/sh\n#SBATCH --tmp=4G -N 2\n", frozenset({"tmp"}))
    assert problems == []


@pytest.mark.parametrize(
    ("text", "mib"),
    [("64G", 65536), ("2T", 2 << 20), ("512M", 512), ("1500", 1500), ("1K", 1), ("8gb", 8192), ("0", 0)],
)
def test_reads_sizes_of_memory(text: str, mib: int) -> None:
    assert _apply(f"#!/bin/sh\n#SBATCH --mem={text}\n")[0].fields == {"host_memory_mib_per_node": mib}


def test_cpus_of_a_task_are_told_to_its_script() -> None:
    draft, _, problems = _apply("#!/bin/sh\n#SBATCH -c 16 --mem-per-gpu=64G\n")
    assert (problems, draft.environment) == ([], {"SLURM_CPUS_PER_TASK": "16"})
    assert draft.fields == {"cpus_per_node": 16, "host_memory_mib_per_gpu": 65536}


@pytest.mark.parametrize(
    ("text", "name", "seconds"),
    [("B:USR1@120", "USR1", 120), ("SIGTERM", "TERM", 60), ("10@5", "USR1", 5), ("R:USR2", "USR2", 60)],
)
def test_reads_signals(text: str, name: str, seconds: int) -> None:
    draft, _, problems = _apply(f"#!/bin/sh\n#SBATCH --signal={text}\n")
    assert problems == []
    assert draft.fields == {"notice_signal": name, "notice_seconds": seconds}


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("0-3", (0, 1, 2, 3)), ("1,3,5", (1, 3, 5)), ("0-8:4", (0, 4, 8)), ("7", (7,)), ("1-2,2-3", (1, 2, 3))],
)
def test_reads_arrays(text: str, indexes: tuple[int, ...]) -> None:
    assert _apply(f"#!/bin/sh\n#SBATCH --array={text}\n")[0].array == indexes


def test_export_sends_what_is_named_and_all_but_what_is_of_this_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "llama")
    monkeypatch.setenv("PUMASI_TOKEN", "secret")
    monkeypatch.setenv("LD_PRELOAD", "/tmp/x.so")
    assert _apply("#!/bin/sh\n#SBATCH --export=NONE,MODEL,A=1\n")[0].environment == {"MODEL": "llama", "A": "1"}
    sent = _apply("#!/bin/sh\n#SBATCH --export=ALL\n")[0].environment
    assert sent["MODEL"] == "llama"
    assert not sent.keys() & {"PUMASI_TOKEN", "LD_PRELOAD", "HOME", "PATH"}


def test_the_last_setting_wins() -> None:
    draft, _, _ = _apply("#!/bin/sh\n#SBATCH --requeue -N 2\n#SBATCH --no-requeue -N 4\n")
    assert draft.fields == {"requeue": False}
    assert draft.nodes == 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"echo hello\n", "its first line must name an interpreter"),
        (b"#!/bin/sh\r\necho\r\n", "DOS line ends"),
        (b"#!/bin/sh\n\0", "NUL"),
        (b"#!/bin/sh\n\xff", "not UTF-8 (byte 10)"),
        (b"#!" + b"x" * 600_000, "larger than 256 KiB"),
    ],
)
def test_what_is_no_script_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(OptionProblem) as caught:
        check_script(content)
    assert problem in str(caught.value)
