"""The HTTP API: strict at the door, one table of routes with the action each needs, a problem for every refusal."""
