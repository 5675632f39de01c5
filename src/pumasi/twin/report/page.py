"""One page for one experiment: self-contained HTML that opens offline, in light and dark, and prints."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

from pumasi.model.fleet import FleetPlan
from pumasi.plans.summary import summarize
from pumasi.twin.report import pictures
from pumasi.twin.report.measures import Measures, Waits
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
from pumasi.twin.report.times import in_words

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1a1a1a; --faint: #595959; --rule: #d0d0d0;
--bad: #a51616; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181d; --ink: #f0f0f0; --faint: #b8b8b8; --rule: #40434b;
--bad: #ff9a9a; } }
@media print { :root { --ground: #ffffff; --ink: #000000; --faint: #404040; --rule: #bbbbbb; --bad: #8a0000; }
section { break-inside: avoid; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", "Noto Sans", sans-serif;
max-width: 992px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.faint, td.faint { color: var(--faint); }
.bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
"""
HOUR_MS = 3_600_000
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
            "reclaims": pictures.reclaim_picture([run for run in self.runs if run.rules == shown.rules]),
            "lent-to-whom": pictures.sankey(shown.loans, self.titles, f"Who lent to whom ({shown.rules})"),
            "credit": pictures.credit_lines(shown, self.titles),
            "capacity": pictures.capacity_by_stage(self.plan),
        }
        if len(shown.classes) > 1 and _counts(shown.classes) != _counts(shown.owners):
            made["waits-by-class"] = self._waits("Waits by class of job", lambda run: run.classes)
        return made

    def _waits(self, title: str, groups: Groups) -> str:
        return pictures.wait_curves({rule: pooled_groups(runs, groups) for rule, runs in self.rules.items()}, title)


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
        *_section("Utilisation", [made["utilisation"]]),
        *_section("Waits", [made["waits-by-owner"], made["waits-by-size"], made.get("waits-by-class", "")]),
        *_section("Reclaims", [_table(*_reclaims(experiment)), made["reclaims"]]),
        *_section("Who lent to whom", [made["lent-to-whom"], _table(*_matrix(experiment))], "GPU-hours of one seed."),
        *_section("Credit", [made["credit"]]),
        *_section("Capacity", [made["capacity"]]),
        "</body></html>",
        "",
    ]
    return "\n".join(parts)


_DELTA_NOTE = (
    "Means over seeds with 95 % intervals; in brackets the difference to the first rules, seed by seed. Jobs that "
    "never started count as waiting until the end of the run."
)


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
    gpus = summarize(experiment.plan, "9999-12-31").gpus_total
    yield (
        f"<p>{len(experiment.rules)} sets of rules, {len(seeds)} seeds, {len(experiment.runs)} runs; {gpus:,} GPUs in "
        f"the plan; {days:.0f} days measured after a warm-up; {sum(each.jobs for each in experiment.runs):,} jobs.</p>"
    )
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


def _deltas(experiment: Experiment) -> tuple[Row, list[Row]]:
    base = experiment.rules[experiment.base]
    rows: list[Row] = []
    for name, figure, unit in FIGURES:
        row = [name]
        for rule, runs in experiment.rules.items():
            cell = shown_interval(figure_over_seeds(runs, figure), unit)
            if rule != experiment.base:
                cell += f"<br>({shown_interval(difference(base, runs, figure), unit)})"
            row.append(cell)
        rows.append(row)
    return ["", *experiment.rules], rows


def _verdict_sections(experiment: Experiment) -> Iterator[str]:
    base = experiment.rules[experiment.base]
    for rule, runs in experiment.rules.items():
        if rule == experiment.base:
            continue
        found = verdicts(base, runs, experiment.windows_ms())
        worse = [verdict.owner for verdict in found if verdict.is_worse]
        said = (
            f"Worse off than under {experiment.base} by more than their reclaim window: {', '.join(worse)}."
            if worse
            else f"No owner waits longer than under {experiment.base} by more than its reclaim window."
        )
        head = ["owner", experiment.base, rule, "difference", "reclaim window", "worse seeds"]
        rows = [_verdict_row(verdict, experiment) for verdict in found]
        yield from _section(f"95 % waits of each owner: {rule} against {experiment.base}", [_table(head, rows)], said)


def _verdict_row(verdict: Verdict, experiment: Experiment) -> Row:
    mark = ' class="bad"' if verdict.is_worse else ""
    return [
        escape(experiment.titles.get(verdict.owner, verdict.owner)),
        shown_interval(verdict.before, "time"),
        shown_interval(verdict.after, "time"),
        f"<span{mark}>{shown_interval(verdict.difference, 'time')}</span>",
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
