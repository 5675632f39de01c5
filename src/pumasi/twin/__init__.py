"""The digital twin. Today: readers of real workload traces; the demo submits what they read."""
