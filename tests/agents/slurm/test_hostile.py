"""Whatever Slurm does wrong: no run twice, none lost, no foreign job touched. More stories: `make chaos`."""

import os
from collections.abc import Callable, Iterable

import pytest

from pumasi.agents.run_directory import RunDirectory
from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.readers import SlurmJob
from pumasi.agents.slurm.reconcile import Reconciler
from pumasi.agents.slurm.runner import Answer
from pumasi.protocol.messages import RunKey
from pumasi.testing.hostile_slurm import HostileSlurm
from tests.agents.slurm.hostile_story import Story

STORIES = int(os.environ.get("PUMASI_HOSTILE_STORIES", "200"))
STORIES_IN_A_TEST = 50


def tell_stories(first: int, end: int) -> None:
    for seed in range(first, end):
        try:
            Story(seed).tell()
        except AssertionError as error:
            raise AssertionError(f"story {seed}: {error}") from error


@pytest.mark.parametrize("first", range(0, STORIES, STORIES_IN_A_TEST))
def test_hostile_stories(first: int) -> None:
    tell_stories(first, min(first + STORIES_IN_A_TEST, STORIES))


def _always(value: bool) -> Callable[..., bool]:
    return lambda *_: value


@pytest.mark.parametrize(
    ("owner", "name", "careless", "found"),
    [
        (
            RunDirectory,
            "claim_for_nobody",
            _always(True),
            "never to have started|still runs|after its end|ended in",
        ),
        (SlurmCommands, "_is_still", _always(False), "is left|lost"),
        (Reconciler, "_match_absent", _always(False), "lost"),
        (Reconciler, "_end_strays", _always(False), "is left"),
    ],
)
def test_an_engine_without_its_care_is_found_out(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, careless: Callable[..., bool], found: str
) -> None:
    monkeypatch.setattr(owner, name, careless)
    with pytest.raises(AssertionError, match=found):
        tell_stories(0, 100)


def test_an_engine_that_takes_a_number_for_a_name_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are given out again: who cancels by number alone, however old, ends others' jobs."""
    slurm_cancel = HostileSlurm._scancel

    def by_number(self: HostileSlurm, arguments: list[str], text: str) -> Answer:
        number = int(arguments[-1])
        name = self.jobs[number].name if number in self.jobs else ""
        return slurm_cancel(self, [*arguments[:-1], f"--name={name}", arguments[-1]], text)

    monkeypatch.setattr(HostileSlurm, "_scancel", by_number)
    monkeypatch.setattr(SlurmCommands, "_is_still", _always(True))
    monkeypatch.setattr(Reconciler, "_by_run", _by_name_alone)
    with pytest.raises(AssertionError, match="foreign"):
        tell_stories(0, 100)


def _by_name_alone(_self: Reconciler, jobs: Iterable[SlurmJob]) -> dict[RunKey, list[SlurmJob]]:
    """What Slurm lists, as one who trusts names that others can give too."""
    found: dict[RunKey, list[SlurmJob]] = {}
    for job in jobs:
        if job.name.startswith("pumasi-test-"):
            found.setdefault(RunKey(*map(int, job.name.split("-")[2:])), []).append(job)
    return found
