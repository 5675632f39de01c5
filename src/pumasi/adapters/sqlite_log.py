"""The log in one SQLite file. Every commit is on disk before it is acknowledged; any doubt stops the log for good."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pumasi.adapters import snapshot_file, sqlite_archive
from pumasi.adapters.records import GENESIS, decode_fact, encode_facts, encode_jobs, link
from pumasi.adapters.sqlite_files import FileLock, Readers, open_writer
from pumasi.events.facts import Event
from pumasi.model.ids import JobId
from pumasi.ports.event_log import JobFilter, LogBroken, Snapshot
from pumasi.state.records import Job

_ROWS_AT_ONCE = 2000


class Head(NamedTuple):
    """The end of the chain. Whoever keeps a copy elsewhere can tell later that nothing up to `seq` was rewritten."""

    seq: int
    digest: bytes


class SqliteLog:
    """Implements `JobStore`. Append from one thread; read from any.

    The file is `path`; beside it lie SQLite's own side files, `path`.lock and `path`.snapshot.

    :raises LogBroken: if the file cannot be opened, is damaged, is in use, or is not a log this version can read.
    """

    def __init__(self, path: Path, busy_seconds: int = 5) -> None:
        self._path = path = Path(os.path.realpath(path))  # by whatever name it is opened, there is one lock
        self._snapshot_path = path.with_name(f"{path.name}.snapshot")
        self._broken = ""
        self._writing = threading.Lock()
        with _as_log_broken(f"{path} cannot be opened"):
            self._lock = FileLock(path)
            try:
                self._open(busy_seconds)
            except BaseException:
                self._lock.release()
                raise

    def _open(self, busy_seconds: int) -> None:
        self._writer = open_writer(self._path, busy_seconds)
        self._readers = Readers(self._path, busy_seconds)
        try:
            self._head = _find_head(self._path, self._writer)
            self._ended = sqlite_archive.count(self._writer)
            all(self._checked(max(0, self._head.seq - 1), self._head.seq))
        except BaseException:
            self._readers.close()
            self._writer.close()
            raise

    # --- the log -----------------------------------------------------------------------------------------------------

    def last_seq(self) -> int:
        """The number of the last fact; 0 if there is none."""
        self._refuse_if_broken()
        return self._head.seq

    def head(self) -> Head:
        """The last fact's number and the digest that covers it and all before it."""
        self._refuse_if_broken()
        return self._head

    def append(self, events: Sequence[Event], ended: Sequence[Job] = ()) -> int:
        """Add facts and the records of jobs they ended, in one transaction, durable on return.

        :returns: the new last sequence number.
        :raises LogBroken: if they cannot be made durable. The log then refuses every later call; reopen it to see
            whether they were.
        """
        with self._writing, self._stopping_on(BaseException, "the log cannot be written"):
            records = encode_jobs(ended)
            head, rows = self._chained(encode_facts(events))
            with _transaction(self._writer):
                self._writer.executemany("INSERT INTO facts VALUES (?, ?, ?)", rows)
                sqlite_archive.insert(self._writer, ended, records)
            self._head = head
            self._ended += len(ended)
            return head.seq

    def _chained(self, facts: list[bytes]) -> tuple[Head, list[tuple[int, bytes, bytes]]]:
        seq, digest = self._head
        rows = []
        for body in facts:
            seq, digest = seq + 1, link(digest, body)
            rows.append((seq, body, digest))
        return Head(seq, digest), rows

    def read(self, after_seq: int, limit: int | None = None) -> Iterator[tuple[int, Event]]:
        """Facts after `after_seq` that are there now, in order, with their numbers; each is checked against the chain.

        :raises LogBroken: naming the first fact that is missing, damaged or unreadable.
        """
        last = self.last_seq() if limit is None else min(self.last_seq(), after_seq + limit)
        for seq, body in self._checked(after_seq, last):
            yield seq, decode_fact(seq, body)

    def _checked(self, after_seq: int, last: int) -> Iterator[tuple[int, bytes]]:
        digest = self._digest_at(after_seq) if after_seq < last else GENESIS
        for seq, (found, body, stored) in enumerate(self._rows(after_seq, last), after_seq + 1):
            digest = link(digest, body)
            if found != seq or stored != digest:
                raise self._stop(f"fact {seq} is {'missing' if found != seq else 'damaged: its digest does not fit'}")
            yield seq, body

    def _rows(self, after_seq: int, last: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Rows in chunks, each read in one go: no reader keeps an old view of the file open while others work."""
        for first in range(after_seq, last, _ROWS_AT_ONCE):
            until = min(first + _ROWS_AT_ONCE, last)
            with self._reading() as connection:
                rows = connection.execute(
                    "SELECT seq, body, digest FROM facts WHERE seq > ? AND seq <= ? ORDER BY seq", (first, until)
                ).fetchall()
            yield from rows
            if len(rows) < until - first:
                raise self._stop(f"facts are missing between {first} and {until + 1}")

    def _digest_at(self, seq: int) -> bytes:
        if seq == 0:
            return GENESIS
        with self._reading() as connection:
            row = connection.execute("SELECT digest FROM facts WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            raise self._stop(f"fact {seq} is missing")
        return bytes(row[0])

    def verify(self) -> Head:
        """Check the whole file: its pages, every fact against the chain, every archived record. Reads all of it.

        :returns: the head, to be compared with one that was kept elsewhere.
        :raises LogBroken: naming what is wrong.
        """
        head = self.head()
        with self._reading() as connection:
            (finding,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if finding != "ok":
                raise self._stop(f"the file is damaged: {finding}")
        if sum(1 for _ in self._checked(0, head.seq)) != head.seq:
            raise self._stop("facts are missing")
        with self._reading() as connection:
            sqlite_archive.verify(connection)
        return head

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the one before, durable on return. Appends go on meanwhile.

        :raises LogBroken: if it cannot be written. The log itself and the snapshot before are whole then.
        """
        if snapshot.seq > self.last_seq():
            raise ValueError(f"a snapshot of {snapshot.seq} facts; the log has {self.last_seq()}")
        chain = self._digest_at(snapshot.seq)
        with _as_log_broken("a snapshot cannot be saved"):
            snapshot_file.save(self._snapshot_path, snapshot, chain)

    def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot.

        :raises LogBroken: if it is damaged or belongs to another log.
        """
        last = self.last_seq()
        with self._stopping_on(LogBroken, "the snapshot cannot be read"):
            loaded = snapshot_file.load(self._snapshot_path)
        if loaded is None:
            return None
        snapshot, chain = loaded
        if snapshot.seq > last or self._digest_at(snapshot.seq) != chain:
            raise self._stop(f"{self._snapshot_path} is of another log; remove it to fold from the start")
        return snapshot

    # --- the archive -------------------------------------------------------------------------------------------------

    def get(self, job: JobId) -> Job | None:
        """The record of an ended job."""
        with self._reading() as connection:
            return sqlite_archive.get(connection, job)

    def page(self, wanted: JobFilter, before: JobId | None, limit: int) -> list[Job]:
        """At most `limit` records, newest number first, below `before`."""
        with self._reading() as connection:
            return sqlite_archive.page(connection, wanted, before, limit)

    def count(self) -> int:
        """How many jobs have ended."""
        self._refuse_if_broken()
        return self._ended

    # --- stopping ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of files and connections; a write under way ends first. All later calls are refused."""
        with self._writing:
            if self._broken != _CLOSED:
                self._broken = _CLOSED
                self._readers.close()
                self._writer.close()
                self._lock.release()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._stopping_on(LogBroken, "the log cannot be read"), self._readers.lend() as connection:
            yield connection

    @contextmanager
    def _stopping_on(self, error_type: type[BaseException], doing: str) -> Iterator[None]:
        """Fail-stop: after an error nobody knows what the disk holds until the file is opened anew."""
        self._refuse_if_broken()
        try:
            with _as_log_broken(doing):
                yield
        except error_type as error:
            self._stop(str(error) or type(error).__name__)
            raise

    def _refuse_if_broken(self) -> None:
        if self._broken:
            raise LogBroken(f"{self._path} takes no more calls: {self._broken}")

    def _stop(self, reason: str) -> LogBroken:
        self._broken = self._broken or reason
        return LogBroken(reason)


_CLOSED = "it is closed"


@contextmanager
def _as_log_broken(doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LogBroken(f"{doing}: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _find_head(path: Path, connection: sqlite3.Connection) -> Head:
    """The last fact. Gaps further in are found when they are read."""
    row = connection.execute("SELECT seq, digest FROM facts ORDER BY seq DESC LIMIT 1").fetchone()
    if row is None:
        return Head(0, GENESIS)
    (first,) = connection.execute("SELECT min(seq) FROM facts").fetchone()
    if first != 1:
        raise LogBroken(f"{path}: facts before {first} are missing")
    return Head(*row)
