"""What a site says of its nodes is taken in, and an operator's word stands above it."""

from collections.abc import Callable

import pytest

from pumasi.control.commands import HearSite, SetNodeState, SubmitJobs
from pumasi.events.facts import NodeState
from pumasi.model.jobs import JobSpec, JobState, Outcome
from pumasi.protocol.messages import NodeHealth, NodeReport, RunEnded, RunKey
from tests.control.conftest import Bench

POOL = "north-b200"


def says(bench: Bench, *ailing: NodeReport, site: str = "north-dc", pools: tuple[str, ...] = (POOL,)) -> None:
    bench.do(HearSite(by=f"site:{site}", site=site, nodes=NodeHealth(pools=pools, ailing=ailing)))


def out(
    first: int, nodes: int = 1, state: NodeState = NodeState.DRAINED, reason: str = "bad fan", pool: str = POOL
) -> NodeReport:
    return NodeReport(pool=pool, first=first, nodes=nodes, state=state, reason=reason)


def states(bench: Bench, pool: str = POOL) -> dict[int, str]:
    return {node: state.value for node, state in bench.plane.state.occupancy[pool].node_states.items()}


def set_state(bench: Bench, state: NodeState, node: int = 1, reason: str = "mine") -> None:
    bench.do(SetNodeState(by="root", pool=POOL, nodes=(node,), state=state, reason=reason))


def test_a_sites_word_takes_nodes_out_and_brings_them_back(bench: Bench) -> None:
    says(bench, out(0, 2), out(3, state=NodeState.DOWN, reason="no answer"))
    assert states(bench) == {0: "drained", 1: "drained", 3: "down"}
    assert bench.plane.state.node_reasons[POOL, 3] == "the site says: no answer"
    says(bench, out(1))
    assert states(bench) == {1: "drained"}
    says(bench)
    assert states(bench) == {}


def test_the_same_word_again_is_no_news(bench: Bench) -> None:
    says(bench, out(0))
    seq = bench.plane.seq
    says(bench, out(0))
    assert bench.plane.seq == seq


def test_silence_about_nodes_changes_nothing(bench: Bench) -> None:
    says(bench, out(0))
    bench.do(HearSite(by="site:north-dc", site="north-dc"))
    assert states(bench) == {0: "drained"}


def test_what_an_operator_drained_stays_drained(bench: Bench) -> None:
    set_state(bench, NodeState.DRAINED)
    says(bench, out(1, state=NodeState.DOWN))
    says(bench)
    assert states(bench) == {1: "drained"}
    assert bench.plane.state.node_reasons[POOL, 1] == "mine"


def test_an_operator_drains_a_node_that_the_site_had_drained(bench: Bench) -> None:
    says(bench, out(1))
    set_state(bench, NodeState.DRAINED)
    says(bench)
    assert states(bench) == {1: "drained"}


def test_an_operators_words_cannot_pass_for_a_sites(bench: Bench) -> None:
    set_state(bench, NodeState.DRAINED, reason="the site says: the site says: hello")
    says(bench)
    assert states(bench) == {1: "drained"}


def test_a_site_speaks_for_its_own_nodes_only(bench: Bench) -> None:
    says(bench, out(0), out(2, 9), site="south-dc", pools=(POOL, "south-b200", "nowhere"))
    says(bench, out(-3, 4), out(3, 2**40), out(9, pool="south-b200"))
    assert (states(bench), states(bench, "south-b200")) == ({0: "drained", 3: "drained"}, {})


@pytest.mark.parametrize("pools", [(), ("nowhere",)])
def test_pools_it_does_not_name_are_left_alone(bench: Bench, pools: tuple[str, ...]) -> None:
    says(bench, out(0))
    says(bench, pools=pools)
    assert states(bench) == {0: "drained"}


def test_a_job_on_a_node_that_is_down_keeps_its_gpus_until_its_end_is_proven(
    bench: Bench, spec: Callable[..., JobSpec]
) -> None:
    bench.do(SubmitJobs(by="root", specs=(spec(gpus=32, requeue=False),)))
    job = max(bench.plane.state.jobs)
    bench.cycle()
    says(bench, out(2, state=NodeState.DOWN))
    assert (states(bench), bench.plane.state.jobs[job].state) == ({2: "drained"}, JobState.ACTIVE)
    failed = RunEnded(run=RunKey(job, 1), outcome=Outcome.NODE_FAILED)
    bench.do(HearSite(by="site:north-dc", site="north-dc", reports=(failed,)))
    says(bench, out(2, state=NodeState.DOWN))
    assert (states(bench), job in bench.plane.state.jobs) == ({2: "down"}, False)
