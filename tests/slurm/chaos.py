"""Kills and worse at bad moments, on real clusters: what is acknowledged is run to its end, and nothing is run twice.

One wave gives every site a job and breaks something. The jobs write down what they do, and that is what is judged, not
what anybody says of them. `make chaos` runs many waves and writes docs/reference/chaos.md.
"""

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pumasi.demo.slurm_fleet import FleetTrouble, SlurmFleet, slurm_fleet
from pumasi.testing.slurm_cluster import SlurmCluster

BEATS = 15  # a job's life in beats of a fifth of a second
DOWN_SECONDS = 1.0
SILENT_SECONDS = 8.0
PATIENCE_SECONDS = 120.0

QUEUES = {
    "samsung": "samsung/chips",
    "sk": "sk/language",
    "hyundai": "hyundai/driving",
    "naver": "naver/cloud",
    "public": "public/kaist",
}

_SCRIPT = """#!/bin/sh
say() { echo "$PUMASI_ATTEMPT $1" >> "$MARKS/$PUMASI_JOB_ID"; }
trap 'say notice; exit 143' TERM
say start
beat=0
while [ $beat -lt BEATS ] && [ ! -e "$MARKS/$PUMASI_JOB_ID.go" ]; do sleep 0.2; say alive; beat=$((beat + 1)); done
say end
exit CODE
"""


class Verdict(NamedTuple):
    """What became of one job. `problem`: "" unless it was lost or run twice."""

    problem: str
    attempts: int
    seconds: float


class Tally(NamedTuple):
    """A row of the table."""

    kind: str
    runs: int
    lost: int
    twice: int
    again: int
    seconds: float


def a_job(site: str, marks: Path, *, beats: int = BEATS, code: int = 0, **fields: Any) -> dict[str, Any]:
    """A job that writes down each step of its life in a file named by its number below `marks`."""
    body = {"name": f"chaos-{site}", "queue": QUEUES[site], "gpus": 8, "time_limit_seconds": 600, "sites": [site]}
    script = _SCRIPT.replace("BEATS", str(beats)).replace("CODE", str(code))
    return body | {"script": script, "environment": {"MARKS": str(marks)}} | fields


def let_end(marks: Path, job: int) -> None:
    """Have a job come to its end now, however many beats of its life are left."""
    (marks / f"{job}.go").touch()


def steps(marks: Path, job: int) -> list[tuple[int, str]]:
    """What a job wrote: attempt and step, in order."""
    file = marks / str(job)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [(int(attempt), step) for attempt, step in (line.split() for line in lines)]


def run_twice(steps_taken: Iterable[tuple[int, str]]) -> str:
    """Why this was more than once at a time, or "": an attempt begins once, and not before the last one is dead."""
    begun: list[int] = []
    ends = 0
    for attempt, step in steps_taken:
        if step == "start":
            if attempt in begun:
                return f"attempt {attempt} was started twice"
            begun.append(attempt)
        elif not begun or attempt != begun[-1]:
            return f"attempt {attempt} went on although {begun[-1:]} had started"
        ends += step == "end"
    return "" if ends <= 1 else f"it came to its end {ends} times"


def judge(fleet: SlurmFleet, marks: Path, job: int, submitted_at: float) -> Verdict:
    """Wait for a job's end and hold what the fleet says of it against what it wrote."""
    with contextlib.suppress(FleetTrouble):  # one that never ends is lost, as its row shows
        fleet.wait_state(job, "succeeded", "failed", "cancelled", "unknown_outcome", seconds=PATIENCE_SECONDS)
    row = fleet.client.job(job)
    seconds = time.monotonic() - submitted_at
    taken = steps(marks, job)
    problem = run_twice(taken)
    if not problem and (row["state"] != "succeeded" or (len(row["attempts"]), "end") not in taken):
        problem = f"lost: job {job} is {row['state']} and wrote {taken[-1:]}; {row['attempts']}"
    return Verdict(problem, len(row["attempts"]), seconds)


Blow = Callable[[SlurmFleet, str], None]


def kill_slurmctld(fleet: SlurmFleet, site: str) -> None:
    """The cluster's controller dies, with all it has not written yet, and comes back."""
    fleet.clusters[site].kill_controller()
    time.sleep(DOWN_SECONDS / 5)
    fleet.clusters[site].start_controller()


def kill_agent(fleet: SlurmFleet, site: str) -> None:
    """The site's agent dies and is started again."""
    fleet.kill_agent(site)
    fleet.start_agent(site)


def wave(fleet: SlurmFleet, marks: Path, blow: Blow, first_delay: float, step: float) -> list[Verdict]:
    """A job at every site, and a blow to each, one after the other: `first_delay`, then `step` seconds apart."""
    submitted_at = time.monotonic()
    jobs = fleet.client.submit([a_job(site, marks) for site in fleet.clusters])
    for place, site in enumerate(fleet.clusters):
        _sleep_until(submitted_at + first_delay + place * step)
        blow(fleet, site)
    return [judge(fleet, marks, job, submitted_at) for job in jobs]


def control_wave(fleet: SlurmFleet, marks: Path, delay: float) -> list[Verdict]:
    """A job at every site, and the control plane dies `delay` seconds after it has acknowledged them."""
    submitted_at = time.monotonic()
    jobs = fleet.client.submit([a_job(site, marks) for site in fleet.clusters])
    _sleep_until(submitted_at + delay)
    fleet.kill_control()
    time.sleep(DOWN_SECONDS)
    fleet.start_control()
    return [judge(fleet, marks, job, submitted_at) for job in jobs]


def silent_wave(fleet: SlurmFleet, marks: Path, delay: float) -> list[Verdict]:
    """A job at every site, and `delay` seconds later no cluster answers anybody for a while."""
    submitted_at = time.monotonic()
    jobs = fleet.client.submit([a_job(site, marks) for site in fleet.clusters])
    _sleep_until(submitted_at + delay)
    for cluster in fleet.clusters.values():
        cluster.freeze_controller()
    time.sleep(SILENT_SECONDS)
    for cluster in fleet.clusters.values():
        cluster.thaw_controller()
    return [judge(fleet, marks, job, submitted_at) for job in jobs]


def node_wave(fleet: SlurmFleet, marks: Path, delay: float) -> tuple[list[Verdict], list[Verdict]]:
    """Two jobs at every site, and `delay` seconds after submission one's node is drained, and the other's dies.

    A dead node is given power again once all is judged.
    """
    submitted_at = time.monotonic()
    jobs = fleet.client.submit([a_job(site, marks) for _ in range(2) for site in fleet.clusters])
    nodes = [fleet.nodes_of(fleet.wait_state(job, "starting", "running")["attempts"][0])[0] for job in jobs]
    _sleep_until(submitted_at + delay)
    half, sites = len(fleet.clusters), list(fleet.clusters.values())
    for cluster, node in zip(sites, nodes[:half], strict=True):
        cluster.drain(node, "chaos")
    for cluster, node in zip(sites, nodes[half:], strict=True):
        cluster.kill_node(node)
    verdicts = [judge(fleet, marks, job, submitted_at) for job in jobs]
    for cluster, node in zip(sites, nodes[half:], strict=True):
        cluster.start_node(node)
    return verdicts[:half], verdicts[half:]


def make_whole(fleet: SlurmFleet) -> None:
    """Resume what Slurm drained after a crash ("Duplicate jobid"); all nodes are idle then, to the fleet as well."""
    fleet.until(lambda: all(_is_idle(cluster) for cluster in fleet.clusters.values()), "nodes are not idle")
    fleet.until(lambda: {row["state"] for row in fleet.client.nodes()} == {"idle"}, "the fleet's nodes are not idle")


def _is_idle(cluster: SlurmCluster) -> bool:
    cluster.resume_drained()
    return cluster.ask("sinfo", "--noheader", "--format=%t") == "idle"


def tally(kind: str, verdicts: list[Verdict]) -> Tally:
    """The row of a kind of blow."""
    lost = sum(verdict.problem.startswith("lost") for verdict in verdicts)
    twice = sum(bool(verdict.problem) for verdict in verdicts) - lost
    again = sum(verdict.attempts > 1 for verdict in verdicts)
    return Tally(kind, len(verdicts), lost, twice, again, round(median(each.seconds for each in verdicts), 1))


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


# --- the table -------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/chaos.md"
_KINDS = (
    "slurmctld is killed, 0 to 4 s after submission",
    "the site's agent is killed, 0 to 4 s after submission",
    "the control plane is killed, 0 to 4 s after submission",
    "the cluster does not answer for 8 s, from 0 to 4 s after submission on",
    "the job's node is drained, 0 to 4 s after submission",
    "the job's node dies, 0 to 4 s after submission",
)

_HEAD = """# What kills do

<!-- Written by `make chaos`. -->

Five real Slurm clusters with an agent each and one control plane on one machine. Every wave gives each site a job of
three seconds; then something is killed by SIGKILL and started again, stopped in its tracks by SIGSTOP for a while, or
taken out. The jobs write down each step of their lives, and that is what is judged: *lost* is a job that was
acknowledged and did not come to its end; *run twice* is an attempt that began twice, one that went on after the next
had begun, or a job that came to its end twice. *Again* counts jobs that needed a second attempt, because the first died
with what was killed or had not started for 20 seconds and was given back. *Seconds* is the median from submission to
the end.

| what happens | jobs | lost | run twice | again | seconds |
|---|---|---|---|---|---|
"""


def measure(fleet: SlurmFleet, marks: Path, runs: int) -> Iterator[list[Tally]]:
    """At least `runs` jobs under each kind of blow; the table so far after every wave."""
    waves = -(-runs // len(fleet.clusters))
    blows: list[list[Verdict]] = [[] for _ in _KINDS]
    for number in range(waves):
        share = number / waves  # moments spread evenly over the four seconds
        news = (
            wave(fleet, marks, kill_slurmctld, share * 0.8, 0.8),
            wave(fleet, marks, kill_agent, share * 0.8, 0.8),
            control_wave(fleet, marks, share * 4),
            silent_wave(fleet, marks, share * 4),
            *node_wave(fleet, marks, share * 4),
        )
        for verdicts, new in zip(blows, news, strict=True):
            verdicts.extend(new)
        make_whole(fleet)
        problems = [verdict.problem for new in news for verdict in new if verdict.problem]
        print(f"chaos: {number + 1} of {waves} waves", *problems, sep="\n  ", flush=True)
        yield [tally(kind, verdicts) for kind, verdicts in zip(_KINDS, blows, strict=True)]


def page(rows: list[Tally]) -> str:
    """The page with the table."""
    return _HEAD + "".join(
        f"| {row.kind} | {row.runs} | {row.lost} | {row.twice} | {row.again} | {row.seconds} |\n" for row in rows
    )


def main() -> None:
    """`python -m tests.slurm.chaos [RUNS]`: the table, into the docs; exit code 1 if anything was lost or run twice."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave nothing behind then, either
    rows: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="pumasi-slurm-") as folder, slurm_fleet(Path(folder) / "f") as fleet:
        marks = Path(folder) / "marks"
        marks.mkdir()
        for rows in measure(fleet, marks, runs):
            PAGE.write_text(page(rows), encoding="utf-8")
    print(page(rows))
    if any(row.lost or row.twice for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
