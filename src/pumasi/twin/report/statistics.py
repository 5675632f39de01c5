"""Comparing rules over seeds: the same seed is the same workload, so differences are taken seed by seed.

Figures are in the unit of what they are of; intervals hold the mean difference with 95 % confidence (Student's t).
"""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import fmean, stdev

from msgspec import Struct

from pumasi.twin.report.measures import QUANTILES, Measures, Waits

# Student's t for 95 %, by degrees of freedom from 1.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T95_MANY = 1.96
Figure = Callable[[Measures], float]


class Interval(Struct, frozen=True):
    """A mean over seeds and the half-width of its 95 % interval; None if there is but one seed."""

    mean: float
    half_width: float | None

    @property
    def is_above_zero(self) -> bool:
        """True if the whole interval is."""
        return self.half_width is not None and self.mean - self.half_width > 0

    @property
    def is_below_zero(self) -> bool:
        """True if the whole interval is."""
        return self.half_width is not None and self.mean + self.half_width < 0


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether an owner is worse off under rules than under the first ones, in its 95th percentile of waits.

    Waits are milliseconds, means over seeds. `allowed_ms`: the owner's reclaim window, which it agreed to wait.
    `worse_seeds`: seeds in which it waited longer by more than that.
    """

    owner: str
    before: Interval
    after: Interval
    difference: Interval
    allowed_ms: int
    worse_seeds: tuple[int, ...]

    @property
    def is_worse(self) -> bool:
        """True if the mean of the differences is above what the owner agreed to wait."""
        return self.difference.mean > self.allowed_ms


def interval(values: Sequence[float]) -> Interval:
    """The mean of values, one a seed, and its 95 % interval."""
    if len(values) < 2:
        return Interval(fmean(values) if values else 0.0, None)
    t = _T95[len(values) - 2] if len(values) - 2 < len(_T95) else _T95_MANY
    return Interval(fmean(values), t * stdev(values) / sqrt(len(values)))


def by_rules(runs: Sequence[Measures]) -> dict[str, dict[int, Measures]]:
    """The runs by rules and seed, both in the order they come in."""
    found: dict[str, dict[int, Measures]] = {}
    for run in runs:
        found.setdefault(run.rules, {})[run.seed] = run
    return found


def figure_over_seeds(runs: dict[int, Measures], figure: Figure) -> Interval:
    """A figure of every seed."""
    return interval([figure(run) for run in runs.values()])


def difference(before: dict[int, Measures], after: dict[int, Measures], figure: Figure) -> Interval:
    """By how much a figure grows from some rules to others, seed by seed."""
    return interval([figure(after[seed]) - figure(before[seed]) for seed in before if seed in after])


def owner_wait(owner: str, percent: int) -> Figure:
    """A percentile of the waits of an owner's jobs, milliseconds."""

    def figure(run: Measures) -> float:
        waits = run.owners.get(owner)
        return float(waits.percentile_ms(percent)) if waits else 0.0

    return figure


def verdicts(
    before: dict[int, Measures], after: dict[int, Measures], windows_ms: dict[str, int], percent: int = 95
) -> list[Verdict]:
    """One verdict for each owner with jobs; `windows_ms`: reclaim windows by owner."""
    owners = dict.fromkeys(owner for run in before.values() for owner, waits in run.owners.items() if waits.jobs)
    found = []
    for owner in owners:
        figure, allowed_ms = owner_wait(owner, percent), windows_ms.get(owner, 0)
        both = [seed for seed in before if seed in after]
        worse = tuple(seed for seed in both if figure(after[seed]) - figure(before[seed]) > allowed_ms)
        found.append(
            Verdict(
                owner=owner,
                before=figure_over_seeds(before, figure),
                after=figure_over_seeds(after, figure),
                difference=difference(before, after, figure),
                allowed_ms=allowed_ms,
                worse_seeds=worse,
            )
        )
    return found


def pooled(parts: Sequence[Waits]) -> Waits:
    """Waits of several seeds together: each seed's distribution counts by its jobs."""
    points = sorted((value, waits.jobs) for waits in parts for value in waits.quantiles_ms)
    total = sum(jobs for _, jobs in points)
    if not total:
        return Waits(jobs=0, unstarted=0, refused=sum(each.refused for each in parts), mean_ms=0, quantiles_ms=())
    jobs = sum(each.jobs for each in parts)
    return Waits(
        jobs=jobs,
        unstarted=sum(each.unstarted for each in parts),
        refused=sum(each.refused for each in parts),
        mean_ms=sum(each.mean_ms * each.jobs for each in parts) // jobs,
        quantiles_ms=_quantiles(points, total),
    )


def _quantiles(points: list[tuple[int, int]], total: int) -> tuple[int, ...]:
    found: list[int] = []
    passed = 0
    for value, weight in points:
        passed += weight
        while len(found) <= QUANTILES and passed * QUANTILES >= len(found) * total:
            found.append(value)
    return tuple(found)


def pooled_groups(runs: dict[int, Measures], groups: Callable[[Measures], dict[str, Waits]]) -> dict[str, Waits]:
    """The waits of each group over all seeds."""
    names = dict.fromkeys(name for run in runs.values() for name in groups(run))
    return {name: pooled([groups(run)[name] for run in runs.values() if name in groups(run)]) for name in names}
