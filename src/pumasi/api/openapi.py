"""The OpenAPI document, made from the table of routes and the very types that check requests and form answers."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from pumasi import __version__
from pumasi.api.problems import MEDIA_TYPE, TITLES, ProblemDocument
from pumasi.api.routing import Reach, Route

Document = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")
_IDEMPOTENT = ("/v1/jobs", "/v1/jobs/batch")
_PATH_PATTERNS = {"job": "^[1-9][0-9]{0,15}$"}


def describe(routes: Iterable[Route]) -> Document:
    """The whole document."""
    table = sorted(routes, key=lambda route: (route.path, route.method))
    schemas, components = _schemas(table)
    paths: Document = {}
    for route in table:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pumasi",
            "version": __version__,
            "description": "The control plane of a GPU fleet that belongs to several owners.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
        "x-problem-codes": TITLES,
    }


_SECURITY: Document = {
    "token": {"type": "http", "scheme": "bearer", "description": "A personal or service token."},
    "agent": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "Pumasi-Agent and a JWT that a site's agent signed for this one request.",
    },
}


def _schemas(routes: list[Route]) -> tuple[dict[int, Document], Document]:
    """A schema per type (by identity: generic types do not hash alike), and the named ones they refer to."""
    types = [kind for route in routes for kind in (route.body, route.answer, route.query) if kind is not None]
    types.append(ProblemDocument)
    found, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = {id(kind): _plain(schema) for kind, schema in zip(types, found, strict=True)}
    return by_type, dict(sorted(_plain(components).items()))


def _plain(value: Any) -> Any:
    r"""Schemas as any validator reads them: ECMA 262 writes the end of a text `$`, not `\Z`; docs on one line."""
    if isinstance(value, dict):
        return {key: _plain_item(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _plain_item(key: str, item: Any) -> Any:
    if key == "pattern" and isinstance(item, str):
        return item.replace(r"\Z", "$")
    if key == "description" and isinstance(item, str):
        return " ".join(item.split())
    return _plain(item)


def _operation(route: Route, schemas: dict[int, Document]) -> Document:
    operation: Document = {
        "operationId": route.handler.__name__,
        "summary": route.title,
        "tags": [route.tag],
        "x-action": route.action.value,
        "x-reach": route.reach.value,
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": _responses(route, schemas),
    }
    if route.reach is Reach.SITE:
        operation["security"] = [{"agent": []}]
    elif route.reach is not Reach.OPEN:
        operation["security"] = [{"token": []}]
    if route.body is not None:
        content = {"application/json": {"schema": schemas[id(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: Route) -> list[Document]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name, _ in _PARAMETER.findall(route.path)
    ]


def _path_schema(name: str) -> Document:
    pattern = _PATH_PATTERNS.get(name)
    return {"type": "string", "pattern": pattern} if pattern else {"type": "string"}


def _query_parameters(route: Route) -> list[Document]:
    schema = _plain(msgspec.json.schema(route.query))
    properties = next(iter(schema["$defs"].values())).get("properties", {})
    return [{"name": name, "in": "query", "required": False, "schema": each} for name, each in properties.items()]


def _header_parameters(route: Route) -> list[Document]:
    names = []
    if route.path in _IDEMPOTENT and route.method == "POST":
        names.append(("Idempotency-Key", {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"}))
    if route.path == "/v1/events":
        names.append(("Last-Event-ID", {"type": "string", "pattern": "^[0-9]{1,16}$"}))
    return [{"name": name, "in": "header", "required": False, "schema": schema} for name, schema in names]


def _responses(route: Route, schemas: dict[int, Document]) -> Document:
    good: Document = {"description": route.title}
    if route.answer is not None:
        good["content"] = {route.media_type: {"schema": schemas[id(route.answer)]}}
    elif route.status != 204:
        schema = {"type": "object"} if route.media_type == "application/json" else {"type": "string"}
        good["content"] = {route.media_type.partition(";")[0]: {"schema": schema}}
    problem_schema = {"$ref": _REFERENCE.format(name=ProblemDocument.__name__)}
    problem = {"description": "A problem", "content": {MEDIA_TYPE: {"schema": problem_schema}}}
    return {str(route.status): good, "4XX": problem, "503": problem}
