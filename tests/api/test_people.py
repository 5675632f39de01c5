"""Setting up, principals and tokens. Nobody grants what they lack; secrets are shown once and kept nowhere."""

import asyncio

import msgspec
import pytest

from pumasi.api.auth import digest_of
from pumasi.control.views.people import token_id
from pumasi.model.access import Role, TokenKind
from tests.api.kit import Api, assert_problem

DAY_MS = 24 * 3600 * 1000


def test_setup_makes_the_first_admin_once(api: Api) -> None:
    secret = api.secret(TokenKind.SETUP)
    body = {"token": secret, "principal": "kim", "title": "Kim"}
    made = api.call("POST", "/v1/setup", json=body, token=None)
    assert made.status_code == 201
    who = api.get("/v1/whoami", made.json()["token"])
    assert who["principal"] == {"id": "kim", "title": "Kim", "bindings": [{"role": "fleet-admin", "scope": "*"}]}
    before = api.digest()
    assert_problem(api.call("POST", "/v1/setup", json={**body, "principal": "lee"}, token=None), 403, "token-used")
    assert api.digest() == before


def test_of_two_who_use_one_setup_token_at_once_one_changes_nothing(api: Api) -> None:
    secret = api.secret(TokenKind.SETUP)

    async def both() -> list[int]:
        work = api.plane.begin_cycle()  # while a plan is made both are found good, and wait
        bodies = ({"token": secret, "principal": name} for name in ("kim", "lee"))
        waiting = [asyncio.ensure_future(api.http.post("/v1/setup", json=body)) for body in bodies]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in waiting)
        api.plane.end_cycle(work())
        planned, api.service._planned = api.service._planned, asyncio.get_running_loop().create_future()
        planned.set_result(None)
        return [answer.status_code for answer in await asyncio.gather(*waiting)]

    assert sorted(api.on_loop(both())) == [201, 403]
    assert len({"kim", "lee"} & api.plane.state.principals.keys()) == 1


def test_setup_takes_setup_tokens_only_and_over_nobody(api: Api) -> None:
    api.principal("kim", Role.USER, "north")
    personal, expired = api.secret(TokenKind.PERSONAL, "root"), api.secret(TokenKind.SETUP, expires_at_ms=1)
    before = api.digest()
    for token in (personal, expired, "", "pumasi_setup_guess"):
        answer = api.call("POST", "/v1/setup", json={"token": token, "principal": "lee"}, token=None)
        assert_problem(answer, 403, "token-used")
    assert api.digest() == before
    secret = api.secret(TokenKind.SETUP)
    before = api.digest()
    taken = api.call("POST", "/v1/setup", json={"token": secret, "principal": "kim"}, token=None)
    assert_problem(taken, 409, "body-invalid")
    assert api.digest() == before


@pytest.mark.parametrize("kind", [TokenKind.SETUP, TokenKind.ENROL])
def test_one_use_tokens_open_nothing_else(api: Api, kind: TokenKind) -> None:
    secret = api.secret(kind, principal="root", site="north-dc")
    assert_problem(api.call("GET", "/v1/whoami", token=secret), 401, "not-authenticated")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic cm9vdDpyb290",
        "bearer\tx",
        "Bearer " + "x" * 300,
        "Bearer \u00fc",
        "Pumasi-Agent x",
    ],
)
def test_headers_that_are_no_bearer_tokens(api: Api, header: str) -> None:
    answer = api.call("GET", "/v1/whoami", token=None, headers={"Authorization": header.encode()})
    assert_problem(answer, 401, "not-authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_tokens_expire_and_are_revoked_at_once(api: Api) -> None:
    issued = api.call("POST", "/v1/tokens", json={"lifetime_seconds": 60}).json()
    assert issued["token"].startswith("pumasi_personal_")
    assert len(issued["token"]) == len("pumasi_personal_") + 43
    assert api.call("GET", "/v1/whoami", token=issued["token"]).status_code == 200
    api.clock.advance(60_000)
    assert api.call("GET", "/v1/whoami", token=issued["token"]).status_code == 401
    other = api.call("POST", "/v1/tokens", json={}).json()
    assert api.call("DELETE", f"/v1/tokens/{other['id']}").status_code == 204
    assert api.call("GET", "/v1/whoami", token=other["token"]).status_code == 401
    assert_problem(api.call("DELETE", f"/v1/tokens/{other['id']}"), 404, "token-unknown")


def test_a_principal_that_lost_its_roles_keeps_its_name_only(api: Api) -> None:
    token = api.principal("kim", Role.USER, "north/lab")
    assert api.call("POST", "/v1/principals", json={"id": "kim"}).status_code == 201
    assert api.call("GET", "/v1/whoami", token=token).status_code == 200
    assert_problem(api.call("GET", "/v1/fleet", token=token), 403, "not-authorised")
    assert_problem(api.call("GET", "/v1/jobs", token=token), 403, "not-authorised")


@pytest.mark.parametrize(
    ("grantor", "at", "role", "scope"),
    [
        (Role.QUEUE_ADMIN, "north/lab", "owner-admin", "north/lab"),
        (Role.QUEUE_ADMIN, "north/lab", "user", "north"),
        (Role.QUEUE_ADMIN, "north/lab", "user", "north/other"),
        (Role.QUEUE_ADMIN, "north/lab", "site-operator", "north/lab"),
        (Role.OWNER_ADMIN, "north", "fleet-admin", "north"),
        (Role.OWNER_ADMIN, "north", "viewer", "*"),
        (Role.OWNER_ADMIN, "north", "viewer", "site:north-dc"),
        (Role.OWNER_ADMIN, "north", "owner-admin", "south"),
    ],
)
def test_nobody_grants_what_they_lack(api: Api, grantor: Role, at: str, role: str, scope: str) -> None:
    token = api.principal("grantor", grantor, at)
    before = api.digest()
    body = {"id": "friend", "bindings": [{"role": role, "scope": scope}]}
    assert_problem(api.call("POST", "/v1/principals", json=body, token=token), 403, "not-authorised")
    assert api.digest() == before


def test_nobody_touches_who_holds_more(api: Api) -> None:
    token = api.principal("grantor", Role.OWNER_ADMIN, "north")
    api.principal("both", Role.USER, "north", Role.USER, "south")
    before = api.digest()
    for body in (
        {"id": "root", "bindings": []},
        {"id": "root", "bindings": [{"role": "fleet-admin", "scope": "*"}], "title": "renamed"},
        {"id": "both", "bindings": [{"role": "user", "scope": "north"}]},
        {"id": "grantor", "bindings": [{"role": "fleet-admin", "scope": "*"}]},
    ):
        assert_problem(api.call("POST", "/v1/principals", json=body, token=token), 403, "not-authorised")
    for principal in ("root", "both"):
        answer = api.call("POST", "/v1/tokens", json={"principal": principal}, token=token)
        assert answer.status_code in (403, 404)
    assert api.digest() == before


def test_scopes_must_exist(api: Api) -> None:
    for scope in ("nowhere", "north/nothing", "site:atlantis", "site:north"):
        body = {"id": "kim", "bindings": [{"role": "user", "scope": scope}]}
        problem = assert_problem(api.call("POST", "/v1/principals", json=body), 422, "scope-unknown")
        assert problem["errors"][0]["path"] == "bindings.0.scope"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"kind": "setup"}, "kind"),
        ({"kind": "agent"}, "kind"),
        ({"lifetime_seconds": 91 * 24 * 3600}, "lifetime_seconds"),
        ({"kind": "enrol", "site": "north-dc", "principal": "root"}, "principal"),
        ({"kind": "enrol", "site": "north-dc", "lifetime_seconds": 24 * 3600 + 1}, "lifetime_seconds"),
        ({"site": "north-dc"}, "site"),
        ({"lifetime_seconds": -1}, "lifetime_seconds"),
    ],
)
def test_tokens_that_are_not_issued(api: Api, body: dict[str, object], path: str) -> None:
    before = api.digest()
    problem = assert_problem(api.call("POST", "/v1/tokens", json=body), 422, "body-invalid")
    assert problem["errors"][0]["path"] == path
    assert api.digest() == before


def test_no_secret_is_in_the_log_or_in_any_answer_but_its_own(api: Api) -> None:
    issued = api.call("POST", "/v1/tokens", json={"kind": "service"}).json()
    setup = api.secret(TokenKind.SETUP)
    body = {"token": setup, "principal": "kim"}
    admin = api.call("POST", "/v1/setup", json=body, token=None).json()["token"]
    written = b"".join(msgspec.json.encode(event) for _, event in api.store.read(0)).decode()
    listed = api.call("GET", "/v1/tokens").text + api.call("GET", "/v1/principals").text
    for secret in (issued["token"], setup, admin, api.token):
        assert secret not in written
        assert secret.split("_", 2)[2] not in written + listed
        assert digest_of(secret) not in listed
    assert token_id(digest_of(issued["token"])) in listed


@pytest.mark.parametrize("name", ["control", "setup"])
def test_nobody_passes_for_the_control_plane(api: Api, name: str) -> None:
    before = api.digest()
    assert_problem(api.call("POST", "/v1/principals", json={"id": name}), 422, "body-invalid")
    assert api.digest() == before
    body = {"token": api.secret(TokenKind.SETUP), "principal": name}
    assert_problem(api.call("POST", "/v1/setup", json=body, token=None), 422, "body-invalid")
