"""What is wrong with a plan file, and where: collected, not thrown one by one, so that the author sees all at once."""

from collections.abc import Iterable
from difflib import get_close_matches

from msgspec import Struct

PROBLEM_LIMIT = 1000  # a file with more is not a plan; listing on would only cost memory


class PlanProblem(Struct, frozen=True, kw_only=True):
    """One mistake. `line` and `column` count from 1; `path` is dotted (`pools.ansan.nodes`), empty for the file."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        """As editors and terminals take it: `file:line: path: message`."""
        subject = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}: {subject}{self.message}"


class PlanError(Exception):
    """A plan cannot be used. `problems` holds every mistake found, in the order of the file."""

    def __init__(self, problems: tuple[PlanProblem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Problems:
    """The mistakes found so far in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[PlanProblem] = []
        self._seen: set[PlanProblem] = set()  # two readers may meet the same mistake; the author need not

    @property
    def count(self) -> int:
        """How many there are; a reader compares it before and after to know whether a part can be trusted."""
        return len(self._found)

    @property
    def full(self) -> bool:
        """True when no more are taken."""
        return len(self._found) >= PROBLEM_LIMIT

    def add(self, line: int, column: int, path: str, message: str) -> None:
        """Note a mistake at `line` and `column` (from 1)."""
        problem = PlanProblem(file=self.file, line=line, column=column, path=path, message=message)
        if not self.full and problem not in self._seen:
            self._seen.add(problem)
            self._found.append(problem)

    def listed(self) -> tuple[PlanProblem, ...]:
        """All of them, in the order of the file."""
        return tuple(sorted(self._found, key=lambda problem: (problem.line, problem.column)))


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` for the known word nearest to `word`, or what there is when the choice is small."""
    choices = sorted(known)
    listed = f" (there is: {', '.join(choices)})" if 0 < len(choices) <= 8 else ""
    return nearest(word, choices) or listed


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing if no known word is near."""
    close = get_close_matches(word[:100], list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def printable(text: str, limit: int = 200) -> str:
    """`text` on one line, without control characters, cut at `limit` characters."""
    shown = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def quoted(text: str) -> str:
    """A value of the file as a message shows it."""
    return f"'{printable(text, 60)}'"
