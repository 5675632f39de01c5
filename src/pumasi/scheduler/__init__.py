"""The scheduler: PURE `plan(state, now_ms)`, what to place, stop, reserve and recharge now, and why the rest waits."""
