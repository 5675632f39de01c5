"""What commands take as arguments: names, job numbers, lists of nodes, times."""

from collections.abc import Iterable
from datetime import datetime

from pumasi.cli.errors import CommandError, ExitCode
from pumasi.model.hostlist import expand, node_name


def split_names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_job_numbers(texts: Iterable[str]) -> list[int]:
    """Job numbers, given one by one, with commas between, or as a range `7-9`.

    :raises CommandError: for anything else.
    """
    numbers: list[int] = []
    for text in (name for word in texts for name in split_names(word)):
        first, dash, last = text.partition("-")
        if not all(
            part.isascii() and part.isdigit() and len(part) < 16 for part in ([first, last] if dash else [first])
        ):
            raise CommandError(f"{text!r} is no job number", ExitCode.USAGE)
        found = range(int(first), int(last if dash else first) + 1)
        if len(found) > 10_000:
            raise CommandError(f"{text}: more than 10,000 jobs at once", ExitCode.USAGE)
        numbers += found
    return numbers


def local_moment(text: str | None) -> datetime | None:
    """A day or time given as an argument; what has no zone is local time.

    :raises CommandError: if it is no time.
    """
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise CommandError(f"{text!r} is no time; write 2027-01-31 or 2027-01-31T08:00", ExitCode.USAGE) from None


def api_moment(text: str | None) -> str | None:
    """A day or time as the API takes it; a bare day stays one, for the ledger's days are Korean.

    :raises CommandError: if it is no time.
    """
    moment = local_moment(text)
    if moment is None or text is None or len(text) == len("2027-01-31"):
        return text or None
    return moment.isoformat(timespec="milliseconds")


def expand_nodes(texts: Iterable[str]) -> list[str]:
    """Node names in lists such as `pool-[00001-00004,00009]`.

    :raises CommandError: for what is no node name.
    """
    names: list[str] = []
    for text in texts:
        found = expand(text)
        if not found:
            raise CommandError(f"{text!r} is no node or list of nodes; nodes are named like pool-00001", ExitCode.USAGE)
        names += [node_name(*node) for node in found]
    return names
