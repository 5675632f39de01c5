"""Facts of the log: versioned, encoded, upcast. Nothing else is truth."""
