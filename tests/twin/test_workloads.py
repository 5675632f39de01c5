"""Traces are read as they were written, drawn anew with their shapes kept, and put into the fleet's own words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.model.fleet import Stage, stage_of
from pumasi.plans.reader import load_plan
from pumasi.twin.scenario_file import GROUPED_BY
from pumasi.twin.workloads import call
from pumasi.twin.workloads.classes import INDUSTRIES, WorkClass
from pumasi.twin.workloads.mapping import LIMIT_FLOOR_SECONDS, Placing, place
from pumasi.twin.workloads.openb import NodeKind, openb_plan, read_openb_nodes, read_openb_pods
from pumasi.twin.workloads.philly import read_philly
from pumasi.twin.workloads.resample import DAY_MS, HOUR_MS, KOREA_OFFSET_MS, Resampling, resample, weekday
from pumasi.twin.workloads.shapes import ks_per_mille, shape_distances
from pumasi.twin.workloads.swf import read_swf
from pumasi.twin.workloads.synthetic import SyntheticWork, leaves, load_of, synthetic_jobs
from pumasi.twin.workloads.trace import TraceJob, TraceProblem

MONDAY_MS = 1_767_538_800_000  # 2026-01-05 00:00 in Korea
SOURCE_MONDAY_MS = 1_506_297_600_000  # 2017-09-25 00:00 UTC

PHILLY = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-09 07:01:55,66.5,2,133.0,vc1
2017-10-08 00:00:00,1,1,1,vc2
"""
SWF = """; UnixStartTime: 1000
; a remark
1 10 5 60 4 60 -1 8 120 -1 1 1 7 1 -1 1 -1 -1
2 20 -1 -1 4 -1 -1 4 120 -1 0 1 7 1 -1 1 -1 -1
3 30 0 5.7 -1 5.7 -1 16 -1 -1 1 1 3 1 -1 1 -1 -1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text, encoding="utf-8")
    return path


class TestReaders:
    def test_philly(self, tmp_path: Path):
        first, second = read_philly(written(tmp_path, PHILLY))
        assert first == TraceJob(1_507_420_800_000, 1000, 1, "vc2")
        assert (second.duration_ms, second.gpus, second.group) == (66_500, 2, "vc1")

    def test_swf(self, tmp_path: Path):
        first, second = read_swf(written(tmp_path, SWF))
        assert first == TraceJob(1_010_000, 60_000, 4, "group-7", 120_000)
        assert (second.submitted_ms, second.duration_ms, second.gpus, second.asked_ms) == (1_030_000, 6000, 16, 0)

    def test_swf_by_another_column(self, tmp_path: Path):
        trace = written(tmp_path, SWF)
        assert {by: read_swf(trace, by)[0].group for by in GROUPED_BY} == {
            "group": "group-7",
            "user": "user-1",
            "queue": "queue--1",
            "partition": "partition-1",
        }

    def test_openb_pods_with_and_without_times(self, tmp_path: Path):
        head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli"
        more = "gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time"
        (job,) = read_openb_pods(written(tmp_path, f"{head},{more}\np-0,6000,12288,1,460,,LS,Running,7,107,9\n"))
        assert job == TraceJob(7000, 98_000, 1, "LS", 0, 460, 6000, 12_288)
        untimed = read_openb_pods(written(tmp_path, f"{head}\np-0003,1,1,2,1000\np-0001,1,1,0,0\n"))
        assert [(job.submitted_ms, job.gpus) for job in untimed] == [(1000, 0), (3000, 2)]

    def test_openb_nodes(self, tmp_path: Path):
        text = "sn,cpu_milli,memory_mib,gpu,model\na,64000,262144,2,P100\nb,64000,262144,2,P100\nc,96000,1,8,V100\n"
        nodes = read_openb_nodes(written(tmp_path, text))
        assert nodes == {NodeKind("P100", 2, 64_000, 262_144): 2, NodeKind("V100", 8, 96_000, 1): 1}
        plan = openb_plan(nodes)
        assert [
            (pool.id, pool.nodes, pool.gpus, pool.cpus_per_node, pool.memory_mib_per_node) for pool in plan.pools
        ] == [
            ("p100-2-64-256", 2, 4, 64, 262_144),
            ("v100-8-96-0", 1, 8, 96, 1),
        ]

    @pytest.mark.parametrize(
        ("read", "text", "said"),
        [
            (read_philly, "a,b\n1,2\n", ":1: the columns are"),
            (read_philly, PHILLY.replace("66.5", "soon"), ":2: "),
            (read_philly, PHILLY.replace("66.5", "-1"), ":2: a job has neither"),
            (read_philly, PHILLY.replace(",vc1", ""), ":2: "),
            (read_swf, "1 2 3\n", ":1: 3 values, expected 18"),
            (read_swf, SWF.replace("60 4 60", "x 4 60"), ":3: "),
            (read_openb_nodes, "sn\n", ":1: the columns are"),
            (read_openb_nodes, "sn,cpu_milli,memory_mib,gpu,model\na,b,c,d,e\n", ":2: "),
            (read_openb_pods, "name\n", ":1: the columns are"),
        ],
    )
    def test_what_is_no_trace_says_where(self, read, text: str, said: str, tmp_path: Path):
        with pytest.raises(TraceProblem) as problem:
            read(written(tmp_path, text))
        assert said in str(problem.value)

    @pytest.mark.parametrize("read", [read_philly, read_swf, read_openb_nodes, read_openb_pods])
    def test_a_file_that_is_not_there(self, read, tmp_path: Path):
        with pytest.raises(TraceProblem, match="No such file"):
            read(tmp_path / "none")


def source(days: int = 14, each: int = 20) -> list[TraceJob]:
    """A trace with a rhythm: more by noon than at night, weekends at a third, long jobs on Mondays."""
    made = []
    for day in range(days):
        for number in range(each if day % 7 < 5 else each // 3):
            at = SOURCE_MONDAY_MS + day * DAY_MS + (8 + number % 8) * HOUR_MS + number
            made.append(
                TraceJob(at, (1 + number) * 60_000 * (1 if day % 7 else 5) + day, 1 << number % 4, f"g{number % 3}")
            )
    return made


class TestResampling:
    wanted = Resampling(source_from_ms=SOURCE_MONDAY_MS, source_days=14, start_ms=MONDAY_MS, days=35)

    def test_the_same_seed_is_the_same_workload(self):
        assert resample(source(), self.wanted, 1) == resample(source(), self.wanted, 1)
        assert resample(source(), self.wanted, 1) != resample(source(), self.wanted, 2)

    def test_weekdays_stay_weekdays(self):
        per_day = Counter((job.submitted_ms - MONDAY_MS) // DAY_MS for job in resample(source(), self.wanted, 1))
        assert {per_day[day] for day in range(35) if day % 7 < 5} == {20}
        assert {per_day[day] for day in range(35) if day % 7 >= 5} == {6}
        assert weekday(MONDAY_MS + KOREA_OFFSET_MS) == 0

    @pytest.mark.parametrize(("load", "low", "high"), [(50, 0.4, 0.6), (100, 1, 1), (250, 2.4, 2.6)])
    def test_load_is_more_jobs_of_the_same_shapes(self, load: int, low: float, high: float):
        wanted = Resampling(
            source_from_ms=SOURCE_MONDAY_MS, source_days=14, start_ms=MONDAY_MS, days=70, load_percent=load
        )
        made = resample(source(), wanted, 3)
        assert low <= len(made) / (10 * 112) <= high
        distances = shape_distances(source(), made)
        assert distances.is_kept, distances
        assert made == sorted(made)
        assert {job.submitted_ms // DAY_MS for job in made} <= {
            (MONDAY_MS + day * DAY_MS + hour * HOUR_MS) // DAY_MS for day in range(70) for hour in (0, 23)
        }

    def test_a_workload_of_another_shape_is_noticed(self):
        other = [TraceJob(job.submitted_ms + 9 * HOUR_MS, job.duration_ms * 9, job.gpus, "g") for job in source()]
        assert not shape_distances(source(), other).is_kept


class TestDistance:
    @given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 5))
    def test_repeats_change_nothing(self, values: list[int], times: int):
        assert ks_per_mille(Counter(values), Counter(values * times)) == 0

    @given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
    def test_as_by_definition(self, before: list[int], after: list[int]):
        def share(values: list[int], up_to: int) -> float:
            return sum(value <= up_to for value in values) / len(values)

        largest = max(abs(share(before, at) - share(after, at)) for at in range(10))
        assert abs(ks_per_mille(Counter(before), Counter(after)) - 1000 * largest) <= 1

    def test_nothing_in_common(self):
        assert ks_per_mille(Counter([1]), Counter([2])) == 1000
        assert ks_per_mille(Counter(), Counter([2])) == 1000
        assert ks_per_mille(Counter(), Counter()) == 0


class TestMapping:
    def test_jobs_become_the_fleets_own(self):
        trace = [
            TraceJob(5, 60_000, 2, "a"),
            TraceJob(6, 60_000, 1, "stranger"),
            TraceJob(7, 60_000, 0, "a"),
            TraceJob(8, 60_000, 1, "a", asked_ms=7_200_000, gpu_milli=300),
        ]
        placed = place(trace, Placing(queues={"a": "x/y"}, gpus_per_gpu=8, gpus_max=12))
        assert [(job.submit_ms, job.spec.gpus, job.spec.queue) for job in placed.jobs] == [
            (5, 12, "x/y"),
            (8, 8, "x/y"),
        ]
        assert [job.spec.time_limit_seconds for job in placed.jobs] == [72 + LIMIT_FLOOR_SECONDS, 7200]
        assert (placed.left_out, placed.without_gpus, placed.rounded_up) == (1, 1, 1)

    def test_jobs_hold_the_cpus_and_memory_that_the_trace_says(self):
        trace = [TraceJob(5, 60_000, 2, "a", cpu_milli=12_500, memory_mib=1001), TraceJob(6, 60_000, 1, "a")]
        placed = place(trace, Placing(queues={"a": "x/y"}))
        held = [(job.spec.cpus_per_gpu, job.spec.host_memory_mib_per_gpu) for job in placed.jobs]
        assert held == [(7, 501), (0, 0)]


@dataclass
class Korea:
    plan = load_plan(Path("plans/korea.yaml"))
    work = SyntheticWork(start_ms=MONDAY_MS, days=7, as_of="2026-12-31", load_percent=40, loads={"sk": 0, "nhn/x": 9})


class TestSynthetic:
    def test_each_queue_is_as_busy_as_it_is_told(self):
        jobs = synthetic_jobs(Korea.plan, Korea.work, 1)
        asked = sum(job.spec.gpus * job.runtime_ms for job in jobs)
        pools = {pool.id for pool in Korea.plan.pools if stage_of(pool, "2026-12-31") is Stage.IN_SERVICE}
        due = sum(
            quota.nominal
            for queue in leaves(Korea.plan)
            if not queue.id.startswith("sk/")
            for pool, quota in queue.quotas.items()
            if pool in pools
        )
        assert 0.25 <= asked / (due * 7 * DAY_MS) <= 0.55
        assert not any(job.spec.queue.startswith("sk/") for job in jobs)
        assert jobs == sorted(jobs, key=lambda job: job.submit_ms)
        assert all(MONDAY_MS <= job.submit_ms < MONDAY_MS + 7 * DAY_MS for job in jobs)

    def test_seeds_differ_and_repeat(self):
        small = SyntheticWork(start_ms=MONDAY_MS, days=1, as_of="2026-12-31", load_percent=5)
        assert synthetic_jobs(Korea.plan, small, 1) == synthetic_jobs(Korea.plan, small, 1)
        assert synthetic_jobs(Korea.plan, small, 1) != synthetic_jobs(Korea.plan, small, 2)

    def test_a_change_in_one_queue_leaves_the_others_be(self):
        less = SyntheticWork(start_ms=MONDAY_MS, days=1, as_of="2026-12-31", load_percent=5, loads={"naver": 0})
        more = SyntheticWork(start_ms=MONDAY_MS, days=1, as_of="2026-12-31", load_percent=5)
        others = [job for job in synthetic_jobs(Korea.plan, more, 1) if not job.spec.queue.startswith("naver/")]
        assert synthetic_jobs(Korea.plan, less, 1) == others

    def test_lessons_take_slices_where_there_are_any_and_nobody_else_does(self):
        plan = load_plan(Path("plans/campus.yaml"))
        work = SyntheticWork(start_ms=MONDAY_MS, days=5, as_of="2026-12-31", load_percent=50)
        jobs = synthetic_jobs(plan, work, 1)
        asked = {(job.spec.queue, job.spec.slice) for job in jobs if job.spec.name == "lesson" or job.spec.slice}
        assert asked == {("computing/classes", "1g.24gb")}
        slices = sum(job.spec.gpus * job.runtime_ms for job in jobs if job.spec.slice)
        assert 0.4 <= slices / (32 * 5 * DAY_MS) <= 0.6

    def test_the_longest_path_says_how_busy(self):
        work = SyntheticWork(start_ms=0, days=1, as_of="", load_percent=1, loads={"a": 2, "a/b": 3})
        assert [load_of(queue, work) for queue in ("a", "a/b/c", "a/bc", "b")] == [2, 3, 2, 1]

    def test_interactive_work_comes_by_day_and_batch_by_night(self):
        hours: dict[str, Counter[int]] = {"interactive-twin": Counter(), "night-batch": Counter()}
        for job in synthetic_jobs(Korea.plan, Korea.work, 1):
            if job.spec.name in hours:
                hours[job.spec.name][(job.submit_ms + KOREA_OFFSET_MS) % DAY_MS // HOUR_MS] += 1
        by_day = {name: sum(count[hour] for hour in range(7, 19)) / count.total() for name, count in hours.items()}
        assert by_day["interactive-twin"] > 0.8 and by_day["night-batch"] < 0.4

    @pytest.mark.parametrize("industry", INDUSTRIES)
    def test_shares_add_up(self, industry: str):
        kinds: tuple[tuple[WorkClass, int], ...] = INDUSTRIES[industry]
        assert sum(percent for _, percent in kinds) == 100
        assert all(len(kind.hours) == 24 and len(kind.weekdays) == 7 for kind, _ in kinds)


class TestFirstCall:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_the_published_totals(self, seed: int):
        known = call.projects(seed)
        assert len(known) == 514 and sum(project.asked for project in known) == 1714
        awarded = [project for project in known if project.awarded]
        assert len(awarded) == 159 and sum(project.awarded for project in awarded) == 528
        assert max(project.asked for project in known) <= 32

    def test_the_plan_gives_every_award_to_its_project(self):
        plan = call.call_plan(1, 0)
        assert sum(pool.gpus for pool in plan.pools) == 4224 == sum(plan.pools[0].entitlements.values())
        assert len(plan.owners) == 160 and len(plan.queues) == 515

    def test_projects_use_what_they_use(self):
        jobs = call.call_jobs(1, 0, 365)
        used = sum(job.spec.gpus * job.runtime_ms for job in jobs if job.spec.name == "awarded")
        assert 0.3 <= used / (4224 * 365 * DAY_MS) <= 0.65
        assert jobs == sorted(jobs, key=lambda job: job.submit_ms)
