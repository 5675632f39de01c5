"""Why an owner waited longer in a seed: what its GPUs did meanwhile, and how its claims were met; then what follows."""

from pumasi.twin.report.measures import Measures
from pumasi.twin.report.statistics import Verdict, owner_wait
from pumasi.twin.report.times import in_words

FULL_PERCENT = 95  # of what an owner is due and up, at home: from there on its own jobs wait for each other
OFTEN_PERCENT = 10  # of the measured time


def reasons(verdict: Verdict, before: dict[int, Measures], after: dict[int, Measures]) -> list[str]:
    """One sentence or more for each seed in which the owner waited longer than it agreed to."""
    return [_reason(verdict, before[seed], after[seed]) for seed in verdict.worse_seeds]


def _reason(verdict: Verdict, before: Measures, after: Measures) -> str:
    owner, wait = verdict.owner, owner_wait(verdict.owner, 95)
    waited = f"seed {after.seed}: {in_words(round(wait(after)))} instead of {in_words(round(wait(before)))}."
    if owner not in after.series:
        return f"{waited} Nothing is its own under these rules, so it waited behind the work of others."
    claims = [each for each in after.reclaims if each.owner == owner]
    late = sum(each.took_ms > each.promised_ms for each in claims)
    full = full_percent(after, owner)
    parts = [
        waited,
        f"Its GPUs were full of its own work {full} % of the time (before: {full_percent(before, owner)} %);",
        f"it asked GPUs back {len(claims)} times"
        + (f", the slowest took {in_words(max(each.took_ms for each in claims))}" if claims else "")
        + f", {late} later than promised.",
    ]
    return " ".join([*parts, _conclusion(late, full, len(claims))])


def _conclusion(late: int, full: int, claims: int) -> str:
    if late:
        return "So promises were broken."
    if full >= OFTEN_PERCENT:
        return "So its jobs waited for its own jobs, and which of them come first changes when loans do."
    if claims:
        return "So what it waited for is its loans to end, claim after claim, and the scheduler's next cycle."
    return "So what it is due was there; it lacked what it had had beyond that."


def full_percent(run: Measures, owner: str) -> int:
    """How much of the measured time the owner's own work filled the GPUs it is due, less those that are down."""
    series = run.series.get(owner)
    if series is None:
        return 0
    rows = list(zip(series.home, series.lent, series.idle, strict=True))
    full = sum(100 * home >= FULL_PERCENT * (home + lent + idle) > 0 for home, lent, idle in rows)
    return 100 * full // len(rows) if rows else 0
