"""A site's journal: the entries of its run book, on disk before they are acted on. One JSON document per line."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from pumasi.agents.identity import write_durably
from pumasi.agents.run_book import Entry

_LONG_BYTES = 4 << 20

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)
_log = structlog.get_logger("pumasi.agent")


class Journal:
    """A file that is appended to, and rewritten with the same meaning when it has grown long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._long_bytes = _LONG_BYTES

    def read(self) -> list[Entry]:
        """All entries. The last line may have been cut short by a crash: what cannot be read is left out, and said.

        That is safe: the engine still knows its runs, and the control plane its orders.
        """
        entries: list[Entry] = []
        raw = self._path.read_bytes() if self._path.exists() else b""
        for number, line in enumerate(raw.splitlines(), start=1):
            try:
                entries.append(_decoder.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                _log.warning("journal line unreadable", path=str(self._path), line=number, problem=str(error))
        return entries

    def rewrite(self, entries: Iterable[Entry]) -> None:
        """Replace all that is there, durable on return.

        :raises OSError: if the disk does not take it; the old journal stands then.
        """
        data = _lines(entries)
        write_durably(self._path, data)
        self.close()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._long_bytes = max(_LONG_BYTES, 2 * len(data))

    def append(self, entries: Iterable[Entry], durable: bool = True) -> None:
        """Add entries; on disk when this returns, if `durable`.

        :raises OSError: if the disk does not take them; none of them is there then, or cut short and unreadable.
        """
        data = _lines(entries)
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, data) != len(data):
                raise OSError("the disk took only a part of the journal entry")
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            os.truncate(self._path, size)
            raise

    @property
    def is_long(self) -> bool:
        """True if it should be rewritten."""
        return os.fstat(self._descriptor).st_size > self._long_bytes

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _lines(entries: Iterable[Entry]) -> bytes:
    return b"".join(_encoder.encode(entry) + b"\n" for entry in entries)
