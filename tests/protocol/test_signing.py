"""Signed requests of agents."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.protocol import signing
from pumasi.protocol.signing import AgentClaims, KeyPair, SigningProblem

NOW = 1_800_000_000
PATH = "/v1/agent/sync"
KEY = signing.new_key()
OTHER_KEY = signing.new_key()


def token(body: bytes = b"{}", at: int = NOW, key: KeyPair = KEY, site: str = "sejong") -> str:
    return signing.sign(key.private, site, 3, "POST", PATH, body, at, "nonce-1")


def verdict(text: str, body: bytes = b"{}", now: int = NOW, method: str = "POST", path: str = PATH) -> signing.Verdict:
    keys = {"sejong": KEY.public}
    return signing.verify(text, keys.get, method, path, body, now)


def test_a_signed_request_is_believed_with_all_its_claims() -> None:
    claims = verdict(token())
    assert isinstance(claims, AgentClaims)
    assert (claims.sub, claims.gen, claims.iat, claims.jti) == ("sejong", 3, NOW, "nonce-1")


@pytest.mark.parametrize(
    ("got", "why"),
    [
        (verdict(token(), body=b"{ }"), SigningProblem.OTHER_REQUEST),
        (verdict(token(), method="PUT"), SigningProblem.OTHER_REQUEST),
        (verdict(token(), path="/v1/agent/enrol"), SigningProblem.OTHER_REQUEST),
        (verdict(token(site="seoul")), SigningProblem.SITE_UNKNOWN),
        (verdict(token(key=OTHER_KEY)), SigningProblem.SIGNATURE_WRONG),
        (verdict(token(), now=NOW + 121), SigningProblem.EXPIRED),
        (verdict(token(at=NOW + 61)), SigningProblem.FROM_THE_FUTURE),
        (verdict(""), SigningProblem.MALFORMED),
        (verdict("a.b.c"), SigningProblem.MALFORMED),
        (verdict("é.b.c"), SigningProblem.MALFORMED),
        (verdict("x" * 5000), SigningProblem.MALFORMED),
    ],
)
def test_any_other_request_is_refused_with_its_reason(got: signing.Verdict, why: SigningProblem) -> None:
    assert got is why


@pytest.mark.parametrize("seconds", [-60, 0, 60, 120])
def test_clocks_may_disagree_a_little(seconds: int) -> None:
    assert isinstance(verdict(token(), now=NOW + seconds), AgentClaims)


def reheaded(header: dict[str, object], signature: str | None = None) -> str:
    _, payload, old_signature = token().split(".")
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{head}.{payload}.{old_signature if signature is None else signature}"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA", "Ed448", "", 7, None])
def test_no_other_algorithm_is_taken(algorithm: object) -> None:
    assert verdict(reheaded({"alg": algorithm, "typ": "JWT"})) is SigningProblem.SIGNATURE_WRONG
    assert verdict(reheaded({"alg": algorithm}, signature="")) is SigningProblem.SIGNATURE_WRONG


def test_deep_json_in_header_or_claims_is_refused() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 1400).rstrip(b"=").decode()
    _, payload, signature = token().split(".")
    assert verdict(f"{deep}.{payload}.{signature}") is SigningProblem.SIGNATURE_WRONG
    nested = base64.urlsafe_b64encode(b'{"x":' + b"[" * 1400).rstrip(b"=").decode()
    assert verdict(f"{deep}.{nested}.{signature}") is SigningProblem.MALFORMED


@given(st.integers(min_value=0), st.characters())
def test_no_changed_token_is_believed(position: int, letter: str) -> None:
    good = token()
    place = position % len(good)
    bad = good[:place] + letter + good[place + 1 :]
    if _meaning(bad) != _meaning(good):
        assert isinstance(verdict(bad), SigningProblem)


def _meaning(text: str) -> list[bytes] | None:
    # The last letter of base64 carries unused bits, so two spellings can mean the same bytes.
    parts = text.split(".")
    try:
        return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
    except ValueError:
        return None


@given(st.text(max_size=200))
def test_nonsense_never_raises(text: str) -> None:
    assert isinstance(verdict(text), SigningProblem)
    assert not signing.verify_enrolment(text, "sejong", "t", text)
    assert not signing.is_public_key(text) or len(text) == 43


def test_a_long_lived_token_is_cut_to_the_common_life() -> None:
    claims = AgentClaims(
        sub="sejong", gen=1, iat=NOW, exp=NOW + 10**9, jti="n", htm="POST", htu=PATH, bh=signing.body_hash(b"{}")
    )
    assert signing._timeliness(claims, NOW + 60) is None
    assert signing._timeliness(claims, NOW + 121) is SigningProblem.EXPIRED


def test_enrolment_proves_the_key_for_one_site_and_token() -> None:
    proof = signing.sign_enrolment(KEY.private, "sejong", "secret")
    assert signing.verify_enrolment(KEY.public, "sejong", "secret", proof)
    assert not signing.verify_enrolment(KEY.public, "seoul", "secret", proof)
    assert not signing.verify_enrolment(KEY.public, "sejong", "other", proof)
    assert not signing.verify_enrolment(OTHER_KEY.public, "sejong", "secret", proof)


def test_the_header_carries_the_token() -> None:
    assert signing.token_of(signing.authorization("abc")) == "abc"
    assert signing.token_of("Bearer abc") is None
    assert signing.token_of("Pumasi-Agent ") is None


def test_the_public_half_follows_from_the_private() -> None:
    assert signing.public_of(KEY.private) == KEY.public
    with pytest.raises(ValueError, match="private key"):
        signing.public_of("short")
