"""The journal on disk."""

import errno
import os
from pathlib import Path

import pytest

from pumasi.agents.journal import Journal
from pumasi.agents.run_book import Began, Entry, Ordered, Over, Stopping, Told
from pumasi.model.jobs import Outcome, StopCause
from pumasi.protocol.messages import RunEnded, RunKey

RUN = RunKey(7, 2)
ENTRIES: list[Entry] = [
    Ordered(RUN, "USR1"),
    Began(RUN),
    Stopping(RUN, StopCause.RECLAIM),
    Over(RunEnded(run=RUN, outcome=Outcome.RECLAIMED, signal=9, detail="품앗이\n"), 1_800_000_000),
    Told(RUN),
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal")
    journal.rewrite([])
    return journal


def read_again(tmp_path: Path) -> list[Entry]:
    return Journal(tmp_path / "journal").read()


def test_what_is_written_is_read(journal: Journal, tmp_path: Path) -> None:
    for entry in ENTRIES:
        journal.append([entry])
    assert read_again(tmp_path) == ENTRIES
    journal.rewrite(ENTRIES[:2])
    journal.append(ENTRIES[2:], durable=False)
    assert read_again(tmp_path) == ENTRIES
    journal.close()


def test_there_need_not_be_one(tmp_path: Path) -> None:
    assert Journal(tmp_path / "journal").read() == []


def test_cut_at_any_byte_it_reads_as_far_as_it_goes(journal: Journal, tmp_path: Path) -> None:
    journal.append(ENTRIES)
    journal.close()
    path = tmp_path / "journal"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        entries = read_again(tmp_path)
        assert entries == ENTRIES[: len(entries)]
        assert len(entries) >= whole[:size].count(b"\n")


def test_a_damaged_line_costs_no_other(journal: Journal, tmp_path: Path) -> None:
    journal.append(ENTRIES)
    journal.close()
    path = tmp_path / "journal"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"\xff\x00 nonsense\n"
    path.write_bytes(b"".join(lines))
    assert read_again(tmp_path) == [ENTRIES[0], *ENTRIES[2:]]


def test_a_disk_that_does_not_take_it_leaves_it_as_it_was(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(ENTRIES[:2])

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            journal.append(ENTRIES[2:])
    assert read_again(tmp_path) == ENTRIES[:2]
    journal.append(ENTRIES[2:])
    assert read_again(tmp_path) == ENTRIES
    journal.close()


def test_it_says_when_it_has_grown_long(journal: Journal) -> None:
    many: list[Entry] = [Ordered(RunKey(job, 1)) for job in range(100_000)]
    lengths = [journal.is_long]
    journal.append(many)
    lengths.append(journal.is_long)
    journal.rewrite(many)
    lengths.append(journal.is_long)
    assert lengths == [False, True, False]
    journal.close()
