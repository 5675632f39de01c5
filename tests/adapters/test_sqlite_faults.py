"""A log that cannot be written stops for good; what it had acknowledged is there when it is opened again."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import JobSubmitted
from pumasi.ports.event_log import LogBroken, Snapshot
from pumasi.testing.event_log import ended_job, submitted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


def _jobs(path: Path) -> list[int]:
    log = SqliteLog(path)
    log.verify()
    jobs = [fact.job for _, fact in log.read(0) if isinstance(fact, JobSubmitted)]
    log.close()
    return jobs


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_second_control_plane_is_refused_and_told_who_has_it(path: Path) -> None:
    log = SqliteLog(path)
    with pytest.raises(LogBroken, match=rf"in use by another control plane \(process {os.getpid()}\)"):
        SqliteLog(path)
    log.append([submitted(1)])
    log.close()
    assert _jobs(path) == [1]


def test_a_second_process_is_refused_too(path: Path) -> None:
    log = SqliteLog(path)
    program = "import pathlib, sys, pumasi.adapters.sqlite_log as m; m.SqliteLog(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "in use by another control plane" in ended.stderr
    log.close()


def test_another_name_for_the_same_file_is_no_way_round(path: Path) -> None:
    log = SqliteLog(path)
    (path.parent / "link.db").symlink_to(path)
    with pytest.raises(LogBroken, match="in use"):
        SqliteLog(path.parent / "link.db")
    log.close()


def test_the_files_are_for_their_owner_only(path: Path) -> None:
    log = SqliteLog(path)
    log.append([submitted(1)])
    log.save_snapshot(Snapshot(1, {}))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert {f"fleet.db{end}" for end in ("", "-wal", "-shm", ".lock", ".snapshot")} == modes.keys()
    assert set(modes.values()) == {0o600}
    log.close()


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"minutes of the last meeting\n" * 200)
    with pytest.raises(LogBroken, match="file is not a database"):
        SqliteLog(path)
    assert path.read_bytes() == b"minutes of the last meeting\n" * 200


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (title)")
    before = path.read_bytes()
    with pytest.raises(LogBroken, match="no log of ours"):
        SqliteLog(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(path: Path) -> None:
    SqliteLog(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 2")
    with pytest.raises(LogBroken, match="schema version 2; this version reads 1"):
        SqliteLog(path)


@pytest.mark.parametrize("place", ["missing/fleet.db", "."])
def test_a_place_that_cannot_hold_a_log_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(LogBroken, match="cannot be opened"):
        SqliteLog(tmp_path / place)


# --- writing ---------------------------------------------------------------------------------------------------------


def _exchange(path: Path, device: str) -> None:
    """Put a device in the place of every open descriptor of a file."""
    replacement = os.open(device, os.O_RDWR)
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
        if target == str(path):
            os.dup2(replacement, int(entry))
    os.close(replacement)


@pytest.mark.parametrize(
    ("device", "words"),
    [("/dev/full", "database or disk is full"), ("/dev/null", "disk I/O error")],
    ids=["no space", "sync fails"],
)
def test_a_write_that_fails_stops_the_log(path: Path, device: str, words: str) -> None:
    log = SqliteLog(path)
    log.append([submitted(1), submitted(2)])
    _exchange(path.with_name("fleet.db-wal"), device)
    with pytest.raises(LogBroken, match=words):
        log.append([submitted(3)])
    for call in (lambda: log.append([submitted(3)]), lambda: list(log.read(0)), log.last_seq, log.count):
        with pytest.raises(LogBroken, match="takes no more calls"):
            call()
    log.close()
    assert _jobs(path) == [1, 2]


def test_a_disk_that_fills_up_loses_nothing_acknowledged(path: Path) -> None:
    log = SqliteLog(path)
    acknowledged: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # Python ignores SIGXFSZ: writes fail with EFBIG
    try:
        with pytest.raises(LogBroken, match="cannot be written"):
            acknowledged.extend(log.append([submitted(job)]) for job in range(1, 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()
    assert len(acknowledged) > 50
    assert _jobs(path) in (acknowledged, [*acknowledged, len(acknowledged) + 1])


def test_a_snapshot_that_does_not_fit_leaves_the_one_before_and_the_log_whole(path: Path) -> None:
    log = SqliteLog(path)
    log.append([submitted(1)])
    log.save_snapshot(Snapshot(1, {"state": b"small"}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(LogBroken, match="a snapshot cannot be saved"):
            log.save_snapshot(Snapshot(1, {"state": bytes(200_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.append([submitted(2)]) == 2
    assert log.load_snapshot() == Snapshot(1, {"state": b"small"})
    assert not list(path.parent.glob("*.unfinished"))
    log.close()


def test_a_log_that_somebody_else_keeps_locked_stops(path: Path) -> None:
    log = SqliteLog(path, busy_seconds=0)
    log.append([submitted(1)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogBroken, match="database is locked"):
        log.append([submitted(2)])
    other.execute("ROLLBACK")
    other.close()
    with pytest.raises(LogBroken, match="takes no more calls"):
        log.append([submitted(2)])
    log.close()
    assert _jobs(path) == [1]


def test_facts_that_somebody_else_added_stop_the_log(path: Path) -> None:
    log = SqliteLog(path)
    log.append([submitted(1)])
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO facts VALUES (2, x'00', x'00')")
    other.close()
    with pytest.raises(LogBroken, match="UNIQUE constraint failed"):
        log.append([submitted(2)])
    log.close()


# --- threads ---------------------------------------------------------------------------------------------------------


def test_many_threads_read_while_one_appends(path: Path) -> None:
    log = SqliteLog(path)
    findings: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            last = log.last_seq()
            seen = [seq for seq, _ in log.read(0)]
            if seen != list(range(1, len(seen) + 1)) or len(seen) < last:
                findings.append(f"{len(seen)} facts seen, {last} there")
            if log.count() and log.get(1) != ended_job(1):
                findings.append("an ended job was not found")

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for job in range(1, 101):
        log.append([submitted(job)] * 5, [ended_job(job)])
    done.set()
    for reader in readers:
        reader.join(timeout=30)
    log.close()
    assert findings == []
