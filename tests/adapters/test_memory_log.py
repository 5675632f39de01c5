"""The log in memory keeps the contract."""

from pumasi.adapters.memory_log import MemoryLog
from pumasi.testing.event_log import JobStoreConformance


class TestMemoryLog(JobStoreConformance):
    def open_store(self) -> MemoryLog:
        return MemoryLog()
