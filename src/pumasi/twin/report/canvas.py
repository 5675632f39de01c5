"""Pictures by hand: SVG that follows the reader's light or dark theme, prints on white, and needs nothing else.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; lines differ in dashes too.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import floor, log10

# Classes and their colours, by day and by night. They are no variables: not everything that draws SVG knows those.
_FILLS = {
    "ground": ("#ffffff", "#16181d"),
    "home": ("#0072b2", "#3f9bd6"),
    "lent": ("#e69f00", "#e69f00"),
    "idle": ("#e4e4e4", "#34373f"),
    "down": ("#7a0c0c", "#ff8080"),
}
_LINES = (
    ("#d55e00", "#ff8a4c"),
    ("#0072b2", "#56b4e9"),
    ("#007a5a", "#2fcf9f"),
    ("#b0468a", "#e58cc4"),
    ("#a87900", "#f0c040"),
    ("#3b8fc2", "#9fd4f5"),
    ("#1a1a1a", "#ffffff"),
    ("#7f7f7f", "#a0a0a0"),
)
_DASHES = ("none", "7 3", "2 3", "10 3 2 3", "5 2 1 2 1 2", "1 2", "12 4", "3 6")
COLOURS = len(_LINES)


def _theme(night: int) -> str:
    ink, faint, grid = (("#1a1a1a", "#595959", "#d9d9d9"), ("#f0f0f0", "#b8b8b8", "#3a3d45"))[night]
    rules = [f".{name} {{ fill: {colours[night]}; }}" for name, colours in _FILLS.items()]
    rules += [f"text {{ fill: {ink}; }} .faint {{ fill: {faint}; }} .grid {{ stroke: {grid}; }}"]
    rules += [f".own {{ stroke: {ink}; }}"]
    for index, colours in enumerate(_LINES):
        rules.append(f".c{index} {{ stroke: {colours[night]}; }} .k{index} {{ fill: {colours[night]}; }}")
    return "\n".join(rules)


def _style() -> str:
    dashes = "\n".join(f".d{index} {{ stroke-dasharray: {dash}; }}" for index, dash in enumerate(_DASHES))
    return f"""
svg {{ font-family: system-ui, "DejaVu Sans", "Noto Sans", sans-serif; print-color-adjust: exact; }}
text {{ font-size: 12px; }} .title {{ font-size: 14px; font-weight: 600; }} .faint {{ font-size: 11px; }}
.line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
.own {{ stroke-width: 1.2; }} .promise {{ stroke-width: 3; }} .half {{ opacity: 0.55; }}
{dashes}
{_theme(0)}
@media screen and (prefers-color-scheme: dark) {{
{_theme(1)}
}}
"""


STYLE = _style()

Point = tuple[float, float]


def look(index: int) -> str:
    """The classes of the line with this number: once all colours are used, they come again with other dashes."""
    return f"line c{index % COLOURS} d{(index + index // COLOURS) % len(_DASHES)}"


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    """Words at a place; y is the baseline."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(points: Iterable[Point], style: str) -> str:
    """A line through points."""
    return f'<polyline class="{style}" points="{_points(points)}"/>'


def area(points: Iterable[Point], attributes: str, words: str = "") -> str:
    """A filled shape, with words that show when it is pointed at."""
    return f'<polygon points="{_points(points)}" {attributes}><title>{escape(words)}</title></polygon>'


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def svg(width: int, height: int, label: str, parts: Iterable[str]) -> str:
    """A whole picture; `label` says what it shows to those who cannot see it."""
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{escape(label)}">'
    ground = f'<rect class="ground" width="{width}" height="{height}"/>'
    return "\n".join([opening, f"<style>{STYLE}</style>", ground, *parts, "</svg>", ""])


class Frame:
    """A panel with axes: maps values to places. `log`: the x axis is logarithmic."""

    def __init__(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        log: bool = False,
    ) -> None:
        self.left, self.top, self.width, self.height = left, top, width, height
        self._x_range, self._y_range, self._log = x_range, y_range, log

    def x(self, value: float) -> float:
        """Where a value is on the x axis."""
        low, high = self._x_range
        if self._log:
            low, high, value = log10(low), log10(high), log10(max(value, low))
        share = (min(value, high) - low) / ((high - low) or 1)
        return self.left + share * self.width

    def y(self, value: float) -> float:
        """Where a value is on the y axis."""
        low, high = self._y_range
        return self.top + self.height - (value - low) / ((high - low) or 1) * self.height

    def x_ticks(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        """Grid lines and labels below."""
        parts = []
        for value, label in ticks:
            x, foot = self.x(value), self.top + self.height
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{foot}"/>')
            parts.append(text(x, foot + 15, label, "faint", "middle"))
        return parts

    def y_ticks(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        """Grid lines and labels at the left."""
        parts = []
        for value, label in ticks:
            y, right = self.y(value), self.left + self.width
            parts.append(f'<line class="grid" x1="{self.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(text(self.left - 6, y + 4, label, "faint", "end"))
        return parts


def round_ticks(low: float, high: float, about: int = 4) -> list[tuple[float, str]]:
    """Round values between two numbers, with their labels in full."""
    if high <= low:
        return [(low, number(low))]
    raw = (high - low) / about
    power: float = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = int(-(-low // step))
    return [(index * step, number(index * step)) for index in range(first, int(high // step) + 1)]


def number(value: float) -> str:
    """A number for an axis: thousands as k, millions as M."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scale = 1e3 if letter == "k" else limit
            return f"{value / scale:.3g}{letter}"
    return f"{value:,.0f}" if size >= 1 or value == 0 else f"{value:.2g}"


def legend(x: float, y: float, entries: Sequence[tuple[str, str]], width: float) -> tuple[list[str], float]:
    """Names with their lines (classes) or boxes (attributes), broken at a width; returns the foot too."""
    parts, left = [], x
    for words, style in entries:
        need = 42 + 7.4 * len(words)
        if left > x and left + need > x + width:
            left, y = x, y + 18
        if style.startswith("line"):
            parts.append(line(((left, y - 4), (left + 22, y - 4)), style))
        else:
            parts.append(f'<rect x="{left:.1f}" y="{y - 9:.1f}" width="18" height="10" {style}/>')
        parts.append(text(left + 27, y, words))
        left += need
    return parts, y
