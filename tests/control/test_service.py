"""The live driver when something goes wrong inside: it says so and stops, or goes on whole; it never just hangs."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest
from structlog.testing import capture_logs

from pumasi.control import service as service_module
from pumasi.control.commands import CancelJob, MakeReservation, SubmitJobs
from pumasi.control.refusals import Refusal
from pumasi.control.service import Service
from pumasi.events.facts import AdvanceReservationBegan, Event, JobHeld, JobSubmitted
from pumasi.model.jobs import JobState
from pumasi.model.reservations import ReservationPurpose
from pumasi.ports.event_log import LogBroken
from pumasi.scheduler.planner import Planner

PATIENCE_SECONDS = 30


def run_service(bench, store, work: Callable[[Service], Awaitable[None]]) -> Service:
    """Run a service over the bench's control plane while `work` lasts."""

    async def main() -> Service:
        service = Service(bench.plane, store)
        async with service.running():
            async with asyncio.timeout(PATIENCE_SECONDS):
                await work(service)
        return service

    return asyncio.run(main())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  (what is waited for has no event)
        await asyncio.sleep(0.005)


def has_started(bench, job: int) -> bool:
    return bool(bench.plane.state.jobs[job].attempts)


def raises(error: Exception) -> Callable[..., Sequence[Event]]:
    def plan(*_: object) -> Sequence[Event]:
        raise error

    return plan


def test_a_plan_that_cannot_be_made_is_logged_and_people_can_still_act(bench, spec, monkeypatch):
    monkeypatch.setattr(Planner, "next_events", raises(ZeroDivisionError("a fault of ours")))

    async def work(service: Service) -> None:
        (job,) = await service.do(SubmitJobs(by="kim", specs=(spec(),)))
        await until(lambda: service.cycles_failed >= 1)
        assert not isinstance(await service.do(CancelJob(by="kim", job=job)), Refusal)
        assert service.broken is None

    with capture_logs() as lines:
        run_service(bench, bench.log, work)
    assert any(line["event"] == "plan_failed" for line in lines)
    assert bench.log.get(1).state is JobState.CANCELLED


def test_a_plan_that_does_not_fit_the_state_stops_the_service_and_never_reaches_the_log(bench, spec, monkeypatch):
    bad = (JobHeld(at_ms=bench.clock.now_ms(), by="control", job=77),)
    monkeypatch.setattr(Planner, "next_events", lambda *_: bad)

    async def work(service: Service) -> None:
        await service.do(SubmitJobs(by="kim", specs=(spec(),)))
        await service.failed.wait()
        with pytest.raises(LogBroken, match="IllegalTransition"):
            await service.do(SubmitJobs(by="kim", specs=(spec(),)))

    with capture_logs():
        run_service(bench, bench.log, work)
    assert not any(isinstance(event, JobHeld) for _, event in bench.log.read(0))


def test_a_log_that_fails_in_an_unknown_way_leaves_nobody_waiting(bench, spec, monkeypatch):
    def fail(*_: object) -> int:
        raise TypeError("a fault of ours")

    monkeypatch.setattr(bench.log, "append", fail)

    async def work(service: Service) -> None:
        with pytest.raises(LogBroken, match="TypeError"):
            await service.do(SubmitJobs(by="kim", specs=(spec(),)))

    with capture_logs():
        run_service(bench, bench.log, work)


def test_without_room_for_a_snapshot_planning_goes_on(bench, spec, monkeypatch):
    def fail(*_: object) -> None:
        raise LogBroken("no space is left")

    monkeypatch.setattr(bench.log, "save_snapshot", fail)
    monkeypatch.setattr(service_module, "SNAPSHOT_EVERY_FACTS", 1)

    async def work(service: Service) -> None:
        for job in (1, 2):
            await service.do(SubmitJobs(by="kim", specs=(spec(),)))
            await until(partial(has_started, bench, job))
        assert service.broken is None

    with capture_logs() as lines:
        run_service(bench, bench.log, work)
    assert any(line["event"] == "snapshot_failed" for line in lines)


def test_stopping_in_the_middle_of_a_plan_waits_for_it_and_starts_nothing(bench, spec, monkeypatch):
    began: list[int] = []

    next_events = Planner.next_events

    def slow(planner, now_ms):
        began.append(now_ms)
        made = next_events(planner, now_ms)
        bench.gate.wait(PATIENCE_SECONDS)
        return made

    bench.gate = threading.Event()
    monkeypatch.setattr(Planner, "next_events", slow)

    async def work(service: Service) -> None:
        await service.do(SubmitJobs(by="kim", specs=(spec(),)))
        await until(lambda: bool(began))
        await service.do(SubmitJobs(by="kim", specs=(spec(),)))
        service.pause()
        asyncio.get_running_loop().call_later(0.05, bench.gate.set)

    run_service(bench, bench.log, work)
    assert [job.state for job in bench.plane.state.jobs.values()] == [JobState.WAITING] * 2
    saved = bench.log.load_snapshot()
    assert saved is not None and saved.seq == bench.plane.state.seq == bench.log.last_seq()


def test_readers_that_keep_every_thread_busy_do_not_keep_writing_and_planning_waiting(bench, spec):
    gate = threading.Event()

    async def work(service: Service) -> None:
        readers = [asyncio.ensure_future(asyncio.to_thread(gate.wait, PATIENCE_SECONDS)) for _ in range(100)]
        try:
            await service.do(SubmitJobs(by="kim", specs=(spec(),)))
            await until(partial(has_started, bench, 1))
        finally:
            gate.set()
            await asyncio.gather(*readers)

    run_service(bench, bench.log, work)


def test_stopping_in_the_middle_of_a_write_keeps_the_order_of_facts(bench, spec, monkeypatch):
    real, writing = bench.log.append, threading.Event()

    def slow(*group: object) -> None:
        if not writing.is_set():
            writing.set()
            time.sleep(0.1)
        real(*group)

    monkeypatch.setattr(bench.log, "append", slow)

    async def work(service: Service) -> None:
        service.pause()
        bench.plane.execute(SubmitJobs(by="first", specs=(spec(),)))
        service._staged.set()
        await until(writing.is_set)
        bench.plane.execute(SubmitJobs(by="second", specs=(spec(),)))

    run_service(bench, bench.log, work)
    submitted = [event.by for _, event in bench.log.read(0) if isinstance(event, JobSubmitted)]
    assert submitted == ["first", "second"]
    saved = bench.log.load_snapshot()
    assert saved is not None and saved.seq == bench.plane.durable_seq == bench.log.last_seq()


def test_what_begins_without_a_plan_is_written_at_once(bench):
    made = MakeReservation(
        by="kim", name="works", purpose=ReservationPurpose.MAINTENANCE, pool="north-b200", nodes=1, duration_seconds=60
    )

    async def work(service: Service) -> None:
        await service.do(made)
        await until(lambda: any(isinstance(event, AdvanceReservationBegan) for _, event in bench.log.read(0)))

    run_service(bench, bench.log, work)
