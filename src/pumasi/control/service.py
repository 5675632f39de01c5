"""The live driver of a control plane: one event loop thread that owns the state, one thread that writes the log.

Commands are carried out as they come. Their facts gather while the previous group is being written; then the next group
goes to disk in one transaction, and everyone in it is answered (group commit). A plan is made in a thread of its own
from a state that stands still meanwhile: submissions are taken all the same, other commands wait for it. If the log
breaks, or state and log may differ, the service stops and stays stopped: on restart the state is folded from what is on
disk. A plan that cannot be made stops nothing: what runs goes on, and people can still cancel what it fails over.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from msgspec import Struct

from pumasi.control.commands import Command, HearSite
from pumasi.control.plane import ControlPlane, Staged
from pumasi.control.refusals import Refusal
from pumasi.events.facts import Event
from pumasi.model.ids import SiteId
from pumasi.ports.event_log import JobStore, LogBroken, Snapshot
from pumasi.protocol.messages import LogChunk, LogRequest, RunKey, SyncRequest, SyncResponse

CYCLE_SECONDS = 1.0  # a fact that needs a new plan is never older than this when the plan is made
CYCLE_REST = 3  # after a cycle of t seconds the loop belongs to callers for at least CYCLE_REST * t
CYCLE_REST_SECONDS_MIN = 0.05
SNAPSHOT_EVERY_FACTS = 200_000  # some 2 s of replay on restart
EVENT_PAGE = 1000

log = structlog.get_logger("pumasi.control")


class _LogWait(Struct):
    """A reader of a run's output and the request its site is to answer."""

    site: SiteId
    request: LogRequest
    answer: "asyncio.Future[LogChunk]"


class Service:
    """What the API calls. All methods run on the event loop's thread and none blocks it."""

    def __init__(self, plane: ControlPlane, store: JobStore) -> None:
        self.plane = plane
        self.store = store
        self.broken: LogBroken | None = None
        self.failed = asyncio.Event()  # set when `broken` is
        self.cycle_milliseconds = 0
        self.cycles = 0
        self.cycles_failed = 0  # those that found no plan because the scheduler raised
        self.leaving = asyncio.Event()  # set when no call may be held open any more
        self._staged = asyncio.Event()
        self._changed = asyncio.Event()
        self._committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._planned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._mail = {site: asyncio.Event() for site in plane.state.sites}
        self._log_waits: dict[str, _LogWait] = {}
        # Threads of their own: readers may keep all others busy, but must not keep writing or planning waiting.
        self._writer = ThreadPoolExecutor(1, "log")
        self._planner = ThreadPoolExecutor(1, "plan")
        self._snapshot_seq = plane.state.seq
        self._paused = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Commit groups and run cycles while the context is open; on leaving, everything staged is on disk."""
        works = (self._commit_groups(), self._run_cycles())
        tasks = [asyncio.create_task(self._or_stop(work)) for work in works]
        try:
            yield self
        finally:
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for thread in (self._planner, self._writer):
                thread.shutdown()
            if self.broken is None:
                self.plane.flush(self.store)
                if self.plane.state.seq > self._snapshot_seq:
                    self._save_snapshot(self.plane.snapshot())

    async def _or_stop(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work that never ends; if it fails, the whole service stops rather than go on with half of itself."""
        try:
            await work
        except Exception as error:
            log.exception("service_failed")
            self._stop(LogBroken(f"{type(error).__name__}: {error}"))

    def _stop(self, reason: LogBroken) -> None:
        """Refuse everybody who waits and everybody who comes."""
        self.broken = self.broken or reason
        self.failed.set()
        for waited in (self._committed, self._planned):
            if not waited.done():
                waited.set_result(None)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def do(self, command: Command) -> Any:
        """Carry out a command; returns its result once it is on disk, or a Refusal.

        :raises LogBroken: if it could not be made durable.
        """
        return await self.do_all(command)

    async def do_all(self, *commands: Command) -> Any:
        """Carry out commands in one commit, up to the first that is refused; returns the last one's answer.

        :raises LogBroken: if they could not be made durable.
        """
        while any(self.plane.must_wait(command) for command in commands):
            await self._until_planned()
        result: Any = None
        for command in commands:
            result = self.plane.execute(command)
            if isinstance(result, Refusal):
                break
        await self.durable(self.plane.seq)
        return result

    async def settled(self) -> None:
        """Return when every fact taken so far is in the state: at once, unless a plan is being made."""
        while self.plane.seq != self.plane.state.seq:
            await self._until_planned()

    async def _until_planned(self) -> None:
        if self.broken is not None:
            raise self.broken
        await asyncio.shield(self._planned)

    async def archived(self) -> None:
        """Return when every job that has left the state is in the archive."""
        await self.durable(self.plane.seq)

    async def durable(self, seq: int) -> None:
        """Return when all facts up to `seq` are on disk."""
        if self.plane.durable_seq < seq:
            self._staged.set()
        while self.plane.durable_seq < seq:
            if self.broken is not None:
                raise self.broken
            await asyncio.shield(self._committed)

    async def _commit_groups(self) -> None:
        while self.broken is None:
            await self._staged.wait()
            self._staged.clear()
            staged = self.plane.take_staged()
            if not staged.events:
                continue
            append = partial(self.store.append, staged.events, staged.ended)
            writing = asyncio.get_running_loop().run_in_executor(self._writer, append)
            try:
                await asyncio.wait({writing})
            finally:  # cancelled or not: nothing may be written before what was taken first
                await asyncio.wait({writing})
                self._written(staged, writing)

    def _written(self, staged: Staged, writing: "asyncio.Future[int]") -> None:
        """Tell everybody who waits for these facts."""
        error = writing.exception()
        if isinstance(error, LogBroken):
            self._stop(error)
            return
        if error is not None:
            raise error
        self._wake_sites(self.plane.made_durable(staged))
        self._changed.set()
        committed, self._committed = self._committed, asyncio.get_running_loop().create_future()
        committed.set_result(None)

    def _wake_sites(self, sites: set[SiteId]) -> None:
        for site in sites:
            self._mail_event(site).set()

    def _mail_event(self, site: SiteId) -> asyncio.Event:
        return self._mail.setdefault(site, asyncio.Event())

    # --- the cycle ---------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Plan no more: the fleet is being shut down, and what ends now must not start again at once."""
        self._paused = True

    def leave(self) -> None:
        """Let go of every call that is held open, and hold none from now on: the API is about to close."""
        self.leaving.set()
        for event in self._mail.values():
            event.set()
        for wait in self._log_waits.values():
            if not wait.answer.done():
                wait.answer.set_exception(TimeoutError())

    async def _run_cycles(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            if not self._paused:
                await self._cycle()
            took_seconds = loop.time() - began
            self.cycles += 1
            self.cycle_milliseconds = round(took_seconds * 1000)
            if self.plane.seq > self.plane.durable_seq:
                self._staged.set()
            await self._maybe_snapshot()
            await asyncio.sleep(max(CYCLE_REST_SECONDS_MIN, CYCLE_REST * took_seconds))
            await self._wait_for_change(CYCLE_SECONDS)

    async def _cycle(self) -> None:
        """Plan in another thread while submissions go on; what would change the plan's input waits."""
        planning = asyncio.get_running_loop().run_in_executor(self._planner, self.plane.begin_cycle())
        try:
            await asyncio.wait({planning})
        finally:  # cancelled or not: the state may move again, but not before nobody plans from it
            await asyncio.wait({planning})
            planned, self._planned = self._planned, asyncio.get_running_loop().create_future()
            self.plane.end_cycle(self._plan_of(planning))
            planned.set_result(None)

    def _plan_of(self, planning: "asyncio.Future[Sequence[Event]]") -> Sequence[Event]:
        """What was planned; nothing if the scheduler raised, or if nothing may start any more."""
        error = planning.exception()
        if error is not None:
            self.cycles_failed += 1
            log.error("plan_failed", exc_info=error)
        return () if error or self._paused else planning.result()

    async def _wait_for_change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self._changed.clear()

    async def _maybe_snapshot(self) -> None:
        if self.plane.state.seq - self._snapshot_seq < SNAPSHOT_EVERY_FACTS:
            return
        await self.durable(self.plane.seq)
        if self.plane.durable_seq == self.plane.seq:
            snapshot = self.plane.snapshot()
            self._snapshot_seq = snapshot.seq
            await asyncio.to_thread(self._save_snapshot, snapshot)

    def _save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot if that can be done. Without it a restart takes longer, and nothing else is lost."""
        try:
            self.store.save_snapshot(snapshot)
        except LogBroken:
            log.exception("snapshot_failed")

    # --- agents ------------------------------------------------------------------------------------------------------

    async def sync(self, site: SiteId, request: SyncRequest) -> SyncResponse | Refusal:
        """Take an agent's reports (on disk on return) and answer when there is something to do, or after its wait."""
        for chunk in request.log_chunks:
            self._answer_log(site, chunk)
        command = HearSite(
            by=f"site:{site}", site=site, reports=request.reports, nodes=request.nodes, runs=request.runs
        )
        refusal = await self.do(command)
        if isinstance(refusal, Refusal):
            return refusal
        self.plane.listen(site, begins=True)
        try:
            await self._wait_for_mail(site, request)
        finally:
            self.plane.listen(site, begins=False)
        mail = self.plane.mail(site, request.after_seq)
        requests = tuple(wait.request for wait in self._log_waits.values() if wait.site == site)
        return SyncResponse(seq=mail.seq, whole=mail.whole, starts=mail.starts, stops=mail.stops, log_requests=requests)

    async def _wait_for_mail(self, site: SiteId, request: SyncRequest) -> None:
        event = self._mail_event(site)
        try:
            async with asyncio.timeout(request.wait_seconds):
                while not self.leaving.is_set() and not self._has_mail(site, request.after_seq):
                    event.clear()
                    await event.wait()
        except TimeoutError:
            return

    def _has_mail(self, site: SiteId, after_seq: int) -> bool:
        return self.plane.has_mail(site, after_seq) or any(wait.site == site for wait in self._log_waits.values())

    # --- output of runs ----------------------------------------------------------------------------------------------

    async def read_log(self, site: SiteId, run: RunKey, stream: str, offset: int, limit: int) -> LogChunk:
        """Ask a site for a piece of a run's output.

        :raises TimeoutError: if it does not answer within 10 seconds (it may be out of touch).
        """
        request = LogRequest(id=secrets.token_hex(8), run=run, stream=stream, offset=offset, limit=limit)
        wait = _LogWait(site, request, asyncio.get_running_loop().create_future())
        self._log_waits[request.id] = wait
        self._mail_event(site).set()
        try:
            async with asyncio.timeout(10):
                return await wait.answer
        finally:
            del self._log_waits[request.id]

    def _answer_log(self, site: SiteId, chunk: LogChunk) -> None:
        wait = self._log_waits.get(chunk.id)
        if wait is not None and wait.site == site and not wait.answer.done():
            wait.answer.set_result(chunk)

    # --- facts as they happen ----------------------------------------------------------------------------------------

    async def events_after(self, seq: int) -> AsyncIterator[tuple[int, Event]]:
        """Every durable fact after `seq`, then new ones as they are committed, without end."""
        while True:
            page = await asyncio.to_thread(self._page, seq)
            for number, event in page:
                yield number, event
                seq = number
            if not page:
                await self.durable(seq + 1)

    def _page(self, seq: int) -> list[tuple[int, Event]]:
        return list(self.store.read(seq, EVENT_PAGE))
