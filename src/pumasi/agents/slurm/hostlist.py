"""Lists of node names as Slurm writes them: `alpha[0001-0003,0007]`."""

import re
from collections.abc import Iterable

_GROUP = re.compile(r"([^\[\],]*)\[([0-9,\-]+)\]([^\[\],]*)|([^\[\],]+)")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_NAME = re.compile(r"(.*?)([0-9]{1,9})", re.DOTALL)
MOST_NAMES = 200_000


def expand(text: str) -> list[str]:
    """All names of a list, in order.

    :raises ValueError: if it is no such list; the message says what is wrong.
    """
    names: list[str] = []
    place = 0
    while place < len(text):
        match = _GROUP.match(text, place)
        if match is None:
            raise ValueError(f"{text!r} is no list of nodes: at {text[place:]!r}")
        before, ranges, after, single = match.groups()
        names += [single] if single else [f"{before}{number}{after}" for number in _numbers(ranges)]
        place = match.end()
        if place < len(text) and text[place] != ",":
            raise ValueError(f"{text!r} is no list of nodes: at {text[place:]!r}")
        place += 1
        if len(names) > MOST_NAMES:
            raise ValueError(f"the list has more than {MOST_NAMES} nodes")
    return names


def _numbers(ranges: str) -> Iterable[str]:
    for each in ranges.split(","):
        match = _RANGE.fullmatch(each)
        if match is None:
            raise ValueError(f"[{ranges}] is no list of numbers: {each!r}")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first) or int(last) - int(first) >= MOST_NAMES:
            raise ValueError(f"[{ranges}] is no list of numbers: {each!r}")
        for number in range(int(first), int(last) + 1):
            yield f"{number:0{len(first)}d}"


def compress(names: Iterable[str]) -> str:
    """The list in its short form; `expand` gives the same names, those with a common beginning together."""
    groups: dict[tuple[str, int], list[int]] = {}
    for name in dict.fromkeys(names):
        match = _NAME.fullmatch(name)
        before, digits = (match[1], match[2]) if match else (name, "")
        groups.setdefault((before, len(digits)), []).append(int(digits or 0))
    return ",".join(_group_text(before, width, sorted(numbers)) for (before, width), numbers in groups.items())


def _group_text(before: str, width: int, numbers: list[int]) -> str:
    if width == 0:
        return before
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = [f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in ranges]
    return f"{before}{parts[0]}" if len(numbers) == 1 else f"{before}[{','.join(parts)}]"
