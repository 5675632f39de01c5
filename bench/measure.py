"""Small tools all benchmarks share: repeat and take medians, name the machine, print tables, keep results."""

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"

Figures = dict[str, float]


def seconds(work: Callable[[], object], repeats: int = 5) -> list[float]:
    """Wall seconds of each of `repeats` runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def percentile(values: list[float], percent: int) -> float:
    """The value below which `percent` of `values` lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


median = statistics.median


def peak_memory_mib() -> float:
    """The most memory this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    """The machine in a few words."""
    model = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown CPU")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model}, {gib:.0f} GiB, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def amend(name: str, figures: Figures, notes: dict[str, str]) -> None:
    """Print the figures as a table and write them into `bench/results/<name>.json` beside what else is there."""
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = {key: value for key, value in known.items() if isinstance(value, float | int)}
    publish(name, kept | figures, known.get("notes", {}) | notes)


def publish(name: str, figures: Figures, notes: dict[str, str]) -> None:
    """Print the figures as a table and write them to `bench/results/<name>.json`. `notes`: what each figure is."""
    table = Table("figure", "value", "what", title=f"{name}: {machine()}", title_justify="left")
    for key, value in figures.items():
        table.add_row(key, f"{value:,.3f}" if value < 100 else f"{value:,.0f}", notes.get(key, ""))
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = {**{key: round(value, 4) for key, value in figures.items()}, "machine": machine(), "notes": notes}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
