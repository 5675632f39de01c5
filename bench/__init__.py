"""Benchmarks: `make bench` runs them all, prints tables and writes JSON under `bench/results/`."""
