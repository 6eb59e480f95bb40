"""TRANSLATION: lines to readings and events."""
# ruff: noqa: I001
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from gridloom.core.clock import Clock
from gridloom.core.events import new_event
from gridloom.core.model import Device, DeviceKind, Event, EventState, MeterReading, Quality, Reading, ReadingType
from gridloom.integrations.dummy.codec import Line

TYPES = {"P": ReadingType("Power.Active.Import", "W"), "E": ReadingType("Energy.Active.Import.Register", "Wh")}


def device(identity: str) -> Device:
    """The device as the registry shall know it."""
    return Device(
        id=f"dummy:{identity}",
        integration="dummy",
        identity=identity,
        kind=DeviceKind.IO,
        vendor="Nobody",
        verbs=("relay.set",),
        measurands=tuple(type.measurand for type in TYPES.values()),
    )


def reading(id: str, line: Line, now: int) -> MeterReading | None:
    """A value, or None for a line that is none."""
    type = TYPES.get(line.name)
    return None if type is None else MeterReading(id, now, now, (Reading(type, line.value, quality=Quality.SIMULATED),))


def event(id: str, line: Line, clock: Clock) -> Event | None:
    """The alarm that is raised and cleared."""
    if line.name != "A":
        return None
    state = EventState.RAISED if line.value else EventState.CLEARED
    return new_event("fault.overcurrent", id, clock, state=state, subject="L1", message="the dummy says so")
