"""Write the extract of the Philly trace that ships with the demo: every job that runs in or is submitted to its window.

python scripts/extract_philly.py path/to/philly_jobs.csv src/pumasi/demo/data/philly_extract.csv
"""

import csv
import sys
from pathlib import Path

from pumasi.demo.workload import WINDOW_FROM_MS, WINDOW_MS
from pumasi.twin.workloads.philly import COLUMNS, trace_job
from pumasi.twin.workloads.trace import window


def main(trace: Path, extract: Path) -> None:
    """Keep the trace's own lines, in its own order, of the jobs the demo uses."""
    kept = 0
    with trace.open(encoding="utf-8", newline="") as source, extract.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in csv.DictReader(source):
            running, submitted = window([trace_job(row)], WINDOW_FROM_MS, WINDOW_FROM_MS + WINDOW_MS)
            if running or submitted:
                writer.writerow(row)
                kept += 1
    print(f"{kept} jobs kept in {extract}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
