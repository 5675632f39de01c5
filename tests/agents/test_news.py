"""How often an engine without a descriptor is asked: soon if it answers quickly, never more often than it bears."""

import asyncio

import pytest

from pumasi.agents.news import News


@pytest.mark.parametrize(
    ("took_seconds", "pause_seconds"), [(0.0, 0.2), (0.001, 0.2), (0.02, 0.4), (0.05, 1.0), (3.0, 1.0)]
)
def test_the_pause_follows_from_what_asking_takes(took_seconds: float, pause_seconds: float) -> None:
    news = News(None, 1.0)
    assert news.pause_seconds == 1.0
    news.asked(took_seconds)
    assert news.pause_seconds == pause_seconds
    asyncio.run(news.wait())  # and it ends by itself


def test_whoever_announces_news_ends_the_pause() -> None:
    async def pause() -> None:
        news = News(None, 3600.0)
        news.announce()
        async with asyncio.timeout(60):
            await news.wait()

    asyncio.run(pause())
