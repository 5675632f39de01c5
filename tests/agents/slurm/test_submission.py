"""What Slurm is told of a run: our words, each as one argument."""

import shlex
from pathlib import Path

import msgspec
import pytest

from pumasi.agents.slurm.commands import Refused, SlurmAway, SlurmCommands, Submission
from pumasi.agents.slurm.runner import Answer, CommandTimedOut
from pumasi.agents.slurm.site import SlurmPool
from pumasi.agents.slurm.submission import CannotAsk, batch_script, submission_of
from pumasi.model.jobs import Span
from pumasi.testing.engine import an_order

POOL = SlurmPool(
    id="p",
    partition="gpu",
    nodes=tuple(f"n{number}" for number in range(1, 9)),
    gpus_per_node=8,
    gres_type="b200",
    account="fed",
    cpus_per_node=64,
    memory_mib_per_node=1000,
)


def submission(*spans: Span, pool: SlurmPool = POOL) -> Submission:
    order = msgspec.structs.replace(an_order("true"), spans=spans)
    return submission_of(order, pool, tag="t", mark="t@s", log="/x/slurm.log", seconds=90.5)


def test_whole_nodes_are_asked_for_by_name_and_for_oneself() -> None:
    arguments = submission(Span(0, 2, 0xFF), Span(4, 1, 0xFF)).arguments()
    wanted = {"--nodelist=n[1-2,5]", "--nodes=3", "--gres=gpu:b200:8", "--exclusive", "--mem=0", "--time=3"}
    assert wanted <= set(arguments)
    assert {"--no-requeue", "--export=ALL", "--job-name=t", "--comment=t@s", "--account=fed"} <= set(arguments)
    assert not any(argument.startswith("--cpus-per-task") for argument in arguments)


def test_a_part_of_a_node_gets_its_share_of_the_rest() -> None:
    arguments = submission(Span(3, 1, 0b11)).arguments()
    assert {"--gres=gpu:b200:2", "--cpus-per-task=16", "--mem=250M"} <= set(arguments)
    assert "--exclusive" not in arguments


def test_a_part_of_a_node_gets_what_the_order_says_of_the_rest() -> None:
    assert {"--cpus-per-task=3", "--mem=250M"} <= set(submission(Span(3, 1, 0b11, cpus=3)).arguments())
    assert {"--cpus-per-task=16", "--mem=900M"} <= set(submission(Span(3, 1, 0b11, memory_mib=900)).arguments())


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ((Span(0, 1, 0xFF), Span(1, 1, 0b1)), "same number"),
        ((Span(0, 1, 0),), "same number"),
        ((Span(7, 2, 0xFF),), "names node 9"),
    ],
)
def test_what_slurm_cannot_be_asked_for_is_refused(spans: tuple[Span, ...], says: str) -> None:
    with pytest.raises(CannotAsk, match=says):
        submission(*spans)


def test_a_list_of_nodes_too_long_for_a_command_is_refused() -> None:
    names = tuple(f"{letter * 200}{number}" for number in range(300) for letter in "abcdef")
    pool = msgspec.structs.replace(POOL, nodes=names)
    with pytest.raises(CannotAsk, match="too long"):
        submission(Span(0, len(names), 0xFF), pool=msgspec.structs.replace(pool, nodes=tuple(f"{n}x" for n in names)))


def test_the_script_begins_with_a_line_of_its_own_and_quotes_its_paths() -> None:
    script = batch_script("/usr/bin/python3", Path("/a b/supervisor.py"), Path("/a b/runs/t"))
    head, line = script.split(":\n")
    words = shlex.split(line)
    assert (head, words[:6]) == ("#!/bin/sh\n", ["exec", "/usr/bin/python3", "-I", "-S", "-X", "utf8"])
    assert words[-3:] == ["/a b", "supervisor", "/a b/runs/t"]


class Says:
    """A Slurm that is up and answers one thing."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer

    def run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        if name == "scontrol":
            return Answer(0, "Slurmctld(primary) at here is UP", "")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Answer(0, "17\n", ""), 17),
        (Answer(0, "17;alpha\n", ""), 17),
        (Answer(1, "", f"{FAILED}Requested node configuration is not available"), "refused"),
        (Answer(1, "", f"{FAILED}Invalid account or account/partition combination specified"), "refused"),
        (Answer(1, "", "sbatch: error: invalid partition specified: x"), "refused"),
        (Answer(1, "", f"{FAILED}Unable to contact slurm controller (connect failure)"), "away"),
        (Answer(1, "", f"{FAILED}Socket timed out on send/recv operation"), "away"),
        (Answer(1, "", f"{FAILED}Unexpected message received"), "away"),
        (Answer(1, "", f"{FAILED}Invalid authentication credential: unable to connect"), "away"),
        (Answer(1, "", ""), "away"),
        (Answer(0, "submitted, I think", ""), "away"),
        (Answer(-9, "", ""), "away"),
        (CommandTimedOut("late"), "away"),
        (OSError("no sbatch"), "away"),
    ],
)
def test_only_a_clear_no_is_a_refusal(answer: Answer | Exception, result: int | str) -> None:
    commands = SlurmCommands(Says(answer), 0)
    if result == "away":
        with pytest.raises(SlurmAway):
            commands.submit(submission(Span(0, 1, 0xFF)), "")
        return
    said = commands.submit(submission(Span(0, 1, 0xFF)), "")
    assert isinstance(said, Refused) if result == "refused" else said == result
