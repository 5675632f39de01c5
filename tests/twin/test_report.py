"""What a report says is what happened: sums are the ledger's, intervals are Student's, pictures are sound."""

import csv
import re
import struct
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pumasi.cli.main import run as pumasi
from pumasi.model.fleet import PARTS_PER_GPU
from pumasi.model.ids import queue_owner
from pumasi.twin.commands import simulate as run_tasks
from pumasi.twin.commands import tasks_of
from pumasi.twin.experiment import day_ms, prepare
from pumasi.twin.report.canvas import number, round_ticks
from pumasi.twin.report.files import write_again, write_report
from pumasi.twin.report.measures import Measures, ReclaimMeasure, measure, waits_of
from pumasi.twin.report.page import Experiment, page
from pumasi.twin.report.pictures import OWNERS_SHOWN, sankey
from pumasi.twin.report.series import Level
from pumasi.twin.report.statistics import interval, pooled, verdicts
from pumasi.twin.report.times import day_ticks, in_words, month_ticks
from pumasi.twin.report.worse import reasons
from pumasi.twin.rules import ONE_OWNER, Rules, owner_of
from pumasi.twin.run import simulate
from pumasi.twin.scenario_file import load_rules, load_scenario

HOUR_MS = 3_600_000
TEXT = """
name: small
title: Campus & <friends>
plan: campus
start: 2026-06-01
days: 4
warm_up_days: 1
faults: {gpu_mtbf_hours: 1500, reboot_percent: 100}
workload: {synthetic: {load_percent: 70, loads: {physics: 160}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = Path(tmp_path_factory.mktemp("scenario"))
    (path / "small.yaml").write_text(TEXT, encoding="utf-8")
    return path


def simulated(folder: Path, rules: Rules, seed: int = 1, stop_at_ms: int = 0):
    file = load_scenario(folder / "small.yaml")
    ready = prepare(file, rules, seed, folder)
    outcome = simulate(ready.plan, ready.jobs, ready.scenario, progress=lambda at_ms: not 0 < stop_at_ms <= at_ms)
    return ready, outcome


def measured(folder: Path, rules: Rules, seed: int = 1) -> Measures:
    ready, outcome = simulated(folder, rules, seed)
    return measure(outcome, ready, rules, day_ms("2026-06-02"))


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Measures]:
    known = [load_rules(Path(f"scenarios/rules/{name}.yaml")) for name in ("silo", "as-planned", "one-big-pool")]
    return [measured(folder, rules, seed) for seed in (1, 2) for rules in known]


class TestLevel:
    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(-9, 9)), max_size=12), st.integers(1, 20))
    def test_as_counted_millisecond_by_millisecond(self, steps: list[tuple[int, int]], bucket_ms: int):
        level = Level(10, 40, bucket_ms)
        for at_ms, gpus in sorted(steps, key=lambda step: step[0]):
            level.add(gpus, max(at_ms, 10))
        level.settle(40)
        slow: Counter[int] = Counter()
        for at_ms in range(10, 40):
            slow[(at_ms - 10) // bucket_ms] += sum(gpus for began, gpus in steps if max(began, 10) <= at_ms)
        assert level.totals == [slow[index] for index in range(len(level.totals))]


class TestMeasures:
    def test_sums_are_those_of_the_ledger(self, folder: Path):
        rules = Rules(name="as-planned")
        ready, outcome = simulated(folder, rules)
        found = measure(outcome, ready, rules, ready.scenario.start_ms)
        pools = {pool.id: pool for pool in ready.plan.pools}
        parts = {
            key: pools[key.pool].parts(amount)
            for key, amount in outcome.ledger.statement(ready.scenario.until_ms).items()
        }
        assert any(pools[key.pool].slice for key in parts), "classes have slices"
        assert found.busy == sum(parts.values()) // PARTS_PER_GPU > 0
        lent: Counter[tuple[str, str]] = Counter()
        for key, amount in parts.items():
            if not key.is_home:
                lent[key.credit, queue_owner(key.debit)] += amount
        assert lent.total() > 0
        assert {
            (lender, borrower): gpus for lender, taken in found.loans.items() for borrower, gpus in taken.items()
        } == {pair: amount // PARTS_PER_GPU for pair, amount in lent.items()}
        for owner, series in found.series.items():
            assert series.credit[-1] == sum(series.lent) - sum(series.borrowed), owner

    def test_every_gpu_in_service_is_somewhere(self, runs: list[Measures]):
        for run in runs:
            kinds = [(each.home, each.lent, each.idle, each.down) for each in run.series.values()]
            assert sum(sum(map(sum, each)) for each in kinds) == pytest.approx(run.capacity, rel=0.005)
            assert run.capacity == 96 * (run.until_ms - run.from_ms)
            assert sum(sum(each.down) for each in run.series.values()) > 0

    def test_waits_are_those_of_the_jobs(self, folder: Path):
        ready, outcome = simulated(folder, Rules(name="as-planned"))
        found = measure(outcome, ready, Rules(name="as-planned"), day_ms("2026-06-02"))
        table = outcome.jobs
        for owner, waits in found.owners.items():
            rows = [
                row
                for row in range(len(table))
                if owner_of(table.queues[table.queue[row]]) == owner and table.submitted_ms[row] >= found.from_ms
            ]
            longest = max(
                table.wait_ms(row) if table.wait_ms(row) >= 0 else outcome.at_ms - table.submitted_ms[row]
                for row in rows
            )
            assert (waits.jobs, waits.quantiles_ms[-1]) == (len(rows), longest)
            assert waits.unstarted == sum(table.wait_ms(row) < 0 for row in rows)
        assert sum(each.jobs for each in found.owners.values()) == sum(each.jobs for each in found.sizes.values())

    def test_silo_lends_nothing_and_lending_lends(self, runs: list[Measures]):
        by_name = {run.rules: run for run in runs}
        assert by_name["silo"].loans == {} and by_name["silo"].evictions == 0
        assert by_name["as-planned"].loans
        assert by_name["one-big-pool"].loans == {} and set(by_name["one-big-pool"].series) == {ONE_OWNER}
        assert set(by_name["one-big-pool"].owners) == set(by_name["silo"].owners)
        alone, helped = (by_name[name].owners["computing"].mean_ms for name in ("silo", "as-planned"))
        assert alone > helped

    def test_a_run_cut_short_is_measured_as_far_as_it_got(self, folder: Path):
        ready, outcome = simulated(folder, Rules(name="as-planned"), stop_at_ms=day_ms("2026-06-03"))
        found = measure(outcome, ready, Rules(name="as-planned"), day_ms("2026-06-02"))
        assert not found.finished and found.until_ms == outcome.at_ms < ready.scenario.until_ms
        assert found.capacity == 96 * (found.until_ms - found.from_ms)


class TestStatistics:
    def test_interval_is_students(self):
        found = interval([1.0, 2.0, 3.0, 4.0])
        assert found.mean == 2.5 and found.half_width == pytest.approx(3.182 * 1.29099 / 2, abs=1e-3)
        assert interval([5.0]).half_width is None
        assert interval([3.0, 3.1, 2.9]).is_above_zero and not interval([-3.0, 3.1]).is_above_zero
        assert interval([-3.0, -3.1, -2.9]).is_below_zero

    def test_pooling_counts_seeds_by_their_jobs(self):
        both = pooled([waits_of([0] * 300), waits_of([1000] * 100, unstarted=2)])
        assert (both.jobs, both.unstarted, both.mean_ms) == (400, 2, 250)
        assert (both.percentile_ms(50), both.percentile_ms(90)) == (0, 1000)
        assert pooled([]).jobs == 0 and pooled([waits_of(())]).percentile_ms(95) == 0

    @given(st.lists(st.integers(0, 10**9), min_size=1))
    def test_percentiles_are_of_the_jobs(self, waits_ms: list[int]):
        waits = waits_of(waits_ms)
        assert waits.quantiles_ms[0] == min(waits_ms) and waits.quantiles_ms[-1] == max(waits_ms)
        assert waits.percentile_ms(50) == sorted(waits_ms)[100 * (len(waits_ms) - 1) // 200]

    def test_why_an_owner_waits_longer_is_what_its_gpus_and_claims_say(self, runs: list[Measures]):
        before, after = runs[0], runs[1]
        full = structs.replace(after.series["physics"], home=[10, 0], lent=[0, 6], idle=[0, 4])
        claim = ReclaimMeasure("physics", 100_000, 150_000, 8, 8)

        def why(claims: list[ReclaimMeasure], series=full) -> str:
            run = structs.replace(
                after, owners={"physics": waits_of([200_000] * 50)}, reclaims=claims, series={"physics": series}
            )
            alone = structs.replace(before, owners={"physics": waits_of([0] * 50)})
            (verdict,) = verdicts({1: alone}, {1: run}, {"physics": 150_000})
            (words,) = reasons(verdict, {1: alone}, {1: run})
            return words

        assert "seed 1: 3 min 20 s instead of 0 s. Its GPUs were full of its own work 50 %" in why([])
        assert "its jobs waited for its own jobs" in why([claim])
        assert "promises were broken" in why([structs.replace(claim, took_ms=150_001)])
        idle = structs.replace(full, home=[0, 0])
        assert "claim after claim" in why([claim], idle) and "asked GPUs back 1 times" in why([claim], idle)
        assert "it lacked what it had had beyond that" in why([], idle)

    def test_an_owner_is_worse_off_beyond_its_window_alone(self, runs: list[Measures]):
        def with_waits(run: Measures, waits_ms: list[int]) -> Measures:
            return structs.replace(run, owners={"physics": waits_of(waits_ms)})

        before = {1: with_waits(runs[0], [0] * 50), 2: with_waits(runs[0], [0] * 50)}
        after = {1: with_waits(runs[1], [90_000] * 50), 2: with_waits(runs[1], [200_000] * 50)}
        (verdict,) = verdicts(before, after, {"physics": 150_000})
        assert (verdict.is_worse, verdict.worse_seeds) == (False, (2,))
        (verdict,) = verdicts(before, after, {"physics": 140_000})
        assert verdict.is_worse


class TestPage:
    @pytest.fixture
    def experiment(self, folder: Path, runs: list[Measures]) -> Experiment:
        ready, _ = simulated(folder, Rules(name="as-planned"))
        return Experiment("Campus & <friends>", ready.plan, runs)

    def test_pictures_are_sound_and_fetch_nothing(self, experiment: Experiment):
        for name, picture in experiment.pictures().items():
            root = ET.fromstring(picture)
            assert root.attrib["aria-label"], name
            assert not re.search(r"href|url\(|<script|<image", picture), name
            assert "nan" not in picture.lower().replace("tenant", ""), name

    def test_the_page_is_whole_and_says_what_it_compares(self, experiment: Experiment):
        text = page(experiment)
        assert "Campus &amp; &lt;friends&gt;" in text and "<friends>" not in text
        assert text.count("<svg") == len(experiment.pictures()) and text.count("<table>") == 5
        for rules in ("silo", "as-planned", "one-big-pool"):
            assert f"<th>{rules}</th>" in text
        assert not re.search(r"(src|href)=", text)

    def test_a_report_can_be_made_again_from_its_numbers(self, experiment: Experiment, tmp_path: Path):
        target = write_report(tmp_path / "out", experiment.title, experiment.plan, experiment.runs)
        first = target.read_text(encoding="utf-8")
        target.unlink()
        assert write_again(tmp_path / "out").read_text(encoding="utf-8") == first
        with (tmp_path / "out" / "loans.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        total = sum(sum(taken.values()) for run in experiment.runs for taken in run.loans.values())
        assert sum(int(row["gpu_milliseconds"]) for row in rows) == total
        for name in ("waits", "utilisation", "reclaims"):
            assert (tmp_path / "out" / f"{name}.csv").stat().st_size > 50

    def test_every_table_is_parquet_too_and_every_picture_png(self, experiment: Experiment, tmp_path: Path):
        write_report(tmp_path, experiment.title, experiment.plan, experiment.runs)
        for table in ("waits", "utilisation", "reclaims", "loans"):
            rows = duckdb.read_parquet(str(tmp_path / f"{table}.parquet")).fetchall()
            assert len(rows) == (tmp_path / f"{table}.csv").read_text(encoding="utf-8").count("\n") - 1
        for name, picture in experiment.pictures().items():
            png = (tmp_path / f"{name}.png").read_bytes()
            width, height = (int(ET.fromstring(picture).attrib[side]) for side in ("width", "height"))
            assert (png[:4], struct.unpack(">II", png[16:24])) == (b"\x89PNG", (2 * width, 2 * height))

    def test_of_many_lenders_the_largest_are_drawn_and_it_is_said(self):
        loans = {f"lender-{number:02d}": {"taker": 3_600_000 * (number + 1)} for number in range(OWNERS_SHOWN + 1)}
        picture = sankey(loans, {}, "Who lent to whom")
        assert "91 GPU-hours lent, 90 of them shown" in picture and "lender-00" not in picture

    def test_who_lent_nothing_is_said_and_not_drawn(self, experiment: Experiment):
        alone = page(Experiment("x", experiment.plan, [run for run in experiment.runs if run.rules == "silo"]))
        assert "Nobody lent anything" in alone and "lenders left" not in alone and "<h2>Credit" not in alone

    def test_stopped_runs_are_marked(self, experiment: Experiment):
        part = [structs.replace(experiment.runs[0], finished=False), *experiment.runs[1:]]
        assert "Stopped early: 1 runs" in page(Experiment("x", experiment.plan, part))


class TestWords:
    @pytest.mark.parametrize(
        ("milliseconds", "said"),
        [(0, "0 s"), (59_000, "59 s"), (420_000, "7 min"), (599_000, "9 min 59 s"),
         (600_000, "10 min"), (3_600_000, "1 h"), (5_460_000, "1 h 31 min"),
         (90_000_000, "1 d 1 h"), (-61_000, "−1 min 1 s")],
    )  # fmt: skip
    def test_lengths(self, milliseconds: int, said: str):
        assert in_words(milliseconds) == said

    def test_ticks(self):
        assert [label for _, label in round_ticks(0, 1000)] == ["0", "500", "1,000"]
        assert number(12_345) == "12.3k" and number(2_500_000) == "2.5M"
        assert len(day_ticks(0, 28 * 24 * HOUR_MS)) <= 7
        assert [label for _, _, label in month_ticks("2026-11-30", "2028-02-01") if label] == ["2027", "2028"]
        assert [label for _, _, label in month_ticks("2026-11-30", "2026-12-01")][:2] == ["Nov 2026", "Dec 2026"]


def test_the_command_line_runs_compares_and_reports(folder: Path, tmp_path: Path, capsys):
    out = str(tmp_path / "out")
    words = ["twin", "compare", str(folder / "small.yaml"), "--rules", "silo", "--rules", "as-planned"]
    assert pumasi([*words, "--seeds", "1", "--processes", "1", "--out", out]) == 0
    target = Path(capsys.readouterr().out.strip())
    assert "as-planned" in target.read_text(encoding="utf-8")
    assert pumasi(["twin", "report", out]) == 0


def test_ctrl_c_leaves_a_report_of_what_there_is(folder: Path, tmp_path: Path):
    file = structs.replace(load_scenario(folder / "small.yaml"), days=400, cycle_seconds=0)
    tasks = tasks_of(file, ["as-planned"], [1, 2, 3])

    def told(_done: int, day: str) -> None:
        if day:
            raise KeyboardInterrupt

    finished = run_tasks(tasks, tmp_path, "stopped", folder, 1, told)
    assert finished.runs == 1 == finished.partial and finished.missing == 2
    assert "Stopped early" in finished.page.read_text(encoding="utf-8")
