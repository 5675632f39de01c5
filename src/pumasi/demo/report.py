"""The tables at the end of the demo, made from what the API says."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich import box
from rich.table import Table

Row = dict[str, Any]

MS_PER_UNIT = {"hours": 3_600_000, "seconds": 1_000}
RECLAIMS_SHOWN = 8
TEXT_COLUMNS = {"owner", "pool", "kept", "borrower (debit)", "lender (credit)"}


def milliseconds(text: str) -> int:
    """Unix milliseconds of an RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def _table(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table with text to the left and numbers to the right, narrow enough for 80 columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", no_wrap=True)
    return table


def gpu_time(gpu_milliseconds: int, unit: str) -> str:
    """GPU-hours or GPU-seconds for people, rounded to whole ones."""
    return f"{round(gpu_milliseconds / MS_PER_UNIT[unit]):,}"


def owners_table(owners: Iterable[Row], usage: Iterable[Row], unit: str = "hours") -> Table:
    """Per owner: what it is due, and the GPU-hours it used at home, lent and borrowed. `usage`: by owner and lender.

    `unit`: "seconds" counts GPU-seconds, for fleets that are small and short-lived.
    """
    home, lent, borrowed = Counter[str](), Counter[str](), Counter[str]()
    for row in usage:
        borrower, lender = row["by"]["owner"], row["by"]["lender"]
        home[borrower] += row["home_gpu_milliseconds"]
        borrowed[borrower] += row["borrowed_gpu_milliseconds"]
        lent[lender] += row["borrowed_gpu_milliseconds"]
    table = _table(
        f"Whose GPUs did the work (GPU-{unit} of fleet time)",
        ("owner", "GPUs due", "home", "lent", "borrowed", "may lend"),
    )
    for owner in owners:
        name = owner["owner"]
        numbers = (home[name], lent[name], borrowed[name])
        lends = f"{owner['lendable_percent']} %"
        table.add_row(name, f"{owner['total']['due']:,}", *(gpu_time(number, unit) for number in numbers), lends)
    return table


def loans_table(usage: Iterable[Row]) -> Table:
    """The ledger's entry for both sides of every loan."""
    columns = ("borrower (debit)", "lender (credit)", "GPU-milliseconds")
    table = _table("The ledger: who used whose GPUs", columns)
    for row in usage:
        if row["borrowed_gpu_milliseconds"]:
            table.add_row(row["by"]["owner"], row["by"]["lender"], f"{row['borrowed_gpu_milliseconds']:,}")
    return table


def reclaims_table(reclaims: list[Row]) -> Table:
    """Reclaims against their promise: the largest ones, and how the others went."""
    table = _table(
        "Reclaims against their promise (GPUs; seconds of fleet time)",
        ("owner", "pool", "asked", "evicted", "window", "took", "kept"),
    )
    largest = sorted(reclaims, key=lambda row: (-row["requested_gpus"], row["claimant"]))
    for row in largest[:RECLAIMS_SHOWN]:
        kept = {True: "yes", False: "NO", None: row["state"]}[row["kept"]]
        gpus = (f"{row['requested_gpus']:,}", f"{row['evicted_gpus']:,}")
        took = "-" if row["took_seconds"] is None else f"{row['took_seconds']:,}"
        table.add_row(row["owner"], row["pool"], *gpus, f"{row['promised_seconds']:,}", took, kept)
    others = largest[RECLAIMS_SHOWN:]
    if others:
        kept = sum(row["kept"] is True for row in others)
        table.caption = f"and {len(others)} smaller ones, {kept} of them kept"
        table.caption_justify = "left"
    return table


def jobs_table(jobs: Iterable[Row]) -> Table:
    """Per owner: how its jobs ended, and how long they waited before their first start."""
    by_owner: dict[str, list[Row]] = {}
    for job in jobs:
        by_owner.setdefault(job["owner"], []).append(job)
    table = _table(
        "Jobs: real processes, real exit codes; waits in seconds of fleet time",
        ("owner", "jobs", "exit 0", "failed", "cut short", "reclaimed", "wait p50", "wait p95"),
    )
    for owner, rows in sorted(by_owner.items()):
        states = Counter(row["state"] for row in rows)
        reclaimed = sum(attempt["outcome"] == "reclaimed" for row in rows for attempt in row["attempts"])
        waits = sorted(wait_seconds(row) for row in rows if row["attempts"])
        numbers = (len(rows), states["succeeded"], states["failed"] + states["expired"], states["cancelled"], reclaimed)
        table.add_row(owner, *(f"{number:,}" for number in numbers), _rank(waits, 50), _rank(waits, 95))
    return table


def wait_seconds(job: Row) -> int:
    """From submission to the first placement."""
    return (milliseconds(job["attempts"][0]["placed_at"]) - milliseconds(job["submitted_at"])) // 1000


def _rank(values: list[int], percent: int) -> str:
    return f"{values[min(len(values) - 1, len(values) * percent // 100)]:,}" if values else "-"


def verdict(reclaims: Iterable[Row], owner: str) -> str:
    """What happened to the largest reclaim of an owner, in a sentence; "" if it had none."""
    own = [row for row in reclaims if row["owner"] == owner and row["took_seconds"] is not None]
    if not own:
        return ""
    row = max(own, key=lambda row: row["requested_gpus"])
    return (
        f"{owner} asked for {row['requested_gpus']:,} GPUs of its own. {len(row['victims'])} borrowers got notice and "
        f"queued again, {row['evicted_gpus']:,} GPUs came back, and its job had all of them after "
        f"{row['took_seconds']:,} seconds; its contract promises {row['promised_seconds']:,}."
    )


def allocated_gpu_milliseconds(jobs: Iterable[Row]) -> int:
    """The integral of all allocations, from the jobs' own records: what the ledger must add up to."""
    return sum(
        attempt["gpus"] * (milliseconds(attempt["ended_at"]) - milliseconds(attempt["placed_at"]))
        for job in jobs
        for attempt in job["attempts"]
    )
