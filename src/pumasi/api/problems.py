"""Refusals on the wire: problem documents (RFC 9457) with stable codes. The catalogue here is the one of the docs."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from pumasi.control.refusals import FieldProblem, Refusal, RefusalKind

MEDIA_TYPE = "application/problem+json"
ERRORS_LIMIT = 100

# What each code means, as the title of the problem document. A code once published keeps its meaning.
TITLES: dict[str, str] = {
    "agent-superseded": "A newer agent speaks for this site",
    "begin-in-the-past": "The begin time is long past",
    "body-invalid": "The body does not have the shape this route takes",
    "body-missing": "This route takes a JSON body",
    "body-not-json": "The body is not JSON as this API reads it",
    "body-too-large": "The body is larger than this route takes",
    "body-too-slow": "The body did not arrive in time",
    "gpu-model-unknown": "No such GPU model in this fleet",
    "idempotency-key-invalid": "The Idempotency-Key header is not usable",
    "idempotency-key-reused": "The idempotency key was used with another body",
    "internal-error": "The control plane failed; this is our fault",
    "job-ended": "The job has already ended",
    "job-never-ran": "The job has not run, so there is no output",
    "job-not-waiting": "The job is not in a state that allows this",
    "job-unknown": "No such job, or none you may see",
    "log-broken": "The control plane cannot write its log and has stopped",
    "media-type-unsupported": "Bodies are JSON",
    "method-not-allowed": "This path does not take this method",
    "never-admissible": "No pool of this fleet can ever run the job",
    "node-unknown": "No such node",
    "not-authenticated": "A valid token is needed",
    "not-authorised": "Your roles do not allow this",
    "not-found": "There is nothing at this path",
    "not-ready": "The control plane is not ready",
    "output-unavailable": "The site cannot give the output at the moment",
    "plan-contradicts-state": "The plan contradicts the running fleet",
    "plan-invalid": "The plan contradicts itself",
    "power-invalid": "The power cap makes no sense",
    "pool-unknown": "No such pool",
    "principal-unknown": "No such principal, or none you may see",
    "query-invalid": "The query parameters are not usable",
    "queue-unknown": "No such queue, or none you may see",
    "reservation-exists": "There is a reservation of this name",
    "reservation-invalid": "The reservation makes no sense",
    "reservation-no-room": "The nodes or the entitlement are not free in that time",
    "reservation-unknown": "No such reservation",
    "replayed": "This request was seen before",
    "scope-unknown": "A role binding names a scope that does not exist",
    "signature-invalid": "The agent's signature is not believed",
    "site-unknown": "No such site",
    "slice-unknown": "No pool of this fleet is cut so",
    "token-unknown": "No such token, or none you may see",
    "token-used": "The one-use token is used up, expired or unknown",
}

_STATUSES = {
    RefusalKind.INVALID: 422,
    RefusalKind.NOT_FOUND: 404,
    RefusalKind.DENIED: 403,
    RefusalKind.CONFLICT: 409,
    RefusalKind.REFUSED: 422,
}


class Problem(Exception):
    """A request that is answered with a problem document. `code` is one of `TITLES`."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors[:ERRORS_LIMIT])
        self.headers = dict(headers or {})


class ProblemDocument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was refused. `code` is stable; `errors` names each place in the request and what is wrong there."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    trace_id: str
    errors: tuple[FieldProblem, ...] = ()


def problem_of(refusal: Refusal) -> Problem:
    """A command's refusal as a problem."""
    return Problem(_STATUSES[refusal.kind], refusal.code, refusal.detail, refusal.errors)


def unknown(what: str, name: object) -> Problem:
    """The same answer for what does not exist and for what the caller may not know of."""
    return Problem(404, f"{what}-unknown", f"there is no {what} {ascii(str(name)[:200])[1:-1]}")


def document(problem: Problem, trace_id: str) -> bytes:
    """The problem document."""
    return msgspec.json.encode(
        ProblemDocument(
            type=f"urn:pumasi:problem:{problem.code}",
            title=TITLES[problem.code],
            status=problem.status,
            code=problem.code,
            detail=problem.detail,
            trace_id=trace_id,
            errors=problem.errors,
        )
    )
