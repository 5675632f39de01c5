"""A plan as a picture: one self-contained SVG with stacked bars by owner and by GPU model, coloured by stage.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; each bar also carries its numbers
and each segment a tooltip. The file follows the reader's light or dark theme.
"""

from collections.abc import Iterator
from html import escape

from pumasi.model.fleet import FleetPlan, Stage
from pumasi.plans.summary import By, Group, groups, summarize

STAGE_COLOURS = {
    Stage.ANNOUNCED: "#bbbbbb",
    Stage.ORDERED: "#e69f00",
    Stage.DELIVERED: "#f0e442",
    Stage.ACCEPTED: "#56b4e9",
    Stage.IN_SERVICE: "#009e73",
}

_WIDTH = 960
_MARGIN = 24
_LABEL_WIDTH = 268
_TOTAL_WIDTH = 84
_BAR_WIDTH = _WIDTH - 2 * _MARGIN - _LABEL_WIDTH - _TOTAL_WIDTH
_BAR_HEIGHT = 24
_ROW_HEIGHT = 34
_HEADER_HEIGHT = 112
_PANEL_HEADER_HEIGHT = 44
_LETTER_WIDTH = 8  # of a 13-pixel digit, rounded up
_LABEL_LETTERS = 36

_STYLE = """
svg { background: #ffffff; font-family: system-ui, "DejaVu Sans", "Noto Sans", sans-serif; }
text { fill: #1a1a1a; font-size: 13px; }
.title { font-size: 21px; font-weight: 600; }
.panel { font-size: 15px; font-weight: 600; }
.faint { fill: #595959; }
.inside { fill: #000000; }
.number { font-variant-numeric: tabular-nums; }
.base { stroke: #8c8c8c; }
.segment { stroke: #ffffff; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
svg { background: #16181d; }
text { fill: #f0f0f0; }
.faint { fill: #b8b8b8; }
.inside { fill: #000000; }
.segment { stroke: #16181d; }
}
"""


def draw_plan(plan: FleetPlan, title: str, as_of: str) -> str:
    """The SVG text of `plan` on the day `as_of` (ISO)."""
    panels = [("GPUs by owner", _contributing(plan, By.OWNER, as_of)), ("GPUs by model", groups(plan, By.MODEL, as_of))]
    height = _HEADER_HEIGHT + sum(_PANEL_HEADER_HEIGHT + _ROW_HEIGHT * len(rows) for _, rows in panels) + _MARGIN
    lines = [*_opening(title, height), *_header(plan, title, as_of)]
    top = _HEADER_HEIGHT
    for caption, rows in panels:
        lines.extend(_panel(caption, rows, top))
        top += _PANEL_HEADER_HEIGHT + _ROW_HEIGHT * len(rows)
    return "\n".join([*lines, "</svg>", ""])


def _contributing(plan: FleetPlan, by: By, as_of: str) -> list[Group]:
    return [group for group in groups(plan, by, as_of) if group.gpus]


def _opening(title: str, height: int) -> list[str]:
    box = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{escape(title)}: GPUs by stage">',
        f"<style>{_STYLE}</style>",
    ]


def _header(plan: FleetPlan, title: str, as_of: str) -> Iterator[str]:
    summary = summarize(plan, as_of)
    yield _text(_MARGIN, 38, title, "title")
    yield _text(_MARGIN, 60, f"{summary.gpus_total:,} GPUs, each in the furthest stage reached by {as_of}", "faint")
    left = _MARGIN
    for stage, colour in reversed(STAGE_COLOURS.items()):
        label = f"{stage.replace('_', ' ')} {summary.gpus_by_stage[stage]:,}"
        yield f'<rect class="segment" x="{left}" y="78" width="16" height="16" fill="{colour}"/>'
        yield _text(left + 22, 91, label, "number")
        left += 22 + _LETTER_WIDTH * len(label) + 18


def _panel(caption: str, rows: list[Group], top: int) -> Iterator[str]:
    yield _text(_MARGIN, top + 28, caption, "panel")
    largest = max((group.gpus for group in rows), default=1) or 1
    for index, group in enumerate(rows):
        yield from _bar(group, top + _PANEL_HEADER_HEIGHT + index * _ROW_HEIGHT, largest)
    foot = top + _PANEL_HEADER_HEIGHT + len(rows) * _ROW_HEIGHT - (_ROW_HEIGHT - _BAR_HEIGHT)
    axis = _MARGIN + _LABEL_WIDTH
    yield f'<line class="base" x1="{axis}" x2="{axis}" y1="{top + _PANEL_HEADER_HEIGHT - 4}" y2="{foot + 4}"/>'


def _bar(group: Group, top: int, largest: int) -> Iterator[str]:
    baseline = top + 17
    yield _text(_MARGIN + _LABEL_WIDTH - 10, baseline, _short(group.title), "", anchor="end")
    left = _MARGIN + _LABEL_WIDTH
    before = 0
    for stage, gpus in reversed(group.gpus_by_stage.items()):  # what is in service stands on the axis
        start, end = left + before * _BAR_WIDTH // largest, left + (before + gpus) * _BAR_WIDTH // largest
        if gpus:
            yield from _segment(start, top, max(end - start, 1), stage, gpus, group.title)
        before += gpus
    end = left + before * _BAR_WIDTH // largest
    yield _text(end + 8, baseline, f"{group.gpus:,}", "number")


def _segment(left: int, top: int, width: int, stage: Stage, gpus: int, title: str) -> Iterator[str]:
    words = f"{title}: {gpus:,} {stage.replace('_', ' ')}"
    shape = f'x="{left}" y="{top}" width="{width}" height="{_BAR_HEIGHT}" fill="{STAGE_COLOURS[stage]}"'
    yield f'<rect class="segment" {shape}><title>{escape(words)}</title></rect>'
    label = f"{gpus:,}"
    if width >= _LETTER_WIDTH * len(label) + 8:
        yield _text(left + width // 2, top + 17, label, "inside number", anchor="middle")


def _text(left: int, baseline: int, words: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{left}" y="{baseline}" text-anchor="{anchor}">{escape(words)}</text>'


def _short(title: str) -> str:
    return title if len(title) <= _LABEL_LETTERS else title[: _LABEL_LETTERS - 1].rstrip() + "…"
