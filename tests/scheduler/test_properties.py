"""Whatever happens to whatever fleet: every plan is allowed, every state sound, and no GPU idles that a job could have.

The harness lints each plan and checks each state; what is asserted here comes on top.
"""

from collections import Counter

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pumasi.events import facts
from pumasi.events.codec import decode, encode
from pumasi.events.facts import Event
from pumasi.model.fleet import Queue
from pumasi.model.ids import JobId
from pumasi.model.jobs import StopCause
from pumasi.state import snapshot
from pumasi.testing.builders import owner, state_of
from pumasi.testing.harness import Harness
from tests.scheduler.fleets import Step, fleets, jobs, play, steps

plays = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
stories = st.lists(steps(), min_size=5, max_size=40)
quiet_stories = st.lists(steps(faults=False), min_size=5, max_size=40)


def told(fleet: list[Event], story: list[Step]) -> Harness:
    """The fleet after a story and one more cycle."""
    harness = Harness(fleet)
    for step in story:
        play(harness, step)
    harness.tick()
    for kind, count in Counter(type(fact).__name__ for fact in harness.log).items():
        if kind in {"ReservationMade", "AllocationRecharged", "StopOrdered", "StartPlanned", "AdvanceReservationBegan"}:
            event(f"{kind}: {'some' if count < 5 else 'many'}")
    return harness


@plays
@given(fleet=fleets(), story=stories)
def test_every_plan_of_every_story_is_allowed_and_the_log_tells_it_all(fleet: list[Event], story: list[Step]) -> None:
    harness = told(fleet, story)
    folded = state_of(decode(encode(fact)) for fact in harness.log)
    assert snapshot.digest(folded) == snapshot.digest(harness.state)
    assert snapshot.digest(snapshot.load(snapshot.save(harness.state))) == snapshot.digest(harness.state)


@plays
@given(fleet=fleets(), story=stories)
def test_the_ledger_is_the_integral_of_the_allocations(fleet: list[Event], story: list[Step]) -> None:
    harness = told(fleet, story)
    integral, since_ms, gpus = 0, harness.log[0].at_ms, 0
    for fact in harness.log:
        integral, since_ms = integral + gpus * (fact.at_ms - since_ms), fact.at_ms
        if isinstance(fact, facts.AttemptPlaced):
            gpus += sum(charge.gpus for charge in fact.charges)
        if isinstance(fact, facts.AttemptEnded):
            gpus -= placed_gpus(harness, fact.job)
    integral += gpus * (harness.now_ms - since_ms)
    assert sum(harness.ledger.statement(harness.now_ms).values()) == integral


def placed_gpus(harness: Harness, job: JobId) -> int:
    """GPUs a job asked for, by the log."""
    return next(
        fact.spec.gpus for fact in harness.log if isinstance(fact, facts.JobSubmitted) and fact.job == job
    )  # fmt: skip


@plays
@given(fleet=fleets(), story=quiet_stories)
def test_without_faults_every_reclaim_is_done_within_its_window(fleet: list[Event], story: list[Step]) -> None:
    harness = Harness(fleet)
    for step in story:
        play(harness, step)
        if step[-1] == "tick" or step[0] == "wait":
            late = [held for held in harness.state.reservations.values() if held.due_ms < harness.now_ms]
            assert late == [], "where a window is 0 seconds long, what is reserved now is due now"


@plays
@given(fleet=fleets(), story=quiet_stories)
def test_nobody_is_evicted_from_home(fleet: list[Event], story: list[Step]) -> None:
    harness = Harness(fleet)
    for step in story:
        play(harness, step)
    charges: dict[JobId, tuple[str, ...]] = {}
    for fact in harness.log:
        if isinstance(fact, facts.AttemptPlaced | facts.AllocationRecharged):
            charges[fact.job] = tuple(charge.owner for charge in fact.charges)
        if isinstance(fact, facts.StopOrdered) and fact.cause is StopCause.RECLAIM:
            assert any(owner != queue_owner_of(harness, fact.job) for owner in charges[fact.job])


def queue_owner_of(harness: Harness, job: JobId) -> str:
    """The owner of a job, by the log."""
    return next(
        fact.spec.queue.partition("/")[0]
        for fact in harness.log
        if isinstance(fact, facts.JobSubmitted) and fact.job == job
    )  # fmt: skip


RENAMED = {"ant": "zebra", "bee": "yak", "cat": "aardvark"}


@plays
@given(fleet=fleets(), story=quiet_stories)
def test_names_decide_nothing(fleet: list[Event], story: list[Step]) -> None:
    """Ties go by the order of declaration: renamed owners and queues get the same plans."""
    harness, other = Harness(fleet), Harness(decode(renamed(encode(fact))) for fact in fleet)
    for step in story:
        play(harness, step)
        play(other, (*step[:2], renamed_queue(step[2]), *step[3:]) if step[0] == "submit" else step)
    assert other.log == [decode(renamed(encode(fact))) for fact in harness.log]


def renamed_queue(queue: str) -> str:
    """The same queue under its owner's other name."""
    owner, separator, rest = queue.partition("/")
    return RENAMED[owner] + separator + rest


def renamed(body: bytes) -> bytes:
    """The same fact about owners with other names."""
    for name, other in RENAMED.items():
        for end in (b'"', b"/"):
            body = body.replace(b'"' + name.encode() + end, b'"' + other.encode() + end)
    return body


@plays
@given(fleet=fleets(), story=stories)
def test_those_who_want_nothing_change_nothing(fleet: list[Event], story: list[Step]) -> None:
    """An owner without GPUs and queues without jobs, of whatever weight and wherever in the trees."""
    at_ms = fleet[0].at_ms
    names = ("dog", "dog/x", "ant/idle", "ant/x/idle", "bee/y/z/idle")
    idle: list[Event] = [facts.OwnerDeclared(at_ms=at_ms, owner=owner("dog", lends=100))]
    idle += [facts.QueueDeclared(at_ms=at_ms, queue=Queue(id=name, weight=9)) for name in names]
    harness, other = told(fleet, story), told([*fleet, *idle], story)
    assert other.log[len(fleet) + len(idle) :] == harness.log[len(fleet) :]


@plays
@given(fleet=fleets(), batch=st.lists(jobs(), min_size=1, max_size=12), data=st.data())
def test_only_the_order_within_a_queue_counts(fleet: list[Event], batch: list[Step], data: st.DataObject) -> None:
    """Queues whose jobs arrive in another order among each other get the same places."""
    shuffled = data.draw(st.permutations(batch))
    order = {queue: [step for step in batch if step[2] == queue] for queue in {step[2] for step in batch}}
    again = [order[step[2]].pop(0) for step in shuffled]
    assert places(fleet, batch) == places(fleet, again)


def places(fleet: list[Event], batch: list[Step]) -> set[tuple[object, ...]]:
    """What each queue's jobs, in their order, are given in one cycle."""
    harness, number = Harness(fleet), Counter[str]()
    rank: dict[JobId, tuple[str, int]] = {}
    for step in batch:
        play(harness, step)
    for job in harness.state.jobs.values():
        rank[job.id] = (job.spec.queue, number[job.spec.queue])
        number[job.spec.queue] += 1
    placed = [fact for fact in harness.tick().events if isinstance(fact, facts.AttemptPlaced)]
    return {(rank[fact.job], fact.pool, fact.spans, fact.charges) for fact in placed}
