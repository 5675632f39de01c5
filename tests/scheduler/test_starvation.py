"""Nobody starves: whatever keeps arriving, work that its owner's entitlement carries starts in bounded time.

The bound is for one class of work: a queue, and within it a priority. Work of higher priority in the same queue goes
first for as long as its users wish.
"""

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from pumasi.model.fleet import Queue
from pumasi.model.jobs import JobState
from pumasi.testing.builders import fleet_facts, owner, pool
from pumasi.testing.harness import Harness

LIMIT_SECONDS = 300  # nothing of the flood may run longer
STEP_SECONDS = 60
GPUS = 64

Flood = list[tuple[str, int, int]]
floods = st.lists(
    st.tuples(
        st.sampled_from(("ant/x", "ant/y", "ant/z", "bee")),
        st.sampled_from((1, 2, 8, 8, 16)),
        st.integers(STEP_SECONDS, LIMIT_SECONDS),
    ),
    min_size=6,
    max_size=12,
)


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(flood=floods, nodes=st.integers(1, 8), before=st.integers(0, 1), lends=st.sampled_from((0, 100)))
def test_a_gang_starts_however_much_else_keeps_arriving(flood: Flood, nodes: int, before: int, lends: int) -> None:
    """What its queue runs before it, the queue makes up for at its share, a third; then its turn comes."""
    queues = [Queue(id=name) for name in ("ant/w", "ant/x", "ant/y", "ant/z")]
    owners = [owner("ant", lends, notice_seconds=60), owner("bee")]
    fleet = Harness(fleet_facts(owners, [pool("p", {"ant": GPUS})], queues))
    for _ in range(4):
        arrive(fleet, flood)
    for _ in range(before):
        fleet.submit("ant/w", GPUS, time_limit_seconds=LIMIT_SECONDS)
    gang, arrived_ms = fleet.submit("ant/w", 8 * nodes, gpus_per_node=8), fleet.now_ms
    limits = 3 + 5 * before
    while (
        fleet.state.jobs[gang].state is JobState.WAITING and fleet.now_ms <= arrived_ms + limits * LIMIT_SECONDS * 1000
    ):
        arrive(fleet, flood)
    waited_seconds = (fleet.now_ms - arrived_ms) // 1000
    event(f"{before} before it, waited for {waited_seconds / LIMIT_SECONDS} time limits")
    assert fleet.state.jobs[gang].state is JobState.ACTIVE


def arrive(fleet: Harness, flood: Flood) -> None:
    """A minute in which as much arrives as every minute."""
    for queue, gpus, seconds in flood:
        fleet.submit(queue, gpus, time_limit_seconds=seconds)
    fleet.tick()
    fleet.wait(STEP_SECONDS)
