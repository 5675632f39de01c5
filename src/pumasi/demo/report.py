"""The tables at the end of the demo, made from what the API says."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.table import Table

Row = dict[str, Any]

MS_PER_GPU_HOUR = 3_600_000


def milliseconds(text: str) -> int:
    """Unix milliseconds of an RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def gpu_hours(gpu_milliseconds: int) -> str:
    """GPU-hours for people, rounded to whole ones."""
    return f"{round(gpu_milliseconds / MS_PER_GPU_HOUR):,}"


def owners_table(owners: Iterable[Row], usage: Iterable[Row]) -> Table:
    """Per owner: what it is due, and the GPU-hours it used at home, lent and borrowed. `usage`: by owner and lender."""
    home, lent, borrowed = Counter[str](), Counter[str](), Counter[str]()
    for row in usage:
        borrower, lender = row["by"]["owner"], row["by"]["lender"]
        home[borrower] += row["home_gpu_milliseconds"]
        borrowed[borrower] += row["borrowed_gpu_milliseconds"]
        lent[lender] += row["borrowed_gpu_milliseconds"]
    table = Table(title="Whose GPUs did the work (GPU-hours of fleet time)", title_justify="left")
    for column in ("owner", "GPUs due", "home", "lent", "borrowed", "may lend"):
        table.add_column(column, justify="left" if column == "owner" else "right")
    for owner in owners:
        name = owner["owner"]
        numbers = (home[name], lent[name], borrowed[name])
        lends = f"{owner['lendable_percent']} %"
        table.add_row(owner["title"], f"{owner['total']['due']:,}", *map(gpu_hours, numbers), lends)
    return table


def loans_table(usage: Iterable[Row], titles: dict[str, str]) -> Table:
    """The ledger's entry for both sides of every loan."""
    table = Table(title="The ledger: who used whose GPUs", title_justify="left")
    for column in ("borrower (debit)", "lender (credit)", "GPU-milliseconds"):
        table.add_column(column, justify="right" if column.startswith("GPU") else "left")
    for row in usage:
        if row["borrowed_gpu_milliseconds"]:
            borrower, lender = titles[row["by"]["owner"]], titles[row["by"]["lender"]]
            table.add_row(borrower, lender, f"{row['borrowed_gpu_milliseconds']:,}")
    return table


def reclaims_table(reclaims: Iterable[Row], titles: dict[str, str]) -> Table:
    """Every reclaim against its promise."""
    table = Table(title="Reclaims against their promise (fleet time)", title_justify="left")
    for column in ("owner", "job", "pool", "asked for", "evicted", "promised", "took", "kept"):
        table.add_column(column, justify="left" if column in ("owner", "pool", "kept") else "right")
    for row in reclaims:
        took = "-" if row["took_seconds"] is None else f"{row['took_seconds']:,} s"
        kept = {True: "yes", False: "NO", None: row["state"]}[row["kept"]]
        gpus = (f"{row['requested_gpus']:,} GPUs", f"{row['evicted_gpus']:,} GPUs")
        promised = f"{row['promised_seconds']:,} s"
        table.add_row(titles[row["owner"]], str(row["claimant"]), row["pool"], *gpus, promised, took, kept)
    return table


def jobs_table(jobs: Iterable[Row], titles: dict[str, str]) -> Table:
    """Per owner: how its jobs ended, and how long they waited before their first start."""
    by_owner: dict[str, list[Row]] = {}
    for job in jobs:
        by_owner.setdefault(job["owner"], []).append(job)
    table = Table(title="Jobs: real processes, real exit codes; waits in fleet time", title_justify="left")
    for column in ("owner", "jobs", "exit 0", "failed", "cut at the end", "reclaimed", "wait p50", "wait p95"):
        table.add_column(column, justify="left" if column == "owner" else "right")
    for owner, rows in sorted(by_owner.items()):
        states = Counter(row["state"] for row in rows)
        reclaimed = sum(attempt["outcome"] == "reclaimed" for row in rows for attempt in row["attempts"])
        waits = sorted(wait_seconds(row) for row in rows if row["attempts"])
        numbers = (len(rows), states["succeeded"], states["failed"] + states["expired"], states["cancelled"], reclaimed)
        table.add_row(titles[owner], *(f"{number:,}" for number in numbers), _rank(waits, 50), _rank(waits, 95))
    return table


def wait_seconds(job: Row) -> int:
    """From submission to the first placement."""
    return (milliseconds(job["attempts"][0]["placed_at"]) - milliseconds(job["submitted_at"])) // 1000


def _rank(values: list[int], percent: int) -> str:
    return f"{values[min(len(values) - 1, len(values) * percent // 100)]:,} s" if values else "-"


def allocated_gpu_milliseconds(jobs: Iterable[Row]) -> int:
    """The integral of all allocations, from the jobs' own records: what the ledger must add up to."""
    return sum(
        attempt["gpus"] * (milliseconds(attempt["ended_at"]) - milliseconds(attempt["placed_at"]))
        for job in jobs
        for attempt in job["attempts"]
    )
