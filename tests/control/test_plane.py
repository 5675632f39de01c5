"""Recovery, durability and mail."""

import msgspec

from pumasi.control.commands import HearSite, SubmitJobs
from pumasi.control.plane import ControlPlane
from pumasi.ledger import ledger as ledgers
from pumasi.model.jobs import Outcome
from pumasi.protocol.messages import RunEnded, RunKey, RunStarted
from pumasi.scheduler.outlook import Outlook
from pumasi.state.snapshot import digest


def some_history(bench, spec):
    jobs = bench.do(SubmitJobs(by="kim", specs=tuple(spec(gpus=gpus) for gpus in (8, 16, 24, 2, 4))))
    bench.cycle()
    reports = (RunStarted(run=RunKey(jobs[0], 1)), RunEnded(run=RunKey(jobs[0], 1), outcome=Outcome.COMPLETED))
    bench.clock.pass_seconds(100)
    bench.do(HearSite(by="site:north-dc", site="north-dc", reports=reports))
    bench.cycle()
    return jobs


def test_the_fold_of_the_log_equals_the_state_with_and_without_a_snapshot(bench, spec):
    some_history(bench, spec)
    folded = ControlPlane(bench.clock)
    folded.recover(bench.log)
    assert digest(folded.state) == digest(bench.plane.state)
    bench.log.save_snapshot(bench.plane.snapshot())
    bench.do(SubmitJobs(by="kim", specs=(spec(),)))
    restored = ControlPlane(bench.clock)
    restored.recover(bench.log)
    assert digest(restored.state) == digest(bench.plane.state)
    assert ledgers.save(restored.ledger) == ledgers.save(bench.plane.ledger)


def test_facts_are_folded_where_another_version_left_a_snapshot_that_this_one_cannot_read(bench, spec):
    some_history(bench, spec)
    now = bench.plane.snapshot()
    image = msgspec.msgpack.decode(now.parts["state"])
    for queue in image["queues"]:
        queue["gpus_in_use"] = queue.pop("parts_in_use") // 420  # as it was before pools could be cut
    for parts in ({"state": msgspec.msgpack.encode(image)}, {"ledger": b"\xc0"}):
        bench.log.save_snapshot(now._replace(parts={**now.parts, **parts}))
        restored = ControlPlane(bench.clock)
        restored.recover(bench.log)
        assert digest(restored.state) == digest(bench.plane.state)
        assert ledgers.save(restored.ledger) == ledgers.save(bench.plane.ledger)


def test_a_control_plane_reads_when_runs_end_before_it_decides_anything(bench, spec, monkeypatch):
    some_history(bench, spec)
    read, enter_all = [], Outlook.enter_all

    def counted(outlook, jobs, holders):
        read.append(outlook)
        enter_all(outlook, jobs, holders)

    monkeypatch.setattr(Outlook, "enter_all", counted)
    restarted = ControlPlane(bench.clock)
    restarted.recover(bench.log)
    assert len(read) == len(restarted.state.pools)
    restarted.execute(SubmitJobs(by="kim", specs=tuple(spec(gpus=gpus) for gpus in (8, 16, 32))))
    restarted.cycle()
    assert restarted.state.planned and len(read) == len(restarted.state.pools)


def test_a_placement_is_ordered_only_once_it_is_durable(bench, spec):
    bench.do(SubmitJobs(by="kim", specs=(spec(pools=("north-b200",)),)))
    bench.plane.cycle()
    assert bench.plane.mail("north-dc", 0).starts == ()
    bench.plane.flush(bench.log)
    assert len(bench.plane.mail("north-dc", 0).starts) == 1


def test_an_agent_is_told_news_once_and_everything_when_it_asks_from_the_beginning(bench, spec):
    (job,) = bench.do(SubmitJobs(by="kim", specs=(spec(pools=("north-b200",)),)))
    seq = bench.plane.mail("north-dc", 0).seq
    assert not bench.plane.has_mail("north-dc", seq)
    bench.cycle()
    mail = bench.plane.mail("north-dc", seq)
    assert [start.run for start in mail.starts] == [RunKey(job, 1)] and not mail.whole
    assert not bench.plane.has_mail("north-dc", mail.seq)
    whole = bench.plane.mail("north-dc", 0)
    assert whole.starts == mail.starts
    assert bench.plane.mail("south-dc", 0).starts == ()


def test_after_a_restart_an_agent_that_knows_more_or_less_is_told_everything(bench, spec):
    some_history(bench, spec)
    restarted = ControlPlane(bench.clock)
    restarted.recover(bench.log)
    old = restarted.mail("north-dc", 3)
    assert old.whole and {start.was_running for start in old.starts} == {False}
    assert restarted.mail("north-dc", 10**6).whole, "an agent from the future has another log's numbers"


def test_the_ledger_is_the_integral_of_the_allocations(bench, spec):
    some_history(bench, spec)
    bench.clock.pass_seconds(1000)
    now_ms = bench.plane.now_ms()
    expected = 8 * 100_000  # the first job: 8 GPUs for 100 seconds
    for job in bench.plane.state.jobs.values():
        if job.live:
            expected += job.live.gpus * (now_ms - job.live.placed_ms)
    assert sum(bench.plane.ledger.statement(now_ms).values()) == expected


def test_who_waits_for_facts_that_do_not_come_costs_no_memory(bench):
    for _ in range(3):
        assert bench.plane.take_staged().events == []
    assert bench.plane._in_flight == []
