"""What to do about orders, and about what the engine has. Pure: book and message in, entries and actions out."""

from collections.abc import Iterable
from typing import NamedTuple

from pumasi.agents.run_book import (
    Began,
    Entry,
    KnownRun,
    Ordered,
    Over,
    Phase,
    Queued,
    RunBook,
    Stopping,
    ended_report,
    unstarted_report,
)
from pumasi.model.jobs import Outcome, StopCause, span_gpus
from pumasi.ports.engine import Found
from pumasi.protocol.messages import RunEnded, RunKey, StartOrder, StopOrder, SyncResponse


class Actions(NamedTuple):
    """What orders come to. The entries go to the journal first; then stops are carried out, then starts.

    `unwanted`: those of the stops that end runs the control plane does not want at all; the starts may need their GPUs.
    `again`: runs whose state the control plane should know and evidently does not.
    """

    entries: list[Entry]
    stops: list[StopOrder]
    starts: list[StartOrder]
    unwanted: list[RunKey]
    again: list[RunKey]


def decide(book: RunBook, response: SyncResponse, now_seconds: int) -> Actions:
    """What the orders of `response` come to, given what is known."""
    actions = Actions([], [], [], [], [])
    if response.whole:
        _end_unwanted(book, response, actions)
    stops = {order.run: order for order in response.stops}
    for start in response.starts:
        _decide_start(book, start, stops.pop(start.run, None), now_seconds, actions)
    for stop in stops.values():
        _decide_stop(book.get(stop.run), stop, now_seconds, actions)
    return actions


def _end_unwanted(book: RunBook, response: SyncResponse, actions: Actions) -> None:
    wanted = {order.run for order in response.starts} | {order.run for order in response.stops}
    for known in book.live():
        if known.run not in wanted:
            actions.entries.append(Stopping(known.run, StopCause.CANCEL))
            actions.stops.append(StopOrder(run=known.run, cause=StopCause.CANCEL, kill_in_ms=0))
            actions.unwanted.append(known.run)


def _decide_start(book: RunBook, order: StartOrder, stop: StopOrder | None, now_seconds: int, actions: Actions) -> None:
    known = book.get(order.run)
    ordered = Ordered(order.run, order.notice_signal, span_gpus(order.spans))
    if known is not None and known.phase is not Phase.ORDERED:
        if known.phase is not Phase.OVER and not known.gpus:  # found at the engine by a memory that was wiped
            actions.entries.append(ordered)
        if known.phase is Phase.OVER or not order.was_running:
            actions.again.append(order.run)
        if stop is not None:
            _decide_stop(known, stop, now_seconds, actions)
    elif order.was_running:
        # We said it ran, and have no trace of it: our memory was wiped, and starting it would make it run twice.
        lost = RunEnded(run=order.run, outcome=Outcome.LOST, detail="the site has no trace of the run")
        actions.entries.append(Over(lost, now_seconds))
    elif stop is not None:
        _decide_stop(known, stop, now_seconds, actions)
    else:
        actions.entries.append(ordered)
        actions.starts.append(order)


def _decide_stop(known: KnownRun | None, order: StopOrder, now_seconds: int, actions: Actions) -> None:
    if known is None:
        actions.entries.append(Over(unstarted_report(order.run, order.cause), now_seconds))
    elif known.phase is Phase.OVER:
        actions.again.append(order.run)
    else:
        actions.entries.append(Stopping(order.run, order.cause))
        actions.stops.append(order)


def after_find(book: RunBook, found: Iterable[Found], now_seconds: int) -> list[Entry]:
    """What the book lacks, given every run the engine has.

    A run that was handed over and is not there is lost. One that was only about to be handed over is left to the next
    order: it has not started.
    """
    by_run = {each.run: each for each in found}
    entries: list[Entry] = []
    for each in by_run.values():
        known = book.get(each.run)
        if known is None:
            entries.append(Ordered(each.run))
        phase = known.phase if known else Phase.ORDERED
        if phase in (Phase.ORDERED, Phase.QUEUED) and _has_begun(each):
            entries.append(Began(each.run))
        elif phase is Phase.ORDERED and each.ending is None:
            entries.append(Queued(each.run))
        if each.ending is not None and (known is None or known.phase is not Phase.OVER):
            entries.append(Over(ended_report(each.ending), now_seconds))
    for known in book.live():
        if known.phase is not Phase.ORDERED and known.run not in by_run:
            lost = RunEnded(run=known.run, outcome=Outcome.LOST, detail="the engine has no trace of the run")
            entries.append(Over(lost, now_seconds))
    return entries


def _has_begun(found: Found) -> bool:
    never = found.ending is not None and found.ending.outcome in (Outcome.NEVER_STARTED, Outcome.REFUSED)
    return found.started and not never
