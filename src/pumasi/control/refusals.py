"""Refusals: why a command was not carried out, as values. Nothing has changed when one is returned."""

from enum import StrEnum

from msgspec import Struct


class RefusalKind(StrEnum):
    """Whose move it is: the API maps kinds to statuses, the CLI to exit codes."""

    INVALID = "invalid"  # the request makes no sense, whatever the state
    NOT_FOUND = "not_found"
    DENIED = "denied"
    CONFLICT = "conflict"  # it makes sense, but not in the present state
    REFUSED = "refused"  # a rule of the fleet says no


class FieldProblem(Struct, frozen=True):
    """One thing wrong: where (dotted path into the request) and what."""

    path: str
    problem: str


class Refusal(Struct, frozen=True, kw_only=True):
    """A command refused. `code`: stable, kebab-case, documented in `docs/reference/problems.md`."""

    kind: RefusalKind
    code: str
    detail: str
    errors: tuple[FieldProblem, ...] = ()


def not_found(what: str, name: object) -> Refusal:
    """The refusal for something that does not exist, or that the caller may not know of."""
    return Refusal(kind=RefusalKind.NOT_FOUND, code=f"{what}-unknown", detail=f"there is no {what} {name}")
