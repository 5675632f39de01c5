"""What a site's agent needs of an engine that runs jobs. One conformance suite: `pumasi.testing.engine`.

An engine knows a run by its tag alone and never touches work that does not carry one of ours. What it cannot see just
now it does not guess: it raises `EngineAway`, and the agent asks again. Durations are milliseconds of real time.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from pumasi.model.jobs import Outcome, StopCause
from pumasi.protocol.messages import NodeHealth, RunKey, StartOrder


class EngineAway(Exception):
    """The engine does not answer. Nothing is known about its runs; nothing is concluded either."""


class StartVerdict(StrEnum):
    """What came of an order to start."""

    ACCEPTED = "accepted"  # it runs
    QUEUED = "queued"  # the engine has it and will start it; `poll` tells when
    REFUSED = "refused"  # it will not run, and nothing of it is there
    FORBIDDEN = "forbidden"  # the same, and would be next time: the site's own rules are against it
    UNSURE = "unsure"  # it may be there or not; `find` will tell, and starting it again does no harm


class Start(NamedTuple):
    """An order to start; the engine ends the run at its time limit by itself: SIGTERM, SIGKILL `grace_ms` later."""

    order: StartOrder
    time_limit_ms: int
    grace_ms: int


class StartAnswer(NamedTuple):
    """The engine's answer to an order to start; `detail` says why if it was refused."""

    verdict: StartVerdict
    detail: str = ""


class Ending(NamedTuple):
    """How a run ended; nothing of it is left. `stopped_for`: the reason it was told to stop, None if it went by itself.

    `known` False: it is gone, and nobody can say how. `exit_code` and `signal` are 0 then. `outcome`: what an engine
    knows that the rest cannot say: NODE_FAILED, or NEVER_STARTED of a run that was queued and not one instruction ran;
    REFUSED if the site's own rules turned out to be against it only then.
    """

    run: RunKey
    exit_code: int = 0
    signal: int = 0
    stopped_for: StopCause | None = None
    known: bool = True
    detail: str = ""
    outcome: Outcome | None = None


class Found(NamedTuple):
    """A run of ours that the engine has: over if there is an `ending`, else live, or still queued if not `started`."""

    run: RunKey
    ending: Ending | None = None
    started: bool = True


class Polled(NamedTuple):
    """Queued runs that have started and runs that have ended since the last call, each told once.

    `nodes`: how the site's nodes are, if the engine knows and there is something to say.
    """

    ended: tuple[Ending, ...] = ()
    started: tuple[RunKey, ...] = ()
    nodes: NodeHealth | None = None


class Output(NamedTuple):
    """A piece of what a run wrote. `size`: bytes there are by now. `complete`: it will write no more."""

    data: bytes = b""
    size: int = 0
    complete: bool = False
    problem: str = ""


class Engine(Protocol):
    """Runs jobs. Calls block, and come one at a time."""

    def start(self, starts: Sequence[Start]) -> list[StartAnswer]:
        """Start runs, each once however often it is called for; an answer to each, in the order of `starts`."""
        ...

    def stop(self, run: RunKey, cause: StopCause, signal: str, kill_in_ms: int) -> bool:
        """Send a run its notice (a signal's name such as "TERM"), and kill what is left in `kill_in_ms`.

        A repeated call can only make the end sooner. False: there is no such run.
        """
        ...

    def poll(self) -> Polled:
        """What has started and what has ended.

        :raises EngineAway: if it cannot be said.
        """
        ...

    def find(self) -> tuple[Found, ...]:
        """Every run of ours there is, live or ended and not forgotten; from now on `poll` tells of the live ones.

        :raises EngineAway: if it cannot be said.
        """
        ...

    def read_output(self, run: RunKey, stream: str, offset: int, limit: int) -> Output:
        """At most `limit` bytes of a stream from `offset`, or a problem in words.

        Streams: "stdout", "stderr", and "accounts", which is what the site's own books say of the run, if it keeps any.
        """
        ...

    def forget(self, run: RunKey) -> None:
        """The run's end is known where it matters: `find` need not tell of it again. Its output stays for a while."""
        ...

    def news_descriptor(self) -> int | None:
        """A descriptor that is readable when `poll` has news; None if the engine must be asked every so often."""
        ...

    def close(self) -> None:
        """Let go of the engine. Runs go on."""
        ...
