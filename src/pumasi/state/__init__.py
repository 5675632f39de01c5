"""FleetState: a fold over the log. Incremental, with counters per pool, block and rack; no I/O and no clock."""
