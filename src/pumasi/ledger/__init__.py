"""Who used whose GPUs: double entry over allocations, in integer GPU-milliseconds."""
