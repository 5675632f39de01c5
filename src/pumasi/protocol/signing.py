"""How a site's agent proves who it is: every request is signed with a key that never leaves the site.

The header is `Authorization: Pumasi-Agent <token>`. The token is a JWT signed with Ed25519 which names the site, the
agent's generation, and exactly one request: its method, its path and the SHA-256 of its body. Whoever captures a
request can neither change it nor aim it elsewhere; a nonce lets the server refuse the same request twice.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from msgspec import Struct

from pumasi.model.ids import SiteId

SCHEME = "Pumasi-Agent"
ALGORITHM = "Ed25519"
LIFETIME_SECONDS = 60
CLOCK_TOLERANCE_SECONDS = 60  # how far the clocks of a site and of the control plane may disagree
NONCE_KEPT_SECONDS = LIFETIME_SECONDS + 2 * CLOCK_TOLERANCE_SECONDS  # after that an old token has expired everywhere
_TOKEN_LENGTH_LIMIT = 4096


class KeyPair(NamedTuple):
    """An Ed25519 key pair, both halves as base64url of their 32 bytes without padding."""

    private: str
    public: str


class AgentClaims(Struct, frozen=True, kw_only=True):
    """What a token says. `sub`: the site; `gen`: the agent's generation; `iat`, `exp`: Unix seconds; `jti`: the nonce.

    `htm`, `htu`, `bh`: method, path and body hash of the one request it is good for.
    """

    sub: SiteId
    gen: int
    iat: int
    exp: int
    jti: str
    htm: str
    htu: str
    bh: str


class SigningProblem(StrEnum):
    """Why a request is not believed."""

    MALFORMED = "malformed"
    SITE_UNKNOWN = "site-unknown"
    SIGNATURE_WRONG = "signature-wrong"
    OTHER_REQUEST = "other-request"  # signed for another method, path or body
    EXPIRED = "expired"
    FROM_THE_FUTURE = "from-the-future"  # the site's clock is ahead by more than is tolerated


Verdict: TypeAlias = AgentClaims | SigningProblem


def new_key() -> KeyPair:
    """A fresh key pair from the system's randomness."""
    private = Ed25519PrivateKey.generate()
    return KeyPair(_encode(private.private_bytes_raw()), _encode(private.public_key().public_bytes_raw()))


def public_of(private_key: str) -> str:
    """The public half of a private key.

    :raises ValueError: if `private_key` is none.
    """
    return _encode(_private(private_key).public_key().public_bytes_raw())


def is_public_key(text: str) -> bool:
    """True if `text` is a public key in the form of `KeyPair.public`."""
    raw = _decode(text)
    return raw is not None and len(raw) == 32 and _encode(raw) == text


def sign(
    private_key: str, site: SiteId, generation: int, method: str, path: str, body: bytes, now_seconds: int, nonce: str
) -> str:
    """A token for this one request. `now_seconds`: Unix seconds of the wall's clock, whatever the fleet's clock says.

    :raises ValueError: if `private_key` is none.
    """
    claims = AgentClaims(
        sub=site,
        gen=generation,
        iat=now_seconds,
        exp=now_seconds + LIFETIME_SECONDS,
        jti=nonce,
        htm=method,
        htu=path,
        bh=body_hash(body),
    )
    header = {"alg": ALGORITHM, "typ": "JWT"}
    key = _jwk(public_of(private_key), private_key)
    return jws.serialize_compact(header, msgspec.json.encode(claims), key, algorithms=[ALGORITHM])


def verify(
    token: str,
    public_key_of: Callable[[SiteId], str | None],
    method: str,
    path: str,
    body: bytes,
    now_seconds: int,
) -> Verdict:
    """The claims of `token` if it was made by the key of the site it names, for this request, just now.

    The caller still has to refuse an older generation, and a nonce it saw within `NONCE_KEPT_SECONDS`.
    """
    claims = _unproven_claims(token)
    if claims is None:
        return SigningProblem.MALFORMED
    public_key = public_key_of(claims.sub)
    if public_key is None:
        return SigningProblem.SITE_UNKNOWN
    if not _is_signed(token, public_key):
        return SigningProblem.SIGNATURE_WRONG
    if (claims.htm, claims.htu, claims.bh) != (method, path, body_hash(body)):
        return SigningProblem.OTHER_REQUEST
    return _timeliness(claims, now_seconds) or claims


def body_hash(body: bytes) -> str:
    """The SHA-256 of a body, base64url without padding."""
    return _encode(hashlib.sha256(body).digest())


def authorization(token: str) -> str:
    """The value of the Authorization header that carries `token`."""
    return f"{SCHEME} {token}"


def token_of(header: str) -> str | None:
    """The token in an Authorization header, or None if the header is of another scheme."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == SCHEME.lower() and token.strip() else None


def sign_enrolment(private_key: str, site: SiteId, token: str) -> str:
    """Proof that who sends an enrolment holds the private key: a signature over site and one-use token, base64url.

    :raises ValueError: if `private_key` is none.
    """
    return _encode(_private(private_key).sign(_enrolment_message(site, token)))


def verify_enrolment(public_key: str, site: SiteId, token: str, proof: str) -> bool:
    """True if `proof` was made by the private half of `public_key` for this site and token."""
    signature = _decode(proof)
    if signature is None or not is_public_key(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(_decode(public_key) or b"").verify(
            signature, _enrolment_message(site, token)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def _unproven_claims(token: str) -> AgentClaims | None:
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _TOKEN_LENGTH_LIMIT or not token.isascii():
        return None
    payload = _decode(parts[1])
    if payload is None:
        return None
    try:
        return msgspec.json.decode(payload, type=AgentClaims)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_signed(token: str, public_key: str) -> bool:
    if not is_public_key(public_key):
        return False
    try:
        jws.deserialize_compact(token, _jwk(public_key), algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return False
    return True


def _timeliness(claims: AgentClaims, now_seconds: int) -> SigningProblem | None:
    if claims.iat > now_seconds + CLOCK_TOLERANCE_SECONDS:
        return SigningProblem.FROM_THE_FUTURE
    # A site must not be able to write itself a token that lives longer than everybody's.
    expires = min(claims.exp, claims.iat + LIFETIME_SECONDS)
    return SigningProblem.EXPIRED if expires + CLOCK_TOLERANCE_SECONDS < now_seconds else None


def _enrolment_message(site: SiteId, token: str) -> bytes:
    # The leading words keep the proof from ever being a valid signature of anything else.
    return f"pumasi-enrolment\0{site}\0{token}".encode()


def _private(private_key: str) -> Ed25519PrivateKey:
    raw = _decode(private_key)
    if raw is None or len(raw) != 32:
        raise ValueError("not an Ed25519 private key")
    return Ed25519PrivateKey.from_private_bytes(raw)


def _jwk(public_key: str, private_key: str | None = None) -> OKPKey:
    fields: dict[str, str | list[str]] = {"kty": "OKP", "crv": "Ed25519", "x": public_key}
    if private_key is not None:
        fields["d"] = private_key
    return OKPKey.import_key(fields)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
