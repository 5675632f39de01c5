"""Everything breaks at once, far more often than in the field, and the invariants are checked after every cycle."""

from collections import Counter

import pytest
from msgspec import structs

from pumasi.events.facts import AttemptEnded, JobSubmitted, NodeChanged, SiteConnected, SiteSilent
from pumasi.ledger.ledger import Ledger
from pumasi.model.jobs import JobState, Outcome
from pumasi.state import snapshot
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply
from pumasi.state.invariants import violations
from pumasi.testing.builders import START_MS
from pumasi.twin.run import simulate
from pumasi.twin.scenario import MEASURED, FaultRates
from pumasi.twin.site import SimulatedSite
from pumasi.twin.world import World
from tests.twin.fleets import HOUR_MS, drawn_jobs, job, scenario, village

TERRIBLE = FaultRates(
    gpu_mtbf_hours=400, lemon_per_mille=100, lemon_factor=20, switch_percent=10, rack_years=1,
    partitions_per_site_year=300, reboot_percent=90, agent_crash_days=1, control_crash_days=1,
)  # fmt: skip
OWNERS = ("a", "b")


@pytest.mark.parametrize("seed", range(4))
def test_invariants_hold_whatever_breaks(seed):
    plan = village({"a": 64, "b": 64}, pools=2)
    world = scenario(seed=seed, faults=TERRIBLE, check_every_cycles=1, latency_ms=seed % 2 * 700)
    outcome = simulate(plan, drawn_jobs(400, OWNERS, seed), world)
    assert outcome.finished and not outcome.violations
    assert len(outcome.jobs) == 400 and not outcome.state.jobs, "every job was taken once and came to an end"
    facts = [event for _, event in outcome.log.read(0)]
    kinds = {type(event) for event in facts}
    assert {NodeChanged, SiteSilent, SiteConnected} <= kinds, "the faults of this test took place"
    assert Outcome.NODE_FAILED in {event.outcome for event in facts if isinstance(event, AttemptEnded)}
    assert sum(isinstance(event, JobSubmitted) for event in facts) == 400
    _fold_again(facts, outcome)


def _fold_again(facts, outcome):
    state, ledger = FleetState(), Ledger()
    for event in facts:
        apply(state, event)
        ledger.apply(event)
    assert snapshot.digest(state) == snapshot.digest(outcome.state) and not violations(state)
    assert ledger.statement(outcome.at_ms) == outcome.ledger.statement(outcome.at_ms)


def test_streams_are_separate():
    """More jobs, and other kinds of faults beside, leave the faults of the GPUs as they are."""
    plan = village({"a": 64})
    until_ms = START_MS + 100 * HOUR_MS

    def node_faults(jobs, **rates):
        world = scenario(seed=7, faults=FaultRates(gpu_mtbf_hours=400, **rates), until_ms=until_ms)
        log = simulate(plan, jobs, world).log
        return [(event.at_ms, event.node) for _, event in log.read(0) if isinstance(event, NodeChanged)]

    alone = node_faults([])
    assert len(alone) > 10
    assert node_faults([job(0, 8, HOUR_MS)] * 30) == alone
    assert node_faults([], agent_crash_days=1)[:5] == alone[:5]


def test_a_cut_site_finishes_what_it_runs_and_gets_nothing_new():
    plan = village({"a": 16})
    cuts = FaultRates(partitions_per_site_year=2_000)
    outcome = simulate(plan, drawn_jobs(100, ("a",), 3), scenario(faults=cuts, check_every_cycles=1))
    assert not outcome.violations
    ended = [event for _, event in outcome.log.read(0) if isinstance(event, AttemptEnded)]
    assert all(event.outcome is not Outcome.LOST for event in ended)
    assert {outcome.jobs.state_of(row) for row in range(100)} <= {
        JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED
    }  # fmt: skip


def test_the_measured_rates_come_out():
    """A year of 4,096 GPUs at eight sites: each kind of fault about as often as its rate says."""
    faults = structs.replace(MEASURED, agent_crash_days=0, control_crash_days=0)
    year_ms = 365 * 24 * HOUR_MS
    world = scenario(seed=1, faults=faults, until_ms=START_MS + year_ms, cycle_ms=HOUR_MS)
    facts = [event for _, event in simulate(village({"a": 512}, pools=8), [], world).log.read(0)]
    broken = {(event.at_ms, event.pool, event.reason) for event in facts if isinstance(event, NodeChanged)}
    count = Counter(reason for _, _, reason in broken)
    count["cut"] = sum(isinstance(event, SiteSilent) for event in facts)
    gpu_faults = 4096 * 8760 / faults.gpu_mtbf_hours
    expected = {
        "gpu failed": gpu_faults * (100 - faults.switch_percent) / 100,
        "switch failed": gpu_faults * faults.switch_percent / 100,
        "rack failed": 8 * 16 / faults.rack_years,
        "cut": 8 * faults.partitions_per_site_year,
    }
    for what, mean in expected.items():
        assert abs(count[what] - mean) < 3 * mean**0.5, (what, count[what], mean)


def test_crashes_come_as_often_as_told(monkeypatch: pytest.MonkeyPatch):
    """Eight agents and one control plane, each down once a week on average, over a year."""
    count: Counter[str] = Counter()
    for owner, name in ((SimulatedSite, "crash"), (World, "lose_control")):
        _count_calls(monkeypatch, owner, name, count)
    faults = FaultRates(agent_crash_days=MEASURED.agent_crash_days, control_crash_days=MEASURED.control_crash_days)
    until_ms = START_MS + 365 * 24 * HOUR_MS
    simulate(village({"a": 8}, pools=8), [], scenario(seed=1, faults=faults, until_ms=until_ms))
    for name, mean in (("crash", 8 * 365 / 7), ("lose_control", 365 / 7)):
        assert abs(count[name] - mean) < 3 * mean**0.5, (name, count[name], mean)


def _count_calls(monkeypatch, owner, name, count):
    method = getattr(owner, name)

    def counted(self):
        count[name] += 1
        method(self)

    monkeypatch.setattr(owner, name, counted)
