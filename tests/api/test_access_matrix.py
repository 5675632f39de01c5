"""Every route, for every role, bound at every place: the verdicts are stated here, and asked for over HTTP."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import pytest
from starlette.routing import Route

from pumasi.api.app import ROUTES
from pumasi.api.auth import digest_of
from pumasi.control.views.people import token_id
from pumasi.model.access import Role, TokenKind
from pumasi.model.fleet import Queue
from pumasi.testing.builders import START_MS
from tests.api.kit import Api, job_body, small_plan

ROLES = {
    "V": Role.VIEWER,
    "U": Role.USER,
    "Q": Role.QUEUE_ADMIN,
    "O": Role.OWNER_ADMIN,
    "S": Role.SITE_OPERATOR,
    "A": Role.AUDITOR,
    "F": Role.FLEET_ADMIN,
}
EVERY = "VUQOSAF"
# Where a role is bound, seen from the thing asked for: a job, a token, ... of queue north/lab at site north-dc.
SCOPES = {
    "own": "north/lab",
    "sibling": "north/other",
    "owner": "north",
    "other": "south",
    "site": "site:north-dc",
    "fleet": "*",
}

Verdicts = dict[str, str]  # relation -> letters of the roles that may; a relation that is not there: none may


def anywhere(roles: str) -> Verdicts:
    return dict.fromkeys(SCOPES, roles)


def above(roles: str) -> Verdicts:
    return dict.fromkeys(("own", "owner", "fleet"), roles)


def at_site(roles: str) -> Verdicts:
    return dict.fromkeys(("site", "owner", "fleet"), roles)


def fleet(roles: str) -> Verdicts:
    return {"fleet": roles}


class Row(NamedTuple):
    """What the roles may do on a route, and what is sent. `sees`: for lists, whether the thing is in the answer."""

    verdicts: Verdicts
    body: Callable[[], Any] | None = None
    sees: Callable[[Any, "World"], bool] | None = None
    target: str = ""


class World(NamedTuple):
    """Somebody else's job, active at north-dc; and somebody with a token, a user of north/lab."""

    api: Api
    job: int
    token_name: str


def maintenance(name: str) -> dict[str, Any]:
    """An hour of work on one of north's nodes, far from now."""
    when = {"start_at_ms": START_MS + 1000 * 3600 * 1000, "duration_seconds": 3600}
    return {"name": name, "purpose": "maintenance", "pool": "north-b200", "nodes": 1, **when}


def _numbers(answer: Any, key: str) -> list[Any]:
    return [item[key] for item in answer["items"]]


MATRIX: dict[str, Row] = {
    "GET /v1/whoami": Row(anywhere(EVERY)),
    "GET /v1/fleet": Row(anywhere(EVERY)),
    "GET /v1/sites": Row(anywhere(EVERY)),
    "GET /v1/sites/{site}": Row(anywhere(EVERY)),
    "GET /v1/pools": Row(anywhere(EVERY)),
    "GET /v1/pools/{pool}": Row(anywhere(EVERY)),
    "GET /v1/nodes": Row(anywhere(EVERY)),
    "GET /v1/nodes/{node}": Row(anywhere(EVERY)),
    "GET /v1/rules": Row(anywhere(EVERY)),
    "GET /v1/shares": Row(anywhere(EVERY)),
    "GET /v1/reasons": Row(anywhere(EVERY)),
    "GET /v1/reclaims": Row(anywhere(EVERY)),
    "GET /v1/events": Row(anywhere(EVERY), target="/v1/events?after=9999999"),
    "GET /v1/reservations": Row(anywhere(EVERY)),
    "GET /v1/reservations/{reservation}": Row(anywhere(EVERY)),
    "POST /v1/reservations": Row(at_site("OSF"), body=lambda: maintenance("fresh")),
    "DELETE /v1/reservations/{reservation}": Row(at_site("OSF")),
    "PUT /v1/fleet/plan": Row(fleet("F"), body=lambda: {"name": "x"}),
    "PUT /v1/sites/{site}/power": Row(at_site("OSF"), body=lambda: {"kilowatts": 0}),
    "POST /v1/nodes/{node}/drain": Row(at_site("OSF"), body=lambda: {"reason": "fan"}),
    "POST /v1/nodes/{node}/resume": Row(at_site("OSF")),
    "GET /v1/queues": Row(above(EVERY), sees=lambda answer, _: "north/lab" in _numbers(answer, "id")),
    "GET /v1/queues/{queue:path}": Row(above(EVERY)),
    "POST /v1/jobs": Row(above("UQOF"), body=job_body),
    "POST /v1/jobs/batch": Row(above("UQOF"), body=lambda: {"jobs": [job_body()]}),
    "POST /v1/jobs/check": Row(above("UQOF"), body=job_body),
    "GET /v1/jobs": Row(above(EVERY) | {"site": EVERY}, sees=lambda answer, world: world.job in _numbers(answer, "id")),
    "GET /v1/jobs/{job}": Row(above(EVERY) | {"site": EVERY}),
    "GET /v1/jobs/{job}/reasons": Row(above(EVERY) | {"site": EVERY}),
    "GET /v1/jobs/{job}/logs": Row(above("QOF"), target="/v1/jobs/{job}/logs?attempt=9"),
    "POST /v1/jobs/{job}/cancel": Row(above("QOF")),
    "POST /v1/jobs/{job}/hold": Row(above("QOF")),
    "POST /v1/jobs/{job}/release": Row(above("QOF")),
    "GET /v1/allocations": Row(
        above(EVERY) | {"site": EVERY}, sees=lambda answer, world: world.job in _numbers(answer, "job")
    ),
    "GET /v1/usage": Row(above(EVERY) | {"site": EVERY}, sees=lambda answer, _: bool(answer["items"])),
    "GET /v1/principals": Row(above("QOAF"), sees=lambda answer, _: "holder" in _numbers(answer, "id")),
    "POST /v1/principals": Row(
        above("QOF"), body=lambda: {"id": "fresh", "bindings": [{"role": "user", "scope": "north/lab"}]}
    ),
    "GET /v1/tokens": Row(above("QOF"), sees=lambda answer, world: world.token_name in _numbers(answer, "id")),
    "POST /v1/tokens": Row(above("QOF"), body=lambda: {"principal": "holder"}),
    "DELETE /v1/tokens/{token}": Row(above("QOF")),
    "GET /metrics": Row(fleet(EVERY)),
}
WITHOUT_ROLE = {
    "POST /v1/setup",
    "POST /v1/agent/enrol",
    "POST /v1/agent/sync",
    "GET /healthz",
    "GET /readyz",
    "GET /openapi.json",
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A job that runs at north-dc and a principal with a token, neither of which is the caller's."""
    with Api() as api:
        holder = api.principal("holder", Role.USER, "north/lab")
        job = api.submit(holder, name="somebody-else")
        api.cycle()
        api.clock.advance(1000)
        for letter, role in ROLES.items():
            for relation, scope in SCOPES.items():
                api.tokens[letter, relation] = api.principal(f"{role}-at-{relation}", role, scope)
        yield World(api, job, token_id(digest_of(holder)))


def test_every_route_is_in_the_matrix() -> None:
    served = {f"{route.method} {route.path}" for route in ROUTES}
    assert served == set(MATRIX) | WITHOUT_ROLE


def test_the_application_serves_the_declared_routes_and_no_others(world: World) -> None:
    routes = [cast(Route, route) for route in world.api.app.routes]
    served = {f"{method} {route.path}" for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert served == set(MATRIX) | WITHOUT_ROLE


@pytest.mark.parametrize("name", sorted(MATRIX))
def test_verdicts(world: World, name: str) -> None:
    row = MATRIX[name]
    for relation in SCOPES:
        for letter in ROLES:
            stated = letter in row.verdicts.get(relation, "")
            assert _asked(world, name, row, world.api.tokens[letter, relation]) is stated, (letter, relation)


def test_the_matrix_is_as_large_as_it_should_be() -> None:
    cells = len(MATRIX) * len(ROLES) * len(SCOPES)
    print(f"{cells} verdicts on {len(MATRIX)} routes")
    assert cells == 41 * 7 * 6


@pytest.mark.parametrize("name", sorted(MATRIX))
def test_nobody_gets_nothing(world: World, name: str) -> None:
    method, path = _request(world, name, MATRIX[name])
    assert world.api.call(method, path, token=None).status_code == 401
    assert world.api.call(method, path, token="pumasi_personal_" + "x" * 43).status_code == 401


def _asked(world: World, name: str, row: Row, token: str) -> bool:
    """Whether the API allows it."""
    method, path = _request(world, name, row)
    arguments = {"json": row.body()} if row.body else {}
    answer = world.api.call(method, path, token=token, **arguments)
    assert answer.status_code < 500, answer.text
    if answer.status_code in (403, 404) or (answer.status_code == 422 and "queue-unknown" in answer.text):
        return False
    assert answer.status_code in (200, 201, 204, 409, 422), answer.text
    return row.sees(answer.json(), world) if row.sees else True


def _request(world: World, name: str, row: Row) -> tuple[str, str]:
    method, path = name.split(" ")
    names = {
        "{site}": "north-dc",
        "{pool}": "north-b200",
        "{node}": "north-b200-00004",
        "{queue:path}": "north/lab",
        "{job}": str(world.job),
        "{reservation}": "works",
    }
    if "{reservation}" in path and "works" not in world.api.plane.state.advance_reservations:
        assert world.api.call("POST", "/v1/reservations", json=maintenance("works")).status_code == 201
    if "{token}" in path:
        names["{token}"] = token_id(digest_of(world.api.secret(TokenKind.PERSONAL, "holder")))
    path = row.target or path
    for placeholder, value in names.items():
        path = path.replace(placeholder, value)
    return method, path


def test_a_user_controls_its_own_job_and_reads_its_output(api: Api) -> None:
    mine, other = api.principal("me", Role.USER, "north/lab"), api.principal("you", Role.USER, "north/lab")
    job = api.submit(mine)
    assert api.call("POST", f"/v1/jobs/{job}/hold", token=other).status_code == 403
    assert api.call("GET", f"/v1/jobs/{job}/logs", token=other).status_code == 403
    assert api.call("POST", f"/v1/jobs/{job}/hold", token=mine).status_code == 200
    assert api.call("GET", f"/v1/jobs/{job}/logs", token=mine).status_code == 409


def test_script_and_environment_are_for_who_may_read_the_output(api: Api) -> None:
    mine, other = api.principal("me", Role.USER, "north/lab"), api.principal("you", Role.USER, "north/lab")
    job = api.submit(mine, script="echo hello", environment={"PASSWORD": "canary-4711"})
    assert api.get(f"/v1/jobs/{job}", mine)["environment"] == {"PASSWORD": "canary-4711"}
    hidden = api.call("GET", f"/v1/jobs/{job}", token=other).text
    assert "canary" not in hidden
    assert "echo hello" not in hidden


def test_unknown_and_forbidden_jobs_are_answered_alike(api: Api) -> None:
    stranger = api.principal("stranger", Role.USER, "south/lab")
    job = api.submit()
    forbidden = api.call("GET", f"/v1/jobs/{job}", token=stranger).json()
    unknown = api.call("GET", f"/v1/jobs/{job + 1}", token=stranger).json()
    for answer in (forbidden, unknown):
        answer.pop("trace_id")
    assert {**forbidden, "detail": ""} == {**unknown, "detail": ""}
    assert forbidden["detail"].replace(str(job), "N") == unknown["detail"].replace(str(job + 1), "N")


def test_scopes_are_compared_name_by_name() -> None:
    with Api(small_plan(queues=(*small_plan().queues, Queue(id="north/lab-2"), Queue(id="north/lab/deep")))) as api:
        token = api.principal("me", Role.USER, "north/lab")
        found = [queue["id"] for queue in api.get("/v1/queues", token)["items"]]
    assert found == ["north/lab", "north/lab/deep"]
