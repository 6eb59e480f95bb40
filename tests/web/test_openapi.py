"""The OpenAPI document: valid 3.1, complete, and saying what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from tests.web.running import Running

from gridloom.core import verbs
from gridloom.core.model import EventState, Role
from gridloom.web.problems import TITLES


@pytest.fixture
async def document(hub: Running) -> dict[str, Any]:
    async with hub.client() as client:
        answer = await client.get("/openapi.json")
        assert (await client.get("/api/v1/openapi.json")).content == answer.content
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for one in part.values():
            yield from references(one)
    elif isinstance(part, list):
        for one in part:
            yield from references(one)


async def test_every_operation_is_described_and_says_what_is_refused(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids)) > 40
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}, name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
        protected = operation.get("security") != []
        assert protected == ("401" in operation["responses"]) or name == "GET /metrics", name
        assert "400" in operation["responses"], name
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (name, parameter["name"])
            assert parameter["schema"].get("type") or parameter["schema"].get("enum"), (name, parameter)
        if "requestBody" in operation:
            assert {"413", "415"} <= set(operation["responses"]), name


async def test_references_resolve_and_schemas_are_valid(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.startswith("#/components/schemas/"), reference
        assert reference.rpartition("/")[2] in schemas, reference
    for name, schema in schemas.items():
        jsonschema_rs.validator_for({**schema, "components": document["components"]})
        if schema.get("type") == "object":
            assert schema.get("description"), name


async def test_parameters_have_their_limits(document: dict[str, Any]) -> None:
    parameters = {one["name"]: one for one in document["paths"]["/api/v1/readings/aggregate"]["get"]["parameters"]}
    assert parameters["operator"]["required"] is True
    assert set(parameters["operator"]["schema"]["enum"]) == {"sum", "average", "min", "max", "count", "first", "last", "delta"}
    assert parameters["begin"]["schema"] == {"type": "string", "format": "date-time"}
    assert (parameters["limit"]["schema"]["minimum"], parameters["limit"]["schema"]["maximum"]) == (1, 10_000)
    assert parameters["device"]["schema"]["items"]["maxLength"] == 200
    assert parameters["device"]["explode"] is True


async def test_an_order_has_one_alternative_per_verb(document: dict[str, Any]) -> None:
    schema = document["paths"]["/api/v1/devices/{device_id}/commands"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    named = {one["properties"]["verb"]["const"] for one in schema["oneOf"]}
    assert named == {row.name for row in verbs.TABLE.values() if row.kind == "order"}
    validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
    assert validator.is_valid({"verb": "relay.set", "arguments": {"relay": 1, "state": "open"}})
    assert not validator.is_valid({"verb": "relay.set", "arguments": {"relay": 0, "state": "open"}})
    assert not validator.is_valid({"verb": "relay.set"})
    assert document["components"]["schemas"]["RelaySet"]["properties"]["password"]["writeOnly"] is True


async def test_answers_are_what_the_document_says(hub: Running, document: dict[str, Any]) -> None:
    await hub.device()
    await hub.reading()
    await hub.event("alarm.silence", state=EventState.RAISED)
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        for path in (
            "devices",
            "readings/latest",
            "readings/series",
            "events",
            "alarms",
            "measurands",
            "verbs",
            "event-kinds",
            "tokens",
            "accounts",
            "audit",
        ):
            answer = await client.get(f"/api/v1/{path}")
            schema = document["paths"][f"/api/v1/{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema_rs.validator_for({**schema, "components": document["components"]}).validate(answer.json())
            assert answer.json()["items"]
        wrong = (await client.get("/api/v1/devices?limit=0")).json()
        jsonschema_rs.validator_for({"$ref": "#/components/schemas/Problem", "components": document["components"]}).validate(wrong)


async def test_every_type_of_problem_is_listed(document: dict[str, Any]) -> None:
    assert document["x-problem-types"] == dict(TITLES)
