"""Principals and tokens as callers see them. A token is known by the head of its digest, never by its secret."""

from msgspec import Struct

from pumasi.control.views.times import rfc3339
from pumasi.model.access import Principal, Token

TOKEN_ID_LENGTH = 16


class BindingRow(Struct, frozen=True):
    """A role at a scope."""

    role: str
    scope: str


class PrincipalRow(Struct, frozen=True, kw_only=True):
    """A person or service and what it may do."""

    id: str
    title: str
    bindings: tuple[BindingRow, ...]


class TokenRow(Struct, frozen=True, kw_only=True):
    """A token: whose, what for, until when."""

    id: str
    kind: str
    principal: str
    site: str
    expires_at: str


def principal_row(principal: Principal) -> PrincipalRow:
    """One principal."""
    bindings = tuple(BindingRow(binding.role, binding.scope) for binding in principal.bindings)
    return PrincipalRow(id=principal.id, title=principal.title, bindings=bindings)


def token_row(token: Token) -> TokenRow:
    """One token."""
    return TokenRow(
        id=token_id(token.digest),
        kind=token.kind,
        principal=token.principal,
        site=token.site,
        expires_at=rfc3339(token.expires_at_ms),
    )


def token_id(digest: str) -> str:
    """The public name of a token."""
    return digest[:TOKEN_ID_LENGTH]
