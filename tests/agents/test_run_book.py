"""The run book, and what is decided from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.agents.reconcile import after_find, decide
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
    Told,
    ended_report,
    unstarted_report,
)
from pumasi.model.jobs import Outcome, StopCause, span_gpus
from pumasi.ports.engine import Ending, Found
from pumasi.protocol.messages import Report, RunEnded, RunKey, RunStarted, StopOrder, SyncResponse
from pumasi.testing.engine import an_order

RUN = RunKey(1, 1)
DONE = RunEnded(run=RUN, outcome=Outcome.COMPLETED, exit_code=3)

_runs = st.builds(RunKey, st.integers(1, 3), st.integers(1, 2))
_reports = st.builds(RunEnded, run=_runs, outcome=st.sampled_from(Outcome))
_entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Ordered, _runs, st.sampled_from(["TERM", "USR1"])),
    st.builds(Queued, _runs),
    st.builds(Began, _runs),
    st.builds(Stopping, _runs, st.sampled_from(StopCause)),
    st.builds(Over, _reports, st.integers(0, 1000)),
    st.builds(Told, _runs),
)


def state(book: RunBook) -> list[tuple[RunKey, KnownRun | None]]:
    return [(each, book.get(each)) for each in sorted(RunKey(job, n) for job in (1, 2, 3) for n in (1, 2))]


@given(st.lists(_entries, max_size=40))
def test_the_shortest_journal_says_the_same(entries: list[Entry]) -> None:
    book = RunBook(entries)
    again = RunBook(book.entries())
    assert state(again) == state(book)
    assert sorted(map(repr, again.untold(100))) == sorted(map(repr, book.untold(100)))
    assert len(list(book.entries())) <= 3 * len({run for run, known in state(book) if known})


@given(st.lists(_entries, max_size=40), st.lists(_entries, max_size=40))
def test_what_is_over_stays_over_and_ends_once(before: list[Entry], after: list[Entry]) -> None:
    book = RunBook(before)
    over = {known.run: known.ended for _, known in state(book) if known and known.ended}
    for entry in after:
        book.apply(entry)
    for run, ended in over.items():
        known = book.get(run)
        assert known is not None
        assert (known.phase, known.ended) == (Phase.OVER, ended)


@given(st.lists(_entries, max_size=40))
def test_a_start_is_told_before_its_end(entries: list[Entry]) -> None:
    reports = RunBook(entries).untold(100)
    for number, report in enumerate(reports):
        if isinstance(report, RunStarted):
            assert not any(isinstance(each, RunEnded) and each.run == report.run for each in reports[:number])


def test_a_queued_run_counts_and_is_not_told_to_have_started() -> None:
    book = RunBook([Ordered(RUN, gpus=8), Queued(RUN)])
    assert (book.gpus_in_use(), [known.run for known in book.live()], book.untold(10)) == (8, [RUN], [])
    book.tell_again(RUN)
    assert book.untold(10) == []
    book.apply(Began(RUN))
    assert book.untold(10) == [RunStarted(run=RUN)]


def test_what_never_started_is_not_told_to_have_started() -> None:
    book = RunBook(QUEUED)
    for entry in after_find(book, [Found(RUN, NEVER)], 0):
        book.apply(entry)
    assert book.untold(10) == [RunEnded(run=RUN, outcome=Outcome.NEVER_STARTED)]


def test_nothing_is_told_twice_unless_asked_for() -> None:
    book = RunBook([Ordered(RUN), Began(RUN), Over(DONE)])
    reports: list[Report] = book.untold(10)
    assert reports == [RunStarted(run=RUN), DONE]
    for entry in book.acknowledged(reports):
        book.apply(entry)
    assert book.untold(10) == []
    book.tell_again(RUN)
    assert book.untold(10) == [RunStarted(run=RUN), DONE]


def test_a_report_that_crossed_a_question_is_made_again() -> None:
    book = RunBook([Ordered(RUN), Began(RUN), Over(DONE)])
    reports = book.untold(10)
    book.tell_again(RUN)
    for entry in book.acknowledged(reports):
        book.apply(entry)
    assert book.untold(10) == reports


def test_an_end_that_came_while_its_start_was_told_is_still_told() -> None:
    book = RunBook([Ordered(RUN), Began(RUN)])
    reports = book.untold(10)
    book.apply(Over(DONE))
    assert book.acknowledged(reports) == []
    assert book.untold(10) == [DONE]


def test_told_runs_are_forgotten_in_time_and_others_never() -> None:
    other = RunKey(2, 1)
    book = RunBook([Over(DONE, 100), Told(RUN), Over(RunEnded(run=other, outcome=Outcome.LOST), 100)])
    book.forget(100)
    assert book.get(RUN) is not None
    book.forget(101)
    assert book.get(RUN) is None
    assert book.get(other) is not None


# --- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Ending(RUN, exit_code=3), Outcome.COMPLETED),
        (Ending(RUN, signal=9), Outcome.COMPLETED),
        (Ending(RUN, stopped_for=StopCause.RECLAIM), Outcome.RECLAIMED),
        (Ending(RUN, exit_code=1, stopped_for=StopCause.CANCEL), Outcome.CANCELLED),
        (Ending(RUN, signal=15, stopped_for=StopCause.TIME_LIMIT), Outcome.TIME_LIMIT),
        (Ending(RUN, stopped_for=StopCause.DRAIN), Outcome.DRAINED),
        (Ending(RUN, known=False), Outcome.LOST),
        (Ending(RUN, outcome=Outcome.NODE_FAILED), Outcome.NODE_FAILED),
        (Ending(RUN, outcome=Outcome.NEVER_STARTED), Outcome.NEVER_STARTED),
        (Ending(RUN, outcome=Outcome.NEVER_STARTED, known=False), Outcome.LOST),
        (Ending(RUN, outcome=Outcome.NODE_FAILED, stopped_for=StopCause.CANCEL), Outcome.CANCELLED),
    ],
)
def test_an_ending_becomes_an_outcome(ending: Ending, outcome: Outcome) -> None:
    report = ended_report(ending)
    assert (report.outcome, report.exit_code, report.signal) == (outcome, ending.exit_code, ending.signal)


def test_every_stop_cause_has_an_outcome() -> None:
    assert len({unstarted_report(RUN, cause).outcome for cause in StopCause}) == len(StopCause)


# --- decisions: what is known, what is said -> what is done ----------------------------------------------------------

FRESH = an_order("true")
RAN = an_order("true", was_running=True)
STOP = StopOrder(run=RUN, cause=StopCause.RECLAIM, kill_in_ms=5)

UNKNOWN: list[Entry] = []
ORDERED: list[Entry] = [Ordered(RUN)]
QUEUED: list[Entry] = [Ordered(RUN), Queued(RUN)]
NEVER = Ending(RUN, outcome=Outcome.NEVER_STARTED)
RUNNING: list[Entry] = [Ordered(RUN), Began(RUN)]
OVER: list[Entry] = [*RUNNING, Over(DONE)]


@pytest.mark.parametrize(
    ("known", "starts", "stops", "does"),
    [
        (UNKNOWN, [FRESH], [], "start"),
        (ORDERED, [FRESH], [], "start"),
        (RUNNING, [FRESH], [], "tell again"),
        (RUNNING, [RAN], [], "nothing"),
        (OVER, [FRESH], [], "tell again"),
        (OVER, [RAN], [], "tell again"),
        (UNKNOWN, [RAN], [], "lost"),
        (ORDERED, [RAN], [], "lost"),
        (UNKNOWN, [FRESH], [STOP], "reclaimed"),
        (ORDERED, [FRESH], [STOP], "stop"),
        (UNKNOWN, [RAN], [STOP], "lost"),
        (RUNNING, [RAN], [STOP], "stop"),
        (RUNNING, [], [STOP], "stop"),
        (OVER, [], [STOP], "tell again"),
        (UNKNOWN, [], [STOP], "reclaimed"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_the_decision_table(
    known: list[Entry], starts: list[object], stops: list[StopOrder], does: str, whole: bool
) -> None:
    response = SyncResponse(seq=1, whole=whole, starts=tuple(starts), stops=tuple(stops))  # type: ignore[arg-type]
    actions = decide(RunBook(known), response, 0)
    done = {
        "start": bool(actions.starts),
        "stop": bool(actions.stops),
        "tell again": bool(actions.again),
        **{entry.report.outcome.value: True for entry in actions.entries if isinstance(entry, Over)},
    }
    assert [name for name, is_done in done.items() if is_done] == ([] if does == "nothing" else [does])
    assert not actions.unwanted
    # What is acted on is in the journal first.
    assert all(
        Ordered(order.run, order.notice_signal, span_gpus(order.spans)) in actions.entries for order in actions.starts
    )
    assert all(Stopping(order.run, order.cause) in actions.entries for order in actions.stops)


def test_a_whole_answer_ends_what_is_not_in_it_at_once() -> None:
    book = RunBook([Ordered(RunKey(job, 1)) for job in (1, 2, 3)] + [Over(DONE)])
    response = SyncResponse(seq=1, whole=True, starts=(an_order("true", 2),))
    actions = decide(book, response, 0)
    assert (actions.unwanted, actions.stops) == (
        [RunKey(3, 1)],
        [StopOrder(run=RunKey(3, 1), cause=StopCause.CANCEL, kill_in_ms=0)],
    )
    assert decide(book, SyncResponse(seq=1, whole=False), 0).stops == []


@pytest.mark.parametrize(
    ("known", "found", "phase", "outcome"),
    [
        (UNKNOWN, [], None, None),
        (ORDERED, [], Phase.ORDERED, None),
        (RUNNING, [], Phase.OVER, Outcome.LOST),
        (OVER, [], Phase.OVER, Outcome.COMPLETED),
        (QUEUED, [], Phase.OVER, Outcome.LOST),
        (QUEUED, [Found(RUN)], Phase.RUNNING, None),
        (QUEUED, [Found(RUN, started=False)], Phase.QUEUED, None),
        (ORDERED, [Found(RUN, started=False)], Phase.QUEUED, None),
        (UNKNOWN, [Found(RUN, started=False)], Phase.QUEUED, None),
        (RUNNING, [Found(RUN, started=False)], Phase.RUNNING, None),
        (QUEUED, [Found(RUN, Ending(RUN, exit_code=1))], Phase.OVER, Outcome.COMPLETED),
        (QUEUED, [Found(RUN, NEVER)], Phase.OVER, Outcome.NEVER_STARTED),
        (UNKNOWN, [Found(RUN)], Phase.RUNNING, None),
        (ORDERED, [Found(RUN)], Phase.RUNNING, None),
        (RUNNING, [Found(RUN)], Phase.RUNNING, None),
        (OVER, [Found(RUN)], Phase.OVER, Outcome.COMPLETED),
        (UNKNOWN, [Found(RUN, Ending(RUN, exit_code=1))], Phase.OVER, Outcome.COMPLETED),
        (ORDERED, [Found(RUN, Ending(RUN, known=False))], Phase.OVER, Outcome.LOST),
        (RUNNING, [Found(RUN, Ending(RUN, stopped_for=StopCause.DRAIN))], Phase.OVER, Outcome.DRAINED),
    ],
)
def test_what_the_engine_has_is_taken_in(
    known: list[Entry], found: list[Found], phase: Phase | None, outcome: Outcome | None
) -> None:
    book = RunBook(known)
    for entry in after_find(book, found, 0):
        book.apply(entry)
    line = book.get(RUN)
    assert (line and line.phase, line and line.ended and line.ended.outcome) == (phase, outcome)
    assert after_find(book, found, 0) == []
