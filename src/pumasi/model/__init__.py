"""Nouns of the fleet: immutable values, integer quantities, no behaviour that needs the outside world."""
