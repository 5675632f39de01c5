"""Nodes in Slurm's words become nodes of pools in ours."""

import pytest

from pumasi.agents.slurm.commands import SlurmCommands
from pumasi.agents.slurm.health import Health, gpu_count, health_of
from pumasi.agents.slurm.readers import SlurmNode
from pumasi.agents.slurm.runner import Answer
from pumasi.agents.slurm.site import SlurmPool, SlurmSite
from pumasi.agents.slurm.tracked import Patience
from pumasi.events.facts import NodeState
from pumasi.protocol.messages import NodeReport

POOL = SlurmPool(id="p", partition="gpu", nodes=("a1", "a2", "a3", "b1"), gpus_per_node=8, gres_type="b200")


def a_node(name: str, *states: str, reason: str = "", gres: str = "gpu:b200:8") -> SlurmNode:
    return SlurmNode(name, frozenset(states or ("IDLE",)), reason, gres, (), ("gpu",), 64, 1000)


def ailing(*nodes: SlurmNode) -> list[tuple[int, int, str, str]]:
    health = health_of([POOL], {node.name: node for node in nodes})
    return [(report.first, report.nodes, report.state.value, report.reason) for report in health.ailing]


def test_neighbours_with_one_ail_are_one_report() -> None:
    drained = [a_node(name, "IDLE", "DRAIN", reason="fan") for name in ("a2", "a3")]
    assert ailing(a_node("a1"), *drained, a_node("b1", "DOWN", "NOT_RESPONDING")) == [
        (1, 2, "drained", "drain: fan"),
        (3, 1, "down", "down"),
    ]


def test_a_node_that_slurm_does_not_know_is_down() -> None:
    assert ailing(a_node("a1"), a_node("a2"), a_node("a3")) == [(3, 1, "down", "the site's Slurm has no such node")]


def test_a_node_that_came_back_with_fewer_gpus_takes_no_work() -> None:
    nodes = [a_node("a1", gres="gpu:b200:7"), a_node("a2"), a_node("a3"), a_node("b1", gres="gpu:h200:8")]
    assert ailing(*nodes) == [(0, 1, "drained", "7 of 8 GPUs"), (3, 1, "drained", "0 of 8 GPUs")]


@pytest.mark.parametrize("state", ["IDLE", "ALLOCATED", "MIXED", "COMPLETING", "PLANNED", "SOMETHING_NEW"])
def test_a_node_that_works_is_up(state: str) -> None:
    assert ailing(*(a_node(name, state) for name in POOL.nodes)) == []


def test_a_reason_is_one_short_line() -> None:
    ((*_, reason),) = ailing(a_node("a1", "DRAIN", reason="x\n1|2\t" * 200), *map(a_node, ("a2", "a3", "b1")))
    assert "\n" not in reason and len(reason) <= 200


@pytest.mark.parametrize(
    ("gres", "wanted", "count"),
    [
        ("gpu:b200:8(S:0-1),nvme:2", "b200", 8),
        ("gpu:b200:4,gpu:h200:4", "h200", 4),
        ("gpu:b200:4,gpu:h200:4", "", 8),
        ("gpu:8", "", 8),
        ("gpu", "", 1),
        ("(null)", "b200", 0),
        ("", "", 0),
        ("nvme:2,gpu:b200:2(IDX:0-1)", "b200", 2),
    ],
)
def test_gpus_are_counted_in_a_gres(gres: str, wanted: str, count: int) -> None:
    assert gpu_count(gres, wanted) == count


class NoSlurm:
    """A cluster whose slurmctld is down."""

    def run(self, name: str, arguments: list[str], seconds: float, text: str = "") -> Answer:
        return Answer(1, "", "Slurmctld(primary) at here is DOWN")


def test_all_nodes_are_out_of_work_while_slurm_does_not_answer() -> None:
    health = Health(SlurmSite(pools={"p": POOL}), SlurmCommands(NoSlurm(), 0), Patience(away=60))
    assert health.look(100.0, 50.0) is None
    told = health.look(111.0, 50.0)
    report = NodeReport(pool="p", first=0, nodes=4, state=NodeState.DRAINED, reason="the site's Slurm does not answer")
    assert told is not None and told.ailing == (report,)
    assert health.look(112.0, 50.0) is None
    assert health.look(180.0, 50.0) == told, "what the control plane may have missed is told again"
