"""For those who run the control plane: is it alive, is it ready, how does it do, and what does it offer."""

from fastapi import Response
from msgspec import Struct

from pumasi import __version__
from pumasi.api.call import Call
from pumasi.api.metrics import CONTENT_TYPE, Metrics
from pumasi.api.problems import Problem
from pumasi.api.routing import Reach, Table
from pumasi.control.access import Action

TABLE = Table("operations")


class HealthRow(Struct, frozen=True):
    """It is alive."""

    status: str
    version: str


@TABLE.route("GET", "/healthz", Action.PUBLIC, Reach.OPEN, answer=HealthRow)
async def healthz(_: Call) -> HealthRow:
    """Say that the process answers."""
    return HealthRow("ok", __version__)


@TABLE.route("GET", "/readyz", Action.PUBLIC, Reach.OPEN, answer=HealthRow)
async def readyz(call: Call) -> HealthRow:
    """Say whether requests that change something would be taken."""
    if call.service.broken is not None:
        raise Problem(503, "not-ready", "the log cannot be written")
    return HealthRow("ready", __version__)


@TABLE.route("GET", "/metrics", Action.METRICS_READ, Reach.FLEET, media_type=CONTENT_TYPE)
async def metrics(call: Call) -> Response:
    """Give metrics to Prometheus."""
    known: Metrics = call.request.app.state.metrics
    return Response(known.text(), media_type=CONTENT_TYPE)


@TABLE.route("GET", "/openapi.json", Action.PUBLIC, Reach.OPEN, media_type="application/json")
async def openapi(call: Call) -> Response:
    """Describe this API."""
    document: bytes = call.request.app.state.openapi_json
    return Response(document, media_type="application/json")
