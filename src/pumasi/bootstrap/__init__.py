"""The one place that wires ports to adapters."""

from pumasi.bootstrap.serve import run, verify
from pumasi.bootstrap.settings import CannotStart, PublicAddress, Settings

__all__ = ["CannotStart", "PublicAddress", "Settings", "run", "verify"]
