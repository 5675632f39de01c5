"""Draw the transition tables of `pumasi.state.machines` as a page of the documentation.

`draw_state_machines.py` writes `docs/reference/state-machines.md`; a test compares the page with the tables.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pumasi.state.machines import MACHINES, Edge, Machine

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/state-machines.md"

HEAD = """# State machines

<!-- Drawn by scripts/draw_state_machines.py from pumasi.state.machines. Change the table, then run `make docs`. -->

What can happen to a thing is a table: from one state, by one fact of the log, to another. The fold asks the table
before it changes anything; a fact whose step is not listed here is refused, and nothing changes. States without a way
out are final. The words are those of the [glossary](../glossary.md).
"""

# What a table cannot say. A machine without a line here is not drawn but an error: explain it.
INTRODUCTIONS = {
    "job": "What users see. A job is *active* while one of its attempts is live; it ends in exactly one final state.",
    "attempt": "One try to run a job. Its GPUs are its own from *placed* until *ended*, whatever the engine does.",
    "node": "Whether a node takes work. All nodes of a pool are *up* when the pool is declared.",
    "site link": "Whether a site's agent is heard from. What runs at a site that falls silent keeps running.",
    "reservation": "GPUs held for a waiting job, some of them still in use by attempts that were told to stop.",
    "advance reservation": "Whole nodes kept for a span of time: for maintenance, for an award, or to be handed over.",
}


def page(machines: tuple[Machine[Any], ...] = MACHINES) -> str:
    """The whole page, as Markdown."""
    return "\n".join([HEAD, *(section(machine) for machine in machines)])


def section(machine: Machine[Any]) -> str:
    """One machine: what it is, its diagram and its table."""
    title = machine.name.capitalize()
    return "\n".join([f"## {title}", "", INTRODUCTIONS[machine.name], "", *_diagram(machine), "", *_table(machine), ""])


def _diagram(machine: Machine[Any]) -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    steps: dict[tuple[str, str], list[str]] = {}
    for edge in machine.edges:
        steps.setdefault((_state(edge.source), _state(edge.target)), []).append(edge.cause)
    for (source, target), causes in steps.items():
        yield f"    {source} --> {target}: {', '.join(causes)}"
    for state in _final(machine.edges):
        yield f"    {state} --> [*]"
    yield "```"


def _table(machine: Machine[Any]) -> Iterator[str]:
    yield "| from | by | to |"
    yield "|---|---|---|"
    for edge in machine.edges:
        yield f"| {edge.source.value if edge.source else '*new*'} | {edge.cause} | {edge.target.value} |"


def _state(state: Any) -> str:
    return "[*]" if state is None else str(state.value)


def _final(edges: tuple[Edge[Any], ...]) -> list[str]:
    left = {edge.source for edge in edges}
    return list(dict.fromkeys(_state(edge.target) for edge in edges if edge.target not in left))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"docs: {PAGE.name} drawn from {len(MACHINES)} tables")
