"""An EVerest charger's words <-> the core's: telemetry as readings, session events and errors as events, limits as a schedule. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from gridloom.core import ids
from gridloom.core.clock import Clock, from_datetime
from gridloom.core.events import new_event
from gridloom.core.model import Event, EventState, MeterReading, Phase, Reading, ReadingType, Severity, TimeSource
from gridloom.integrations.everest import charger_messages as wire
from gridloom.integrations.everest import messages
from gridloom.integrations.everest.charger_messages import ErrorObject, SessionEvent
from gridloom.integrations.everest.mapping import exact, timestamp

SOURCE = "gridloom"
"""Who set a limit, as EVerest is told."""
_INT64 = 2**63

# -------------------------------------------------------------------------------------------------------------------- readings


def moment(text: str) -> int | None:
    """µs UTC of RFC 3339; None when it is none, or has no zone (EVerest does not check its timestamps: FACTS 2.5)."""
    try:
        return from_datetime(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def digits(value: float) -> tuple[int, int] | None:
    """The number that was meant, as digits and power of ten: EVerest keeps 32-bit floats and writes them with 17 digits. None: it does not fit."""
    number = Decimal(repr(float(value)))
    if not float(value).is_integer() and abs(value) < 1e30 and struct.unpack("f", single := struct.pack("f", value))[0] == value:
        number = next(one for one in (Decimal(f"{value:.{count}g}") for count in range(6, 18)) if struct.pack("f", float(one)) == single)
    found, exponent = exact(number.normalize())
    if exponent > 0:
        found, exponent = found * 10**exponent, 0
    return (found, exponent) if -_INT64 <= found < _INT64 and exponent >= -18 else None


def readings(values: messages.Powermeter) -> list[Reading]:
    """What a Powermeter object says; what flows to the grid is a series of its own, so that both are positive."""
    made: list[Reading] = []
    _register(made, "Energy.Active.Import.Register", values.energy_Wh_import)
    _register(made, "Energy.Active.Export.Register", values.energy_Wh_export)
    _directed(made, "Power.Active", "W", values.power_W)
    _directed(made, "Power.Reactive", "var", values.VAR)
    _directed(made, "Current", "A", values.current_A)
    for measurand, unit, found in (("Voltage", "V", values.voltage_V), ("Frequency", "Hz", values.frequency_Hz)):
        for phase, value in _lines(found):
            _add(made, ReadingType(measurand, unit, phase), value)
    for measurand, unit, direct in (("Voltage.DC", "V", values.voltage_V), ("Current.DC", "A", values.current_A)):
        if not isinstance(direct, UnsetType):
            _add(made, ReadingType(measurand, unit), direct.DC)
    if not isinstance(values.phase_seq_error, UnsetType):
        made.append(Reading(ReadingType("Phase.Sequence.Error", "1"), int(values.phase_seq_error)))
    for number, one in enumerate(() if isinstance(values.temperatures, UnsetType) else values.temperatures[:32]):
        place = one.location or one.identification or str(number + 1)
        _add(made, ReadingType("Temperature", "°C", location=str(place)[:100]), one.temperature)
    return made


def meter_reading(device: str, values: messages.Powermeter, received: int) -> MeterReading:
    """With the time that the meter gave, if it gave one."""
    time = moment(values.timestamp)
    source = TimeSource.HUB if time is None else TimeSource.DEVICE
    return MeterReading(device, received if time is None else time, received, tuple(readings(values)), source)


def plain(device: str, values: Mapping[ReadingType, messages.Number | UnsetType], received: int) -> MeterReading:
    """Single values as a reading of now."""
    made: list[Reading] = []
    for type, value in values.items():
        _add(made, type, value)
    return MeterReading(device, received, received, tuple(made))


def _add(made: list[Reading], type: ReadingType, value: messages.Number | UnsetType) -> None:
    found = None if isinstance(value, UnsetType) else digits(value)
    if found is not None:
        made.append(Reading(type, *found))


def _lines(found: Any) -> Iterable[tuple[Phase | None, messages.Number]]:
    """Every member by its phase; the total without one."""
    if isinstance(found, UnsetType):
        return
    for name, phase in (("total", None), ("L1", Phase.L1), ("L2", Phase.L2), ("L3", Phase.L3), ("N", Phase.N)):
        value = getattr(found, name, UNSET)
        if not isinstance(value, UnsetType):
            yield phase, value


def _register(made: list[Reading], measurand: str, found: messages.Totals | UnsetType) -> None:
    for phase, value in _lines(found):
        _add(made, ReadingType(measurand, "Wh", phase), value)


def _directed(made: list[Reading], name: str, unit: str, found: Any) -> None:
    for phase, value in _lines(found):
        _add(made, ReadingType(f"{name}.Import", unit, phase), max(value, 0))
        _add(made, ReadingType(f"{name}.Export", unit, phase), max(-value, 0))


# ---------------------------------------------------------------------------------------------------------------------- events

_KINDS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType({
    "SessionFinished": ("cable.unplugged", {}),
    "Authorized": ("authorization.accepted", {}),
    "TransactionStarted": ("session.started", {}),
    "TransactionFinished": ("session.ended", {}),
    "ChargingPausedEV": ("session.suspended", {"by": "car"}),
    "ChargingPausedEVSE": ("session.suspended", {"by": "charger"}),
    "WaitingForEnergy": ("session.suspended", {"by": "energy management"}),
    "ChargingResumed": ("session.resumed", {}),
    "SessionResumed": ("session.recovered", {}),
    "ReservationStart": ("reservation.changed", {"reserved": True}),
    "ReservationEnd": ("reservation.changed", {"reserved": False}),
    "Enabled": ("connector.changed", {"to": "Enabled"}),
    "Disabled": ("connector.changed", {"to": "Disabled"}),
})  # fmt: skip
"""What an event of a session is in the core's words; the others (AuthRequired, PrepareCharging…) show in the state of ``session_info``."""


def session_event(device: str, said: SessionEvent, connector: int, clock: Clock) -> Event | None:
    """The event, with an id that is the same when it is told again; None for one that is no news."""
    kind, data = _KINDS.get(said.event, ("", {}))
    if said.event == "SessionStarted" and not isinstance(said.session_started, UnsetType) and said.session_started.reason == "EVConnected":
        kind = "cable.plugged"
    if not kind:
        return None
    time = moment(said.timestamp)
    source = {} if isinstance(said.source, UnsetType) else {"source": said.source.enable_source, "priority": said.source.enable_priority}
    return new_event(
        kind,
        device,
        clock,
        time=time,
        source=TimeSource.HUB if time is None else TimeSource.DEVICE,
        subject=f"connector:{connector}",
        data={"event": said.event, "session": said.uuid} | data | source,
        id=ids.digest(device, said.uuid, said.event, said.timestamp),
    )


_SEVERITY = {"High": Severity.ERROR, "Medium": Severity.WARNING, "Low": Severity.INFO}


def error_subject(said: ErrorObject) -> str:
    """What makes it the same error."""
    return "/".join(part for part in (said.origin.module_id, said.type, said.sub_type) if part)[:200]


def error_event(device: str, said: ErrorObject, state: EventState, clock: Clock) -> Event:
    """An error of the charger as an alarm; EVerest's own words are in the data."""
    kind = "fault.communication" if said.type.endswith("/CommunicationFault") else "fault.other"
    words = {"code": said.type, "sub_type": said.sub_type, "severity": said.severity, "origin": said.origin.module_id}
    return new_event(
        kind,
        device,
        clock,
        time=moment(said.timestamp) if state is EventState.RAISED else None,
        source=TimeSource.DEVICE if state is EventState.RAISED and moment(said.timestamp) is not None else TimeSource.HUB,
        subject=error_subject(said),
        message=said.message or said.description,
        data=words,
        severity=_SEVERITY[said.severity],
        state=state,
        id=ids.digest(device, said.uuid, state.value),
    )


# ---------------------------------------------------------------------------------------------------------------------- limits


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A limit of the hub that is in force. ``until``: µs UTC, or None for ever."""

    current_a: float | None = None
    power_w: float | None = None
    phases: int | None = None
    until: int | None = None


def schedule(limit: Limit, now: int) -> wire.ExternalLimits:
    """What EVerest is told; a Limit without values lifts. One that ends has its end in the schedule, so that it ends although the hub may die."""
    limits = wire.Limits(ac_max_current_A=_limited(limit.current_a), total_power_W=_limited(limit.power_w), ac_max_phase_count=_limited(limit.phases))
    entries = [wire.ScheduleEntry(timestamp=timestamp(now), limits_to_root=limits)]
    if limit.until is not None:
        entries.append(wire.ScheduleEntry(timestamp=timestamp(limit.until), limits_to_root=wire.Limits()))
    return wire.ExternalLimits(schedule_import=tuple(entries))


def _limited(value: float | None) -> wire.LimitValue | UnsetType:
    return UNSET if value is None else wire.LimitValue(value=value, source=SOURCE)


def offered(said: wire.EnforcedLimits) -> dict[ReadingType, messages.Number | UnsetType]:
    """What the charger may offer to the car."""
    limits = said.limits_root_side
    pairs = (("Current.Offered", "A", limits.ac_max_current_A), ("Power.Offered", "W", limits.total_power_W))
    return {ReadingType(measurand, unit): one.value for measurand, unit, one in pairs if not isinstance(one, UnsetType)}


def session_cost(session: str, currency: str, amount: str, final: bool) -> wire.SessionCost:
    """What the running session costs; ``amount`` a decimal, of which every digit goes out."""
    number = Decimal(amount)
    decimals = max(2, -int(number.as_tuple().exponent))
    chunk = wire.CostChunk(cost=wire.Money(value=int(number.scaleb(decimals))))
    status = "Finished" if final else "Running"
    return wire.SessionCost(session_id=session, currency=wire.Currency(code=currency, decimals=decimals), status=status, cost_chunks=(chunk,))


def told_cost(said: wire.SessionCost) -> dict[str, Any]:
    """What the charger says that a session costs, as it is kept with the transaction."""
    chunks = () if isinstance(said.cost_chunks, UnsetType) else said.cost_chunks
    total = sum(one.cost.value for one in chunks if not isinstance(one.cost, UnsetType))
    amount = Decimal(total).scaleb(-min(max(said.currency.decimals, 0), 12))
    return {"amount": format(amount, "f"), "currency": said.currency.code, "status": said.status}
