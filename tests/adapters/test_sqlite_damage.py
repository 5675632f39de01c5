"""A damaged or doctored log is refused, or serves exactly what was written; it never serves anything else."""

import random
import sqlite3
from pathlib import Path
from typing import NamedTuple

import pytest

from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import Event
from pumasi.ports.event_log import LogBroken, Snapshot
from pumasi.state.records import Job
from pumasi.testing.event_log import ended_job, submitted

JOBS = 60


class Served(NamedTuple):
    """All that a log gives away."""

    facts: list[tuple[int, Event]]
    jobs: list[Job | None]
    snapshot: Snapshot | None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


def _write(path: Path) -> Served:
    log = SqliteLog(path)
    for job in range(1, JOBS + 1):
        log.append([submitted(job, name=f"job-{job}")], [ended_job(job, by=f"user-{job}")])
    log.save_snapshot(Snapshot(JOBS // 2, {"state": bytes(range(256)) * 8, "ledger": b"ledger"}))
    served = _serve(log)
    log.close()
    return served


def _serve(log: SqliteLog) -> Served:
    return Served(list(log.read(0)), [log.get(job) for job in range(1, JOBS + 1)], log.load_snapshot())


def _served_or_refused(path: Path) -> Served | None:
    try:
        log = SqliteLog(path)
    except LogBroken:
        return None
    try:
        return _serve(log)
    except LogBroken:
        return None
    finally:
        log.close()


def _is_refused_by_verify(path: Path) -> bool:
    try:
        log = SqliteLog(path)
    except LogBroken:
        return True
    try:
        log.verify()
    except LogBroken:
        return True
    else:
        return False
    finally:
        log.close()


def _harm(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    for side in ("-wal", "-shm"):
        file.with_name(file.name + side).unlink(missing_ok=True)


# --- chance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fleet.db", "fleet.db.snapshot"])
def test_no_flipped_bit_changes_what_is_served(path: Path, name: str) -> None:
    written, file, chance, refused = _write(path), path.with_name(name), random.Random(name), 0
    sound = file.read_bytes()
    for _ in range(150):
        bad = bytearray(sound)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        _harm(file, bytes(bad))
        served = _served_or_refused(path)
        unchanged = served in (None, written)
        assert unchanged
        refused += served is None
    assert refused > 50  # the others hit room that is not in use, or listings, which only `verify` compares


@pytest.mark.parametrize("name", ["fleet.db", "fleet.db.snapshot"])
def test_no_file_cut_short_is_served(path: Path, name: str) -> None:
    _write(path)
    file, chance = path.with_name(name), random.Random(name)
    sound = file.read_bytes()
    for length in (1, len(sound) - 1, *(chance.randrange(1, len(sound)) for _ in range(40))):
        _harm(file, sound[:length])
        served = _served_or_refused(path) is not None
        assert not served, f"cut to {length} of {len(sound)} bytes"


def test_a_page_that_was_never_written_is_not_served(path: Path) -> None:
    written = _write(path)
    sound = path.read_bytes()
    for first in range(4096, len(sound), 4096):
        _harm(path, sound[:first] + bytes(4096) + sound[first + 4096 :])
        unchanged = _served_or_refused(path) in (None, written)
        assert unchanged, f"page at {first}"
        assert _is_refused_by_verify(path), f"page at {first}"


# --- intent ----------------------------------------------------------------------------------------------------------


def _doctor(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE facts SET body = CAST(replace(body, 'job-7', 'job-8') AS BLOB) WHERE seq = 7", "fact 7 is damaged"),
        ("UPDATE facts SET digest = zeroblob(32) WHERE seq = 9", "fact 9 is damaged"),
        ("DELETE FROM facts WHERE seq = 11", "fact 11 is missing"),
        ("DELETE FROM facts WHERE seq < 11", "facts before 11 are missing"),
        ("UPDATE facts SET seq = 61 WHERE seq = 20", "fact 61 is damaged"),
        ("INSERT INTO facts SELECT 61, body, digest FROM facts WHERE seq = 60", "fact 61 is damaged"),
        ("INSERT INTO facts SELECT 70, body, digest FROM facts WHERE seq = 60", "fact 69 is missing"),
        ("UPDATE ended_jobs SET record = (SELECT record FROM ended_jobs WHERE id = 2) WHERE id = 1", "ended job 1 "),
        ("UPDATE ended_jobs SET record = zeroblob(200) WHERE id = 3", "record of an ended job is damaged"),
        ("UPDATE ended_scopes SET state = 'failed' WHERE id = 4 AND scope = ''", "ended job 4 is not listed"),
        ("DELETE FROM ended_scopes WHERE id = 5 AND scope = 'public'", "ended job 5 is not listed"),
        ("INSERT INTO ended_scopes VALUES ('naver', 'failed', 6, 1000)", "listings of ended jobs"),
        ("DELETE FROM ended_jobs WHERE id = 6", "listings of ended jobs"),
    ],
)
def test_a_doctored_log_does_not_verify(path: Path, statement: str, words: str) -> None:
    _write(path)
    _doctor(path, statement)
    with pytest.raises(LogBroken, match=words):
        SqliteLog(path).verify()


def test_facts_taken_from_the_end_show_against_a_head_kept_elsewhere(path: Path) -> None:
    _write(path)
    log = SqliteLog(path)
    kept = log.head()
    assert log.verify() == kept
    log.close()
    _doctor(path, "DELETE FROM facts WHERE seq > 58")
    log = SqliteLog(path)
    assert log.verify().seq == 58 < kept.seq
    assert log.verify().digest != kept.digest
    log.close()


# --- snapshots of another log ----------------------------------------------------------------------------------------


def test_a_snapshot_newer_than_the_log_is_refused(path: Path) -> None:
    _write(path)
    _doctor(path, f"DELETE FROM facts WHERE seq > {JOBS // 2 - 1}")
    log = SqliteLog(path)
    with pytest.raises(LogBroken, match="is of another log"):
        log.load_snapshot()
    log.close()


def test_a_snapshot_of_another_log_is_refused(path: Path) -> None:
    _write(path)
    other = path.with_name("other.db")
    log = SqliteLog(other)
    log.append([submitted(job, name="different") for job in range(1, JOBS + 1)])
    path.with_name("fleet.db.snapshot").rename(path.with_name("other.db.snapshot"))
    with pytest.raises(LogBroken, match="is of another log"):
        log.load_snapshot()
    log.close()
    path.with_name("other.db.snapshot").unlink()
    log = SqliteLog(other)
    assert log.load_snapshot() is None
    log.close()
