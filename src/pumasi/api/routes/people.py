"""Principals and their tokens. Nobody grants what they lack, and a secret is shown once."""

from collections.abc import Iterator

from msgspec import Struct

from pumasi.api.auth import digest_of, new_secret, one_use_token
from pumasi.api.bodies import PageQuery, PrincipalBody, SetupBody, TokenBody
from pumasi.api.call import NOBODY, Call, not_authorised
from pumasi.api.paging import Page, after, page
from pumasi.api.problems import Problem, unknown
from pumasi.api.routing import Reach, Table
from pumasi.control.access import (
    Action,
    Resource,
    Verdict,
    decide,
    may_declare,
    may_speak_for,
    site_scope,
)
from pumasi.control.commands import DeclarePrincipal, IssueToken, RevokeToken
from pumasi.control.refusals import FieldProblem, Refusal
from pumasi.control.views.people import PrincipalRow, TokenRow, principal_row, token_id, token_row
from pumasi.control.views.times import rfc3339
from pumasi.model.access import FLEET_SCOPE, Principal, Role, RoleBinding, Token, TokenKind
from pumasi.state.fleet_state import FleetState

TABLE = Table("access")

_DAY_SECONDS = 24 * 3600
RESERVED = frozenset({"control", "setup"})  # what the log calls parts of the control plane; nobody may pass for one
# (default, longest) lifetime by kind, in seconds
LIFETIMES: dict[TokenKind, tuple[int, int]] = {
    TokenKind.PERSONAL: (30 * _DAY_SECONDS, 90 * _DAY_SECONDS),
    TokenKind.SERVICE: (90 * _DAY_SECONDS, 365 * _DAY_SECONDS),
    TokenKind.ENROL: (600, _DAY_SECONDS),
}


class ClockRow(Struct, frozen=True):
    """The fleet's clock."""

    now: str
    rate: int


class Whoami(Struct, frozen=True, kw_only=True):
    """Who the token stands for, and where."""

    principal: PrincipalRow
    fleet: str
    clock: ClockRow
    token_expires_at: str


class IssuedToken(TokenRow, frozen=True, kw_only=True):
    """A token with its secret, which is never shown again."""

    token: str


class SetUp(Struct, frozen=True, kw_only=True):
    """The first fleet admin and a personal token, which is never shown again."""

    principal: str
    token: str
    expires_at: str


@TABLE.route("POST", "/v1/setup", Action.PUBLIC, Reach.OPEN, body=SetupBody, answer=SetUp, status=201)
async def setup(call: Call) -> SetUp:
    """Use the setup token up and become the first fleet admin."""
    body: SetupBody = call.body
    now_ms = call.service.plane.now_ms()
    one_use = one_use_token(call.state, body.token, TokenKind.SETUP, now_ms)
    _check_name("principal", body.principal)
    if body.principal in call.state.principals:
        raise Problem(409, "body-invalid", f"there is a principal {body.principal} already")
    admin = Principal(id=body.principal, title=body.title, bindings=(RoleBinding(Role.FLEET_ADMIN, FLEET_SCOPE),))
    secret, token = _make(TokenKind.PERSONAL, body.principal, "", 0, now_ms)
    use_up = RevokeToken(by="setup", digest=one_use.digest)  # first: who comes second must change nothing at all
    declare = DeclarePrincipal(by="setup", principal=admin)
    issue = IssueToken(by="setup", token=token)
    result = await call.service.do_all(use_up, declare, issue)
    if isinstance(result, Refusal):
        raise Problem(403, "token-used", "this one-use token is used up, expired or unknown")
    return SetUp(principal=admin.id, token=secret, expires_at=rfc3339(token.expires_at_ms))


@TABLE.route("GET", "/v1/whoami", Action.WHOAMI, Reach.COMMON, answer=Whoami)
async def whoami(call: Call) -> Whoami:
    """Say who the token stands for, what it may do, and what time it is in the fleet."""
    plane = call.service.plane
    return Whoami(
        principal=principal_row(call.principal),
        fleet=call.state.plan_name,
        clock=ClockRow(rfc3339(plane.now_ms()), plane.clock_rate),
        token_expires_at=rfc3339(call.state.tokens[call.token_digest].expires_at_ms),
    )


@TABLE.route("GET", "/v1/principals", Action.PRINCIPALS_READ, Reach.ROWS, query=PageQuery, answer=Page[PrincipalRow])
async def principals(call: Call) -> Page[PrincipalRow]:
    """List people and services who hold a role where one may look."""
    start = after(call.query.cursor, str) or ""
    found = (
        principal
        for name, principal in sorted(call.state.principals.items())
        if name > start and _may_see(call, principal)
    )
    return page(found, call.query.limit, lambda each: each.id, principal_row)


def _may_see(call: Call, principal: Principal) -> bool:
    scopes = tuple(binding.scope for binding in principal.bindings)
    return principal.id == call.principal.id or call.may(Action.PRINCIPALS_READ, Resource((*scopes, FLEET_SCOPE)))


@TABLE.route(
    "POST", "/v1/principals", Action.PRINCIPALS_WRITE, Reach.ROWS, body=PrincipalBody, answer=PrincipalRow, status=201
)
async def declare_principal(call: Call) -> PrincipalRow:
    """Declare a person or service, or replace its roles."""
    body: PrincipalBody = call.body
    bindings = tuple(RoleBinding(binding.role, binding.scope) for binding in body.bindings)
    principal = Principal(id=body.id, title=body.title, bindings=bindings)
    _check_name("id", body.id)
    _allow(may_declare(call.principal, call.state.principals.get(body.id), principal))
    _check_scopes(call.state, bindings)
    await call.do(DeclarePrincipal(by=call.principal.id, principal=principal))
    return principal_row(principal)


def _check_name(path: str, name: str) -> None:
    if name in RESERVED:
        raise _body_problem(path, f"{name} is what the control plane calls itself in the log")


def _check_scopes(state: FleetState, bindings: tuple[RoleBinding, ...]) -> None:
    """A role at a scope that does not exist would come to life unseen when somebody declares it later."""
    known = {FLEET_SCOPE, *state.owners, *state.queues, *(site_scope(site) for site in state.sites)}
    for index, binding in enumerate(bindings):
        if binding.scope not in known:
            problem = FieldProblem(f"bindings.{index}.scope", f"there is no {binding.scope} in this fleet")
            raise Problem(422, "scope-unknown", problem.problem, [problem])


@TABLE.route("GET", "/v1/tokens", Action.TOKENS_READ, Reach.ROWS, query=PageQuery, answer=Page[TokenRow])
async def tokens(call: Call) -> Page[TokenRow]:
    """List tokens: one's own, and those of principals one answers for."""
    start = after(call.query.cursor, str) or ""
    found = sorted(_visible_tokens(call, Action.TOKENS_READ, start), key=lambda token: token_id(token.digest))
    return page(found, call.query.limit, lambda token: token_id(token.digest), token_row)


def _visible_tokens(call: Call, action: Action, start: str) -> Iterator[Token]:
    for token in call.state.tokens.values():
        if token_id(token.digest) > start and _token_verdict(call, action, token).allowed:
            yield token


def _token_verdict(call: Call, action: Action, token: Token) -> Verdict:
    if token.kind is TokenKind.ENROL:
        return decide(call.principal, Action.SITE_ENROL, _site_resource(call.state, token.site))
    return may_speak_for(call.principal, action, call.state.principals.get(token.principal, NOBODY))


def _site_resource(state: FleetState, site: str) -> Resource:
    operator = state.sites[site].declared.operator if site in state.sites else ""
    return Resource((site_scope(site), operator) if operator else (FLEET_SCOPE,))


@TABLE.route("POST", "/v1/tokens", Action.TOKENS_WRITE, Reach.ROWS, body=TokenBody, answer=IssuedToken, status=201)
async def issue_token(call: Call) -> IssuedToken:
    """Issue a token; the answer holds its secret, once."""
    body: TokenBody = call.body
    if body.kind not in LIFETIMES:
        raise _body_problem("kind", "setup tokens are made by the control plane alone")
    longest = LIFETIMES[body.kind][1]
    if body.lifetime_seconds > longest:
        raise _body_problem("lifetime_seconds", f"a token of kind {body.kind} lives {longest} seconds at most")
    principal = _enrol_checked(call, body) if body.kind is TokenKind.ENROL else _holder_checked(call, body)
    site = body.site if body.kind is TokenKind.ENROL else ""
    secret, token = _make(body.kind, principal, site, body.lifetime_seconds, call.service.plane.now_ms())
    await call.do(IssueToken(by=call.principal.id, token=token))
    row = token_row(token)
    return IssuedToken(
        id=row.id, kind=row.kind, principal=row.principal, site=row.site, expires_at=row.expires_at, token=secret
    )


def _enrol_checked(call: Call, body: TokenBody) -> str:
    """An enrolment token is for a site and stands for no principal."""
    if body.principal:
        raise _body_problem("principal", "an enrolment token stands for no principal")
    if body.site not in call.state.sites:
        raise unknown("site", body.site)
    _allow(decide(call.principal, Action.SITE_ENROL, _site_resource(call.state, body.site)))
    return ""


def _holder_checked(call: Call, body: TokenBody) -> str:
    """The principal a token is for: the caller, or one whose every right the caller could have granted."""
    if body.site:
        raise _body_problem("site", "only an enrolment token is for a site")
    name = body.principal or call.principal.id
    holder = call.state.principals.get(name)
    if holder is None or not _may_see(call, holder):
        raise unknown("principal", name)
    _allow(may_speak_for(call.principal, Action.TOKENS_WRITE, holder))
    return name


def _make(kind: TokenKind, principal: str, site: str, lifetime_seconds: int, now_ms: int) -> tuple[str, Token]:
    secret = new_secret(kind)
    lifetime_ms = (lifetime_seconds or LIFETIMES[kind][0]) * 1000
    token = Token(
        digest=digest_of(secret), kind=kind, principal=principal, site=site, expires_at_ms=now_ms + lifetime_ms
    )
    return secret, token


@TABLE.route("DELETE", "/v1/tokens/{token}", Action.TOKENS_WRITE, Reach.ROWS, status=204)
async def revoke_token(call: Call) -> None:
    """Make a token worthless at once."""
    name = call.path["token"]
    found = (token for token in _visible_tokens(call, Action.TOKENS_WRITE, "") if token_id(token.digest) == name)
    token = next(found, None)
    if token is None:
        raise unknown("token", name)
    await call.do(RevokeToken(by=call.principal.id, digest=token.digest))


def _allow(verdict: Verdict) -> None:
    if not verdict.allowed:
        raise not_authorised(verdict.reason)


def _body_problem(path: str, problem: str) -> Problem:
    return Problem(422, "body-invalid", f"{path}: {problem}", [FieldProblem(path, problem)])
