"""A node that fails everything is taken out, work that fails everywhere takes out none, and poison is held."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pumasi.control.commands import HearSite, ReleaseJob, SetNodeState, SubmitJobs
from pumasi.control.plane import ControlPlane
from pumasi.control.quarantine import suspects
from pumasi.control.views.fleet import node_row
from pumasi.control.views.jobs import job_row, reasons_row
from pumasi.events.facts import NodeState, PolicyDeclared
from pumasi.model.ids import JobId
from pumasi.model.jobs import JobSpec, JobState, Outcome
from pumasi.protocol.messages import NodeHealth, RunEnded, RunKey, RunStarted
from pumasi.state import snapshot
from pumasi.state.branch import branch
from pumasi.state.fold import apply
from tests.control.conftest import Bench

POOL = "north-b200"
Spec = Callable[..., JobSpec]


@pytest.fixture
def north(bench: Bench, spec: Spec) -> Spec:
    """Makes jobs of a node that stay at the north, where the fleet fills node 0 first. Both sites call all the time."""
    for site in bench.plane.state.sites:
        bench.plane.listen(site, begins=True)
    return lambda **fields: spec(**({"gpus": 8, "pools": (POOL,)} | fields))


def started(bench: Bench, specs: Sequence[JobSpec], by: str = "kim") -> dict[int, JobId]:
    """Submit jobs of one node and have them start; returns them by node."""
    bench.clock.pass_seconds(1)
    jobs = bench.do(SubmitJobs(by=by, specs=tuple(specs)))
    bench.cycle()
    attempts = {job: bench.plane.state.jobs[job].live for job in jobs}
    hear(bench, *(RunStarted(run=RunKey(job, attempt.number)) for job, attempt in attempts.items() if attempt))
    return {attempt.spans[0].first: job for job, attempt in attempts.items() if attempt}


def hear(bench: Bench, *reports: RunStarted | RunEnded) -> None:
    bench.do(HearSite(by="site:north-dc", site="north-dc", reports=reports))


def ends(bench: Bench, job: JobId, seconds: int = 2, exit_code: int = 1, outcome: Outcome = Outcome.COMPLETED) -> None:
    """A run ends so many seconds later."""
    bench.clock.pass_seconds(seconds)
    number = len(bench.plane.state.jobs[job].attempts)
    code = exit_code if outcome is Outcome.COMPLETED else 0
    hear(bench, RunEnded(run=RunKey(job, number), outcome=outcome, exit_code=code))


def runs(bench: Bench, spec: JobSpec, by: str, **end: object) -> int:
    """One job runs alone; returns its node."""
    ((node, job),) = started(bench, (spec,), by).items()
    ends(bench, job, **end)  # type: ignore[arg-type]
    return node


def out(bench: Bench, node: int = 0) -> bool:
    """Whether the node is in quarantine after the next cycle."""
    bench.cycle()
    return node_row(bench.plane.state, POOL, node).reason.startswith("quarantined: ")


def test_three_users_in_a_row_are_enough_and_an_operator_brings_the_node_back(bench: Bench, north: Spec) -> None:
    assert [runs(bench, north(), user) for user in ("kim", "lee")] == [0, 0]
    assert not out(bench)
    assert runs(bench, north(), "park") == 0
    assert out(bench)
    row = node_row(bench.plane.state, POOL, 0)
    assert row.state == "drain"
    assert row.reason.endswith("3 attempts in a row failed within 30 s of their start (jobs 1, 2, 3)")
    assert runs(bench, north(), "kim", exit_code=0) == 1, "nothing starts on it"
    bench.do(HearSite(by="site:north-dc", site="north-dc", nodes=NodeHealth(pools=(POOL,))))
    assert out(bench), "a site that finds nothing wrong does not bring it back"
    bench.do(SetNodeState(by="root", pool=POOL, nodes=(0,), state=NodeState.UP))
    assert runs(bench, north(), "kim") == 0
    assert not out(bench), "what was before is forgotten"


@pytest.mark.parametrize("seconds", [2, 25])
def test_work_that_fails_everywhere_takes_out_nothing(bench: Bench, north: Spec, seconds: int) -> None:
    for _ in range(4):
        jobs = started(bench, [north()] * 4)
        assert len(jobs) == 4
        for job in jobs.values():
            ends(bench, job, seconds=seconds // 4)
        assert not any(out(bench, node) for node in range(4))


def test_one_users_work_that_fails_on_one_node_alone_is_no_proof(bench: Bench, north: Spec) -> None:
    for _ in range(5):
        assert runs(bench, north(), "kim") == 0
    assert not out(bench)


def test_the_same_script_that_runs_elsewhere_is_proof(bench: Bench, north: Spec) -> None:
    """A sweep on four nodes: on one of them whatever starts fails."""
    first = started(bench, [north(script="./sweep")] * 4)[0]
    ends(bench, first, seconds=2)
    for _ in range(9):
        if out(bench):
            break
        ends(bench, started(bench, [north(script="./sweep")])[0], seconds=10)
    assert len(bench.plane.state.jobs) == 3, "those that run are left alone"
    assert bench.plane.state.next_job - 1 == 4 + 3, "the fourth failure: by then the others had lasted for long enough"


def test_another_script_that_runs_elsewhere_is_none(bench: Bench, north: Spec) -> None:
    started(bench, [north(script="./old", gpus=8, pools=("south-b200",))])
    bench.clock.pass_seconds(60)
    for _ in range(5):
        runs(bench, north(script="./new"), "kim")
    assert not out(bench)


def test_one_that_does_well_or_lasts_clears_the_node(bench: Bench, north: Spec) -> None:
    for good in ({"exit_code": 0}, {"seconds": 31}):
        for user in ("kim", "lee"):
            runs(bench, north(), user)
        runs(bench, north(), "park", **good)
        assert bench.plane.state.strikes == {}


def test_a_node_on_which_something_stayed_is_no_suspect(bench: Bench, north: Spec) -> None:
    """One of its GPUs may be bad; that is for the site to find out."""
    started(bench, [north(gpus=2)], "choi")
    for user in ("kim", "lee", "park"):
        runs(bench, north(gpus=2), user)
    assert out(bench), "it was there before"
    bench.do(SetNodeState(by="root", pool=POOL, nodes=(0,), state=NodeState.UP))
    jobs = {user: started(bench, [north(gpus=2)], user)[0] for user in ("kim", "lee", "park")}
    ends(bench, jobs["kim"])
    ends(bench, jobs["lee"])
    runs(bench, north(gpus=2), "choi")
    assert not out(bench), "it stays"


def test_what_an_engine_says_of_the_node_counts_each_time(bench: Bench, north: Spec) -> None:
    """The job is placed on the first node again and again; when it fails on the second too, it is held."""
    job = started(bench, [north()])[0]
    for number in range(1, 5):
        assert out(bench, 0) == (number > 3)
        assert node_of(bench, job) == (number > 3)
        ends(bench, job, outcome=Outcome.NODE_FAILED)
    assert bench.plane.state.jobs[job].state is JobState.HELD
    assert not out(bench, 1)


@pytest.mark.parametrize("outcome", [Outcome.NEVER_STARTED, Outcome.LOST, Outcome.REFUSED])
def test_what_never_started_or_was_lost_speaks_of_no_node(bench: Bench, north: Spec, outcome: Outcome) -> None:
    for _ in range(4):
        for job in started(bench, [north()] * 4).values():
            ends(bench, job, outcome=outcome)
    assert bench.plane.state.strikes == {}


def node_of(bench: Bench, job: JobId) -> int:
    """Where a job of one node is."""
    return bench.plane.state.jobs[job].attempts[-1].spans[0].first


def test_gangs_strike_no_node(bench: Bench, north: Spec) -> None:
    for user in ("kim", "lee", "park"):
        runs(bench, north(gpus=16), user)
    assert bench.plane.state.strikes == {}
    assert not out(bench)


def test_beyond_the_bound_of_its_site_a_node_is_only_told_of(bench: Bench, north: Spec) -> None:
    """Of four nodes one may be taken out without an operator."""
    for node in (0, 1):
        for user in ("kim", "lee", "park"):
            assert runs(bench, north(), user) == node
    assert (out(bench, 0), out(bench, 1)) == (True, False)
    assert suspects(bench.plane.state) == [(POOL, 1)]
    assert node_row(bench.plane.state, POOL, 1).reason.startswith("suspect: 3 attempts in a row failed")
    assert node_row(bench.plane.state, POOL, 1).state == "idle"


@pytest.mark.parametrize("setting", [{"fast_failure_seconds": 0}, {"quarantine_percent_max": 0}])
def test_a_policy_can_leave_it_to_operators(bench: Bench, north: Spec, setting: dict[str, int]) -> None:
    state = bench.plane.state
    apply(state, PolicyDeclared(at_ms=state.at_ms, policy=replace(state.policy, **setting)))
    for user in ("kim", "lee", "park"):
        runs(bench, north(), user)
    assert not out(bench)
    assert len(suspects(state)) == ("quarantine_percent_max" in setting)


def test_an_operators_words_cannot_pass_for_quarantine_and_replace_it(bench: Bench, north: Spec) -> None:
    for user in ("kim", "lee", "park"):
        runs(bench, north(), user)
    assert out(bench)
    reason = "quarantined: the site says: quarantined: mine"
    bench.do(SetNodeState(by="root", pool=POOL, nodes=(0,), state=NodeState.DRAINED, reason=reason))
    assert bench.plane.state.node_reasons[POOL, 0] == "mine"


def test_strikes_are_part_of_the_state(bench: Bench, north: Spec) -> None:
    runs(bench, north(), "kim")
    ends(bench, started(bench, [north()])[0], outcome=Outcome.NODE_FAILED)
    state = bench.plane.state
    assert len(state.strikes[POOL, 0]) == 2
    recovered = ControlPlane(bench.clock)
    recovered.recover(bench.log)
    for other in (recovered.state, snapshot.load(snapshot.save(state)), branch(state)):
        assert other.strikes == state.strikes
        assert snapshot.digest(other) == snapshot.digest(state)


bugs = st.lists(st.tuples(st.sampled_from(("kim", "lee", "choi")), st.integers(1, 4)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(batches=bugs)
def test_where_all_nodes_are_sound_two_users_with_bugs_take_out_nothing(batches: list[tuple[str, int]]) -> None:
    """However their work falls on the nodes; what the third user sends is sound."""
    bench = Bench.ready()
    spec = JobSpec(name="job", queue="north/lab", script="true", gpus=8, time_limit_seconds=600, pools=(POOL,))
    for user, jobs in batches:
        script = "./sound" if user == "choi" else "./bug"
        for job in started(bench, [replace(spec, script=script)] * jobs, user).values():
            ends(bench, job, exit_code=user != "choi")
        bench.cycle()
        assert not bench.plane.state.node_reasons


# --- jobs that take nodes down ---------------------------------------------------------------------------------------


def test_a_job_that_takes_down_two_nodes_is_held_until_somebody_releases_it(bench: Bench, north: Spec) -> None:
    job = started(bench, [north()])[0]
    for node in range(3):
        assert node_of(bench, job) == node
        bench.clock.pass_seconds(400)
        bench.do(SetNodeState(by="root", pool=POOL, nodes=(node,), state=NodeState.DOWN))
        record = bench.plane.state.jobs[job]
        assert record.state is (JobState.WAITING if node < 1 else JobState.HELD)
        bench.cycle()
        if node == 1:
            assert job_row(bench.plane.state, record, {}).reason == "JobHeldAdmin"
            assert "2 nodes failed" in reasons_row(record, bench.plane.reasons).note
            bench.do(ReleaseJob(by="kim", job=job))
            bench.cycle()


@pytest.mark.parametrize(("gpus", "seconds"), [(16, 400), (8, 3601)])
def test_gangs_and_jobs_that_ran_for_long_are_not_to_blame(bench: Bench, north: Spec, gpus: int, seconds: int) -> None:
    job = started(bench, [north(gpus=gpus, time_limit_seconds=36_000)])[0]
    for node in (0, 1):
        bench.clock.pass_seconds(seconds)
        bench.do(SetNodeState(by="root", pool=POOL, nodes=(node,), state=NodeState.DOWN))
        bench.cycle()
        assert bench.plane.state.jobs[job].state is JobState.ACTIVE


def test_the_same_node_twice_is_one_node(bench: Bench, north: Spec) -> None:
    job = started(bench, [north()])[0]
    for _ in range(3):
        ends(bench, job, seconds=400, outcome=Outcome.NODE_FAILED)
        bench.cycle()
        assert bench.plane.state.jobs[job].state is JobState.ACTIVE
