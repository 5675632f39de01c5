"""The log in SQLite keeps the contract."""

from pathlib import Path

import pytest

from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.ports.event_log import JobStore
from pumasi.testing.event_log import JobStoreConformance


class TestSqliteLog(JobStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "fleet.db"

    def open_store(self) -> SqliteLog:
        return SqliteLog(self.path)

    def reopen(self, store: JobStore) -> SqliteLog:
        store.close()
        return SqliteLog(self.path)
