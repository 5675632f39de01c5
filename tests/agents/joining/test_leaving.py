"""While a site wishes to leave, all its nodes are drained to the fleet, whatever its engine says of them."""

from pathlib import Path
from typing import Any

from pumasi.agents.joining.leaving import LeavingEngine, still_here, wish_to_leave
from pumasi.agents.journal import Journal
from pumasi.agents.run_book import Began, Ordered, Over, Told
from pumasi.events.facts import NodeState
from pumasi.model.jobs import Outcome
from pumasi.ports.engine import Polled
from pumasi.protocol.messages import NodeHealth, RunEnded, RunKey

WELL = NodeHealth(pools=("h200",))


class Engine:
    """Says what it is told to."""

    says = Polled(nodes=WELL)

    def poll(self) -> Polled:
        return self.says


def test_the_wish_outlasts_the_agent_and_can_be_taken_back(tmp_path: Path) -> None:
    engine: Any = Engine()
    leaving = LeavingEngine(engine, tmp_path, {"h200": 5})
    assert leaving.poll().nodes == WELL
    wish_to_leave(tmp_path, True)
    again = LeavingEngine(engine, tmp_path, {"h200": 5})
    for each in (leaving, again):
        told = each.poll().nodes
        assert told is not None and told.pools == ("h200",)
        (report,) = told.ailing
        assert (report.first, report.nodes, report.state) == (0, 5, NodeState.DRAINED)
        assert each.poll().nodes is None  # told once
    wish_to_leave(tmp_path, False)
    engine.says = Polled()
    assert leaving.poll().nodes == WELL
    assert leaving.poll().nodes is None


def test_what_is_still_here_is_read_beside_a_running_agent(tmp_path: Path) -> None:
    run, other = RunKey(1, 1), RunKey(2, 1)
    journal = Journal(tmp_path / "journal")
    journal.rewrite([Ordered(run), Began(run), Ordered(other), Began(other)])
    assert still_here(tmp_path) == ([run, other], 2)
    journal.append([Over(RunEnded(run=run, outcome=Outcome.COMPLETED)), Told(run)])
    live, untold = still_here(tmp_path)
    assert (live, untold) == ([other], 1)
    journal.close()
