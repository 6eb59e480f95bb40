"""The hub's words as JSON: measurands, verbs with the schemas of their arguments, kinds of events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gridloom.core import events, measurands, verbs
from gridloom.core.model import Severity
from gridloom.web.operation import operation


class MeasurandOut(msgspec.Struct, frozen=True):
    """One measurand."""

    name: str
    unit: Annotated[str, Meta(description="base unit")]
    register: Annotated[bool, Meta(description="cumulative: a difference of two values is a quantity")]
    obis: str | None
    ocpp: Annotated[str | None, Meta(description="its name in OCPP 1.6")]
    os3p: Annotated[tuple[str, ...], Meta(description="its names in OS³P")]
    meaning: str
    clause: Annotated[str, Meta(description="where it comes from")]


class Measurands(msgspec.Struct, frozen=True):
    """All measurands."""

    items: tuple[MeasurandOut, ...]


class VerbOut(msgspec.Struct, frozen=True):
    """One verb: an order to a device, or something to read or manage in the hub."""

    name: str
    kind: Literal["order", "read", "manage"]
    meaning: str
    clause: str
    arguments: Annotated[dict[str, Any], Meta(description="JSON Schema 2020-12 of the arguments; secret ones are `writeOnly`")]
    idempotent: Annotated[bool, Meta(description="sending it twice does what sending it once does")]
    roles: Annotated[tuple[str, ...], Meta(description="who may use it")]
    timeout: Annotated[float, Meta(description="seconds until the device must have answered")]


class Verbs(msgspec.Struct, frozen=True):
    """All verbs."""

    items: tuple[VerbOut, ...]


class EventKindOut(msgspec.Struct, frozen=True):
    """One kind of event."""

    name: str
    severity: Severity
    alarm: Annotated[bool, Meta(description="it is raised and cleared")]
    cleared_by: Annotated[str, Meta(description="the kind that clears it")]
    meaning: str
    clause: str
    integrations: Annotated[tuple[str, ...], Meta(description="who tells it; empty: the hub itself")]


class EventKinds(msgspec.Struct, frozen=True):
    """All kinds of events."""

    items: tuple[EventKindOut, ...]


@operation("GET", "/api/v1/measurands", summary="What numbers can mean", tag="tables")
async def list_measurands() -> Measurands:
    """Every measurand with its base unit, OBIS code and names in other systems."""
    return Measurands(
        tuple(
            MeasurandOut(row.name, row.unit, row.register, row.obis, row.ocpp, row.os3p, row.meaning, row.clause) for row in measurands.TABLE.values()
        )
    )


@operation("GET", "/api/v1/verbs", summary="What can be ordered, read and managed", tag="tables")
async def list_verbs() -> Verbs:
    """Every verb with its roles and the schema of its arguments. A device's own `verbs` say which of the orders it takes."""
    return Verbs(
        tuple(
            VerbOut(row.name, row.kind, row.meaning, row.clause, verbs.json_schema(row.name), row.idempotent, tuple(sorted(row.roles)), row.timeout)
            for row in verbs.TABLE.values()
        )
    )


@operation("GET", "/api/v1/event-kinds", summary="What can happen", tag="tables")
async def list_event_kinds() -> EventKinds:
    """Every kind of event with its severity, and what clears it if it is an alarm."""
    return EventKinds(
        tuple(
            EventKindOut(row.name, row.severity, row.alarm, row.cleared_by, row.meaning, row.clause, row.integrations)
            for row in events.TABLE.values()
        )
    )


ROUTES = (list_measurands, list_verbs, list_event_kinds)
