"""One page for one experiment: self-contained HTML that opens offline, in light and dark, and prints."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from html import escape

from pumasi.model.fleet import FleetPlan
from pumasi.twin.report import pictures
from pumasi.twin.report.measures import Measures, ReclaimMeasure, Waits
from pumasi.twin.report.statistics import (
    Figure,
    Interval,
    Verdict,
    by_rules,
    difference,
    figure_over_seeds,
    pooled,
    pooled_groups,
    verdicts,
)
from pumasi.twin.report.times import KOREA, in_words
from pumasi.twin.report.worse import reasons

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1a1a1a; --faint: #595959; --rule: #d0d0d0;
--bad: #a51616; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181d; --ink: #f0f0f0; --faint: #b8b8b8; --rule: #40434b;
--bad: #ff9a9a; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", "Noto Sans", sans-serif;
max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p { max-width: 992px; } p.faint { color: var(--faint); font-size: 0.93em; }
.bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
:root { --ground: #ffffff; --ink: #000000; --faint: #404040; --rule: #bbbbbb; --bad: #8a0000; }
body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
table { font-size: 7.5pt; } th, td { padding: 2pt 4pt; } thead { display: table-header-group; }
.wide { overflow: visible; } h2, p.faint { break-after: avoid; } p, .wide, svg { break-inside: avoid; }
svg { max-height: 160mm; }
}
"""
HOUR_MS = 3_600_000
VERDICTS_SHOWN = 24
Row = Sequence[str]
Groups = Callable[[Measures], dict[str, Waits]]


class Experiment:
    """What a page is made of: the plan before any rules, and the runs of all rules and seeds."""

    def __init__(self, title: str, plan: FleetPlan, runs: Sequence[Measures]) -> None:
        self.title = title
        self.plan = plan
        self.runs = runs
        self.rules = by_rules(runs)
        self.titles = {owner.id: owner.title for owner in plan.owners}

    @property
    def base(self) -> str:
        """The rules that the others are compared with: the first."""
        return next(iter(self.rules))

    @property
    def shown(self) -> Measures:
        """The run whose course is shown: the first seed of the second rules, or of the only ones."""
        names = list(self.rules)
        return next(iter(self.rules[names[1 if len(names) > 1 else 0]].values()))

    def windows_ms(self) -> dict[str, int]:
        """The reclaim window of each owner's contract."""
        return {owner.id: owner.lending.reclaim_window_seconds * 1000 for owner in self.plan.owners}

    def pictures(self) -> dict[str, str]:
        """Every picture by its file name."""
        shown = self.shown
        made = {
            "utilisation": pictures.utilisation(shown, self.titles),
            "waits-by-owner": self._waits("Waits by owner", lambda run: run.owners),
            "waits-by-size": self._waits("Waits by size of job", lambda run: run.sizes),
            "reclaims": pictures.reclaim_picture(self.reclaims()),
            "lent-to-whom": pictures.sankey(shown.loans, self.titles, f"Who lent to whom ({shown.rules})"),
            "credit": pictures.credit_lines(shown, self.titles),
        }
        if len({day for pool in self.plan.pools for day in pool.stages.values()}) > 1:
            made["capacity"] = pictures.capacity_by_stage(self.plan)
        if len(shown.classes) > 1 and _counts(shown.classes) != _counts(shown.owners):
            made["waits-by-class"] = self._waits("Waits by class of job", lambda run: run.classes)
        return made

    def reclaims(self) -> dict[str, list[ReclaimMeasure]]:
        """The reclaims of all seeds under the rules that had any."""
        found = {rule: [each for run in runs.values() for each in run.reclaims] for rule, runs in self.rules.items()}
        return {rule: reclaims for rule, reclaims in found.items() if reclaims}

    def _waits(self, title: str, groups: Groups) -> str:
        pooled_by_rules = {rule: pooled_groups(runs, groups) for rule, runs in self.rules.items()}
        return pictures.wait_curves(pooled_by_rules, title, self.titles)


def _counts(groups: dict[str, Waits]) -> list[int]:
    return sorted(waits.jobs for waits in groups.values())


def page(experiment: Experiment) -> str:
    """The whole page."""
    made = experiment.pictures()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(experiment.title)}</title>",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(experiment.title)}</h1>",
        *_opening(experiment),
        *_section("What the rules do", [_table(*_deltas(experiment))], _DELTA_NOTE),
        *_verdict_sections(experiment),
        *_section("Utilisation", [made["utilisation"]], _USAGE_NOTE),
        *_section("Waits", [made["waits-by-owner"], made["waits-by-size"], made.get("waits-by-class", "")], _WAIT_NOTE),
        *_section("Reclaims", [_table(*_reclaims(experiment)), made["reclaims"]], _RECLAIM_NOTE),
        *_loan_sections(experiment, made),
        *(_section("Capacity", [made["capacity"]], _CAPACITY_NOTE) if "capacity" in made else ()),
        "</body></html>",
        "",
    ]
    return "\n".join(parts)


_DELTA_NOTE = (
    "Means over seeds with 95 % intervals; in brackets the difference to the first rules, seed by seed. Jobs that "
    "never started count as waiting until the end of the run."
)


_USAGE_NOTE = (
    "What each owner's GPUs did: home is its own work, lent is work of others, down is broken or "
    "without power. Where the line runs above the blue, the owner used borrowed GPUs of others as well."
)
_WAIT_NOTE = (
    "From submission to the first start. A line that reaches a height further left means that this share of the jobs "
    "started sooner. Of many groups, those with most jobs are shown; waits.csv has them all."
)
_RECLAIM_NOTE = (
    "An owner asks for GPUs it lent, for work of its own. Kept: its work started within the time the lending contract "
    "promises. Evicted per GPU asked: how much more than was asked back had to stop, for the shape of the work."
)
_LOAN_NOTE = "GPU-hours of one seed, {rules} (seed {seed}); loans.csv has all seeds."
_CREDIT_NOTE = (
    "GPU-hours lent less borrowed. Who has lent more goes first when several want what is idle, unless the rules have "
    "no memory."
)
_CAPACITY_NOTE = "What the plan says about its pools over the years. A run has those in service on its own days."


def _section(title: str, parts: Iterable[str], note: str = "") -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2>"
    if note:
        yield f'<p class="faint">{escape(note)}</p>'
    yield from parts
    yield "</section>"


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = ['<div class="wide"><table><thead><tr>', *(f"<th>{escape(cell)}</th>" for cell in head), "</tr></thead>"]
    for row in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "".join([*lines, "</table></div>"])


def _opening(experiment: Experiment) -> Iterator[str]:
    run = experiment.shown
    seeds = sorted({each.seed for each in experiment.runs})
    days = (run.until_ms - run.from_ms) / 86_400_000
    gpus = run.capacity // max(1, run.until_ms - run.from_ms)
    yield (
        f"<p>{len(experiment.rules)} sets of rules, {len(seeds)} seeds, {len(experiment.runs)} runs; {gpus:,} GPUs in "
        f"service on average; {days:.0f} days measured, from {_day(run.from_ms)}; "
        f"{sum(each.jobs for each in experiment.runs):,} jobs in all runs.</p>"
    )
    named = [(name, next(iter(runs.values())).rules_title) for name, runs in experiment.rules.items()]
    yield "".join(["<ul>", *(f"<li><b>{escape(name)}</b>: {escape(title)}</li>" for name, title in named), "</ul>"])
    partial = Counter(each.rules for each in experiment.runs if not each.finished)
    if partial:
        yield f'<p class="bad">Stopped early: {sum(partial.values())} runs are measured only as far as they got.</p>'
    for note in run.notes:
        yield f'<p class="faint">Seed {run.seed}: {escape(note)}.</p>'
    if run.shapes:
        far = ", ".join(f"{name} {value} ‰" for name, value in run.shapes.items())
        yield f'<p class="faint">Distance of the drawn workload from the trace (Kolmogorov–Smirnov): {far}.</p>'


# --- tables ----------------------------------------------------------------------------------------------------------


def _all_waits(percent: int) -> Figure:
    return lambda run: float(pooled(list(run.owners.values())).percentile_ms(percent))


def _mean_wait_ms(run: Measures) -> float:
    jobs = sum(each.jobs for each in run.owners.values())
    return sum(each.mean_ms * each.jobs for each in run.owners.values()) / jobs if jobs else 0.0


FIGURES: tuple[tuple[str, Figure, str], ...] = (
    ("busy GPUs", lambda run: run.busy_per_mille / 10, "percent"),
    ("GPU-hours of work done", lambda run: run.work_succeeded / HOUR_MS, "count"),
    ("mean wait", _mean_wait_ms, "time"),
    ("median wait", _all_waits(50), "time"),
    ("95 % wait", _all_waits(95), "time"),
    ("jobs not started", lambda run: float(sum(each.unstarted for each in run.owners.values())), "count"),
    ("jobs refused as impossible", lambda run: float(sum(each.refused for each in run.owners.values())), "count"),
    ("GPU-hours lent", lambda run: sum(sum(taken.values()) for taken in run.loans.values()) / HOUR_MS, "count"),
    ("jobs evicted", lambda run: float(run.evictions), "count"),
    ("GPU-hours done twice", lambda run: run.repeated / HOUR_MS, "count"),
)


def _shown(value: float, unit: str) -> str:
    if unit == "time":
        return in_words(round(value))
    return (f"{value:.1f} %" if unit == "percent" else f"{value:,.0f}").replace("-", "−")


def shown_interval(found: Interval, unit: str) -> str:
    """A mean with its interval, in words."""
    half = "" if found.half_width is None else f" ± {_shown(found.half_width, unit)}"
    return f"{_shown(found.mean, unit)}{half}"


def _shown_difference(found: Interval, unit: str) -> str:
    """A difference with its interval; shares differ by points."""
    sign = "+" if found.mean > 0 else ""
    return sign + shown_interval(found, unit).replace(" %", "") + (" points" if unit == "percent" else "")


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, KOREA).date().isoformat()


def _deltas(experiment: Experiment) -> tuple[Row, list[Row]]:
    base = experiment.rules[experiment.base]
    rows: list[Row] = []
    for name, figure, unit in FIGURES:
        row = [name]
        for rule, runs in experiment.rules.items():
            cell = shown_interval(figure_over_seeds(runs, figure), unit)
            if rule != experiment.base:
                cell += f"<br>({_shown_difference(difference(base, runs, figure), unit)})"
            row.append(cell)
        rows.append(row)
    return ["", *experiment.rules], rows


def _verdict_sections(experiment: Experiment) -> Iterator[str]:
    base = experiment.rules[experiment.base]
    for rule, runs in experiment.rules.items():
        if rule == experiment.base:
            continue
        found = verdicts(base, runs, experiment.windows_ms())
        found.sort(key=lambda verdict: verdict.allowed_ms - verdict.difference.mean)
        head = ["owner", experiment.base, rule, "difference", "reclaim window", "worse seeds"]
        rows = [_verdict_row(verdict, experiment) for verdict in found[:VERDICTS_SHOWN]]
        parts = [_table(head, rows), *_more(len(found)), *_whys(experiment, found, base, runs)]
        title = f"95 % waits of each owner: {rule} against {experiment.base}"
        yield from _section(title, parts, _summary(experiment, found))


def _summary(experiment: Experiment, found: Sequence[Verdict]) -> str:
    """Who is worse off, in a sentence or two."""
    named = [(experiment.titles.get(verdict.owner, verdict.owner), verdict) for verdict in found]
    worse = [name for name, verdict in named if verdict.is_worse]
    some = [name for name, verdict in named if verdict.worse_seeds and not verdict.is_worse]
    said = (
        f"Worse off than under {experiment.base} by more than their reclaim window: {', '.join(worse)}."
        if worse
        else f"On average no owner waits longer than under {experiment.base} by more than its reclaim window."
    )
    return said + (f" In single seeds some do: {', '.join(some)}." if some else "") + " Worst first."


def _more(owners: int) -> list[str]:
    left = owners - VERDICTS_SHOWN
    return (
        [f'<p class="faint">{left:,} more owners, better off than these; waits.csv has them.</p>'] if left > 0 else []
    )


def _whys(
    experiment: Experiment, found: Sequence[Verdict], before: dict[int, Measures], after: dict[int, Measures]
) -> Iterator[str]:
    """Why each owner that waited longer than it agreed to did, seed by seed."""
    for verdict in found[:VERDICTS_SHOWN]:
        for words in reasons(verdict, before, after):
            yield f"<p>{escape(experiment.titles.get(verdict.owner, verdict.owner))}, {escape(words)}</p>"


def _verdict_row(verdict: Verdict, experiment: Experiment) -> Row:
    mark = ' class="bad"' if verdict.is_worse else ""
    return [
        escape(experiment.titles.get(verdict.owner, verdict.owner)),
        shown_interval(verdict.before, "time"),
        shown_interval(verdict.after, "time"),
        f"<span{mark}>{_shown_difference(verdict.difference, 'time')}</span>",
        in_words(verdict.allowed_ms),
        ", ".join(str(seed) for seed in verdict.worse_seeds) or "none",
    ]


def _reclaims(experiment: Experiment) -> tuple[Row, list[Row]]:
    head = ["rules", "reclaims", "kept", "slowest", "GPUs asked", "GPUs evicted", "evicted per GPU asked"]
    rows: list[Row] = []
    for rule, runs in experiment.rules.items():
        asked, evicted = (
            sum(getattr(run, name) for run in runs.values()) for name in ("requested_gpus", "evicted_gpus")
        )
        count, kept = (sum(getattr(run, name) for run in runs.values()) for name in ("reclaims_asked", "reclaims_kept"))
        slowest = max((each.took_ms for run in runs.values() for each in run.reclaims), default=0)
        ratio = f"{evicted / asked:.2f}" if asked else "–"
        rows.append([rule, f"{count:,}", f"{kept:,}", in_words(slowest), f"{asked:,}", f"{evicted:,}", ratio])
    return head, rows


def _loan_sections(experiment: Experiment, made: dict[str, str]) -> Iterator[str]:
    shown = experiment.shown
    if not any(run.loans for run in experiment.runs):
        yield from _section("Who lent to whom", [], "Nobody lent anything under any of these rules.")
        return
    note = _LOAN_NOTE.format(rules=shown.rules, seed=shown.seed)
    yield from _section("Who lent to whom", [made["lent-to-whom"], _table(*_matrix(experiment))], note)
    yield from _section("Credit", [made["credit"]], _CREDIT_NOTE)


def _matrix(experiment: Experiment) -> tuple[Row, list[Row]]:
    loans = experiment.shown.loans
    lenders = sorted(loans, key=lambda owner: -sum(loans[owner].values()))[: pictures.OWNERS_SHOWN]
    taken: Counter[str] = Counter()
    for lender in lenders:
        taken.update(loans[lender])
    borrowers = [owner for owner, _ in taken.most_common(pictures.OWNERS_SHOWN)]
    rows: list[Row] = [
        [lender, *(f"{loans[lender].get(other, 0) // HOUR_MS:,}" for other in borrowers)] for lender in lenders
    ]  # fmt: skip
    return ["lender ↓ borrower →", *borrowers], rows
