"""The twin's log keeps the contract, but for one thing: it cannot tell what could not be written to a disk."""

from pumasi.adapters.fact_list import FactList
from pumasi.testing.event_log import JobStoreConformance, submitted


class TestFactList(JobStoreConformance):
    def open_store(self) -> FactList:
        return FactList()

    def test_after_a_failed_append_the_store_stops_and_nothing_was_added(self) -> None:
        store = self.open_store()
        store.append([submitted(1, name="\ud800")])
        assert store.last_seq() == 1
