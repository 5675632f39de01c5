"""Exit codes, and how a command says that something went wrong."""

from enum import IntEnum


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
