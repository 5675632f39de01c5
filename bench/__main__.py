"""`python -m bench`: measure everything, print a table, write `bench/results/control.json`."""

from bench import fleet, http_load, log
from bench.measure import publish

PARTS = (
    ("the heart at full size: plan, placements, cycle", fleet),
    ("the log: appends, a million facts, restart", log),
    ("the API over HTTP: submissions, lists", http_load),
)


def main() -> None:
    """Run all benchmarks of the control plane, the heart first."""
    figures: dict[str, float] = {}
    notes: dict[str, str] = {}
    for number, (what, part) in enumerate(PARTS, 1):
        print(f"bench: {number} of {len(PARTS)}: {what}", flush=True)
        figures |= part.measure()
        notes |= part.NOTES
    publish("control", figures, notes)


if __name__ == "__main__":
    main()
