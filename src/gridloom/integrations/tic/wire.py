"""What clients of TIC2WebSocket ask: one JSON object per text message, read strictly, with every refusal named by code and field.

The requests are the same in the three dialects (``dialects``); only the answers differ. Clauses "D" are of the published document, numbers
those of ``shared/specs/tic/FACTS.md``.
"""

from __future__ import annotations

from typing import Any

import msgspec

REQUESTS = ("GetAvailableTICs", "GetModemsInfo", "ReadTIC", "SubscribeTIC", "UnsubscribeTIC")
FIELDS = ("serialNumber", "portId", "portName")
"""Of an identifier (D "TIC identifier format"), in the order in which they are compared (FACTS 3)."""

NOT_AN_OBJECT, NO_TYPE, NO_NAME, WRONG_TYPE, UNKNOWN_REQUEST, WRONG_DATA = -1, -2, -3, -4, -5, -6
"""Codes of malformed requests, FACTS 3 and 11."""

LONGEST_LIST = 1_000
"""Identifiers in one request, and targeted subscriptions of one client."""


class Stream(msgspec.Struct, frozen=True):
    """Where frames come from. ``serial``: of the meter, once it has told; ``port_id``: USB path ``1-1``; ``port_path``: udev's ID_PATH."""

    serial: str | None
    port: str
    port_id: str | None
    port_path: str | None


class Identifier(msgspec.Struct, frozen=True):
    """How a client names a stream: at least one of the three."""

    serial: str | None = None
    port_id: str | None = None
    port_name: str | None = None

    def matches(self, stream: Stream) -> bool:
        """The first field that both sides have decides, alone: a wrong portName beside the right serialNumber matches (FACTS 3).

        A ``portId`` may be either name of the socket, whatever the dialect shows.
        """
        if self.serial is not None and stream.serial is not None:
            return self.serial == stream.serial
        if self.port_id is not None and (stream.port_id is not None or stream.port_path is not None):
            return self.port_id in (stream.port_id, stream.port_path)
        return self.port_name is not None and self.port_name == stream.port


class Request(msgspec.Struct, frozen=True):
    """A request that was understood. ``identifiers``: None is all streams. ``listed``: they came as a list."""

    name: str
    identifiers: tuple[Identifier, ...] | None = None
    listed: bool = False


class Malformed(msgspec.Struct, frozen=True):
    """One that was not. ``name``: of the request if it is a known one, else empty. ``reason`` names the field, what was expected and what came."""

    code: int
    name: str
    reason: str
    empty: bool = False


class _Fault(ValueError):
    """Wrong data, on its way out of the functions below."""


def parse(message: str | bytes) -> Request | Malformed:
    """Read one message. Never raises for what a client sent."""
    if isinstance(message, bytes):
        return Malformed(NOT_AN_OBJECT, "", "expected a JSON object in a text message, got a binary message")
    if not message:
        return Malformed(NOT_AN_OBJECT, "", "expected a JSON object, got an empty message", empty=True)
    try:
        asked = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:  # RecursionError: nested deeper than any request
        return Malformed(NOT_AN_OBJECT, "", f"expected a JSON object: {str(error)[:200]}")
    if not isinstance(asked, dict):
        return Malformed(NOT_AN_OBJECT, "", f"expected a JSON object, got {_kind(asked)}")
    name = asked.get("name")
    known = name if isinstance(name, str) and name in REQUESTS else ""
    if asked.get("type") is None:
        return Malformed(NO_TYPE, known, 'type: missing, expected "REQUEST"')
    if name is None:
        return Malformed(NO_NAME, known, f"name: missing, expected one of {', '.join(REQUESTS)}")
    if asked["type"] != "REQUEST":
        return Malformed(WRONG_TYPE, known, f'type: expected "REQUEST", got {_shown(asked["type"])}')
    if not known:
        return Malformed(UNKNOWN_REQUEST, "", f"name: expected one of {', '.join(REQUESTS)}, got {_shown(name)}")
    try:
        return _request(known, asked.get("data"))
    except _Fault as fault:
        return Malformed(WRONG_DATA, known, str(fault))


def _request(name: str, data: Any) -> Request:
    if name in ("GetAvailableTICs", "GetModemsInfo"):
        return Request(name)  # they take none; what a client sends all the same is ignored, as unknown members are
    if isinstance(data, dict):
        return Request(name, (_identifier(data, "data"),))
    if name == "ReadTIC":
        raise _Fault(f"data: expected an object with one of {', '.join(FIELDS)}, got {'nothing' if data is None else _kind(data)}")
    if data is None:
        return Request(name)
    if not isinstance(data, list):
        raise _Fault(f"data: expected an object with one of {', '.join(FIELDS)}, a list of such, or nothing for all; got {_shown(data)}")
    if len(data) > LONGEST_LIST:
        raise _Fault(f"data: expected at most {LONGEST_LIST} identifiers, got {len(data)}")
    return Request(name, tuple([_identifier(one, f"data[{place}]") for place, one in enumerate(data)]), listed=True)


def _identifier(data: Any, path: str) -> Identifier:
    if not isinstance(data, dict):
        raise _Fault(f"{path}: expected an object with one of {', '.join(FIELDS)}, got {_kind(data)}")
    for key, value in data.items():
        if key not in FIELDS:
            raise _Fault(f"{path}: unknown field {_shown(key)}, expected {', '.join(FIELDS)}")
        if value is not None and not isinstance(value, str):
            raise _Fault(f"{path}.{key}: expected a string, got {_kind(value)}")
        if value == "":
            raise _Fault(f"{path}.{key}: expected a string that is not empty")
    found = Identifier(data.get("serialNumber"), data.get("portId"), data.get("portName"))
    if found == Identifier():
        raise _Fault(f"{path}: expected one of {', '.join(FIELDS)}, got none")
    return found


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _shown(value: Any) -> str:
    """A client's own text, short enough to be sent back; of anything else only its kind."""
    if not isinstance(value, str):
        return _kind(value)
    return '"' + (value if len(value) <= 60 else value[:59] + "…") + '"'
