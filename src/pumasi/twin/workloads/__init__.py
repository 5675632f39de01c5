"""Workloads of the twin: readers of published traces, resampling to other fleets, synthetic classes by industry."""
