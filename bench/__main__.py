"""`python -m bench`: measure everything, print tables, write `bench/results/control.json`."""

from bench import fleet, http_load, log
from bench.measure import publish


def main() -> None:
    """Run all benchmarks of the control plane, the heart first."""
    figures = {**fleet.measure(), **log.measure(), **http_load.measure()}
    publish("control", figures, {**fleet.NOTES, **log.NOTES, **http_load.NOTES})


if __name__ == "__main__":
    main()
