"""What `pumasi up` can be asked for, and why it may not start."""

from pathlib import Path

from msgspec import Struct

from pumasi.model.fleet import FleetPlan


class AgentScope(Struct, frozen=True):
    """Which sites get an agent of this process' own: those whose engine is `local`, all of them, or none."""

    local: bool
    others: bool


AGENT_SCOPES = {
    "local": AgentScope(local=True, others=False),
    "all": AgentScope(local=True, others=True),
    "none": AgentScope(local=False, others=False),
}


class PublicAddress(Struct, frozen=True):
    """Where other machines reach the API: by TLS alone, with a certificate and its key in PEM files."""

    host: str
    port: int
    certificate: Path
    key: Path


class Settings(Struct, frozen=True, kw_only=True):
    """What `pumasi up` was asked for. `plan` is applied at the start. `clock_rate`: fleet seconds per second.

    `host` and `port`: the loopback address, for this machine's own; `public`: one for others, if they may come.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 7878
    public: PublicAddress | None = None
    plan: FleetPlan | None = None
    as_of: str = ""
    clock_rate: int = 1
    agents: str = "local"
    ready_file: Path | None = None


class CannotStart(Exception):
    """Why the control plane does not start, in one line."""
