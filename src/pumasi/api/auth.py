"""Who calls: people and services by bearer tokens, agents by the signature on their request."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import Request

from pumasi.api.call import Call
from pumasi.api.problems import Problem
from pumasi.model.access import Token, TokenKind
from pumasi.model.ids import SiteId
from pumasi.protocol import signing
from pumasi.protocol.signing import AgentClaims, SigningProblem
from pumasi.state.fleet_state import FleetState

_SECRET_BYTES = 32
_PREFIX = "pumasi"
_LENGTH_LIMIT = 200
_STANDING_KINDS = frozenset({TokenKind.PERSONAL, TokenKind.SERVICE})
_NONCES_KEPT_MAX = 200_000


def new_secret(kind: TokenKind) -> str:
    """A fresh secret: `pumasi_<kind>_` and 43 URL-safe characters (256 random bits)."""
    return f"{_PREFIX}_{kind}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def digest_of(secret: str) -> str:
    """What is kept of a secret. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def one_use_token(state: FleetState, secret: str, kind: TokenKind, now_ms: int) -> Token:
    """The one-use token of a kind that a secret stands for.

    :raises Problem: 403 if there is none, or it has expired. Which of the two is nobody's business.
    """
    token = state.tokens.get(digest_of(secret))
    if token is None or token.kind is not kind or token.expires_at_ms <= now_ms:
        raise Problem(403, "token-used", "this one-use token is used up, expired or unknown")
    return token


def authenticate(call: Call) -> None:
    """Put the principal a bearer token stands for into the call. SETUP and ENROL tokens stand for nobody.

    :raises Problem: 401 if there is no such token, or it has expired.
    """
    digest = digest_of(_bearer(call.request))
    token = call.state.tokens.get(digest)
    if token is None or token.kind not in _STANDING_KINDS or token.expires_at_ms <= call.service.plane.now_ms():
        raise _not_authenticated("the token is unknown, expired or revoked")
    principal = call.state.principals.get(token.principal)
    if principal is None:
        raise _not_authenticated("the token is unknown, expired or revoked")
    call.principal, call.token_digest = principal, digest


def still_valid(call: Call) -> bool:
    """True while the token of a long call is good; its principal's rights are brought up to date."""
    token = call.state.tokens.get(call.token_digest)
    principal = call.state.principals.get(token.principal) if token else None
    if token is None or principal is None or token.expires_at_ms <= call.service.plane.now_ms():
        return False
    call.principal = principal
    return True


def _bearer(request: Request) -> str:
    header = request.headers.get("authorization", "")
    scheme, _, secret = header.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret or len(secret) > _LENGTH_LIMIT or not secret.isascii():
        raise _not_authenticated("send `Authorization: Bearer <token>`")
    return secret


def _not_authenticated(detail: str) -> Problem:
    return Problem(401, "not-authenticated", detail, headers={"WWW-Authenticate": "Bearer"})


class Nonces:
    """Nonces seen lately, so that no captured request is taken twice. The oldest are forgotten first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[SiteId, str], int] = OrderedDict()

    def is_new(self, site: SiteId, nonce: str, now_seconds: int) -> bool:
        """Note a nonce; False if it was seen before."""
        self._forget(now_seconds)
        if (site, nonce) in self._seen:
            return False
        self._seen[site, nonce] = now_seconds + signing.NONCE_KEPT_SECONDS
        return True

    def _forget(self, now_seconds: int) -> None:
        while self._seen:
            key, until = next(iter(self._seen.items()))
            if until > now_seconds and len(self._seen) < _NONCES_KEPT_MAX:
                return
            del self._seen[key]


def authenticate_agent(call: Call, nonces: Nonces) -> None:
    """Put the site whose agent signed the request into the call. Signatures live in wall-clock time.

    :raises Problem: 401 if the signature is not believed, 403 if a newer agent speaks for the site.
    """
    token = signing.token_of(call.request.headers.get("authorization", ""))
    if token is None:
        raise Problem(401, "signature-invalid", "an agent signs its requests")
    now_seconds = int(time.time())
    claims = signing.verify(token, _public_key(call.state), *_signed_request(call), now_seconds)
    if isinstance(claims, SigningProblem):
        raise Problem(401, "signature-invalid", claims.value)
    _check_generation(call.state, claims)
    if not nonces.is_new(claims.sub, claims.jti, now_seconds):
        raise Problem(401, "replayed", "this very request was seen before")
    call.site = claims.sub


def _signed_request(call: Call) -> tuple[str, str, bytes]:
    return call.request.method, call.request.url.path, call.raw_body


def _public_key(state: FleetState) -> Callable[[SiteId], str | None]:
    def of(site: SiteId) -> str | None:
        record = state.sites.get(site)
        return record.public_key or None if record else None

    return of


def _check_generation(state: FleetState, claims: AgentClaims) -> None:
    if claims.gen != state.sites[claims.sub].generation:
        raise Problem(403, "agent-superseded", f"a newer agent speaks for {claims.sub}")
