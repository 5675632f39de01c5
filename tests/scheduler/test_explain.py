"""Reasons: the true blocker first, with what would start the job and when; shared where they are the same."""

import re
from pathlib import Path

import pytest

from pumasi.events.facts import NodeState, PoolDeclared, SiteSilent
from pumasi.model.fleet import Queue, Quota, Stage
from pumasi.model.jobs import Level, Topology
from pumasi.scheduler import estimate
from pumasi.scheduler.reasons import SLURM_WORDS, Reason, ReasonCode
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reasons.md"


def harness(lends: int = 0) -> Harness:
    """Ant and bee share a pool of 8 nodes in two racks."""
    queues = [Queue(id="ant/small", quotas={"p": Quota(nominal=8, borrowing_limit=0)})]
    return Harness(fleet_facts([owner("ant"), owner("bee", lends)], [pool("p", {"ant": 32, "bee": 32})], queues))


def why(fleet: Harness, job: int) -> Reason:
    """The first reason a job waits after one more cycle."""
    reasons = fleet.tick().reasons[job]
    assert reasons.would_start == reasons.first.would_start
    return reasons.first


def test_own_entitlement_used_up() -> None:
    fleet = harness()
    fleet.submit("ant", 32)
    reason = why(fleet, fleet.submit("ant", 8))
    assert (reason.code, reason.slurm) == (ReasonCode.ENTITLEMENT_USED, "AssocGrpGRES")
    assert reason.would_start == "8 of ant's own GPUs given back at p"
    assert fleet.told_start_ms(2) == fleet.now_ms + 3600_000


def test_nothing_idle_to_borrow() -> None:
    fleet = harness(lends=50)
    for _ in range(6):
        fleet.submit("ant", 8)
    assert why(fleet, fleet.submit("ant", 8)).code is ReasonCode.NOTHING_TO_BORROW


def test_a_queue_at_its_limit() -> None:
    fleet = harness()
    fleet.submit("ant/small", 8)
    reason = why(fleet, fleet.submit("ant/small", 4))
    assert reason.code is ReasonCode.QUEUE_LIMIT
    assert reason.would_start == "4 GPUs given back by the queue at p"


def test_the_shape_that_lacks_in_numbers() -> None:
    """Ant's four nodes stand in both racks, one of each pair is busy: 3 free nodes are the most a rack has."""
    fleet = Harness(fleet_facts([owner("ant")], [pool("p", {"ant": 64})]))
    for _ in range(8):
        fleet.submit("ant", 8)
    fleet.tick()
    for job in (1, 2, 3, 5):
        fleet.end(job)
    gang = Topology(level=Level.RACK, required=True)
    reason = why(fleet, fleet.submit("ant", 32, topology=gang))
    assert reason.code is ReasonCode.NO_SHAPE
    assert reason.would_start == "1 node with 8 free GPUs in one rack more at p"


def test_too_few_free_gpus_though_the_books_would_carry_it() -> None:
    """A node fails: half of what is left is bee's to lend, but ant's work sits on all of it."""
    fleet = Harness(fleet_facts([owner("ant"), owner("bee", 100), owner("cat")], [pool("p", {"ant": 8, "bee": 8})]))
    fleet.submit("ant", 8)
    fleet.tick()
    fleet.set_node("p", 1, NodeState.DOWN)
    reason = why(fleet, fleet.submit("cat", 4))
    assert reason.code is ReasonCode.TOO_FEW_FREE
    assert reason.would_start == "4 more free GPUs at p"


def test_a_silent_site() -> None:
    fleet = harness()
    fleet.record(SiteSilent(at_ms=fleet.now_ms, site="p-site"))
    assert why(fleet, fleet.submit("ant", 8)).code is ReasonCode.SITE_NOT_CONNECTED


def test_a_pool_out_of_service() -> None:
    fleet = harness()
    job = fleet.submit("ant", 8)
    declared = fleet.state.pools["p"].declared
    fleet.record(PoolDeclared(at_ms=fleet.now_ms, pool=declared, stage=Stage.ACCEPTED))
    assert why(fleet, job).code is ReasonCode.NOT_IN_SERVICE


def test_lent_out_beyond_recall() -> None:
    """The borrowers are protected for longer than the window: nobody can make room in time."""
    owners = [owner("ant", 100, notice_seconds=60), owner("bee"), owner("cat", 100, notice_seconds=9000)]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": 8, "cat": 16})]))
    fleet.submit("bee", 24)
    fleet.tick()
    reason = why(fleet, fleet.submit("ant", 8))
    assert reason.code is ReasonCode.LENT_OUT


def test_jobs_of_one_shape_share_their_answer() -> None:
    fleet = harness()
    fleet.submit("ant", 32)
    jobs = [fleet.submit("ant", 1) for _ in range(3)]
    reasons = fleet.tick().reasons
    assert reasons[jobs[0]] is reasons[jobs[1]] is reasons[jobs[2]]


def test_every_code_has_a_slurm_word_and_a_line_in_the_reference() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(code.value, SLURM_WORDS[code]) for code in ReasonCode]


def test_what_an_owner_has_lent_counts_against_its_borrowing_limit_and_is_named() -> None:
    capped = Queue(id="ant", quotas={"p": Quota(nominal=8, borrowing_limit=8)})
    fleet = Harness(fleet_facts([owner("ant", 100), owner("bee", 100)], [pool("p", {"ant": 8, "bee": 8})], [capped]))
    for _ in range(2):
        fleet.submit("bee", 8)
    fleet.tick()
    job = fleet.submit("ant", 16)
    reason = fleet.tick().reasons[job].first
    assert reason.code == "lent_out"
    assert reason.would_start == "8 lent GPUs handed back at p"


def told_seconds(fleet: Harness, *jobs: int) -> list[int | None]:
    """How many seconds from now each job is told to start."""
    told = [fleet.told_start_ms(job) for job in jobs]
    return [None if start_ms is None else (start_ms - fleet.now_ms) // 1000 for start_ms in told]


def test_a_start_is_told_by_the_time_limits_of_what_runs_and_of_what_waits_before() -> None:
    fleet = harness()
    fleet.submit("ant", 24, time_limit_seconds=1000)
    fleet.submit("ant", 8, time_limit_seconds=300)
    waiting = [fleet.submit("ant", 8, time_limit_seconds=500) for _ in range(5)]
    fleet.tick()
    assert told_seconds(fleet, *waiting) == [300, 800, 1000, 1000, 1000]


def test_what_nobody_lends_helps_nobody() -> None:
    fleet = harness()
    fleet.submit("ant", 32, time_limit_seconds=1000)
    fleet.submit("bee", 8, time_limit_seconds=100)
    waiting = fleet.submit("ant", 1)
    fleet.tick()
    assert told_seconds(fleet, waiting) == [1000]


def test_whoever_may_borrow_is_told_the_sooner_of_both() -> None:
    fleet = harness(lends=100)
    fleet.submit("ant", 32, time_limit_seconds=1000)
    fleet.submit("bee", 32, time_limit_seconds=100)
    fleet.tick()
    waiting, planned = fleet.submit("ant", 1), fleet.submit("ant", 8)
    fleet.tick()
    assert told_seconds(fleet, waiting, planned) == [100, 1000], "what is planned is what is promised"


def test_what_is_too_large_for_all_that_ever_comes_free_is_told_nothing_and_holds_nobody_up() -> None:
    fleet = harness(lends=50)
    fleet.submit("ant", 32, time_limit_seconds=1000)
    fleet.tick()
    fleet.set_node("p", 7, NodeState.DOWN)
    huge, small = fleet.submit("ant", 64), fleet.submit("ant", 32)
    fleet.tick()
    assert told_seconds(fleet, huge) == [None]
    assert told_seconds(fleet, small) != [None]


def test_far_behind_the_pace_of_those_before_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = harness()
    fleet.submit("ant", 32, time_limit_seconds=100)
    waiting = [fleet.submit("ant", 32, time_limit_seconds=100) for _ in range(20)]
    fleet.tick()
    exact = told_seconds(fleet, *waiting)
    monkeypatch.setattr(estimate, "MOST_IN_LINE", 10)
    assert exact == [100 * turn for turn in range(1, 21)] and told_seconds(fleet, *waiting)[:10] == exact[:10]
    assert told_seconds(fleet, waiting[19]) == [100 * 10 * 19 // 10]
