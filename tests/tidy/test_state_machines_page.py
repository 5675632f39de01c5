"""The drawn page shows the tables as they are."""

from enum import StrEnum

import pytest

from pumasi.events.facts import Event
from pumasi.state.machines import MACHINES, Edge, Machine
from scripts.draw_state_machines import INTRODUCTIONS, PAGE, page, section


class Lamp(StrEnum):
    """States of a lamp."""

    LIT = "lit"
    BURNT = "burnt"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_a_machine_is_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = Machine("lamp", (Edge(None, "LampLit", Lamp.LIT), Edge(Lamp.LIT, "LampBurnt", Lamp.BURNT)))
    monkeypatch.setitem(INTRODUCTIONS, "lamp", "It shines.")
    lines = section(lamp).splitlines()
    assert "It shines." in lines
    assert [line.strip() for line in lines if "-->" in line] == [
        "[*] --> lit: LampLit",
        "lit --> burnt: LampBurnt",
        "burnt --> [*]",
    ]
    assert "| lit | LampBurnt | burnt |" in lines


def test_every_cause_is_a_fact_of_the_log() -> None:
    facts = {fact.__name__ for fact in Event.__args__}
    assert {edge.cause for machine in MACHINES for edge in machine.edges} <= facts
