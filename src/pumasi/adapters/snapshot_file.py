"""A snapshot in a file of its own, replaced as a whole, so that saving one never holds up the log's writer."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from pumasi.adapters.records import DIGEST_BYTES, link, seal, unseal
from pumasi.adapters.sqlite_files import sync_folder
from pumasi.ports.event_log import LogBroken, Snapshot

_MAGIC = b"pumasi snapshot 1\n"
_LENGTH_BYTES = 8


class _Part(Struct, frozen=True):
    name: str
    size_bytes: int
    digest: bytes


class _Header(Struct, frozen=True):
    """What the file holds. `chain`: the digest of fact `seq`, by which the snapshot belongs to one log and no other."""

    seq: int
    chain: bytes
    parts: list[_Part]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)


def save(path: Path, snapshot: Snapshot, chain: bytes) -> None:
    """Replace the snapshot at `path`, durable on return.

    :raises OSError: if it cannot be written; the one before is still there then.
    """
    parts = [_Part(name, len(body), link(b"", body)) for name, body in snapshot.parts.items()]
    header = seal(_encoder.encode(_Header(snapshot.seq, chain, parts)))
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.writelines((_MAGIC, len(header).to_bytes(_LENGTH_BYTES, "big"), header, *snapshot.parts.values()))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    sync_folder(path)


def load(path: Path) -> tuple[Snapshot, bytes] | None:
    """The snapshot at `path` and the chain digest it was taken at; None if there is none.

    :raises LogBroken: if a bit of it has changed or some of it is missing.
    """
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    start = len(_MAGIC) + _LENGTH_BYTES
    if content[: len(_MAGIC)] != _MAGIC:
        raise LogBroken(f"{path} is no snapshot this version can read")
    end = start + int.from_bytes(content[len(_MAGIC) : start], "big")
    header = _header(path, bytes(content[start:end]))
    return Snapshot(header.seq, _parts(path, header, content[end:])), header.chain


def _header(path: Path, sealed: bytes) -> _Header:
    try:
        return _decoder.decode(unseal(sealed, f"the header of {path}"))
    except msgspec.MsgspecError as error:
        raise LogBroken(f"the header of {path} cannot be read: {error}") from error


def _parts(path: Path, header: _Header, content: memoryview) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    for part in header.parts:
        body = bytes(content[: part.size_bytes])
        parts[part.name] = unseal(part.digest.ljust(DIGEST_BYTES) + body, f"part {part.name} of {path}")
        content = content[part.size_bytes :]
    return parts
