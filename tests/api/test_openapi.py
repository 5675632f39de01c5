"""The OpenAPI document is the committed one, is true, and every problem code is known and documented."""

import json
import re
from pathlib import Path

import pytest

import pumasi.api
import pumasi.control
from pumasi.api.app import ROUTES, openapi, openapi_json
from pumasi.api.problems import TITLES
from pumasi.control.access import EXTENTS, Extent
from pumasi.model.access import Role
from tests.api.kit import Api

ROOT = Path(__file__).parents[2]


def test_the_committed_document_is_what_the_application_serves(api: Api) -> None:
    committed = (ROOT / "openapi" / "openapi.json").read_bytes()
    assert committed == openapi_json(), "run: python -m pumasi.api > openapi/openapi.json"
    assert api.call("GET", "/openapi.json", token=None).content == committed


def test_every_reference_leads_somewhere() -> None:
    document = openapi()
    text = json.dumps(document)
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in document["components"]["schemas"]
    assert r"\\Z" not in text


def test_operations_are_named_once_and_all_described() -> None:
    names = [route.handler.__name__ for route in ROUTES]
    assert len(set(names)) == len(names)
    assert all(route.title for route in ROUTES)


def test_every_code_in_the_source_has_a_title_and_a_place_in_the_docs() -> None:
    sources = [path for package in (pumasi.api, pumasi.control) for path in Path(package.__path__[0]).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    raised = set(re.findall(r'Problem\(\s*\d{3},\s*"([a-z-]+)"', text)) | set(re.findall(r'code="([a-z-]+)"', text))
    raised |= {f"{what}-unknown" for what in re.findall(r'(?:not_found|unknown)\("([a-z-]+)"', text)}
    assert raised <= set(TITLES)
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/reference/problems.md").read_text(), re.MULTILINE))
    assert documented == set(TITLES)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/pools", "/v1/fleet", "/v1/shares", "/v1/usage", "/v1/nodes"])
def test_answers_have_the_fields_their_schema_requires(api: Api, path: str) -> None:
    api.submit()
    api.cycle()
    document = openapi()
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    _check(api.get(path), schema, document["components"]["schemas"])


def _check(value: object, schema: dict[str, object], known: dict[str, dict[str, object]]) -> None:
    """Required fields are there, no others are; as deep as the document goes."""
    if "$ref" in schema:
        schema = known[str(schema["$ref"]).rpartition("/")[2]]
    if isinstance(value, dict) and "properties" in schema:
        properties = schema["properties"]
        assert isinstance(properties, dict)
        assert set(value) == set(properties)
        for key, item in value.items():
            _check(item, properties[key], known)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _check(item, schema["items"], known)  # type: ignore[arg-type]


def test_the_docs_list_every_route_and_every_right() -> None:
    api = (ROOT / "docs/reference/api.md").read_text()
    for route in ROUTES:
        path = route.path.replace(":path", "")
        assert f"| {route.method} | `{path}` | `{route.action}` | {route.title} |" in api
    access = (ROOT / "docs/concepts/access.md").read_text()
    words = {Extent.ALL: "all", Extent.OWN: "own", Extent.NONE: "–"}
    for action in {action for _, action in EXTENTS}:
        cells = " | ".join(words[EXTENTS.get((role, action), Extent.NONE)] for role in Role)
        assert f"| `{action}` | {cells} |" in access
