"""What was found out about a job of some kind is known for the next of it, until the rules of the day are others."""

import pytest

from pumasi.control import job_commands
from pumasi.control.commands import SubmitJobs
from pumasi.control.job_commands import Judgements, submit
from pumasi.control.refusals import Refusal
from pumasi.model.calendar import day_begins_ms, day_name, day_of
from pumasi.model.fleet import Place, PlacementRule, Policy, Queue
from pumasi.model.jobs import JobSpec
from pumasi.scheduler.eligibility import never_admissible
from pumasi.scheduler.reasons import Verdict
from pumasi.state.fleet_state import FleetState
from pumasi.testing.builders import START_MS, fleet_facts, owner, pool, spec, state_of

TOMORROW = day_of(START_MS) + 1
RULE = PlacementRule(id="shut", title="", not_at=Place(pools=("p",)), from_day=day_name(TOMORROW))
STATE = state_of(
    fleet_facts([owner("a")], [pool("p", {"a": 32})], [Queue(id="a")], policy=Policy(version="7", rules=(RULE,)))
)


def is_taken(judgements: Judgements, now_ms: int, gpus: int = 8) -> bool:
    command = SubmitJobs(by="kim", specs=(spec("a", gpus),))
    return not isinstance(submit(STATE, command, now_ms, 1, judgements), Refusal)


def test_a_rule_that_begins_refuses_what_was_taken_the_day_before() -> None:
    judgements = Judgements()
    assert is_taken(judgements, day_begins_ms(TOMORROW) - 1)
    assert not is_taken(judgements, day_begins_ms(TOMORROW))


def test_equal_jobs_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def judge(state: FleetState, spec: JobSpec, now_ms: int) -> list[Verdict]:
        judged.append(spec.gpus)
        return never_admissible(state, spec, now_ms)

    monkeypatch.setattr(job_commands, "never_admissible", judge)
    judgements = Judgements()
    assert [is_taken(judgements, START_MS, gpus) for gpus in (8, 8, 16, 64, 64)] == [True, True, True, False, False]
    assert judged == [8, 16, 64]
