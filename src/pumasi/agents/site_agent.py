"""The agent of one site: it keeps engine and control plane in step, through crashes and partitions of either.

Three loops share one run book. *Listen* asks for orders and acts on them; *watch* learns from the engine what has
ended; *report* tells the control plane until it has acknowledged. What runs goes on while the control plane is away.
Whatever is done is written to the journal first, so that an agent that comes back knows what it may have done.
"""

import asyncio
import base64
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import structlog
from msgspec import Struct

from pumasi.agents.backoff import Backoff
from pumasi.agents.identity import Identity
from pumasi.agents.journal import Journal
from pumasi.agents.link import Link, LinkRefused, LinkTrouble
from pumasi.agents.news import News
from pumasi.agents.reconcile import Actions, after_find, decide
from pumasi.agents.run_book import (
    Began,
    Entry,
    Over,
    Phase,
    Queued,
    RunBook,
    Stopping,
    Told,
    ended_report,
    unstarted_report,
)
from pumasi.agents.site_policy import Admission
from pumasi.model.jobs import Outcome, StopCause, span_gpus
from pumasi.ports.engine import Engine, EngineAway, Found, Polled, Start, StartVerdict
from pumasi.protocol.messages import (
    LogChunk,
    LogRequest,
    NodeHealth,
    RunEnded,
    RunKey,
    StartOrder,
    StopOrder,
    SyncRequest,
    SyncResponse,
)

T = TypeVar("T")

_SUPERSEDED = "agent-superseded"
_REPORTS_PER_CALL = 500
_LOG_PIECE_BYTES = 256 << 10  # a call's body stays well below what the control plane takes
_LOG_PIECES_PER_CALL = 2
_ANSWERED_REMEMBERED = 1000
_FORGOTTEN_AT_ONCE = 50
_STARTS_AT_ONCE = 8  # between batches of starts the engine is free for stops and news
_UNWANTED_SECONDS = 10.0
_FAREWELL_SECONDS = 1.0
_EMPTY_ANSWER_SECONDS = 0.1  # a server that does not hold calls must not be called without pause
_REMEMBERED_SECONDS = 7 * 24 * 3600  # how long a run that is over is known, should an order for it come again
_OUTCOME_OF_REFUSAL = {StartVerdict.REFUSED: Outcome.NEVER_STARTED, StartVerdict.FORBIDDEN: Outcome.REFUSED}


class Superseded(Exception):
    """Another agent has enrolled for the site since: this one is an old copy and must not speak any more."""


class SiteSettings(Struct, frozen=True, kw_only=True):
    """`clock_rate`: fleet seconds per real second. `wait_seconds`, `ask_seconds`: real time, for the control plane's
    answer and at most between questions to an engine that gives no notice. `grace_seconds`: fleet time between the
    signals at a time limit, as Slurm's KillWait. `end_notice_ms`: real time runs get when the agent ends them on its
    way out. `roll_call_seconds`: real time between two calls of the roll; an engine that gives notice is asked then.
    """

    clock_rate: int = 1
    wait_seconds: int = 25
    ask_seconds: float = 1.0
    grace_seconds: int = 30
    end_notice_ms: int = 2000
    roll_call_seconds: float = 60.0

    def real_ms(self, fleet_ms: int) -> int:
        """Fleet time as real time, rounded up: nobody is killed too soon."""
        return -(-fleet_ms // self.clock_rate)


class SiteAgent:
    """Serves one site. Create it and call `run` within one event loop; a thread of its own calls the engine."""

    def __init__(
        self,
        identity: Identity,
        link: Link,
        engine: Engine,
        journal: Journal,
        settings: SiteSettings,
        admission: Admission | None = None,
    ) -> None:
        self._identity = identity
        self._admission = admission
        self._link = link
        self._engine = engine
        self._journal = journal
        self._settings = settings
        self._book = RunBook()
        self._log = structlog.get_logger("pumasi.agent").bind(site=identity.site)
        self._engine_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"engine-{identity.site}")
        self._news = News(engine.news_descriptor(), settings.ask_seconds, settings.roll_call_seconds)
        self._journal_free = asyncio.Lock()
        self._acting = asyncio.Lock()
        self._to_report = asyncio.Event()
        self._changed = asyncio.Event()
        self._after_seq = 0
        self._chunks: list[LogChunk] = []
        self._to_forget: list[RunKey] = []  # their ends have been told
        self._nodes: NodeHealth | None = None  # what the control plane has not been told
        self._roll: tuple[RunKey, ...] | None = None  # likewise: the runs there are
        self._roll_call_at = 0.0
        self._answered: deque[str] = deque(maxlen=_ANSWERED_REMEMBERED)

    async def run(self, stopping: asyncio.Event, end_runs: bool = False) -> None:
        """Serve until `stopping` is set. Runs go on then, unless `end_runs`: they are ended and reported if possible.

        :raises Superseded: if another agent has taken over.
        """
        try:
            await self._recover()
            await self._serve(stopping, end_runs)
        finally:
            self._engine_thread.shutdown(wait=True)
            self._engine.close()
            self._journal.close()

    async def _serve(self, stopping: asyncio.Event, end_runs: bool) -> None:
        stop = asyncio.create_task(stopping.wait())
        listen = asyncio.create_task(self._listen())
        others = [asyncio.create_task(self._watch()), asyncio.create_task(self._report())]
        try:
            await asyncio.wait([stop, listen, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in (listen, *others):
                if task.done():
                    task.result()  # a loop never ends but by an exception
            await _cancelled([listen])
            if end_runs:
                await self._end_runs()
        finally:
            await _cancelled([stop, listen, *others])

    # -- coming back

    async def _recover(self) -> None:
        """Learn from the journal what was done, and from the engine what came of it."""
        self._book = RunBook(await self._call(self._journal.read))
        self._book.forget(int(time.time()) - _REMEMBERED_SECONDS)
        await self._call(lambda: self._journal.rewrite(list(self._book.entries())))
        found = await self._find()
        await self._record(after_find(self._book, found, int(time.time())))
        for each in found:
            await self._settle(each)
        self._log.info("agent ready", runs=len(self._book.live()), generation=self._identity.generation)

    async def _find(self) -> tuple[Found, ...]:
        backoff = Backoff()
        while True:
            try:
                return await self._call(self._engine.find)
            except (EngineAway, OSError) as error:
                self._log.warning("engine away", problem=str(error))
                await asyncio.sleep(backoff.failed())

    async def _settle(self, found: Found) -> None:
        """What the engine still has although the book says it is over is ended, or forgotten if it has ended."""
        known = self._book.get(found.run)
        if known is None or known.phase is not Phase.OVER:
            return
        if found.ending is None:
            await self._call(lambda: self._engine.stop(found.run, StopCause.CANCEL, "KILL", 0))
        elif known.end_told:
            await self._call(lambda: self._engine.forget(found.run))

    # -- listening

    async def _listen(self) -> None:
        backoff = Backoff()
        while True:
            asked_at = time.monotonic()
            request = SyncRequest(after_seq=self._after_seq, wait_seconds=self._settings.wait_seconds)
            response = await self._exchange(request, backoff)
            if response is None:
                continue
            if not await self._act(request, response, backoff):
                continue
            if not (response.starts or response.stops) and time.monotonic() - asked_at < _EMPTY_ANSWER_SECONDS:
                await asyncio.sleep(_EMPTY_ANSWER_SECONDS)

    async def _exchange(self, request: SyncRequest, backoff: Backoff) -> SyncResponse | None:
        """One call; None, after a wait, if it failed."""
        try:
            response = await self._link.sync(self._identity, request)
        except LinkRefused as refusal:
            if refusal.code == _SUPERSEDED:
                raise Superseded(str(refusal)) from refusal
            self._log.error("control plane refuses", code=refusal.code, problem=str(refusal))
        except LinkTrouble as trouble:
            self._log.warning("control plane away", problem=str(trouble))
        else:
            backoff.succeeded()
            return response
        await asyncio.sleep(backoff.failed())
        return None

    async def _act(self, request: SyncRequest, response: SyncResponse, backoff: Backoff) -> bool:
        """Act on an answer. False if our own disk or engine failed: the same orders will come again."""
        try:
            await self._answer_log_requests(response.log_requests)
            async with self._acting:
                # Two calls can be under way. An answer older than one already acted on says nothing new, and as a whole
                # it could say "end" of what was ordered since. Older than the question, though, means that the control
                # plane has lost some of its past (a restored backup): then what it says now holds.
                if request.after_seq <= response.seq < self._after_seq:
                    return True
                await self._carry_out(decide(self._book, response, int(time.time())))
                self._after_seq = response.seq
        except (EngineAway, OSError) as error:
            self._log.error("orders not carried out", problem=str(error))
            await asyncio.sleep(backoff.failed())
            return False
        return True

    async def _carry_out(self, actions: Actions) -> None:
        await self._record(actions.entries)
        for stop in actions.stops:
            await self._stop(stop)
        await self._until_over(actions.unwanted)
        for first in range(0, len(actions.starts), _STARTS_AT_ONCE):
            await self._start(actions.starts[first : first + _STARTS_AT_ONCE])
        for run in actions.again:
            self._book.tell_again(run)
        if actions.entries or actions.again:
            self._to_report.set()

    async def _start(self, orders: list[StartOrder]) -> None:
        allowed, entries = self._admit(orders)
        answers = await self._call(lambda: self._engine.start([self._start_of(order) for order in allowed]))
        for order, answer in zip(allowed, answers, strict=True):
            if answer.verdict is StartVerdict.ACCEPTED:
                entries.append(Began(order.run))
            elif answer.verdict is StartVerdict.QUEUED:
                entries.append(Queued(order.run))
            elif answer.verdict in _OUTCOME_OF_REFUSAL:
                entries.append(self._refused(order, answer.detail, _OUTCOME_OF_REFUSAL[answer.verdict]))
        await self._record(entries)
        unsure = [answer.detail for answer in answers if answer.verdict is StartVerdict.UNSURE]
        if unsure:
            # The answer is not acted on to its end, so the orders come again; starting twice does no harm.
            raise EngineAway(unsure[0])

    def _admit(self, orders: list[StartOrder]) -> tuple[list[StartOrder], list[Entry]]:
        """The orders that the site's own policy allows, and what is to be told of the others."""
        if self._admission is None:
            return orders, []
        allowed: list[StartOrder] = []
        refused: list[Entry] = []
        in_use = self._book.gpus_in_use()
        for order in orders:
            problem = self._admission.refusal(order, in_use)
            if problem:
                refused.append(self._refused(order, problem, Outcome.REFUSED))
            else:
                allowed.append(order)
                in_use += span_gpus(order.spans)
        return allowed, refused

    def _refused(self, order: StartOrder, problem: str, outcome: Outcome) -> Over:
        self._log.warning("run refused", run=order.run, problem=problem)
        return Over(RunEnded(run=order.run, outcome=outcome, detail=problem), int(time.time()))

    def _start_of(self, order: StartOrder) -> Start:
        limit_ms = self._settings.real_ms(order.time_limit_seconds * 1000)
        return Start(order, limit_ms, self._settings.real_ms(self._settings.grace_seconds * 1000))

    async def _stop(self, order: StopOrder) -> None:
        known = self._book.get(order.run)
        notice = known.notice_signal if known else "TERM"
        kill_in_ms = self._settings.real_ms(order.kill_in_ms)
        there = await self._call(lambda: self._engine.stop(order.run, order.cause, notice, kill_in_ms))
        if not there:
            await self._record([Over(unstarted_report(order.run, order.cause), int(time.time()))])

    async def _until_over(self, runs: list[RunKey]) -> None:
        """GPUs of a run nobody wants may already be another's: nothing starts on them before it is gone."""
        if not await self._until(lambda: all(self._is_over(run) for run in runs), _UNWANTED_SECONDS):
            raise EngineAway("runs that nobody wants do not end")

    def _is_over(self, run: RunKey) -> bool:
        known = self._book.get(run)
        return known is None or known.phase is Phase.OVER

    async def _answer_log_requests(self, requests: Iterable[LogRequest]) -> None:
        for request in requests:
            if request.id in self._answered:  # it is asked until the answer has arrived
                continue
            self._answered.append(request.id)
            self._chunks.append(await self._read_output(request))
            self._to_report.set()

    async def _read_output(self, request: LogRequest) -> LogChunk:
        limit = max(0, min(request.limit, _LOG_PIECE_BYTES))
        offset = max(0, request.offset)
        output = await self._call(lambda: self._engine.read_output(request.run, request.stream, offset, limit))
        return LogChunk(
            id=request.id,
            data=base64.b64encode(output.data).decode("ascii"),
            size=output.size,
            complete=output.complete,
            problem=output.problem,
        )

    # -- watching

    async def _watch(self) -> None:
        unrecorded: list[Entry] = []
        while True:
            await self._news.wait()
            try:
                polled, took_seconds = await self._call(self._poll)
                self._news.asked(took_seconds)
                unrecorded += [Began(run) for run in polled.started]
                unrecorded += [Over(ended_report(ending), int(time.time())) for ending in polled.ended]
                await self._record(unrecorded)
                unrecorded = []
                self._call_roll()
                if polled.nodes is not None:
                    self._nodes = polled.nodes
                    self._to_report.set()
            except (EngineAway, OSError) as error:
                self._log.warning("engine or disk away", problem=str(error))
                await asyncio.sleep(self._settings.ask_seconds)
                self._news.announce()

    def _call_roll(self) -> None:
        """Say now and then which runs there are, when the engine has just answered: the others are not looked after."""
        if time.monotonic() >= self._roll_call_at:
            self._roll_call_at = time.monotonic() + self._settings.roll_call_seconds
            self._roll = tuple(known.run for known in self._book.live())
            self._to_report.set()

    def _poll(self) -> tuple[Polled, float]:
        """What is new, and how long the engine took to say so, not counting its wait for what came before."""
        began = time.monotonic()
        polled = self._engine.poll()
        return polled, time.monotonic() - began

    # -- reporting

    async def _report(self) -> None:
        backoff = Backoff()
        while True:
            await self._to_report.wait()
            self._to_report.clear()
            while await self._report_once(backoff):
                pass
            await self._forget_told()

    async def _report_once(self, backoff: Backoff) -> bool:
        """Report what there is; False if there was nothing."""
        reports = tuple(self._book.untold(_REPORTS_PER_CALL))
        chunks, nodes, roll = tuple(self._chunks[:_LOG_PIECES_PER_CALL]), self._nodes, self._roll
        if not reports and not chunks and nodes is None and roll is None:
            return False
        request = SyncRequest(after_seq=self._after_seq, reports=reports, nodes=nodes, runs=roll, log_chunks=chunks)
        response = await self._exchange(request, backoff)
        if response is None:
            return True
        if self._nodes is nodes:
            self._nodes = None
        if self._roll is roll:
            self._roll = None
        del self._chunks[: len(chunks)]
        told = self._book.acknowledged(reports)
        self._to_forget += [entry.run for entry in told if isinstance(entry, Told)]
        await self._act(request, response, backoff)
        with contextlib.suppress(OSError):  # told twice does no harm
            await self._record(told, durable=False)
        return True

    async def _forget_told(self) -> None:
        """Clear up behind what has been told, as long as there is nothing to tell: it takes a while on slow disks."""
        while self._to_forget and not self._to_report.is_set():
            runs, self._to_forget = self._to_forget[:_FORGOTTEN_AT_ONCE], self._to_forget[_FORGOTTEN_AT_ONCE:]
            with contextlib.suppress(OSError):  # what is left is forgotten when an agent comes back
                await self._call(partial(self._forget, runs))

    def _forget(self, runs: list[RunKey]) -> None:
        for run in runs:
            self._engine.forget(run)

    # -- leaving

    async def _end_runs(self) -> None:
        """End everything and report it, as far as time allows; what cannot be reported is in the journal."""
        live = [known.run for known in self._book.live()]
        await self._record([Stopping(run, StopCause.DRAIN) for run in live])
        notice_ms = self._settings.end_notice_ms
        for run in live:
            await self._stop(
                StopOrder(run=run, cause=StopCause.DRAIN, kill_in_ms=notice_ms * self._settings.clock_rate)
            )
        await self._until(lambda: not self._book.live(), notice_ms / 1000 + _UNWANTED_SECONDS)
        await self._until(lambda: not self._book.untold(1), _FAREWELL_SECONDS)

    # -- shared

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait for the book to say so; False if it did not within `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        return done()

    async def _record(self, entries: list[Entry], durable: bool = True) -> None:
        """Journal entries, then take them into the book.

        :raises OSError: if the disk does not take them; the book is unchanged then.
        """
        if not entries:
            return
        async with self._journal_free:
            await self._call(lambda: self._journal.append(entries, durable))
            for entry in entries:
                self._book.apply(entry)
            if self._journal.is_long:
                self._book.forget(int(time.time()) - _REMEMBERED_SECONDS)
                kept = list(self._book.entries())
                await self._call(lambda: self._journal.rewrite(kept))
        self._changed.set()
        self._to_report.set()

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._engine_thread, function)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
