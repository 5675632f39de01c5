"""An agent names the runs it has now and then, once its engine has answered."""

import asyncio
from typing import Any

import pytest

from pumasi.agents.identity import Identity
from pumasi.agents.run_book import Began, Ordered, Over
from pumasi.agents.site_agent import SiteAgent, SiteSettings
from pumasi.model.jobs import Outcome
from pumasi.ports.engine import EngineAway, Polled
from pumasi.protocol.messages import RunEnded, RunKey, SyncRequest, SyncResponse

RUNNING, OVER = RunKey(1, 1), RunKey(2, 1)


class Asked:
    """An engine that has to be asked; `is_away`: it does not answer."""

    is_away = False

    def news_descriptor(self) -> None:
        """It has none."""

    def poll(self) -> Polled:
        if self.is_away:
            raise EngineAway("busy")
        return Polled()


class Recorder:
    """A control plane that has nothing to order, and keeps what it was told."""

    def __init__(self) -> None:
        self.requests: list[SyncRequest] = []

    async def sync(self, _: Identity, request: SyncRequest) -> SyncResponse:
        self.requests.append(request)
        return SyncResponse(seq=request.after_seq, whole=False)


@pytest.mark.parametrize(("is_away", "calls"), [(False, 2), (True, 0)])
def test_the_roll_is_called_when_the_engine_has_answered(is_away: bool, calls: int) -> None:
    async def requests_of_an_agent() -> list[SyncRequest]:
        link, engine = Recorder(), Asked()
        engine.is_away = is_away
        identity = Identity(site="sejong", private_key="", fleet="korea", generation=1)
        parts: Any = identity, link, engine, None, SiteSettings(ask_seconds=0.01, roll_call_seconds=0.0)
        agent = SiteAgent(*parts)
        ended = RunEnded(run=OVER, outcome=Outcome.COMPLETED)
        for entry in (Ordered(RUNNING, "TERM", 8), Began(RUNNING), Ordered(OVER, "TERM", 8), Over(ended, 0)):
            agent._book.apply(entry)
        for told in agent._book.acknowledged(tuple(agent._book.untold(10))):
            agent._book.apply(told)
        watch, report = asyncio.create_task(agent._watch()), asyncio.create_task(agent._report())
        for _ in range(1000 if calls else 20):
            await asyncio.sleep(0.01)
            if calls and len(link.requests) >= calls:
                break
        for task in (watch, report):
            assert not task.done()
            task.cancel()
        agent._engine_thread.shutdown()
        return link.requests

    requests = asyncio.run(requests_of_an_agent())
    assert [request.runs for request in requests[:2] if request.runs is not None] == [(RUNNING,)] * calls
