"""The application: routes behind the gate, the edge around them. `create_app` is all that others need."""

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from pumasi import __version__
from pumasi.api.edge import Edge, problem_response
from pumasi.api.gate import Gate
from pumasi.api.metrics import Metrics
from pumasi.api.openapi import Document, describe
from pumasi.api.problems import Problem
from pumasi.api.routes import accounts, agents, events, fleet, jobs, operations, output, people, reservations
from pumasi.api.routing import Route
from pumasi.api.settings import ApiSettings
from pumasi.control.service import Service

ROUTES: tuple[Route, ...] = tuple(
    route
    for module in (fleet, reservations, jobs, output, accounts, events, people, agents, operations)
    for route in module.TABLE.routes
)

_STATUS_CODES = {404: "not-found", 405: "method-not-allowed"}


def create_app(service: Service, settings: ApiSettings | None = None) -> FastAPI:
    """The API of a control plane. It serves what is in `ROUTES` and nothing else."""
    metrics = Metrics(service)
    app = FastAPI(
        title="Pumasi",
        version=__version__,
        openapi_url=None,  # ours is made from the table of routes
        docs_url=None,  # they would fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    app.state.openapi_json = openapi_json()
    gate = Gate(service, settings or ApiSettings())
    for route in ROUTES:
        app.router.add_route(route.path, gate.endpoint(route), methods=[route.method], include_in_schema=False)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_middleware(Edge, metrics=metrics)
    return app


def openapi() -> Document:
    """The OpenAPI document of `ROUTES`."""
    return describe(ROUTES)


def openapi_json() -> bytes:
    """The OpenAPI document as it is committed and served: indented, a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(openapi()), indent=2) + b"\n"


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error, request.scope["pumasi.trace_id"])


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _STATUS_CODES.get(error.status_code, "not-found")
    problem = Problem(error.status_code, code, f"{request.method} on this path", headers=error.headers)
    return problem_response(problem, request.scope["pumasi.trace_id"])
