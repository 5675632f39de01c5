"""What quarantine does about black holes: nodes that look well and fail every run within two seconds.

In the twin, 256 nodes of one pool, 16 users in queues of their own, 6,000 jobs of one node at most, five seeds. Two
nodes are black holes, or none. Users make mistakes: scripts that fail within seconds on any node, alone or as arrays.
"""

from collections import Counter
from random import Random

from msgspec.structs import replace

from bench.measure import Figures, publish
from pumasi.events.facts import AttemptEnded, AttemptPlaced, Event, NodeChanged
from pumasi.model.fleet import FleetPlan, Owner, OwnerKind, Pool, Queue, Site, Stage
from pumasi.model.jobs import JobSpec
from pumasi.testing.builders import HGX, START_MS
from pumasi.twin.jobs import TwinJob
from pumasi.twin.run import simulate
from pumasi.twin.scenario import FaultRates, Scenario

USERS = tuple(f"user-{number}" for number in range(16))
GPUS_EACH = 128
JOBS = 6000
SEEDS = range(5)
GAP_MS = 6_000
HOUR_MS = 3_600_000
HOLES_PER_MILLE = 8
MISTAKES = {"one_in_20": (5, 1), "one_in_20_arrays": (5, 10), "one_in_5": (20, 1), "one_in_5_arrays": (20, 10)}


def fleet(quarantine_percent_max: int) -> FleetPlan:
    """Every user is an owner of 16 nodes; everything is at one site."""
    nodes = len(USERS) * GPUS_EACH // HGX.gpus_per_node
    pool = Pool(
        id="hall", site="site", model=HGX.id, owner=USERS[0], nodes=nodes, gpus_per_node=HGX.gpus_per_node,
        nodes_per_rack=4, racks_per_block=2, entitlements=dict.fromkeys(USERS, GPUS_EACH),
        stages={Stage.IN_SERVICE: "2020-01-01"},
    )  # fmt: skip
    plan = FleetPlan(
        name="black-holes",
        gpu_models=(HGX,),
        owners=tuple(Owner(id=name, title=name, kind=OwnerKind.COMMERCIAL) for name in USERS),
        sites=(Site(id="site", title="site", operator=USERS[0]),),
        pools=(pool,),
        queues=tuple(Queue(id=name) for name in USERS),
    )
    return replace(plan, policy=replace(plan.policy, quarantine_percent_max=quarantine_percent_max))


def jobs(seed: int, mistakes_percent: int, array: int) -> list[TwinJob]:
    """Submissions at random, each with a script of its own; half the mistakes are arrays of `array` jobs."""
    chance, at_ms, found = Random(seed), START_MS, list[TwinJob]()
    while len(found) < JOBS:
        at_ms += round(chance.expovariate(1) * GAP_MS)
        user, script = chance.choice(USERS), f"./run-{len(found)}"
        is_mistake = chance.randrange(100) < mistakes_percent
        for _ in range(chance.choice((1, array)) if is_mistake else 1):
            runtime_ms = chance.randint(1000, 25_000) if is_mistake else round(chance.expovariate(1) * HOUR_MS) + 1000
            spec = JobSpec(
                name="job", queue=user, script=script, gpus=chance.choice((1, 1, 1, 2, 4, 8)),
                time_limit_seconds=runtime_ms // 1000 + 600,
            )  # fmt: skip
            found.append(TwinJob(submit_ms=at_ms, spec=spec, runtime_ms=runtime_ms, exit_code=int(is_mistake)))
    return found


def played(work: list[TwinJob], seed: int, holes_per_mille: int, quarantine_percent_max: int) -> Counter[str]:
    """What one run came to: sound jobs eaten, holes found, and sound nodes taken out."""
    faults = FaultRates(black_hole_per_mille=holes_per_mille)
    scenario = Scenario(start_ms=START_MS, seed=seed, faults=faults)
    log = simulate(fleet(quarantine_percent_max), work, scenario).log
    return _counted([event for _, event in log.read(0)], work)


def _counted(events: list[Event], work: list[TwinJob]) -> Counter[str]:
    nodes = {event.job: event.spans[0].first for event in events if isinstance(event, AttemptPlaced)}
    failed = [event.job for event in events if isinstance(event, AttemptEnded) and event.exit_code]
    eaten = [job for job in failed if not work[job - 1].exit_code]
    holes = {nodes[job] for job in eaten}
    out = {event.node for event in events if isinstance(event, NodeChanged)}
    return Counter(eaten=len(eaten), holes=len(holes), found=len(out & holes), wrong=len(out - holes))


def measure() -> Figures:
    """All figures, summed over the seeds."""
    figures = Figures()
    for name, (percent, array) in MISTAKES.items():
        left, kept, sound = Counter[str](), Counter[str](), Counter[str]()
        mistakes = 0
        for seed in SEEDS:
            work = jobs(seed, percent, array)
            mistakes += sum(job.exit_code for job in work)
            left += played(work, seed, HOLES_PER_MILLE, 0)
            kept += played(work, seed, HOLES_PER_MILLE, 5)
            sound += played(work, seed, 0, 5)
        figures[f"mistakes_{name}"] = mistakes
        figures[f"eaten_without_{name}"], figures[f"eaten_{name}"] = left["eaten"], kept["eaten"]
        figures[f"holes_found_{name}"] = kept["found"]
        figures[f"sound_nodes_out_{name}"] = kept["wrong"] + sound["wrong"]
    return figures


NOTES = {
    note.format(name): said
    for name in MISTAKES
    for note, said in (
        ("mistakes_{}", "jobs that fail by themselves, of 30,000"),
        ("eaten_without_{}", "sound jobs that two black holes failed, without quarantine"),
        ("eaten_{}", "the same with quarantine"),
        ("holes_found_{}", "black holes taken out, of 10 in five runs"),
        ("sound_nodes_out_{}", "sound nodes taken out, in five runs with black holes and five without"),
    )
}

if __name__ == "__main__":
    publish("quarantine", measure(), NOTES)
