"""Exit codes, and how a command says that something went wrong."""

from enum import IntEnum

from pumasi.client.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    PumasiError,
    Refused,
    TimedOut,
    Unreachable,
)

LINES_MAX = 8  # single problems shown of one call


class ExitCode(IntEnum):
    """What the exit code of `pumasi` means; listed for users in docs/reference/exit-codes.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    REFUSED = 6
    UNREACHABLE = 7
    TIMEOUT = 8
    INTERRUPTED = 130  # 128 + SIGINT
    BROKEN_PIPE = 141  # 128 + SIGPIPE


class CommandError(Exception):
    """A command cannot go on: one line for the user, perhaps a hint and further lines, and an exit code."""

    def __init__(
        self,
        message: str,
        code: ExitCode = ExitCode.FAILED,
        hint: str = "",
        lines: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.lines = lines


_BY_KIND: dict[type[PumasiError], tuple[ExitCode, str]] = {
    InvalidRequest: (ExitCode.USAGE, ""),
    NotFound: (ExitCode.NOT_FOUND, ""),
    Denied: (ExitCode.DENIED, "'pumasi login' stores a token; 'pumasi whoami' shows what it is good for"),
    Conflict: (ExitCode.CONFLICT, ""),
    Refused: (ExitCode.REFUSED, "'pumasi submit --test-only' says for each pool why"),
    Unreachable: (ExitCode.UNREACHABLE, "'pumasi up' starts a server here; --server or $PUMASI_SERVER names another"),
    TimedOut: (ExitCode.TIMEOUT, ""),
}


def from_client(error: PumasiError) -> CommandError:
    """What the command line says of a call that failed."""
    code, hint = _BY_KIND.get(type(error), (ExitCode.FAILED, ""))
    if type(error) not in _BY_KIND and error.trace_id:
        hint = f"the server's operator finds this call by trace {error.trace_id}"
    return CommandError(error.detail, code, hint, _lines(error))


def _lines(error: PumasiError) -> tuple[str, ...]:
    """The single problems, unless the one there is has been said already; a job may be refused by every pool."""
    lines = [f"{path}: {problem}" if path else problem for path, problem in error.errors]
    if len(error.errors) == 1 and error.errors[0][1] in error.detail:
        return ()
    more = len(lines) - LINES_MAX
    return (*lines[:LINES_MAX], f"... and {more} more") if more > 0 else tuple(lines)
