"""The command line. It speaks to the control plane through the client alone; a command imports what it needs."""
