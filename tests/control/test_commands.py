"""What each command does to jobs, nodes, sites and plans; and that a refusal changes nothing."""

import msgspec
import pytest

from pumasi.control.commands import (
    ApplyPlan,
    CancelJob,
    HearSite,
    HoldJob,
    IssueToken,
    MakeReservation,
    ReleaseJob,
    RevokeToken,
    SetNodeState,
    SubmitJobs,
)
from pumasi.control.refusals import Refusal, RefusalKind
from pumasi.events.facts import LinkState, NodeState
from pumasi.model.access import Token, TokenKind
from pumasi.model.fleet import Stage
from pumasi.model.jobs import JobState, Outcome
from pumasi.model.reservations import ReservationPurpose
from pumasi.protocol.messages import RunEnded, RunKey, RunStarted
from pumasi.scheduler.reasons import ReasonCode
from pumasi.state.snapshot import digest
from tests.control.conftest import Bench


def started(bench, job, site="north-dc"):
    """Place the job and report it running."""
    bench.cycle()
    bench.do(HearSite(by=f"site:{site}", site=site, reports=(RunStarted(run=RunKey(job, 1)),)))


def ended(bench, job, site="north-dc", attempt=1, **fields):
    report = RunEnded(run=RunKey(job, attempt), **({"outcome": Outcome.COMPLETED} | fields))
    bench.do(HearSite(by=f"site:{site}", site=site, reports=(report,)))


def archived(bench, job):
    return bench.log.get(job)


def test_a_job_runs_and_ends_in_the_archive(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    started(bench, job)
    ended(bench, job)
    assert bench.plane.state.jobs == {}
    assert archived(bench, job).state is JobState.SUCCEEDED


def test_an_array_is_its_jobs_in_however_many_calls_it_comes(bench, spec):
    array = tuple(spec(name=f"task-{number}", gpus=gpus) for number, gpus in enumerate((8, 2, 16, 8, 4)))
    before = bench.plane.seq
    for part in (array[:2], array[2:]):
        bench.do(SubmitJobs(by="kim", specs=part))
    bench.cycle()
    in_parts = [event for _, event in bench.log.read(before)]
    whole = Bench.ready()
    whole.do(SubmitJobs(by="kim", specs=array))
    whole.cycle()
    assert [event for _, event in whole.log.read(before)] == in_parts


@pytest.mark.parametrize(
    ("report", "requeue", "becomes"),
    [
        ({"exit_code": 3}, True, JobState.FAILED),
        ({"signal": 11}, True, JobState.FAILED),
        ({"outcome": Outcome.TIME_LIMIT}, True, JobState.EXPIRED),
        ({"outcome": Outcome.LOST}, False, JobState.UNKNOWN_OUTCOME),
        ({"outcome": Outcome.LOST}, True, JobState.WAITING),
        ({"outcome": Outcome.NODE_FAILED}, True, JobState.WAITING),
        ({"outcome": Outcome.NODE_FAILED}, False, JobState.FAILED),
        ({"outcome": Outcome.NEVER_STARTED}, False, JobState.WAITING),
        ({"outcome": Outcome.REFUSED}, False, JobState.WAITING),
        ({"outcome": Outcome.RECLAIMED}, True, JobState.WAITING),
        ({"outcome": Outcome.RECLAIMED}, False, JobState.CANCELLED),
    ],
)
def test_what_becomes_of_a_job_follows_from_how_its_attempt_ended(bench, spec, report, requeue, becomes):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(requeue=requeue),)))
    started(bench, job)
    ended(bench, job, **report)
    record = bench.plane.state.jobs.get(job) or archived(bench, job)
    assert record.state is becomes


def test_a_job_is_not_requeued_for_ever(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    limit = bench.plane.state.policy.requeue_limit
    for attempt in range(1, limit + 2):
        bench.cycle()
        ended(bench, job, attempt=attempt, outcome=Outcome.NEVER_STARTED)
    assert archived(bench, job).state is JobState.FAILED
    assert len(archived(bench, job).attempts) == limit + 1


def test_a_job_is_placed_no_more_where_it_was_refused_and_fails_when_no_pool_is_left(bench, spec):
    job, other = bench.do(SubmitJobs(by="kim", specs=(spec(), spec())))
    for attempt, site in ((1, "north-dc"), (2, "south-dc")):
        bench.cycle()
        assert bench.plane.state.jobs[job].live.pool == site.replace("dc", "b200")
        ended(bench, job, site, attempt=attempt, outcome=Outcome.REFUSED, detail="policy.yaml:3: users")
    record = archived(bench, job)
    assert record.state is JobState.FAILED
    assert [attempt.detail for attempt in record.attempts] == ["policy.yaml:3: users"] * 2
    assert bench.plane.state.jobs[other].live.pool == "north-b200", "what is refused to one is not refused to all"


def test_a_refused_job_that_waits_says_which_site_refuses_it(bench, spec):
    _, job = bench.do(SubmitJobs(by="kim", specs=(spec(queue="south", gpus=32), spec())))
    bench.cycle()
    ended(bench, job, outcome=Outcome.REFUSED, detail="policy.yaml:3: users")
    bench.cycle()
    found = [(reason.code, reason.pool) for reason in bench.plane.reasons[job].reasons]
    assert found == [(ReasonCode.NOTHING_TO_BORROW, "south-b200"), (ReasonCode.SITE_REFUSES, "north-b200")]


def test_a_cancelled_waiting_job_ends_at_once_and_an_active_one_when_it_has_stopped(bench, spec):
    first, second = bench.do(SubmitJobs(by="kim", specs=(spec(), spec())))
    bench.do(CancelJob(by="kim", job=second))
    assert archived(bench, second).state is JobState.CANCELLED
    started(bench, first)
    bench.do(CancelJob(by="kim", job=first))
    assert bench.plane.state.jobs[first].live.stop is not None
    assert bench.plane.execute(CancelJob(by="kim", job=first)) is None, "cancelling twice is no error"
    ended(bench, first, exit_code=0)
    assert archived(bench, first).state is JobState.CANCELLED


def test_a_held_job_does_not_start_until_released(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    bench.do(HoldJob(by="kim", job=job))
    bench.cycle()
    assert bench.plane.state.jobs[job].state is JobState.HELD
    bench.do(ReleaseJob(by="kim", job=job))
    bench.cycle()
    assert bench.plane.state.jobs[job].state is JobState.ACTIVE


def test_an_idempotent_submission_is_taken_once(bench, spec):
    command = SubmitJobs(by="kim", specs=(spec(),), request="k1", request_hash="h1")
    first = bench.do(command)
    assert bench.do(command) == first
    assert len(bench.plane.state.jobs) == 1
    other = bench.do(msgspec.structs.replace(command, request_hash="h2"))
    assert isinstance(other, Refusal) and other.code == "idempotency-key-reused"
    assert bench.do(msgspec.structs.replace(command, by="lee")) != first, "keys are each principal's own"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"queue": "north/nowhere"}, "queue-unknown"),
        ({"gpu_models": ("h900",)}, "gpu-model-unknown"),
        ({"pools": ("atlantis",)}, "pool-unknown"),
        ({"sites": ("atlantis",)}, "site-unknown"),
        ({"prefers": ("atlantis",)}, "pool-unknown"),
        ({"gpus": 64_000}, "never-admissible"),
        ({"begin_at_ms": 1}, "begin-in-the-past"),
    ],
)
def test_a_bad_job_is_refused_and_changes_nothing(bench, spec, fields, code):
    bench.clock.pass_seconds(10 * 24 * 3600)
    before = digest(bench.plane.state)
    refusal = bench.do(SubmitJobs(by="kim", specs=(spec(), spec(**fields))))
    assert isinstance(refusal, Refusal) and refusal.code == code
    assert digest(bench.plane.state) == before


@pytest.mark.parametrize("command", [CancelJob, HoldJob, ReleaseJob])
def test_commands_on_jobs_that_are_not_there(bench, spec, command):
    missing = bench.do(command(by="kim", job=99))
    assert isinstance(missing, Refusal) and missing.kind is RefusalKind.NOT_FOUND
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    bench.do(CancelJob(by="kim", job=job))
    over = bench.do(command(by="kim", job=job))
    assert isinstance(over, Refusal) and over.code == "job-ended"


def test_stale_and_foreign_reports_change_nothing(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    started(bench, job)
    before = digest(bench.plane.state)
    ended(bench, job, site="south-dc")
    ended(bench, job, attempt=2)
    ended(bench, 77)
    assert digest(bench.plane.state) == before


def test_one_call_may_report_start_and_end_and_repeat_itself(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    bench.cycle()
    run = RunKey(job, 1)
    reports = (RunStarted(run=run), RunStarted(run=run), RunEnded(run=run, outcome=Outcome.COMPLETED)) * 2
    bench.do(HearSite(by="site:north-dc", site="north-dc", reports=reports))
    assert archived(bench, job).state is JobState.SUCCEEDED


def test_a_node_that_goes_down_takes_its_jobs_with_it(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(gpus=16),)))
    started(bench, job)
    node = bench.plane.state.jobs[job].live.spans[0].first
    pool = bench.plane.state.jobs[job].live.pool
    bench.do(SetNodeState(by="op", pool=pool, nodes=(node,), state=NodeState.DOWN, reason="XID 79"))
    assert bench.plane.state.jobs[job].state is JobState.WAITING
    assert bench.plane.state.books[pool]["north"].due == 24
    mail = bench.plane.mail("north-dc", bench.plane.durable_seq - 2)
    assert [stop.run for stop in mail.stops] == [RunKey(job, 1)], "the site is told to end what is left"


def test_a_drained_node_finishes_its_work_and_takes_no_more(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    started(bench, job)
    live = bench.plane.state.jobs[job].live
    nodes = tuple(range(4))
    bench.do(SetNodeState(by="op", pool=live.pool, nodes=nodes, state=NodeState.DRAINED, reason="new firmware"))
    (second,) = bench.do(SubmitJobs(by="kim", specs=(spec(pools=(live.pool,)),)))
    bench.cycle()
    assert bench.plane.state.jobs[second].state is JobState.WAITING
    ended(bench, job)
    bench.do(SetNodeState(by="op", pool=live.pool, nodes=nodes, state=NodeState.UP))
    bench.cycle()
    assert bench.plane.state.jobs[second].state is JobState.ACTIVE


def test_a_silent_site_keeps_what_runs_and_gets_nothing_new(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    started(bench, job)
    bench.clock.pass_seconds(600)
    (second,) = bench.do(SubmitJobs(by="kim", specs=(spec(gpus=32),)))
    bench.cycle()
    assert bench.plane.state.sites["north-dc"].link is LinkState.SILENT
    assert bench.plane.state.jobs[job].state is JobState.ACTIVE
    assert bench.plane.state.jobs[second].state is JobState.WAITING
    bench.do(HearSite(by="site:south-dc", site="south-dc"))
    bench.cycle()
    assert bench.plane.state.sites["south-dc"].link is LinkState.CONNECTED
    assert bench.plane.state.jobs[second].state is JobState.ACTIVE


def test_a_plan_applied_twice_changes_nothing(bench):
    before = digest(bench.plane.state)
    assert bench.do(ApplyPlan(by="root", plan=bench.plan, as_of="2026-11-25")) == []
    assert digest(bench.plane.state) == before


def _with_pool(plan, **fields):
    pool = msgspec.structs.replace(plan.pools[0], **fields)
    return msgspec.structs.replace(plan, pools=(pool, *plan.pools[1:]))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda plan: _with_pool(plan, nodes=3, entitlements={"north": 24}), "pools.north-b200.nodes"),
        (lambda plan: _with_pool(plan, entitlements={"north": 31}), "pools.north-b200.entitlements"),
        (lambda plan: _with_pool(plan, entitlements={"south": 32}), "pools.north-b200.entitlements.north"),
        (lambda plan: _with_pool(plan, stages={Stage.ORDERED: "2026-01-01"}), "pools.north-b200.stages"),
        (lambda plan: _with_pool(plan, model="h200"), "pools.north-b200.model"),
        (lambda plan: msgspec.structs.replace(plan, pools=plan.pools[1:]), "pools.north-b200"),
        (lambda plan: msgspec.structs.replace(plan, queues=plan.queues[:1]), "queues.north/lab"),
    ],
)
def test_a_plan_that_contradicts_the_running_state_is_refused_whole(bench, spec, change, path):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(pools=("north-b200",)),)))
    started(bench, job)
    before = digest(bench.plane.state)
    refusal = bench.do(ApplyPlan(by="root", plan=change(bench.plan), as_of="2026-11-25"))
    assert isinstance(refusal, Refusal) and refusal.code == "plan-contradicts-state"
    assert path in {problem.path for problem in refusal.errors}
    assert digest(bench.plane.state) == before


def test_a_plan_leaves_each_owner_what_is_reserved_on_its_entitlement(bench):
    for name, seconds in (("first", 0), ("second", 0), ("third", 9000)):
        start_ms = bench.clock.at_ms + seconds * 1000
        bench.do(
            MakeReservation(
                by="root", name=name, purpose=ReservationPurpose.AWARD, pool="north-b200", queue="north/lab", nodes=1,
                start_ms=start_ms, duration_seconds=3600,
            )
        )  # fmt: skip
    assert len(bench.plane.state.advance_reservations) == 3
    less, enough = (_with_pool(bench.plan, entitlements={"north": gpus, "south": 32 - gpus}) for gpus in (15, 16))
    refusal = bench.do(ApplyPlan(by="root", plan=less, as_of="2026-11-25"))
    assert [(problem.path, problem.problem) for problem in refusal.errors] == [
        ("pools.north-b200.entitlements.north", "16 GPUs of it are reserved in advance")
    ]
    assert bench.do(ApplyPlan(by="root", plan=enough, as_of="2026-11-25")) == ["pool north-b200"]


def test_a_pool_grows_under_its_running_jobs(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(pools=("north-b200",)),)))
    started(bench, job)
    grown = _with_pool(bench.plan, nodes=8, entitlements={"north": 48, "south": 16})
    assert bench.do(ApplyPlan(by="root", plan=grown, as_of="2026-11-25")) == ["pool north-b200"]
    assert bench.plane.state.occupancy["north-b200"].free.free_gpus == 56


def test_one_use_tokens_work_once(bench):
    token = Token(digest="t", kind=TokenKind.ENROL, site="north-dc", expires_at_ms=2**52)
    assert bench.do(IssueToken(by="root", token=token)) is None
    assert bench.do(RevokeToken(by="root", digest="t")) is None
    again = bench.do(RevokeToken(by="root", digest="t"))
    assert isinstance(again, Refusal) and again.kind is RefusalKind.NOT_FOUND


def test_tokens_that_expired_are_forgotten(bench):
    bench.do(IssueToken(by="root", token=Token(digest="old", kind=TokenKind.ENROL, site="north-dc", expires_at_ms=1)))
    new = Token(digest="new", kind=TokenKind.ENROL, site="north-dc", expires_at_ms=2**52)
    bench.do(IssueToken(by="root", token=new))
    assert list(bench.plane.state.tokens) == ["new"]
