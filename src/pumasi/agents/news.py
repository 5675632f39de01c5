"""Waiting for an engine to have news."""

import asyncio

_SHORTEST_SECONDS = 0.2
_REST = 20  # asking takes a twentieth of the time, unless that makes the pauses too long


class News:
    """Set when the engine's descriptor is readable, or when somebody says so.

    :param descriptor: as of `Engine.news_descriptor`; None if the engine has to be asked.
    :param ask_seconds: the longest pause before it is asked again; `pause_seconds` is the next one.
    :param look_seconds: the longest pause if it has a descriptor.
    """

    def __init__(self, descriptor: int | None, ask_seconds: float, look_seconds: float) -> None:
        self._descriptor = descriptor
        self._look_seconds = look_seconds
        self._ask_seconds = self.pause_seconds = ask_seconds
        self._event = asyncio.Event()

    def asked(self, took_seconds: float) -> None:
        """Note how long the engine took to answer: the quicker it does, the sooner it is asked again."""
        self.pause_seconds = min(self._ask_seconds, max(_SHORTEST_SECONDS, _REST * took_seconds))

    def announce(self) -> None:
        """There may be news."""
        self._event.set()

    async def wait(self) -> None:
        """Return when there may be news, or after a pause at the latest."""
        loop = asyncio.get_running_loop()
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._event.set)
        try:
            await asyncio.wait_for(
                self._event.wait(), self.pause_seconds if self._descriptor is None else self._look_seconds
            )
        except TimeoutError:
            pass
        finally:
            # It stays readable until the engine is polled; a reader left in place would spin until then.
            if self._descriptor is not None:
                loop.remove_reader(self._descriptor)
            self._event.clear()
