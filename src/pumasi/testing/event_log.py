"""What every `JobStore` must do. Subclass `JobStoreConformance`, say how to open a store, and let pytest collect it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from itertools import product

from pumasi.events.facts import Event, JobSubmitted
from pumasi.model.ids import JobId, PrincipalId, QueueId
from pumasi.model.jobs import AttemptState, Charge, JobSpec, JobState, Outcome, Span
from pumasi.ports.event_log import JobFilter, JobStore, LogBroken, Snapshot
from pumasi.state.records import Attempt, Job

_QUEUES = ("public", "public/academia", "public/academia/kaist", "public/academia-2", "naver/cars")
_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
_PEOPLE = ("mina", "joon")


def submitted(job: JobId, queue: QueueId = "public", name: str = "train") -> JobSubmitted:
    """The fact that a small job was submitted, at `job` milliseconds."""
    return JobSubmitted(at_ms=job, by="mina", job=job, spec=_spec(queue, name))


def ended_job(
    job: JobId,
    queue: QueueId = "public",
    state: JobState = JobState.SUCCEEDED,
    by: PrincipalId = "mina",
    ended_ms: int = 1000,
) -> Job:
    """The record of a job that ran once and ended."""
    attempt = Attempt(1, AttemptState.ENDED, "sejong", (Span(3, 1, 0b11),), (Charge("public", 2),), 500, 500)
    attempt.started_ms, attempt.ended_ms, attempt.outcome = 600, ended_ms, Outcome.COMPLETED
    return Job(job, _spec(queue, "train"), by, 400, state, 400, [attempt], ended_ms)


def _spec(queue: QueueId, name: str) -> JobSpec:
    environment = {"LANG": "ko_KR.UTF-8", "품앗이": "\u0000\t\n"}
    return JobSpec(name=name, queue=queue, script="srun a", gpus=2, time_limit_seconds=60, environment=environment)


class JobStoreConformance(ABC):
    """The suite. Every test gets a new store by `open_store`; `reopen` is for stores that outlive their process."""

    @abstractmethod
    def open_store(self) -> JobStore:
        """A new, empty store."""

    def reopen(self, store: JobStore) -> JobStore:
        """The same store after a restart, or the very same if it does not outlive one."""
        return store

    # --- facts -------------------------------------------------------------------------------------------------------

    def test_a_new_store_is_empty(self) -> None:
        store = self.open_store()
        assert (store.last_seq(), list(store.read(0)), store.load_snapshot(), store.count()) == (0, [], None, 0)
        assert store.page(JobFilter(), None, 10) == []

    def test_numbers_are_gapless_from_one(self) -> None:
        store = self.open_store()
        assert store.append([submitted(1), submitted(2)]) == 2
        assert store.append([]) == 2
        assert store.append([submitted(3)]) == 3
        assert [seq for seq, _ in store.read(0)] == [1, 2, 3]
        assert store.last_seq() == 3

    def test_what_was_appended_is_read_after_a_restart(self) -> None:
        store = self.open_store()
        facts: list[Event] = [submitted(job, name=f"작업 {job}") for job in range(1, 6)]
        store.append(facts[:2])
        store.append(facts[2:])
        store = self.reopen(store)
        assert [fact for _, fact in store.read(0)] == facts
        assert store.append([submitted(6)]) == 6

    def test_reading_starts_after_a_number_and_stops_at_a_limit(self) -> None:
        store = self.open_store()
        store.append([submitted(job) for job in range(1, 11)])
        assert [seq for seq, _ in store.read(4, limit=3)] == [5, 6, 7]
        assert [seq for seq, _ in store.read(8, limit=100)] == [9, 10]
        assert list(store.read(10)) == list(store.read(99)) == list(store.read(0, limit=0)) == []

    def test_a_reader_ends_where_the_log_ended_when_it_began(self) -> None:
        store = self.open_store()
        store.append([submitted(1), submitted(2)])
        reader = store.read(0)
        assert next(reader)[0] == 1
        store.append([submitted(3)])
        assert [seq for seq, _ in reader] == [2]

    def test_a_long_log_is_read_whole(self) -> None:
        store = self.open_store()
        for first in range(1, 5002, 1000):
            store.append([submitted(job) for job in range(first, first + 1000)])
        assert [fact.job for _, fact in store.read(0) if isinstance(fact, JobSubmitted)] == list(range(1, 6001))

    def test_after_a_failed_append_the_store_stops_and_nothing_was_added(self) -> None:
        store = self.open_store()
        store.append([submitted(1)])
        _refused(LogBroken, partial(store.append, [submitted(2), submitted(3, name="\ud800")]))
        _refused(LogBroken, partial(store.append, [submitted(2)]))
        _refused(LogBroken, lambda: list(store.read(0)))
        _refused(LogBroken, store.last_seq)

    def test_a_closed_store_refuses_every_call(self) -> None:
        store = self.open_store()
        store.append([submitted(1)])
        store.close()
        store.close()
        _refused(LogBroken, store.last_seq)
        _refused(LogBroken, lambda: store.append([submitted(2)]))
        _refused(LogBroken, lambda: list(store.read(0)))
        _refused(LogBroken, store.load_snapshot)
        _refused(LogBroken, lambda: store.page(JobFilter(), None, 1))

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def test_the_newest_snapshot_is_loaded(self) -> None:
        store = self.open_store()
        store.append([submitted(1), submitted(2)])
        store.save_snapshot(Snapshot(1, {"state": b"old"}))
        store.save_snapshot(Snapshot(2, {"state": b"new" * 10_000, "ledger": b""}))
        assert self.reopen(store).load_snapshot() == Snapshot(2, {"state": b"new" * 10_000, "ledger": b""})

    def test_a_snapshot_of_facts_that_are_not_there_is_refused(self) -> None:
        store = self.open_store()
        store.append([submitted(1)])
        _refused(ValueError, lambda: store.save_snapshot(Snapshot(2, {})))
        assert store.load_snapshot() is None

    # --- the archive -------------------------------------------------------------------------------------------------

    def test_an_ended_job_is_found_as_it_was(self) -> None:
        store = self.open_store()
        job = ended_job(1)
        expected = ended_job(1)
        store.append([submitted(1)], [job])
        job.attempts.clear()
        assert store.get(1) == expected
        assert self.reopen(store).get(1) == expected

    def test_a_job_that_never_ended_is_not_found(self) -> None:
        store = self.open_store()
        store.append([submitted(1)])
        assert (store.get(1), store.get(0), store.get(-1)) == (None, None, None)

    def test_a_job_that_has_not_ended_is_not_archived(self) -> None:
        store = self.open_store()
        _refused(LogBroken, lambda: store.append([submitted(1)], [ended_job(1, state=JobState.ACTIVE)]))

    def test_a_job_ends_once(self) -> None:
        store = self.open_store()
        store.append([submitted(1)], [ended_job(1)])
        _refused(LogBroken, lambda: store.append([submitted(2)], [ended_job(1)]))
        _refused(LogBroken, lambda: store.append([submitted(2)]))

    def test_pages_follow_each_other_newest_first(self) -> None:
        store = self.open_store()
        store.append([submitted(1)], [ended_job(job) for job in (5, 1, 3, 9, 7)])
        first = store.page(JobFilter(), None, 2)
        second = store.page(JobFilter(), first[-1].id, 2)
        third = store.page(JobFilter(), second[-1].id, 2)
        assert [[job.id for job in page] for page in (first, second, third)] == [[9, 7], [5, 3], [1]]
        assert store.page(JobFilter(), 1, 2) == store.page(JobFilter(), None, 0) == []

    def test_the_count_survives_a_restart(self) -> None:
        store = self.open_store()
        store.append([submitted(1)], [ended_job(1), ended_job(2)])
        assert store.count() == 2
        assert self.reopen(store).count() == 2

    def test_every_filter_finds_what_a_plain_search_finds(self) -> None:
        store = self.open_store()
        jobs = _assorted_jobs()
        store.append([submitted(1)], jobs)
        for wanted in _filters():
            expected = sorted((job.id for job in jobs if _is_wanted(wanted, job)), reverse=True)
            for before in (None, 30):
                below = [number for number in expected if before is None or number < before]
                found = [job.id for job in store.page(wanted, before, 7)]
                assert found == below[:7], wanted

    def test_times_are_told_apart_among_very_many_jobs(self) -> None:
        store = self.open_store()
        jobs = [ended_job(number, f"public/q{number % 2}", ended_ms=number % 3) for number in range(1, 6001)]
        store.append([submitted(1)], jobs)
        early = JobFilter(queues=("public/q1",), ended_from_ms=0, ended_until_ms=1)
        late = JobFilter(by="mina", queues=("public/q0",), ended_from_ms=2)
        assert [job.id for job in store.page(early, 5000, 3)] == [4995, 4989, 4983]
        assert [job.id for job in store.page(late, None, 3)] == [6000 - 4, 6000 - 10, 6000 - 16]
        assert store.page(JobFilter(ended_from_ms=3), None, 3) == []

    def test_a_filter_may_name_very_many_queues(self) -> None:
        store = self.open_store()
        store.append([submitted(1)], [ended_job(number, f"public/q{number}") for number in range(1, 501)])
        wanted = JobFilter(queues=tuple(f"public/q{number}" for number in range(1, 501, 2)))
        assert [job.id for job in store.page(wanted, 400, 5)] == [399, 397, 395, 393, 391]


def _assorted_jobs() -> list[Job]:
    kinds = product(_QUEUES, _STATES, _PEOPLE, (1000, 2000))
    return [ended_job(number, *kind) for number, kind in enumerate(kinds, 1)]


def _filters() -> list[JobFilter]:
    queues: tuple[tuple[QueueId, ...], ...] = (
        (),
        ("public",),
        ("public/academia",),
        ("public/academia", "public/academia/kaist"),
        ("naver", "none"),
    )
    states: tuple[tuple[JobState, ...], ...] = (
        (),
        (JobState.FAILED,),
        (JobState.SUCCEEDED, JobState.CANCELLED),
        (JobState.WAITING,),
    )
    times = ((None, None), (1500, None), (None, 2000), (1000, 1001))
    people = ("", "joon", "nobody' OR 1")
    return [
        JobFilter(queue, state, by, from_ms, until_ms)
        for queue, state, by, (from_ms, until_ms) in product(queues, states, people, times)
    ]


def _is_wanted(wanted: JobFilter, job: Job) -> bool:
    """The filter in other words than any adapter's: by the parts of the path."""
    path = job.spec.queue.split("/")
    from_ms = 0 if wanted.ended_from_ms is None else wanted.ended_from_ms
    until_ms = 10**9 if wanted.ended_until_ms is None else wanted.ended_until_ms
    return (
        any(path[: len(queue.split("/"))] == queue.split("/") for queue in wanted.queues or (path[0],))
        and job.state in (wanted.states or tuple(JobState))
        and job.by in ((wanted.by,) if wanted.by else _PEOPLE)
        and job.ended_ms in range(from_ms, until_ms)
    )


def _refused(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected, and nothing was raised")
