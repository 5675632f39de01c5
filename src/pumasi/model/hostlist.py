"""Node names, and lists of them in the compressed form users of Slurm know: `sejong-b200-[00001-00064,00070]`."""

from pumasi.model.ids import PoolId
from pumasi.model.jobs import Span

_DIGITS = 5
_NODES_MAX = 10**_DIGITS  # a list of more names some twice


def node_name(pool: PoolId, index: int) -> str:
    """The name of node `index` of a pool; names count from 1 as racks' labels do."""
    return f"{pool}-{index + 1:0{_DIGITS}d}"


def node_index(name: str) -> tuple[PoolId, int] | None:
    """The pool and index a node name stands for, or None if it is no node name."""
    pool, separator, digits = name.rpartition("-")
    if not separator or len(digits) != _DIGITS or not digits.isascii() or not digits.isdigit() or int(digits) == 0:
        return None
    return pool, int(digits) - 1


def expand(text: str) -> list[tuple[PoolId, int]]:
    """The nodes in a list such as `pool-[00001-00004,00009]`, or of a single name; none if it is neither."""
    pool, bracket, rest = text.partition("-[")
    if not (bracket and rest.endswith("]")):
        node = node_index(text)
        return [] if node is None else [node]
    found: list[tuple[PoolId, int]] = []
    for part in rest.removesuffix("]").split(","):
        first, _, last = part.partition("-")
        low, high = node_index(f"{pool}-{first}"), node_index(f"{pool}-{last or first}")
        if low is None or high is None or high < low or len(found) > _NODES_MAX:
            return []
        found += [(pool, index) for index in range(low[1], high[1] + 1)]
    return found


def node_names(pool: PoolId, spans: tuple[Span, ...]) -> list[str]:
    """Every node of an allocation, in order."""
    return [node_name(pool, index) for span in spans for index in range(span.first, span.first + span.nodes)]


def compress(pool: PoolId, spans: tuple[Span, ...]) -> str:
    """The nodes of an allocation in one word."""
    ranges = _merged(sorted((span.first, span.first + span.nodes) for span in spans))
    if len(ranges) == 1 and ranges[0][1] - ranges[0][0] == 1:
        return node_name(pool, ranges[0][0])
    return f"{pool}-[{','.join(_range_text(first, end) for first, end in ranges)}]"


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, end in ranges:
        if merged and merged[-1][1] >= first:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged


def _range_text(first: int, end: int) -> str:
    low = f"{first + 1:0{_DIGITS}d}"
    return low if end - first == 1 else f"{low}-{end:0{_DIGITS}d}"
