"""YAML jobs: what they say, and every way in which they may be wrong."""

import pytest

from pumasi.cli.submission.job_file import read_job_file

JOB = """\
name: train
queue: public/academia
nodes: 2
gpus_per_node: 8
gpu_models: b200
time_limit: 2h
topology: {level: rack, required: true}
notice: {signal: SIGUSR1, seconds: 120}
checkpoint: 1800
environment:
  EPOCHS: 3
  MODE: "on"
array: 0-3
held: yes-is-text-in-yaml-1.2
script: |
  #!/bin/bash
  python train.py
"""


def test_reads_a_job() -> None:
    draft, problems = read_job_file(JOB.replace("held: yes-is-text-in-yaml-1.2", "held: true"), "file")
    assert problems == []
    assert (draft.name, draft.queue, draft.nodes, draft.gpus_per_node) == ("train", "public/academia", 2, 8)
    assert (draft.gpu_types, draft.time_limit_seconds, draft.array) == (("b200",), 7200, (0, 1, 2, 3))
    assert draft.environment == {"EPOCHS": "3", "MODE": "on"}
    assert draft.held
    assert draft.script == "#!/bin/bash\npython train.py\n"
    assert draft.topology == {"level": "rack", "required": True}
    assert draft.fields == {
        "notice_signal": "USR1",
        "notice_seconds": 120,
        "checkpoint_seconds": 1800,
    }


def test_a_command_needs_no_interpreter_and_the_file_names_the_job() -> None:
    draft, problems = read_job_file("command: python train.py\ngpus: 1\n", "train")
    assert problems == []
    assert (draft.name, draft.script) == ("train", "#!/bin/sh\npython train.py\n")


def test_reads_a_slice() -> None:
    draft, problems = read_job_file("command: python lesson.py\ngpus: 1\nslice: 1g.23gb\n", "lesson")
    assert (problems, draft.fields) == ([], {"slice": "1g.23gb"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: the file is empty"),
        ("[1, 2]", "line 1: the file: expected keys and values"),
        ("gpus: [", "this is not YAML"),
        ("gpus: 1\n---\ngpus: 2", "line 2: this is not YAML"),
        ("gpus: 1\ngpus: 2", "line 2: gpus is given twice; the first is in line 1"),
        ("a: &x 1\nb: *x", "line 1: anchors and aliases are not allowed"),
        ("a: *x", "line 1: anchors and aliases are not allowed"),
        ("a: " + "[" * 100_000, "nested more than 8 deep"),
        ("? [a]\n: 1", "line 1: a key must be text"),
        ("gpuss: 2", "line 1: gpuss: there is no such key; did you mean gpus?"),
        ("gpus: true", "line 1: gpus: expected a number"),
        ("gpus: .nan", "line 1: gpus: expected a number"),
        ("gpus: 1e999", "line 1: gpus: expected a number"),
        ("gpus: -1", "line 1: gpus: expected a number"),
        ("gpus: 9223372036854775808", "line 1: gpus: expected a number"),
        ("gpus: '8'", "line 1: gpus: expected a number"),
        ("gpus: !!int x", "line 1: 'x' is no int"),
        ('name: "a\\nb"', "line 1: name: expected one line of printable characters"),
        ("queue: /etc", "line 1: queue: '/etc' is no queue"),
        ("time_limit: soon", "line 1: time_limit: 'soon' is no duration"),
        ("time_limit: 0", "line 1: time_limit: expected a number from 1"),
        ("script: echo", "line 1: script: its first line must name an interpreter"),
        ("slice: half", "line 1: slice: 'half' is no MIG profile, which looks like 1g.23gb, and not shard"),
        ("held: yes", "line 1: held: expected true or false"),
        ("cpu_arch: vax", "line 1: cpu_arch: expected one of x86_64, arm64"),
        ("topology: {levle: rack}", "line 1: topology.levle: there is no such key; did you mean level?"),
        ("notice:\n  signal: KILL", "line 2: notice.signal: SIGKILL cannot be caught"),
        ("environment: {A: [1]}", "line 1: environment: A: expected text"),
        ("gpus: 1", "line 1: script: the job has no script"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, problem: str) -> None:
    _, problems = read_job_file(text, "file")
    assert any(problem in each for each in problems), problems


def test_all_problems_are_told_at_once() -> None:
    _, problems = read_job_file("gpus: x\nnodes: y\nfoo: 1\ncommand: c\n", "file")
    assert len(problems) == 3
