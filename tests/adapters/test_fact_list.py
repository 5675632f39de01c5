"""The twin's log keeps the contract, but for two things: it shares what it is given, and writes nothing down."""

from pumasi.adapters.fact_list import FactList
from pumasi.testing.event_log import JobStoreConformance, ended_job, submitted


class TestFactList(JobStoreConformance):
    def open_store(self) -> FactList:
        return FactList()

    def test_after_a_failed_append_the_store_stops_and_nothing_was_added(self) -> None:
        store = self.open_store()
        store.append([submitted(1, name="\ud800")])
        assert store.last_seq() == 1

    def test_an_ended_job_is_found_as_it_was(self) -> None:
        store, job = self.open_store(), ended_job(1)
        store.append([submitted(1)], [job])
        assert store.get(1) is job
