"""The OpenAPI 3.1 document of the hub's own API, built from the same types that the operations read and answer with.

JSON Schema comes from msgspec; what is added here is HTTP: parameters, statuses with their reasons, header fields, tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from litestar import Litestar
from msgspec import inspect

from gridloom.core import faults
from gridloom.web.operation import Operation
from gridloom.web.problems import MEDIA_TYPE, TITLES, Problem

PATH_PARAMETERS: Mapping[str, str] = {
    "device_id": "A device's id, `integration:identity`, percent-encoded once (`os3p:SUBS%20123`).",
    "command_id": "An order's id.",
    "alarm_id": "An alarm's id, as `/api/v1/alarms` shows it.",
    "transaction_id": "A transaction's id.",
    "token_id": "A token's id (never its secret).",
    "account_id": "An account's e-mail address.",
    "site_id": "A site's id.",
    "entry_id": "An entry's id.",
    "name": "A file's name.",
}

TAGS: Mapping[str, str] = {
    "devices": "What is connected, and what it can do.",
    "readings": "Values: the latest, raw samples, and what becomes of them by time step.",
    "events": "What happened to devices, and alarms.",
    "commands": "Orders to devices, from acceptance to their end.",
    "transactions": "Metered intervals that somebody may be billed for.",
    "access": "Accounts, sites, grants and tokens; the audit trail.",
    "outbox": "What waits to be delivered to others.",
    "tables": "The hub's words: measurands, verbs, kinds of events.",
    "stream": "Everything live, as server-sent events.",
    "hub": "The hub itself.",
}

_DESCRIPTION = """One hub for the low-voltage edge of the grid. Values are in base units (W, Wh, V, A, VA, var, Hz, °C), exact JSON numbers; \
times are RFC 3339, answered in UTC; a time without a zone is refused. Every refusal is a problem (RFC 9457) that names every offending field. \
Lists are pages: `next`, and a `Link` header with `rel="next"`, continue them. A parameter that is not known is refused."""


def operations(app: Litestar) -> list[Operation]:
    """Every operation of the application that was made with ``web.operation``."""
    found: dict[tuple[str, str], Operation] = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]:
            known = handler.opt.get("operation") if handler is not None else None
            if isinstance(known, Operation):
                found[known.path, known.method] = known
    return [found[key] for key in sorted(found)]


def document(every: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document, as JSON values."""
    every = list(every)
    types: list[Any] = [Problem]
    for known in every:
        types.extend(part for part in (known.body, known.answer) if part is not None and part not in types and part is not bytes)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {_key(one): schema for one, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for known in every:
        paths.setdefault(known.path, {})[known.method.lower()] = _operation(known, by_type, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gridloom hub API",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "this hub"}],
        "tags": [{"name": name, "description": TAGS.get(name, name)} for name in dict.fromkeys((*TAGS, *(one.tag for one in every)))],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token: `gridloom token create --role ROLE` prints one."},
            },
        },
        "x-problem-types": dict(TITLES),
    }


def _key(type: Any) -> str:
    return repr(type)


def _operation(known: Operation, schemas: Mapping[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": known.name,
        "summary": known.summary,
        "description": known.description,
        "tags": [known.tag],
        "responses": _responses(known, schemas),
    }
    if known.anonymous:
        found["security"] = []
    parameters = [*_path_parameters(known), *_query_parameters(known.query)]
    if parameters:
        found["parameters"] = parameters
    if known.body is not None:
        schema = known.body_schema(components) if known.body_schema is not None else schemas[_key(known.body)]
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _responses(known: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": known.summary}
    if known.answer is not None:
        schema = {} if known.answer is bytes else schemas[_key(known.answer)]
        good["content"] = {
            media: {"schema": schema if media == "application/json" and schema else {"type": "string"} if media != "application/json" else {}}
            for media in known.produces
        }
    if known.headers:
        good["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in known.headers.items()}
    found: dict[str, Any] = {str(known.status): good}
    for status, reason in known.refuses.items():
        refusal: dict[str, Any] = {"description": reason}
        if status < 400:
            refusal["content"] = good.get("content", {})
        else:
            refusal["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[str(status)] = refusal
    return found


def _path_parameters(known: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in known.path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": known.parameters.get(name) or PATH_PARAMETERS[name],
            "schema": {"type": "string", "minLength": 1, "maxLength": 500},
        }
        for name in names
    ]


def _query_parameters(type: Any) -> list[dict[str, Any]]:
    if type is None:
        return []
    info = inspect.type_info(type)
    assert isinstance(info, inspect.StructType)
    (_,), components = msgspec.json.schema_components([type], ref_template="#/components/schemas/{name}")
    members = components[type.__name__]["properties"]
    found = []
    for field in info.fields:
        schema = _inlined(_without_null(members[field.encode_name]), components)
        schema.pop("default", None) if schema.get("default", 0) is None else None
        description = schema.pop("description", "") or _item_description(schema)
        parameter: dict[str, Any] = {"name": field.encode_name, "in": "query", "description": description, "schema": schema}
        if field.required:
            parameter["required"] = True
        if isinstance(faults.unwrapped(field.type), inspect.VarTupleType) or schema.get("type") == "array":
            parameter |= {"style": "form", "explode": True}
        found.append(parameter)
    return found


def _item_description(schema: dict[str, Any]) -> str:
    items = schema.get("items")
    return str(items.pop("description", "")) if isinstance(items, dict) else ""


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not given is not null: it has the schema of the value alone."""
    if "anyOf" not in schema:
        return dict(schema)
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    others = [part for part in schema["anyOf"] if part != {"type": "null"}]
    return {**others[0], **rest} if len(others) == 1 else {**rest, "anyOf": others}


def _inlined(schema: Any, components: Mapping[str, Any]) -> Any:
    """Parameters are small: their enumerations stand in place, not as a reference."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            target = {key: value for key, value in components[schema["$ref"].rpartition("/")[2]].items() if key not in ("title", "description")}
            return _inlined({**target, **rest}, components)
        return {key: _inlined(value, components) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, components) for item in schema]
    return schema
