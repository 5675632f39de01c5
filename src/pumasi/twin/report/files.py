"""A report on disk: the page, its pictures, its numbers as JSON and CSV; with `analysis`, as PNG and Parquet too."""

import csv
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from pumasi.model.fleet import FleetPlan
from pumasi.twin.report.measures import Measures
from pumasi.twin.report.page import Experiment, page

RUNS_FILE = "runs.json"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of, so that it can be made again."""

    title: str
    plan: FleetPlan
    runs: list[Measures]


def write_report(folder: Path, title: str, plan: FleetPlan, runs: Sequence[Measures]) -> Path:
    """Write everything; returns where the page is.

    :raises OSError: if the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = Saved(title=title, plan=plan, runs=list(runs))
    (folder / RUNS_FILE).write_bytes(msgspec.json.encode(saved))
    return _write(folder, saved)


def write_again(folder: Path) -> Path:
    """Make the page and pictures of a report anew from its numbers.

    :raises OSError: if they cannot be read.
    :raises msgspec.MsgspecError: if they are of another version.
    """
    return _write(folder, msgspec.json.decode((folder / RUNS_FILE).read_bytes(), type=Saved))


def _write(folder: Path, saved: Saved) -> Path:
    experiment = Experiment(saved.title, saved.plan, saved.runs)
    for name, picture in experiment.pictures().items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
        if find_spec("resvg_py"):
            _write_png(folder / f"{name}.png", picture)
    _write_csv(folder / "waits.csv", ("rules", "seed", "by", "group", "jobs", *_WAIT_COLUMNS), _waits(saved.runs))
    _write_csv(folder / "utilisation.csv", ("rules", "seed", "owner", "from_ms", *_KINDS), _utilisation(saved.runs))
    _write_csv(folder / "reclaims.csv", ("rules", "seed", *_RECLAIM_COLUMNS), _reclaims(saved.runs))
    _write_csv(folder / "loans.csv", ("rules", "seed", "lender", "borrower", "gpu_milliseconds"), _loans(saved.runs))
    target = folder / "report.html"
    target.write_text(page(experiment), encoding="utf-8")
    return target


def _write_png(path: Path, picture: str) -> None:
    import resvg_py

    path.write_bytes(resvg_py.svg_to_bytes(svg_string=picture, zoom=2))


_WAIT_COLUMNS = ("unstarted", "refused", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
_RECLAIM_COLUMNS = ("owner", "took_ms", "promised_ms", "gpus", "evicted_gpus")
_KINDS = ("home", "lent", "idle", "down", "borrowed", "credit")
Cells = tuple[str | int, ...]


def _write_csv(path: Path, head: Cells, rows: Iterable[Cells]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
    if find_spec("duckdb"):
        _write_parquet(path)


def _write_parquet(path: Path) -> None:
    import duckdb

    relation = duckdb.read_csv(str(path), header=True)
    relation.write_parquet(str(path.with_suffix(".parquet")))


def _waits(runs: Sequence[Measures]) -> Iterable[Cells]:
    for run in runs:
        for by, groups in (("owner", run.owners), ("size", run.sizes), ("class", run.classes)):
            for name, waits in groups.items():
                shares = [waits.percentile_ms(percent) for percent in (50, 90, 95, 99, 100)]
                counts = (waits.jobs, waits.unstarted, waits.refused, waits.mean_ms)
                yield (run.rules, run.seed, by, name, *counts, *shares)


def _utilisation(runs: Sequence[Measures]) -> Iterable[Cells]:
    for run in runs:
        for owner, series in run.series.items():
            for index, values in enumerate(zip(*(getattr(series, kind) for kind in _KINDS), strict=True)):
                yield (run.rules, run.seed, owner, run.from_ms + index * run.bucket_ms, *values)


def _reclaims(runs: Sequence[Measures]) -> Iterable[Cells]:
    for run in runs:
        for each in run.reclaims:
            yield (run.rules, run.seed, each.owner, each.took_ms, each.promised_ms, each.gpus, each.evicted_gpus)


def _loans(runs: Sequence[Measures]) -> Iterable[Cells]:
    for run in runs:
        for lender, taken in run.loans.items():
            for borrower, gpu_milliseconds in taken.items():
                yield (run.rules, run.seed, lender, borrower, gpu_milliseconds)
