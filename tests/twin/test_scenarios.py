"""Scenario and rules files say what they mean or where they are wrong; rules and changes do to a plan what they say."""

import re
import subprocess
from pathlib import Path

import pytest

from pumasi.adapters.fact_list import FactList
from pumasi.cli.errors import ExitCode
from pumasi.cli.main import run as pumasi
from pumasi.control.plane import ControlPlane
from pumasi.events.facts import AdvanceReservationEnded, AdvanceReservationMade, AttemptPlaced, StopOrdered
from pumasi.model.fleet import FleetPlan, LendingContract, Pool, Stage, stage_of
from pumasi.model.jobs import StopCause, overlap
from pumasi.model.reservations import ReservationPurpose
from pumasi.plans.problems import PlanError
from pumasi.plans.reader import load_plan
from pumasi.state.power import powered_gpus
from pumasi.twin.changes import AddedPool, ChangeRefused, Delay, PowerCut, Reserve, add_months, with_change
from pumasi.twin.commands import TwinProblem, check, rules_of, scenario_of, tasks_of, varied, with_value
from pumasi.twin.experiment import KOREA, day_ms, day_of, prepare, read_fleet
from pumasi.twin.kernel import Kernel
from pumasi.twin.report.usage import Usage
from pumasi.twin.rules import ONE_OWNER, Rules, owner_of, queue_under, with_rules
from pumasi.twin.run import simulate
from pumasi.twin.scenario import MEASURED, FaultRates, PowerChange
from pumasi.twin.scenario_file import OPENB_PLAN, load_rules, load_scenario
from pumasi.twin.workloads.resample import HOUR_MS
from pumasi.twin.world import CannotSimulate, World

SCENARIOS = sorted(Path("scenarios").glob("*.yaml"))
RULES = sorted(Path("scenarios/rules").glob("*.yaml"))
CAMPUS = """
name: small
plan: campus
start: 2026-06-01
days: 2
workload: {synthetic: {load_percent: 20}}
"""
TRACED = CAMPUS.replace(
    "{synthetic: {load_percent: 20}}",
    "{trace: {reader: swf, file: jobs.swf, source_from: 2026-01-01, source_days: 7, "
    "queues: {group-1: physics/astro, group-2: physics/plasma}}}",
)
CUT = "cut_site: physics-hall, kilowatts: 20"


def campus() -> FleetPlan:
    return load_plan(Path("plans/campus.yaml"))


def korea() -> FleetPlan:
    return load_plan(Path("plans/korea.yaml"))


def _watts(plan: FleetPlan, pool: Pool) -> int:
    return next(model.planning_watts for model in plan.gpu_models if model.id == pool.model)


def written(folder: Path, text: str) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class TestFiles:
    @pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
    def test_every_shipped_scenario_is_sound(self, path: Path, tmp_path: Path):
        file = load_scenario(path)
        assert file.name == path.stem
        if file.plan == OPENB_PLAN:
            return  # its plan is a trace, which may not be here
        fleet = read_fleet(file, tmp_path)
        for name in file.rules:
            with_rules(fleet, rules_of(name, file.folder))

    @pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
    def test_every_shipped_rules_file_is_sound(self, path: Path):
        assert load_rules(path).name == path.stem

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (CAMPUS.replace("days: 2", "days: 0"), "days: is '0'"),
            (CAMPUS.replace("start: 2026-06-01", "start: soon"), "start: is 'soon'"),
            (CAMPUS + "warm_up_days: 2\n", "warm_up_days: is '2'"),
            (CAMPUS + "dayz: 2\n", "dayz: the key is unknown (did you mean days?)"),
            (CAMPUS.replace("{synthetic: {load_percent: 20}}", "{}"), "must have a 'trace' or 'synthetic'"),
            (CAMPUS + "roll_out: maybe\n", "roll_out: is 'maybe'"),
            (CAMPUS + "faults: some\n", "faults: is 'some'"),
            (CAMPUS + "faults: {gpu_mtbf_hours: x}\n", "faults.gpu_mtbf_hours"),
            (CAMPUS + "changes: {a: {}}\n", "changes.a: must have one of late_site"),
            (CAMPUS + f"changes: {{a: {{{CUT}, from: 2026-05-31}}}}\n", "changes.a.from: is before the scenario"),
            (CAMPUS + f"changes: {{a: {{{CUT}, until: 2026-06-01}}}}\n", "changes.a.until: must be after the cut"),
            (CAMPUS + "floods: {a: {queue: x, jobs: 1, gpus: 1, hours: 1, day: 9}}\n", "floods.a.day"),
            (CAMPUS.replace("synthetic: {load", "trace: {load"), "workload.trace.reader: is missing"),
            (
                CAMPUS + "changes: {gift: {reserve: hand_over, pool: p, nodes: 1, from: 2026-06-01, hours: 1}}\n",
                "changes.gift.reserve: the twin reserves for maintenance",
            ),
            (
                CAMPUS + "changes: {m: {reserve: maintenance, pool: p, nodes: 1, from: 2026-05-01, hours: 1}}\n",
                "changes.m.announced: must lie between",
            ),
            (TRACED.replace("file:", "group_by: colour, file:"), "workload.trace.group_by: is 'colour'"),
            ("[]", "is a mapping"),
            ("", "empty"),
        ],
    )
    def test_mistakes_are_told_with_their_place(self, text: str, said: str, tmp_path: Path):
        with pytest.raises(PlanError) as error:
            load_scenario(written(tmp_path, text))
        assert said in str(error.value)

    def test_the_examples_of_the_reference_are_sound(self, tmp_path: Path):
        text = Path("docs/reference/scenario-file.md").read_text(encoding="utf-8")
        scenario, rules = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        file = load_scenario(written(tmp_path, scenario))
        assert file.changes == (PowerCut("naver-sejong", 55_000, file.start),)
        assert load_rules(written(tmp_path, rules)).owners["public"] == LendingContract()
        changes = re.findall(r"^\| `(\{.*?\})` \|", text, re.MULTILINE)
        assert len(changes) == 4
        listed = "\n".join(f"  change-{number}: {change}" for number, change in enumerate(changes))
        what_ifs = CAMPUS.replace("plan: campus", "plan: korea") + f"changes:\n{listed}\n"
        assert len(read_fleet(load_scenario(written(tmp_path, what_ifs)), tmp_path).pools) == len(korea().pools) + 1

    def test_the_files_of_the_guide_go_together(self, tmp_path: Path):
        text = Path("docs/guides/own-scenario.md").read_text(encoding="utf-8")
        plan, rules, scenario = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        command = "".join(re.findall(r"^\$ (awk .*?> jobs.swf)$", text, re.MULTILINE | re.DOTALL))
        for name, content in (("two-labs.yaml", plan), ("half.yaml", rules), ("storm.yaml", scenario)):
            (tmp_path / name).write_text(content, encoding="utf-8")
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
        file = load_scenario(tmp_path / "storm.yaml")
        found = [check(file, rules_of(name, file.folder), tmp_path) for name in file.rules]
        assert found == re.findall(r"^storm.yaml under \S+: (.*)$", text, re.MULTILINE)
        changes = re.findall(r"`(changes: .*?)`", text)
        assert len(changes) == 1 and load_scenario(written(tmp_path, scenario + changes[0])).changes

    def test_what_is_not_said_is_the_safe_default(self, tmp_path: Path):
        file = load_scenario(written(tmp_path, CAMPUS))
        assert (file.as_of, file.seeds, file.rules, file.faults) == ("2026-06-01", 1, ("as-planned",), FaultRates())

    def test_faults_by_name_or_by_rate(self, tmp_path: Path):
        assert load_scenario(written(tmp_path, CAMPUS + "faults: measured\n")).faults == MEASURED
        rates = load_scenario(written(tmp_path, CAMPUS + "faults: {gpu_mtbf_hours: 10}\n")).faults
        assert rates == FaultRates(gpu_mtbf_hours=10)

    def test_days_are_those_of_korea(self):
        assert day_ms("1970-01-02") == 15 * 3_600_000
        assert day_of(day_ms("2026-03-01")) == "2026-03-01"
        assert KOREA.utcoffset(None) is not None


class TestRules:
    def test_silo_lends_nothing(self):
        plan = with_rules(korea(), rules_of("silo", Path()))
        assert all(owner.lending == LendingContract() for owner in plan.owners)

    def test_as_planned_changes_no_contract(self):
        plan, before = with_rules(korea(), rules_of("as-planned", Path())), korea()
        assert plan.owners == before.owners and plan.pools == before.pools and plan.queues == before.queues
        assert plan.policy.version == "as-planned"

    def test_a_contract_of_one_owner_goes_before_that_of_all(self):
        mine = LendingContract(lendable_percent=7)
        plan = with_rules(campus(), Rules(name="x", lending=LendingContract(), owners={"physics": mine}))
        assert [owner.lending.lendable_percent for owner in plan.owners] == [7, 0, 0]

    def test_one_owner_has_everything_and_keeps_the_queues(self):
        rules = rules_of("one-big-pool", Path())
        plan, before = with_rules(korea(), rules), korea()
        assert [owner.id for owner in plan.owners] == [ONE_OWNER]
        assert all(pool.entitlements == {ONE_OWNER: pool.gpus} for pool in plan.pools)
        assert {queue.id for queue in plan.queues} == {ONE_OWNER} | {f"fleet/{queue.id}" for queue in before.queues}
        assert all(not queue.quotas for queue in plan.queues if queue.id != ONE_OWNER)

    def test_planned_starts_are_a_matter_of_policy(self, tmp_path: Path):
        rules = load_rules(written(tmp_path, "name: unplanned\nplanned_starts: 0\n"))
        assert with_rules(campus(), rules).policy.planned_starts == 0 != campus().policy.planned_starts
        assert with_rules(campus(), Rules(name="x")).policy.planned_starts == campus().policy.planned_starts

    def test_whose_a_queue_is_stays_known(self):
        rules = Rules(name="x", one_owner=True)
        assert owner_of(queue_under("sk/cloud", rules)) == "sk" == owner_of("sk/cloud")
        assert owner_of("fleet") == "fleet"


class TestChanges:
    def test_a_site_comes_six_months_late(self):
        before, after = korea(), with_change(korea(), Delay("haenam-naicc", 6), "2027-01-01")
        for pool, late in zip(before.pools, after.pools, strict=True):
            assert (late == pool) == (pool.site != "haenam-naicc")
            if pool.site == "haenam-naicc":
                day = late.stages[Stage.IN_SERVICE]
                assert day == add_months(pool.stages[Stage.IN_SERVICE], 6)

    def test_what_has_happened_is_not_late(self):
        assert with_change(korea(), Delay("kisti-daejeon", 6), "2099-01-01") == korea()

    @pytest.mark.parametrize(
        ("day", "months", "later"),
        [("2026-08-31", 6, "2027-02-28"), ("2027-08-31", 6, "2028-02-29"), ("2026-01-15", 12, "2027-01-15")],
    )
    def test_months(self, day: str, months: int, later: str):
        assert add_months(day, months) == later

    def test_9704_more_gpus(self):
        before = korea()
        like = next(pool for pool in before.pools if pool.model == "hgx-b300" and "public" in pool.entitlements)
        plan = with_change(before, AddedPool("more-b300", like.id, 9704, "2027-01-01"), "2026-01-01")
        added = plan.pools[-1]
        assert added.gpus == 9704 == sum(added.entitlements.values())
        assert stage_of(added, "2027-01-01") is Stage.IN_SERVICE
        assert stage_of(added, "2026-12-31") is not Stage.IN_SERVICE
        roots = {queue.id: queue for queue in plan.queues}
        for owner, gpus in added.entitlements.items():
            assert roots[owner].quotas["more-b300"].nominal == gpus
        for queue in plan.queues:
            below = [other for other in plan.queues if other.id.rpartition("/")[0] == queue.id]
            if below:
                asked = sum(other.quotas["more-b300"].nominal for other in below if "more-b300" in other.quotas)
                assert asked <= queue.quotas["more-b300"].nominal if "more-b300" in queue.quotas else asked == 0

    def test_a_new_pool_brings_its_power(self):
        before = korea()
        like = next(pool for pool in before.pools if pool.id == "naver-sejong-b200-4k")
        plan = with_change(before, AddedPool("more", like.id, 8, "2027-01-01"), "2026-01-01")
        watts = next(model.planning_watts for model in plan.gpu_models if model.id == like.model)
        more = {
            now.id: now.power_cap_kilowatts - was.power_cap_kilowatts
            for was, now in zip(before.sites, plan.sites, strict=True)
        }
        assert {site: kilowatts for site, kilowatts in more.items() if kilowatts} == {
            "naver-sejong": -(-8 * watts // 1000)
        }

    def test_sejong_cut_to_55_megawatts(self, tmp_path: Path):
        text = CAMPUS.replace("plan: campus", "plan: korea").replace("load_percent: 20", "load_percent: 0")
        cut = "changes: {cut: {cut_site: naver-sejong, kilowatts: 55000, until: 2026-06-02}}\n"
        ready = prepare(load_scenario(written(tmp_path, text + cut)), rules_of("silo", Path()), 1, tmp_path)
        begins, ends = ready.scenario.changes
        assert begins == PowerChange(
            at_ms=day_ms("2026-06-01"), site="naver-sejong", kilowatts=55_000, notice_seconds=1800
        )
        assert (ends.at_ms, begins.kilowatts, getattr(ends, "kilowatts", None)) == (day_ms("2026-06-02"), 55_000, 0)

    def test_power_that_falls_stops_what_it_does_not_carry(self, tmp_path: Path):
        """Half the power of the hall for the second of three days: work stops in time, and the report calls it down."""
        cut = "{cut_site: physics-hall, kilowatts: 20, from: 2026-06-02, until: 2026-06-03, notice_seconds: 600}"
        text = CAMPUS.replace("days: 2", "days: 3").replace("load_percent: 20", "load_percent: 0")
        text += "floods: {work: {queue: physics/astro, jobs: 3, gpus: 8, hours: 60, day: 0}}\n"
        file = load_scenario(written(tmp_path, text + f"changes: {{cut: {cut}}}\n"))
        ready = prepare(file, rules_of("silo", Path()), 1, tmp_path)
        outcome = simulate(ready.plan, ready.jobs, ready.scenario)
        begins_ms, ends_ms = day_ms("2026-06-02"), day_ms("2026-06-03")
        stops = [
            each for _, each in outcome.log.read(0) if isinstance(each, StopOrdered) and each.cause is StopCause.POWER
        ]
        assert len(stops) == 2 and all(
            begins_ms <= stop.at_ms and stop.kill_at_ms <= begins_ms + 600_000 for stop in stops
        )
        pool = ready.plan.pools[0]
        powered = powered_gpus(20_000, {pool.id: (pool.gpus, pool.gpus * _watts(ready.plan, pool))})[pool.id]
        usage = Usage(ready.plan, ready.scenario.start_ms, day_ms("2026-06-04"))
        for _, event in outcome.log.read(0):
            usage.apply(event)
        usage.close()
        down = [sum(hours) for hours in zip(*(each["down"] for each in usage.series().values()), strict=True)]
        assert sum(down) == (pool.gpus - powered) * (ends_ms - begins_ms)
        assert {hour for hour, gpus in enumerate(down) if gpus} == set(range(24, 48))

    def test_reserved_nodes_are_kept_for_their_time(self, tmp_path: Path):
        """Maintenance for eight hours of the second day, and an award for all of it, beside work for a full hall."""
        pool = campus().pools[0]
        cooling = f"{{reserve: maintenance, pool: {pool.id}, nodes: 1, from: 2026-06-02, hours: 8}}"
        call = f"{{reserve: award, pool: {pool.id}, nodes: 1, queue: physics/plasma, from: 2026-06-02, hours: 24}}"
        text = CAMPUS.replace("load_percent: 20", "load_percent: 0")
        text += "floods: {work: {queue: physics/astro, jobs: 60, gpus: 8, hours: 7, day: 0}}\n"
        text += f"changes: {{cooling: {cooling}, call: {call}}}\n"
        ready = prepare(load_scenario(written(tmp_path, text)), rules_of("silo", Path()), 1, tmp_path)
        outcome = simulate(ready.plan, ready.jobs, ready.scenario)
        facts = [each for _, each in outcome.log.read(0)]
        made = {each.reservation.id: each.reservation for each in facts if isinstance(each, AdvanceReservationMade)}
        over = [(each.reservation, each.at_ms) for each in facts if isinstance(each, AdvanceReservationEnded)]
        assert over == [
            (name, day_ms("2026-06-02") + hours * HOUR_MS) for name, hours in (("cooling", 8), ("call", 24))
        ]
        assert [name for name, _ in over] == list(made)
        runs = [each for each in facts if isinstance(each, AttemptPlaced)]
        assert any(overlap(run.spans, made["call"].spans) for run in runs), "they are used until then"
        assert not [
            run
            for run in runs
            for kept in made.values()
            if overlap(run.spans, kept.spans)
            and run.at_ms < kept.end_ms
            and run.at_ms + ready.jobs[0].spec.time_limit_seconds * 1000 > kept.start_ms
        ]

    def test_a_reservation_that_is_refused_is_told(self, tmp_path: Path):
        pool = campus().pools[0]
        nodes = f"{{reserve: maintenance, pool: {pool.id}, nodes: {pool.nodes + 1}, from: 2026-06-02, hours: 8}}"
        file = load_scenario(written(tmp_path, CAMPUS + f"changes: {{all: {nodes}}}\n"))
        ready = prepare(file, rules_of("silo", Path()), 1, tmp_path)
        with pytest.raises(CannotSimulate, match="are free for all of that time"):
            simulate(ready.plan, ready.jobs, ready.scenario)

    def test_the_operator_who_finds_no_control_plane_tries_again(self, tmp_path: Path):
        cut = "changes: {cut: {cut_site: physics-hall, kilowatts: 20}}\n"
        ready = prepare(load_scenario(written(tmp_path, CAMPUS + cut)), rules_of("silo", Path()), 1, tmp_path)
        kernel = Kernel(ready.scenario.start_ms)
        world = World(kernel, ready.scenario, [], FactList(), ControlPlane(kernel))
        world.declare(ready.plan, ready.scenario.as_of)
        world.await_changes()
        world.settle()
        world.lose_control()
        world.settle()
        kernel.run_instant()
        world.recover_control()
        caps = [world.plane.state.sites["physics-hall"].power_cap_kilowatts]
        kernel.run_instant()
        caps.append(world.plane.state.sites["physics-hall"].power_cap_kilowatts)
        assert caps == [0, 20]

    @pytest.mark.parametrize(
        "change",
        [
            Delay("atlantis", 6),
            PowerCut("atlantis", 6, "2026-01-01"),
            Reserve("m", ReservationPurpose.MAINTENANCE, "atlantis", 1, "2026-01-01", 8, "2026-01-01"),
            Reserve("a", ReservationPurpose.AWARD, "clinic-b200", 1, "2026-01-01", 8, "2026-01-01", "atlantis"),
            AddedPool("x", "atlantis", 8, "2027-01-01"),
            AddedPool("x", "clinic-b200", 9, "2027-01-01"),
            AddedPool("cs-rtx", "clinic-b200", 8, "2027-01-01"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, change):
        with pytest.raises(ChangeRefused):
            with_change(campus(), change, "2026-01-01")


class TestPreparation:
    def test_roll_out_applies_the_plan_on_each_day_that_matters(self, tmp_path: Path):
        text = CAMPUS.replace("2026-06-01", "2026-02-27").replace("days: 2", "days: 100") + "roll_out: true\n"
        file = load_scenario(written(tmp_path, text.replace("load_percent: 20", "load_percent: 0")))
        ready = prepare(file, rules_of("as-planned", Path()), 1, tmp_path)
        assert [(change.at_ms, getattr(change, "as_of", "")) for change in ready.scenario.changes] == [
            (day_ms(day), day) for day in ("2026-03-02", "2026-06-01")
        ]

    def test_a_flood_comes_at_once(self, tmp_path: Path):
        text = CAMPUS + "floods: {a: {queue: computing/vision, jobs: 3, gpus: 8, hours: 5, day: 1}}\n"
        file = load_scenario(written(tmp_path, text))
        ready = prepare(file, rules_of("as-planned", Path()), 1, tmp_path)
        flood = [job for job in ready.jobs if job.spec.name == "flood"]
        assert [(job.submit_ms, job.runtime_ms) for job in flood] == [(day_ms("2026-06-02"), 5 * 3_600_000)] * 3

    def test_rules_do_not_change_the_work(self, tmp_path: Path):
        file = load_scenario(written(tmp_path, CAMPUS))
        one, other = (prepare(file, rules_of(name, Path()), 1, tmp_path) for name in ("silo", "one-big-pool"))
        assert [(job.submit_ms, job.spec.gpus, job.runtime_ms) for job in one.jobs] == [
            (job.submit_ms, job.spec.gpus, job.runtime_ms) for job in other.jobs
        ]
        assert [f"fleet/{job.spec.queue}" for job in one.jobs] == [job.spec.queue for job in other.jobs]


class TestCommands:
    def test_tasks_take_every_rule_before_the_next_seed(self):
        tasks = tasks_of(scenario_of("first-call"), ["silo", "as-planned"], [1, 2])
        assert [(task.rules.name, task.seed) for task in tasks] == [
            ("silo", 1), ("as-planned", 1), ("silo", 2), ("as-planned", 2),
        ]  # fmt: skip

    def test_one_number_is_varied(self):
        tasks = varied(scenario_of("korea"), "silo", [1], "load_percent", [10, 20])
        assert [task.label for task in tasks] == ["load_percent-10", "load_percent-20"]
        assert [task.file.synthetic.load_percent for task in tasks if task.file.synthetic] == [10, 20]
        flooded = with_value(scenario_of("korea-flood"), "flood_jobs", 7)
        assert {flood.jobs for flood in flooded.floods} == {7}
        with pytest.raises(TwinProblem, match="load_percent"):
            with_value(scenario_of("korea"), "colour", 1)

    @pytest.mark.parametrize(
        ("words", "said", "code"),
        [
            (["run", "nowhere"], "no scenario file 'nowhere'", ExitCode.NOT_FOUND),
            (["run", "korea", "--rules", "nowhere"], "no rules file 'nowhere'", ExitCode.NOT_FOUND),
            (["compare", "philly", "--traces", "nowhere"], "philly_jobs.csv is neither in", ExitCode.NOT_FOUND),
            (["sweep", "korea", "--vary", "days"], "not like load_percent=80,100,120", ExitCode.USAGE),
            (["sweep", "korea", "--vary", "colours=1"], "no 'colours' to vary", ExitCode.USAGE),
            (["check", "plans/campus.yaml"], "has mistakes", ExitCode.USAGE),
            (["report", "plans"], "holds no report", ExitCode.NOT_FOUND),
        ],
    )
    def test_what_cannot_be_done_is_said_in_a_line(
        self, words: list[str], said: str, code: ExitCode, capsys, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("COLUMNS", "200")
        out = ["--out", str(tmp_path / "out")] if words[0] in ("run", "compare", "sweep") else []
        assert pumasi(["twin", *words, *out]) == code
        shown = capsys.readouterr().err
        assert said in shown and "Traceback" not in shown
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (CAMPUS.replace("20}", "20, loads: {physic: 9}}"), "loads.physic: the plan has no queue 'physic' (did you"),
            (CAMPUS + "floods: {a: {queue: x, jobs: 1, gpus: 1, hours: 1}}\n", "floods.a.queue: the plan has no queue"),
            (TRACED.replace("2026-01-01", "2031-01-01"), "the 7 days from 2031-01-01; its jobs are from 2026-01-01"),
            (TRACED.replace("group-2", "them"), "no job of group 'them' in these days; there are group-1, group-2"),
            (TRACED.replace("jobs.swf", "scenario.yaml"), "scenario.yaml:2: 2 values, expected 18"),
        ],
    )
    def test_what_a_plan_or_trace_lacks_is_told(self, text: str, said: str, capsys, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        _write_trace(tmp_path, 48)
        assert pumasi(["twin", "check", str(written(tmp_path, text))]) == ExitCode.USAGE
        assert said in capsys.readouterr().err

    def test_an_own_plan_with_an_own_trace_is_drawn_from(self, tmp_path: Path):
        _write_trace(tmp_path, 7 * 24)
        ready = prepare(load_scenario(written(tmp_path, TRACED)), rules_of("silo", Path()), 1, tmp_path)
        assert not ready.notes and len(ready.jobs) == 48
        assert {job.spec.queue for job in ready.jobs} == {"physics/astro", "physics/plasma"}

    def test_what_is_not_as_in_the_trace_is_told(self, capsys, tmp_path: Path):
        """Of a week whose last days have long jobs, two days of long jobs are drawn; a third group has no queue."""
        _write_trace(tmp_path, 7 * 24, groups=3, long_from=96)
        assert pumasi(["twin", "check", str(written(tmp_path, TRACED))]) == ExitCode.OK
        assert (
            capsys.readouterr()
            .out.rstrip()
            .endswith(
                "32 jobs in 2 days; 16 jobs were left out, as no queue stands for their group; "
                "sizes, lengths or hours of what was drawn are more than a tenth off those of the trace"
            )
        )


def _write_trace(folder: Path, jobs: int, groups: int = 2, long_from: int = 1000) -> None:
    """A job an hour from Thursday on, for a minute or, from some job on, two hours; the groups take turns."""
    lines = [
        f"{n} {n * 3600} -1 {7200 if n >= long_from else 60} 1 -1 -1 1 -1 -1 1 1 {1 + n % groups} -1 -1 -1 -1 -1"
        for n in range(jobs)
    ]
    (folder / "jobs.swf").write_text("\n".join(["; UnixStartTime: 1767225600", *lines]), encoding="utf-8")
