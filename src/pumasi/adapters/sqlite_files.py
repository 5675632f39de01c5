"""The files of a SQLite log: who may open them, how connections are set up, and what a log file must look like."""

import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pumasi.ports.event_log import LogBroken

APPLICATION_ID = 0x50554D41  # "PUMA": tells a log of ours from any other SQLite file
SCHEMA_VERSION = 1

# `scope` of ended_scopes: "" (all jobs), a queue or one above it, or "@" and a principal. With the state it makes every
# filter a prefix of the key, so a page is read off the index, newest first, and never sorted.
_SCHEMA = f"""
CREATE TABLE facts (
    seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT;
CREATE TABLE ended_jobs (
    id INTEGER PRIMARY KEY,
    ended_ms INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX ended_times ON ended_jobs (ended_ms);
CREATE TABLE ended_scopes (
    scope TEXT NOT NULL,
    state TEXT NOT NULL,
    id INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, state, id)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # NORMAL loses acknowledged commits at power loss
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -32768",
)


class FileLock:
    """Keeps a second control plane away from the same log. The operating system lets go of it when the process dies."""

    def __init__(self, log: Path) -> None:
        self._path = log.with_name(f"{log.name}.lock")
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise LogBroken(f"{log} is in use by another control plane (process {holder})") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others in. The lock file stays: removing it would let two in at once."""
        os.close(self._descriptor)


def open_writer(path: Path, busy_seconds: int) -> sqlite3.Connection:
    """The connection that writes, to a file that is a log of this version; made if there is none.

    :raises LogBroken: if the file is something else, damaged, or of a newer version.
    """
    _create_private(path)
    connection = _connect(path, "rw", busy_seconds)
    try:
        _check_identity(path, connection)
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
        if not _identity(connection)[1]:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            sync_folder(path)
        _check_length(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create_private(path: Path) -> None:
    """Scripts and token digests are in it: for its owner's eyes only. SQLite gives its side files the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _connect(path: Path, mode: str, busy_seconds: int) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=busy_seconds,
        cached_statements=512,
    )


def _identity(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Application id, schema version, number of tables and indexes."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return application, version, tables


def _check_identity(path: Path, connection: sqlite3.Connection) -> None:
    application, version, tables = _identity(connection)
    if (application, version, tables) == (0, 0, 0):
        return
    if application != APPLICATION_ID:
        raise LogBroken(f"{path} is a SQLite file, but no log of ours (application id {application:#x})")
    if version != SCHEMA_VERSION:
        raise LogBroken(f"{path} has schema version {version}; this version reads {SCHEMA_VERSION}")


def _check_length(path: Path, connection: sqlite3.Connection) -> None:
    """With nothing left in the side file, the file is as long as it says; SQLite would read a lost end as zeros."""
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    found, expected = path.stat().st_size, pages * page_bytes
    if not busy and found < expected:
        raise LogBroken(f"{path} is cut short: it has {found} bytes of {expected}")


def sync_folder(path: Path) -> None:
    """Make the name of a new file in its folder durable."""
    descriptor = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Readers:
    """Connections that only read, lent to one thread at a time and kept for the next."""

    def __init__(self, path: Path, busy_seconds: int) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """A connection for one query."""
        connection = self._take()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close those that are idle; those in use close when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = _connect(self._path, "ro", self._busy_seconds)
            connection.execute("PRAGMA query_only = ON")
            return connection
