"""The routes, by the kind of thing they are about."""
