"""A mapping of the plan file with typed access to its keys; every mistake is noted with its line and what is right.

After a mistake a reader gets a harmless value of the right type and goes on, so that all mistakes come out at once.
Whether a part may be trusted is asked with :meth:`Section.clean`.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TypeVar

from pumasi.model.calendar import is_day
from pumasi.model.ids import is_name
from pumasi.plans.problems import Problems, nearest, printable, quoted, suggestion
from pumasi.plans.yaml_tree import Mapping, Node, Scalar, Sequence

INTEGER_LIMIT = 10**12  # above every count, watt and byte a fleet has, and far below 2**63
TEXT_LIMIT = 300
NAME_RULE = "a name has 1 to 63 of a-z, 0-9 and inner hyphens"
PERCENT_UNIT = 100  # percentages are kept in hundredths of a per cent: "12.5%" is 1250

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(\d[\d_,]*)?\.?\d*([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?\s?%")

EnumType = TypeVar("EnumType", bound=Enum)


class Section:
    """A mapping at a dotted `path` of the file. `basis`: whether it may carry a `basis` (read elsewhere)."""

    def __init__(self, node: Mapping, path: str, problems: Problems, *, basis: bool = False) -> None:
        self.node = node
        self.path = path
        self.problems = problems
        self._known = {"basis"} if basis else set()
        self._count_before = problems.count

    # --- where and what went wrong ---

    def complain(self, key: str, message: str) -> None:
        """Note a mistake at `key`, or at the whole mapping if `key` is empty or not there."""
        node = self.node.entries.get(key, self.node)
        path = ".".join(part for part in (self.path, key) if part)
        self.problems.add(node.line, node.column, printable(path), message)

    def refer(self, key: str, words: Iterable[str], known: Iterable[str], what: str) -> None:
        """Complain about each word at `key` that is not among the known names; an empty word was complained about."""
        for word in words:
            if word and word not in known:
                self.complain(key, f"there is no {what} {quoted(word)}{suggestion(word, known)}")

    def clean(self) -> bool:
        """True if no mistake was noted since this section was opened."""
        return self.problems.count == self._count_before

    def finish(self) -> None:
        """Complain about every key nobody asked for."""
        for key in self.node.entries:
            if key not in self._known:
                self.complain(key, f"the key is unknown{suggestion(key, self._known)}")

    # --- nodes ---

    def has(self, key: str) -> bool:
        """True if the key is written."""
        self._known.add(key)
        return key in self.node.entries

    def take(self, key: str) -> Node | None:
        """The node at `key`, or None."""
        self._known.add(key)
        return self.node.entries.get(key)

    def _scalar(self, key: str, what: str, required: bool) -> Scalar | None:
        node = self.take(key)
        if node is None:
            if required:
                self.complain(key, f"is missing; it must be {what}")
            return None
        if not isinstance(node, Scalar) or (node.plain and node.text in {"", "~", "null"}):
            self.complain(key, f"must be {what}{_instead(node)}")
            return None
        return node

    # --- words ---

    def text(self, key: str, default: str | None = None, what: str = "text") -> str:
        """Text on one line; required unless there is a `default`."""
        node = self._scalar(key, what, default is None)
        if node is None:
            return default or ""
        if len(node.text) > TEXT_LIMIT or not all(letter.isprintable() for letter in node.text):
            self.complain(key, f"is {quoted(node.text)}; text is one printable line of at most {TEXT_LIMIT} letters")
            return default or ""
        return node.text

    def name(self, key: str, what: str, default: str | None = None) -> str:
        """A name by the grammar of ids."""
        text = self.text(key, default, what)
        if text and text != default and not is_name(text):
            self.complain(key, f"is {quoted(text)}; {NAME_RULE}")
            return ""
        return text

    def choice(self, key: str, kind: type[EnumType], default: EnumType | None = None) -> EnumType:
        """One member of an enumeration, by its value."""
        words = [str(member.value) for member in kind]
        text = self.text(key, None if default is None else str(default.value), f"one of {', '.join(words)}")
        if text in words:
            return kind(text)
        if text:
            self.complain(key, f"is {quoted(text)}; it must be one of {', '.join(words)}{nearest(text, words)}")
        return default or next(iter(kind))

    def words(self, key: str) -> tuple[str, ...]:
        """A list of words; none when the key is absent. Words that stand twice are a mistake."""
        node = self.take(key)
        if node is None:
            return ()
        if not isinstance(node, Sequence) or not all(isinstance(item, Scalar) for item in node.items):
            self.complain(key, "must be a list of words, such as [one, two]")
            return ()
        found = tuple(item.text for item in node.items if isinstance(item, Scalar))
        for word in sorted({word for word in found if found.count(word) > 1}):
            self.complain(key, f"{quoted(word)} stands in the list more than once")
        return found

    def date(self, key: str) -> str:
        """A day as `2027-12-31`; empty after a mistake."""
        text = self.text(key, None, "a day such as 2027-12-31")
        if not text or is_day(text):
            return text
        self.complain(key, f"is {quoted(text)}; it must be a day of the calendar such as 2027-12-31")
        return ""

    # --- numbers ---

    def integer(self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int = INTEGER_LIMIT) -> int:
        """A whole number within bounds; required unless there is a `default`."""
        what = f"a whole number from {minimum:,} to {maximum:,}"
        fallback = minimum if default is None else default
        node = self._scalar(key, what, default is None)
        if node is None:
            return fallback
        number = int(node.text) if node.plain and _INTEGER.fullmatch(node.text) else None
        if number is None or not minimum <= number <= maximum:
            self.complain(key, f"is {quoted(node.text)}{_why_no_integer(node)}; it must be {what}")
            return fallback
        return number

    def percent(self, key: str) -> int:
        """A share such as 40% or 12.5%, in hundredths of a per cent; 0 after a mistake."""
        node = self._scalar(key, "a share such as 40%", True)
        parsed = parse_percent(node.text) if node else 0
        if node is not None and parsed is None:
            self.complain(key, f"is {quoted(node.text)}; it must be a share from 0% to 100%, such as 40% or 12.5%")
        return parsed or 0

    def integers(self, key: str, *, minimum: int = 0, maximum: int = INTEGER_LIMIT) -> dict[str, int]:
        """A mapping of words to whole numbers within bounds; those with mistakes are left out."""
        inner = self.section(key)
        found = {}
        for word in inner.node.entries:
            before = self.problems.count
            number = inner.integer(word, minimum=minimum, maximum=maximum)
            if self.problems.count == before:
                found[word] = number
        return found

    # --- mappings ---

    def section(self, key: str, *, basis: bool = False) -> "Section":
        """The mapping at `key`; an empty one if it is absent or no mapping."""
        node = self.take(key)
        path = f"{self.path}.{key}" if self.path else key
        if isinstance(node, Mapping):
            return Section(node, path, self.problems, basis=basis)
        if node is not None and not (isinstance(node, Scalar) and node.plain and node.text in {"", "~", "null"}):
            self.complain(key, "must be a mapping (keys with values)")
        place = node or self.node
        return Section(Mapping({}, place.line, place.column), path, self.problems, basis=basis)

    def sections(self, key: str) -> Iterator[tuple[str, "Section"]]:
        """A mapping of names to mappings, each of which may carry a `basis`; opened one by one."""
        outer = self.section(key)
        for name in outer.node.entries:
            if not is_name(name):
                outer.complain(name, f"{quoted(name)} is no name; {NAME_RULE}")
            yield name, outer.section(name, basis=True)


def parse_percent(text: str) -> int | None:
    """`12.5%` as 1250 hundredths of a per cent; None if `text` is no share from 0% to 100%."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        return None
    hundredths = int(match[1]) * PERCENT_UNIT + int((match[2] or "0").ljust(2, "0"))
    return hundredths if hundredths <= 100 * PERCENT_UNIT else None


def _instead(node: Node) -> str:
    if isinstance(node, Mapping):
        return ", not a mapping"
    if isinstance(node, Sequence):
        return ", not a list"
    return "; nothing is written here"


def _why_no_integer(node: Scalar) -> str:
    if not node.plain:
        return " (in quotes, which makes it text)"
    if node.text.lower() in {"true", "false", "yes", "no"}:
        return " (a truth value)"
    if re.fullmatch(r"-?[0-9]+", node.text):
        return " (too large)" if len(node.text) > 18 else ""
    return " (not a whole number)" if _NUMBER.fullmatch(node.text) else ""
