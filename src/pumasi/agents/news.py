"""Waiting for an engine to have news."""

import asyncio


class News:
    """Set when the engine's descriptor is readable, or when somebody says so.

    :param descriptor: as of `Engine.news_descriptor`; None if the engine has to be asked every `ask_seconds`.
    """

    def __init__(self, descriptor: int | None, ask_seconds: float) -> None:
        self._descriptor = descriptor
        self._ask_seconds = ask_seconds
        self._event = asyncio.Event()

    def announce(self) -> None:
        """There may be news."""
        self._event.set()

    async def wait(self) -> None:
        """Return when there may be news; at the latest after `ask_seconds` if there is no descriptor."""
        loop = asyncio.get_running_loop()
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._event.set)
        try:
            await asyncio.wait_for(self._event.wait(), self._ask_seconds if self._descriptor is None else None)
        except TimeoutError:
            pass
        finally:
            # It stays readable until the engine is polled; a reader left in place would spin until then.
            if self._descriptor is not None:
                loop.remove_reader(self._descriptor)
            self._event.clear()
