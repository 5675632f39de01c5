"""Plan files: a fleet as data. Read, checked, summed up, drawn and compared."""
