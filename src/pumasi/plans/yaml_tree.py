"""YAML 1.2 as a tree that knows its lines.

Built from the parser's events rather than by its composer, because a plan file comes from strangers: size, depth and
number of values are bounded while reading, and what can make a small text huge or ambiguous (anchors, aliases, tags,
duplicate keys) is refused, each with its line. Scalars stay text: what they mean is the reader's to decide, so `no` is
no Boolean, `017` no octal number and `24:00` no number of seconds.
"""

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from pumasi.plans.problems import Problems, printable

SIZE_LIMIT_BYTES = 4 * 1024 * 1024
DEPTH_LIMIT = 24
NODE_LIMIT = 100_000


class Scalar(Struct):
    """A value. `plain`: written without quotes. Lines and columns count from 1; in a mapping, those of the key."""

    text: str
    plain: bool
    line: int
    column: int


class Sequence(Struct):
    """A list of values."""

    items: list["Node"]
    line: int
    column: int


class Mapping(Struct):
    """Values by key, in the order of the file."""

    entries: dict[str, "Node"]
    line: int
    column: int


Node: TypeAlias = Scalar | Sequence | Mapping


def parse_yaml(data: bytes, problems: Problems) -> Node | None:
    """Read one YAML document. Mistakes go to `problems`; None when there is nothing a reader could go on with."""
    text = _decode(data, problems)
    if text is None:
        return None
    try:
        return _Builder(YAML(typ="safe", pure=True).parse(text), problems).document()
    except _Hopeless:
        return None
    except MarkedYAMLError as error:
        _add_syntax_error(error, problems)
    except (YAMLError, ValueError) as error:
        problems.add(1, 1, "", f"this is not YAML: {_first_line(str(error))}")
    return None


class _Hopeless(Exception):
    """Reading on makes no sense; the reason is among the problems."""


def _decode(data: bytes, problems: Problems) -> str | None:
    if len(data) > SIZE_LIMIT_BYTES:
        problems.add(1, 1, "", f"the file has {len(data):,} bytes; a plan has at most {SIZE_LIMIT_BYTES:,}")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(line, 1, "", f"the file is not UTF-8 text (byte {error.start:,}); save it as UTF-8")
        return None


def _add_syntax_error(error: MarkedYAMLError, problems: Problems) -> None:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problems.add(line, column, "", f"this is not YAML: {error.problem or error.context}")


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


class _Builder:
    """Turns the parser's events into a tree. Recursion is bounded by DEPTH_LIMIT."""

    def __init__(self, events: Iterator[Event], problems: Problems) -> None:
        self._events = events
        self._problems = problems
        self._nodes = 0

    def document(self) -> Node | None:
        """The one document of the stream."""
        event = self._next()
        while not isinstance(event, (DocumentStartEvent, StreamEndEvent)):
            event = self._next()
        if isinstance(event, StreamEndEvent):
            self._add(event, "", "the file is empty; a plan starts with 'name:'")
            return None
        node = self._node(self._next(), "", 1)
        self._expect_end()
        return node

    def _expect_end(self) -> None:
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._add(event, "", "a second YAML document starts here; a plan file holds one")
                return

    def _next(self) -> Event:
        return next(self._events)

    def _node(self, event: Event, path: str, depth: int) -> Node:
        self._refuse_tricks(event, path)
        self._count(event, path, depth)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, path, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, path, depth)
        if isinstance(event, ScalarEvent):
            return Scalar(event.value, event.style is None, *_place(event))
        return Scalar("", False, *_place(event))

    def _refuse_tricks(self, event: Event, path: str) -> None:
        if isinstance(event, AliasEvent):
            self._add(event, path, f"aliases (*{event.anchor}) are not allowed in plan files; write the value out")
        elif isinstance(event, NodeEvent) and event.anchor is not None:
            self._add(event, path, f"anchors (&{event.anchor}) are not allowed in plan files; remove it")
        if getattr(event, "tag", None) is not None:
            self._add(event, path, "tags (!...) are not allowed in plan files; remove it")

    def _count(self, event: Event, path: str, depth: int) -> None:
        self._nodes += 1
        if depth > DEPTH_LIMIT:
            self._add(event, path, f"values are nested more than {DEPTH_LIMIT} deep; a plan needs fewer levels")
            raise _Hopeless
        if self._nodes > NODE_LIMIT:
            self._add(event, path, f"there are more than {NODE_LIMIT:,} values; a plan needs fewer")
            raise _Hopeless
        if self._problems.full:
            raise _Hopeless

    def _sequence(self, start: Event, path: str, depth: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, f"{path}[{len(items)}]", depth + 1))
        return Sequence(items, *_place(start))

    def _mapping(self, start: Event, path: str, depth: int) -> Mapping:
        entries: dict[str, Node] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._key(event, path, depth)
            inner = f"{path}.{key}" if path else key
            value = self._node(self._next(), inner, depth + 1)
            value.line, value.column = _place(event)
            if key in entries:
                first = entries[key].line
                self._add(event, inner, f"the key is already set in line {first}; keep one of the two")
            entries.setdefault(key, value)
        return Mapping(entries, *_place(start))

    def _key(self, event: Event, path: str, depth: int) -> str:
        node = self._node(event, path, depth + 1)
        if isinstance(node, Scalar):
            return node.text
        self._add(event, path, "a key must be a word, not a list or mapping")
        raise _Hopeless

    def _add(self, event: Event, path: str, message: str) -> None:
        line, column = _place(event)
        self._problems.add(line, column, printable(path), message)


def _place(event: Event) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1
