"""What a command handler answers: facts to record, and the result for the caller."""

from typing import Any, TypeAlias

from msgspec import Struct

from pumasi.control.refusals import Refusal
from pumasi.events.facts import Event


class Decision(Struct, frozen=True):
    """A command accepted. No facts means that there was nothing to do (a repeat, or already so)."""

    events: tuple[Event, ...] = ()
    result: Any = None


Answer: TypeAlias = Decision | Refusal
