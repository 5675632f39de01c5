"""Leaving a fleet: a site says that its nodes are drained, waits until nothing of the fleet is left on it, and goes.

The wish is a file in the site's directory, so that it outlasts the agent. What runs may end as it would have.
"""

from collections.abc import Sequence
from pathlib import Path

from pumasi.agents.journal import Journal
from pumasi.agents.run_book import RunBook
from pumasi.events.facts import NodeState
from pumasi.model.ids import PoolId
from pumasi.model.jobs import StopCause
from pumasi.ports.engine import Engine, Found, Output, Polled, Start, StartAnswer
from pumasi.protocol.messages import NodeHealth, NodeReport, RunKey

LEAVING_FILE = "leaving"
_REASON = "the site is leaving the fleet"


def wish_to_leave(directory: Path, leaving: bool) -> None:
    """Note that the site is leaving, or is not any more; its agent tells the control plane with its next look."""
    path = directory / LEAVING_FILE
    path.touch() if leaving else path.unlink(missing_ok=True)


def still_here(directory: Path) -> tuple[list[RunKey], int]:
    """The fleet's runs on the site, and how many reports the control plane has yet to take."""
    book = RunBook(Journal(directory / "journal").read())
    return [known.run for known in book.live()], sum(1 for _ in book.untold(1_000_000))


class LeavingEngine:
    """An engine whose nodes are all drained as long as the site wishes to leave. `pools`: nodes of each."""

    def __init__(self, engine: Engine, directory: Path, pools: dict[PoolId, int]) -> None:
        self._engine = engine
        self._wish = directory / LEAVING_FILE
        self._drained = NodeHealth(
            pools=tuple(pools),
            ailing=tuple(
                NodeReport(pool=pool, first=0, nodes=nodes, state=NodeState.DRAINED, reason=_REASON)
                for pool, nodes in pools.items()
            ),
        )
        self._latest: NodeHealth | None = None
        self._was_leaving = False

    def poll(self) -> Polled:
        """What the engine says, except that its nodes are drained while the site is leaving."""
        polled = self._engine.poll()
        self._latest = polled.nodes or self._latest
        leaving = self._wish.exists()
        changed, self._was_leaving = leaving != self._was_leaving, leaving
        if leaving:
            return polled._replace(nodes=self._drained if changed else None)
        return polled._replace(nodes=self._latest) if changed else polled

    def start(self, starts: Sequence[Start]) -> list[StartAnswer]:
        """As the engine does."""
        return self._engine.start(starts)

    def stop(self, run: RunKey, cause: StopCause, signal: str, kill_in_ms: int) -> bool:
        """As the engine does."""
        return self._engine.stop(run, cause, signal, kill_in_ms)

    def find(self) -> tuple[Found, ...]:
        """As the engine does."""
        return self._engine.find()

    def read_output(self, run: RunKey, stream: str, offset: int, limit: int) -> Output:
        """As the engine does."""
        return self._engine.read_output(run, stream, offset, limit)

    def forget(self, run: RunKey) -> None:
        """As the engine does."""
        self._engine.forget(run)

    def news_descriptor(self) -> int | None:
        """As the engine does."""
        return self._engine.news_descriptor()

    def close(self) -> None:
        """As the engine does."""
        self._engine.close()
