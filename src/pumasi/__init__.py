"""Pumasi: the control plane of a GPU fleet that belongs to several owners."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pumasi.client.client import Client

__all__ = ["Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the client when it is first asked for, so that `import pumasi` stays light."""
    if name == "Client":
        from pumasi.client.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
