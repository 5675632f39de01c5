"""The pictures of a report. Each function gives a whole SVG; where seeds differ, the picture says which it shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape

from pumasi.model.fleet import FleetPlan, Stage, stage_of
from pumasi.plans.picture import STAGE_COLOURS
from pumasi.twin.report.canvas import (
    COLOURS,
    Frame,
    area,
    legend,
    line,
    look,
    number,
    round_ticks,
    svg,
    text,
)
from pumasi.twin.report.measures import QUANTILES, Measures, OwnerSeries, ReclaimMeasure, Waits
from pumasi.twin.report.times import day_ticks, month_ticks, wait_ticks

WIDTH = 960
COLUMNS = 2
PANEL_WIDTH, PANEL_HEIGHT = 400, 130
PANEL_LEFT, PANEL_TOP, PANEL_GAP = 56, 84, 62
OWNERS_SHOWN = 12
GROUPS_SHOWN = 16
PROMISE_PERCENT = 125  # how far beyond the promise the picture of reclaims goes
KINDS = ("home", "lent", "idle", "down")
WAIT_RANGE_MS = (1_000, 30 * 86_400_000)
Size = tuple[int, int]


def main_owners(measures: Measures) -> list[str]:
    """The owners due most, in the order of the plan."""
    due = {owner: _due(series) for owner, series in measures.series.items()}
    largest = sorted(due, key=lambda owner: -due[owner])[:OWNERS_SHOWN]
    return [owner for owner in due if owner in largest and due[owner]]


def _due(series: OwnerSeries) -> int:
    return sum(sum(getattr(series, kind)) for kind in KINDS)


def _panel(index: int) -> Size:
    column, row = index % COLUMNS, index // COLUMNS
    return PANEL_LEFT + column * (PANEL_WIDTH + PANEL_LEFT + 12), PANEL_TOP + row * (PANEL_HEIGHT + PANEL_GAP)


def _height(panels: int) -> int:
    return PANEL_TOP + -(-panels // COLUMNS) * (PANEL_HEIGHT + PANEL_GAP)


def _head(title: str, below: str, entries: Sequence[tuple[str, str]]) -> list[str]:
    names, _ = legend(PANEL_LEFT, 56, entries, WIDTH - 2 * PANEL_LEFT)
    return [text(16, 22, title, "title"), text(16, 38, below, "faint"), *names]


# --- utilisation -----------------------------------------------------------------------------------------------------


def utilisation(measures: Measures, titles: Mapping[str, str]) -> str:
    """What each owner's entitlement did over time: home, lent, idle, down; the line is all the owner's jobs used."""
    owners = main_owners(measures)
    entries = [(kind, f'class="{kind}"') for kind in KINDS]
    entries.append(("used by the owner, borrowed GPUs included", "line own"))
    below = f"GPUs each owner is due, rules {measures.rules}, seed {measures.seed}"
    parts = _head("Whose GPUs did what", below, entries)
    for index, owner in enumerate(owners):
        parts += _usage_panel(measures, owner, titles.get(owner, owner), *_panel(index))
    return svg(WIDTH, _height(len(owners)), "Utilisation of each owner's GPUs over time", parts)


def _usage_panel(measures: Measures, owner: str, title: str, left: int, top: int) -> list[str]:
    series, bucket = measures.series[owner], measures.bucket_ms
    used = [(home + more) / bucket for home, more in zip(series.home, series.borrowed, strict=True)]
    due = [sum(values) / bucket for values in zip(*(getattr(series, kind) for kind in KINDS), strict=True)]
    high = max(*used, *due, 1) * 1.05
    frame = Frame(left, top, PANEL_WIDTH, PANEL_HEIGHT, (measures.from_ms, measures.until_ms), (0, high))
    parts = [text(left, top - 6, title)]
    times = [measures.from_ms + index * bucket for index in range(len(used))]
    floor = [0.0] * len(used)
    for kind in KINDS:
        ceiling = [low + value / bucket for low, value in zip(floor, getattr(series, kind), strict=True)]
        shape = [(frame.x(at), frame.y(value)) for at, value in zip(times, ceiling, strict=True)]
        shape += [(frame.x(at), frame.y(value)) for at, value in reversed(list(zip(times, floor, strict=True)))]
        parts.append(area(shape, f'class="{kind}"', f"{title}: {kind}"))
        floor = ceiling
    parts += frame.y_ticks(round_ticks(0, high))
    parts += frame.x_ticks(day_ticks(measures.from_ms, measures.until_ms))
    parts.append(line([(frame.x(at), frame.y(value)) for at, value in zip(times, used, strict=True)], "line own"))
    return parts


# --- waits -----------------------------------------------------------------------------------------------------------


def wait_curves(groups: Mapping[str, Mapping[str, Waits]], title: str, titles: Mapping[str, str]) -> str:
    """The share of jobs that started within a time: a panel for each group, a line for each of the rules.

    Of many groups, those with most jobs are shown.
    """
    rules = list(groups)
    jobs = {name: max(_jobs(groups, rule, name) for rule in rules) for found in groups.values() for name in found}
    largest = sorted(jobs, key=lambda name: -jobs[name])[:GROUPS_SHOWN]
    names = [name for name in jobs if name in largest and jobs[name]]
    entries = [(rule, look(index)) for index, rule in enumerate(rules)]
    parts = _head(
        title,
        "share of jobs whose first start came within the time (logarithmic), all seeds; higher is better",
        entries,
    )
    for index, name in enumerate(names):
        left, top = _panel(index)
        frame = Frame(left, top, PANEL_WIDTH, PANEL_HEIGHT, WAIT_RANGE_MS, (0, 100), log=True)
        parts.append(text(left, top - 6, f"{titles.get(name, name)} ({jobs[name]:,} jobs)"))
        parts += frame.x_ticks(wait_ticks()) + frame.y_ticks([(share, f"{share} %") for share in (0, 50, 100)])
        for number_, rule in enumerate(rules):
            waits = groups[rule].get(name)
            if waits and waits.quantiles_ms:
                parts.append(line(_cumulative(frame, waits.quantiles_ms), look(number_)))
    return svg(WIDTH, _height(len(names)), title, parts)


def _jobs(groups: Mapping[str, Mapping[str, Waits]], rule: str, name: str) -> int:
    waits = groups[rule].get(name)
    return waits.jobs if waits else 0


def _cumulative(frame: Frame, quantiles: Sequence[int]) -> list[tuple[float, float]]:
    return [(frame.x(max(value, 1)), frame.y(100 * step / QUANTILES)) for step, value in enumerate(quantiles)]


# --- reclaims --------------------------------------------------------------------------------------------------------


def reclaim_picture(reclaims: Mapping[str, Sequence[ReclaimMeasure]]) -> str:
    """How much of the promised time reclaims took: a line for each of the rules, over all seeds."""
    entries = [
        (f"{rule} ({len(found):,} reclaims)", look(index)) for index, (rule, found) in enumerate(reclaims.items())
    ]
    title = "Reclaims: time taken, in per cent of the time promised"
    below = "share of reclaims that were done by then; right of the heavy line the promise was broken"
    frame = Frame(PANEL_LEFT + 14, PANEL_TOP, 600, 220, (0, PROMISE_PERCENT), (0, 100))
    promise = frame.x(100)
    parts = [
        *_head(title, below, entries),
        *frame.x_ticks([(share, f"{share} %") for share in range(0, PROMISE_PERCENT + 1, 25)]),
        *frame.y_ticks([(share, f"{share} %") for share in (0, 50, 100)]),
        line([(promise, frame.y(0)), (promise, frame.y(100))], "line own promise"),
    ]
    for index, found in enumerate(reclaims.values()):
        shares = sorted(100 * each.took_ms / max(1, each.promised_ms) for each in found)
        points = [(0.0, 0.0)]
        for number_, share in enumerate(shares):
            points += [(share, 100 * number_ / len(shares)), (share, 100 * (number_ + 1) / len(shares))]
        parts.append(line([(frame.x(x), frame.y(y)) for x, y in _thinned(points)], look(index)))
    return svg(WIDTH, PANEL_TOP + 220 + 36, title, parts)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points, less those between two others in the same place or on the same upright."""
    kept = points[:1]
    for before, point, after in zip(points, points[1:], [*points[2:], (-1.0, -1.0)], strict=False):
        if not before[0] == point[0] == after[0]:
            kept.append(point)
    return kept


# --- who lent to whom ------------------------------------------------------------------------------------------------


def sankey(loans: Mapping[str, Mapping[str, int]], titles: Mapping[str, str], title: str) -> str:
    """Bands from lenders at the left to borrowers at the right, as wide as the GPU-hours lent."""
    total = sum(sum(taken.values()) for taken in loans.values())
    lenders = sorted(loans, key=lambda owner: -sum(loans[owner].values()))[:OWNERS_SHOWN]
    taken: Counter[str] = Counter()
    for lender in lenders:
        taken.update(loans[lender])
    borrowers = [owner for owner, _ in taken.most_common(OWNERS_SHOWN)]
    shown = sum(loans[lender].get(borrower, 0) for lender in lenders for borrower in borrowers)
    of_them = f", {number(shown / 3_600_000)} of them shown" if shown < total else ""
    height = 80 + 380 + 12 * max(len(lenders), len(borrowers))
    parts = [
        text(16, 22, title, "title"),
        text(16, 40, f"{number(total / 3_600_000)} GPU-hours lent{of_them}; lenders left, borrowers right", "faint"),
    ]
    if not total:
        return svg(WIDTH, 60, title, parts)
    parts += _bands(loans, lenders, borrowers, shown, titles)
    return svg(WIDTH, height, title, parts)


def _bands(
    loans: Mapping[str, Mapping[str, int]],
    lenders: list[str],
    borrowers: list[str],
    shown: int,
    titles: Mapping[str, str],
) -> list[str]:
    scale = 380 / shown
    left_at = _stack([sum(loans[owner].get(other, 0) for other in borrowers) * scale for owner in lenders])
    right_at = _stack([sum(loans[owner].get(other, 0) for owner in lenders) * scale for other in borrowers])
    parts, left_now, right_now = [], list(left_at), list(right_at)
    for row, lender in enumerate(lenders):
        for column, borrower in enumerate(borrowers):
            thick = loans[lender].get(borrower, 0) * scale
            if thick > 0:
                words = f"{lender} to {borrower}: {number(loans[lender][borrower] / 3_600_000)} GPU-hours"
                parts.append(_band(left_now[row], right_now[column], thick, row % COLOURS, words))
                left_now[row] += thick
                right_now[column] += thick
    for names, ats, nows, x, anchor in (
        (lenders, left_at, left_now, 252, "end"),
        (borrowers, right_at, right_now, 708, "start"),
    ):
        for name, at, end in zip(names, ats, nows, strict=True):
            parts.append(text(x, (at + end) / 2 + 4, titles.get(name, name)[:34], "", anchor))
    return parts


def _stack(sizes: list[float]) -> list[float]:
    at, found = 60.0, []
    for size in sizes:
        found.append(at)
        at += size + 12
    return found


def _band(left: float, right: float, thick: float, colour: int, words: str) -> str:
    path = (
        f"M260 {left:.1f} C480 {left:.1f} 480 {right:.1f} 700 {right:.1f} V{right + thick:.1f} "
        f"C480 {right + thick:.1f} 480 {left + thick:.1f} 260 {left + thick:.1f} Z"
    )
    return f'<path class="k{colour} half" d="{path}"><title>{escape(words)}</title></path>'


# --- credit and stages -----------------------------------------------------------------------------------------------


def credit_lines(measures: Measures, titles: Mapping[str, str]) -> str:
    """Each owner's balance: GPU-hours lent less borrowed since the warm-up."""
    owners = [owner for owner in main_owners(measures) if any(measures.series[owner].credit)]
    hours = {owner: [value / 3_600_000 for value in measures.series[owner].credit] for owner in owners}
    low = min([min(values) for values in hours.values()] or [0])
    high = max([max(values) for values in hours.values()] or [1])
    entries = [(titles.get(owner, owner), look(index)) for index, owner in enumerate(owners)]
    names, foot = legend(60, 58, entries, WIDTH - 120)
    frame = Frame(70, foot + 16, WIDTH - 100, 300, (measures.from_ms, measures.until_ms), (low, high))
    parts = [
        text(16, 22, "Credit: GPU-hours lent less borrowed", "title"),
        text(16, 38, f"rules {measures.rules}, seed {measures.seed}", "faint"),
        *names,
        *frame.y_ticks(round_ticks(low, high)),
        *frame.x_ticks(day_ticks(measures.from_ms, measures.until_ms)),
    ]
    for index, owner in enumerate(owners):
        points = [
            (frame.x(measures.from_ms + (at + 1) * measures.bucket_ms), frame.y(value))
            for at, value in enumerate(hours[owner])
        ]
        parts.append(line(points, look(index)))
    return svg(WIDTH, int(foot + 350), "Credit of each owner over time", parts)


def capacity_by_stage(plan: FleetPlan) -> str:
    """GPUs by the stage they have reached, over the years of the plan."""
    days = sorted({day for pool in plan.pools for day in pool.stages.values()})
    ticks = month_ticks(days[0], days[-1])
    days = [ticks[0][1], *days, ticks[-1][1]]
    total = sum(pool.whole_gpus for pool in plan.pools)
    frame = Frame(70, 84, WIDTH - 100, 280, (ticks[0][0], ticks[-1][0]), (0, total))
    stages = list(reversed(Stage))
    entries = [(stage.value.replace("_", " "), f'fill="{STAGE_COLOURS[stage]}"') for stage in stages]
    names, _ = legend(60, 62, entries, WIDTH - 120)
    parts = [text(16, 22, "Capacity by stage", "title"), text(16, 40, "GPUs of the plan", "faint"), *names]
    floor = [0.0] * len(days)
    for stage in stages:
        gpus = [sum(pool.whole_gpus for pool in plan.pools if stage_of(pool, day) is stage) for day in days]
        ceiling = [low + value for low, value in zip(floor, gpus, strict=True)]
        shape = [*_steps(frame, days, ceiling), *reversed(_steps(frame, days, floor))]
        parts.append(area(shape, f'fill="{STAGE_COLOURS[stage]}"', stage.value.replace("_", " ")))
        floor = ceiling
    parts += frame.y_ticks(round_ticks(0, total))
    parts += frame.x_ticks([(at, label) for at, _, label in ticks if label])
    return svg(WIDTH, 400, "Capacity by stage over time", parts)


def _steps(frame: Frame, days: Sequence[str], values: Sequence[float]) -> list[tuple[float, float]]:
    """Each value from its day to the next one's."""
    places = [frame.x(date.fromisoformat(day).toordinal()) for day in days]
    points = [(places[0], frame.y(values[0]))]
    for place, before, value in zip(places[1:], values, values[1:], strict=False):
        points += [(place, frame.y(before)), (place, frame.y(value))]
    return points
