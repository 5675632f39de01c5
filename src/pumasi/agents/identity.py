"""Who an agent is: its key, which never leaves the site, and what the control plane told it at enrolment."""

import fcntl
import os
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
from msgspec import Struct

from pumasi.model.ids import SiteId
from pumasi.protocol.signing import new_key


class NotEnrolled(Exception):
    """The site has no identity here; the message says what to do."""


class SiteInUse(Exception):
    """Another agent of this machine already speaks for the site from the same directory."""


class Membership(Struct, frozen=True, kw_only=True):
    """What an enrolment gave: the fleet's name and this agent's generation."""

    fleet: str
    generation: int


class Identity(NamedTuple):
    """All it takes to sign a request for a site."""

    site: SiteId
    private_key: str
    fleet: str
    generation: int


def site_directory(data: Path, site: SiteId) -> Path:
    """Where everything of a site is kept."""
    return data / "sites" / site


def load_key(directory: Path) -> str:
    """The site's private key; made on first use, readable by its owner alone."""
    path = directory / "key"
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = new_key().private
    write_durably(path, key.encode() + b"\n")
    return key


def save_membership(directory: Path, membership: Membership) -> None:
    """Keep what enrolment gave, durable on return."""
    write_durably(directory / "membership", msgspec.json.encode(membership) + b"\n")


def load_identity(directory: Path, site: SiteId) -> Identity:
    """The identity of an enrolled site.

    :raises NotEnrolled: if there is none.
    """
    try:
        key = (directory / "key").read_text(encoding="ascii").strip()
        membership = msgspec.json.decode((directory / "membership").read_bytes(), type=Membership)
    except FileNotFoundError as error:
        raise NotEnrolled(f"site {site} is not enrolled here: get a token and run `pumasi agent enrol`") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotEnrolled(f"the enrolment of site {site} in {directory} is damaged ({error}): enrol it anew") from error
    return Identity(site, key, membership.fleet, membership.generation)


def lock_site(directory: Path) -> IO[bytes]:
    """Hold the site for this process; the lock goes when the file is closed or the process ends.

    :raises SiteInUse: if another process holds it.
    """
    file = (directory / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise SiteInUse(f"another agent runs from {directory}") from error
    return file


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file (mode 0600) so that it is either old or new after any crash, and new once this returns."""
    draft = path.with_name(f"{path.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
