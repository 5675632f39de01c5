"""How often an engine without a descriptor is asked: soon if it answers quickly, never more often than it bears."""

import asyncio
import time
from typing import Any

import pytest

from pumasi.agents.identity import Identity
from pumasi.agents.news import News
from pumasi.agents.site_agent import SiteAgent, SiteSettings
from pumasi.ports.engine import Polled
from pumasi.protocol.messages import RunKey


@pytest.mark.parametrize(
    ("took_seconds", "pause_seconds"), [(0.0, 0.2), (0.001, 0.2), (0.02, 0.4), (0.05, 1.0), (3.0, 1.0)]
)
def test_the_pause_follows_from_what_asking_takes(took_seconds: float, pause_seconds: float) -> None:
    news = News(None, 1.0, 60.0)
    assert news.pause_seconds == 1.0
    news.asked(took_seconds)
    assert news.pause_seconds == pause_seconds
    asyncio.run(news.wait())  # and it ends by itself


def test_whoever_announces_news_ends_the_pause() -> None:
    async def pause() -> None:
        news = News(None, 3600.0, 3600.0)
        news.announce()
        async with asyncio.timeout(60):
            await news.wait()

    asyncio.run(pause())


class Quick:
    """An engine that has nothing to say, and keeps what it was told to forget."""

    def __init__(self) -> None:
        self.forgotten: list[RunKey] = []

    def news_descriptor(self) -> None:
        """It has to be asked."""

    def poll(self) -> Polled:
        return Polled()

    def forget(self, run: RunKey) -> None:
        self.forgotten.append(run)


def an_agent(engine: Quick) -> SiteAgent:
    identity = Identity(site="sejong", private_key="", fleet="korea", generation=1)
    parts: Any = identity, None, engine, None, SiteSettings()
    return SiteAgent(*parts)


def test_the_wait_for_an_engine_that_is_busy_with_orders_is_no_part_of_what_asking_takes() -> None:
    async def took_seconds() -> float:
        agent = an_agent(Quick())
        agent._engine_thread.submit(time.sleep, 0.3)
        _, took = await agent._call(agent._poll)
        agent._engine_thread.shutdown()
        return took

    assert asyncio.run(took_seconds()) < 0.2


def test_what_is_to_be_told_goes_before_clearing_up_behind_what_has_been() -> None:
    runs = [RunKey(number, 1) for number in range(120)]

    async def forget() -> None:
        engine = Quick()
        agent = an_agent(engine)
        agent._to_forget = list(runs)
        agent._to_report.set()
        await agent._forget_told()
        assert engine.forgotten == []
        agent._to_report.clear()
        await agent._forget_told()
        agent._engine_thread.shutdown()
        assert engine.forgotten == runs

    asyncio.run(forget())
