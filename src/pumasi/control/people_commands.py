"""Principals and their tokens."""

from pumasi.control.commands import DeclarePrincipal, IssueToken, RevokeToken
from pumasi.control.decisions import Answer, Decision
from pumasi.control.refusals import not_found
from pumasi.events.facts import PrincipalDeclared, TokenIssued, TokenRevoked
from pumasi.model.access import TokenKind
from pumasi.state.fleet_state import FleetState


def declare_principal(state: FleetState, command: DeclarePrincipal, now_ms: int) -> Answer:
    """Add or replace a principal. Declaring the same again is no news."""
    if state.principals.get(command.principal.id) == command.principal:
        return Decision()
    return Decision((PrincipalDeclared(at_ms=now_ms, by=command.by, principal=command.principal),))


def issue_token(state: FleetState, command: IssueToken, now_ms: int) -> Answer:
    """Record a token."""
    token = command.token
    if token.kind is TokenKind.ENROL:
        if token.site not in state.sites:
            return not_found("site", token.site)
    elif token.principal not in state.principals and token.kind is not TokenKind.SETUP:
        return not_found("principal", token.principal)
    return Decision((TokenIssued(at_ms=now_ms, by=command.by, token=token),))


def revoke_token(state: FleetState, command: RevokeToken, now_ms: int) -> Answer:
    """Make a token worthless at once."""
    if command.digest not in state.tokens:
        return not_found("token", command.digest[:12])
    return Decision((TokenRevoked(at_ms=now_ms, by=command.by, digest=command.digest),))
