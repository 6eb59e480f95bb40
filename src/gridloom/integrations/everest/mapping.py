"""Core words <-> EVerest's: readings of any meter as a Powermeter, and a transaction as a record to be signed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gridloom.core.clock import to_datetime
from gridloom.core.model import Device, MeterReading, Phase, Quality, Reading, ReadingType, TimeSource
from gridloom.integrations.everest import messages, ocmf
from gridloom.integrations.everest.messages import Powermeter, StartTransactionRequest

ENERGY = "Energy.Active.Import.Register"
OBIS = "1-0:1.8.0"
"""Active energy taken, total: what the S.A.F.E. tool takes as relevant under the law (FACTS 4.5)."""
GATEWAY = "Gridloom, software signature, no calibrated metering"
"""GI of every record: nobody shall take it for what it is not."""
LINES = (Phase.L1, Phase.L2, Phase.L3)


_NOT_TAKEN = Quality.SUSPECT | Quality.LATE | Quality.TEST


class Value(NamedTuple):
    """The newest value of a series: base units; its time and when the hub heard it (µs UTC), the latter also by the clock that never jumps (s)."""

    number: int | float | Decimal
    time: int
    received: int
    heard: float


class Values:
    """The newest values of one meter, at one of its points of measurement. Suspect, late and test values and text are never taken.

    ``since`` is always a moment of the monotonic clock: the age of a value is how long ago the hub heard it (FACTS 8).
    """

    def __init__(self, location: str | None) -> None:
        self.location = location
        self._values: dict[ReadingType, Value] = {}

    def take(self, reading: MeterReading, heard: float) -> bool:
        """Whether the energy register was among what was said."""
        news = False
        for one in reading.readings:
            taken = self._put(one, reading, heard)
            news = news or (taken and one.type.measurand == ENERGY and one.type.phase is None)
        return news

    def remind(self, reading: MeterReading, heard: float) -> None:
        """What the store knows from before, where nothing was said since."""
        unknown = tuple(one for one in reading.readings if one.type not in self._values)
        self.take(msgspec.structs.replace(reading, readings=unknown), heard)

    def _put(self, one: Reading, reading: MeterReading, heard: float) -> bool:
        type = one.type
        # A meter of one place tells its temperatures where they are measured (board, probe).
        ours = type.location == self.location or (self.location is None and type.measurand.startswith("Temperature"))
        if not ours or type.tariff is not None or isinstance(one.value, str) or one.quality & _NOT_TAKEN:
            return False
        self._values[type] = Value(one.number, reading.time, reading.received, heard)
        return True

    def get(self, measurand: str, phase: Phase | None, since: float) -> Value | None:
        """The value, if the hub heard it not before ``since``."""
        unit = _UNITS.get(measurand)
        found = None if unit is None else self._values.get(ReadingType(measurand, unit, phase, None, self.location))
        return found if found is not None and found.heard >= since else None

    def register(self, since: float) -> Value | None:
        """The total of the energy taken, Wh."""
        return self.get(ENERGY, None, since)

    def polyphase(self, since: float) -> bool:
        """Whether the meter tells of another line than the first."""
        return any(type.phase in (Phase.L2, Phase.L3) and value.heard >= since for type, value in self._values.items())

    def temperatures(self, since: float) -> list[tuple[str, Value]]:
        """Every temperature with what it is of."""
        found = [(type, value) for type, value in self._values.items() if type.measurand.startswith("Temperature") and value.heard >= since]
        return sorted((type.location or type.measurand.partition(".")[2], value) for type, value in found)


_UNITS: Mapping[str, str] = {
    ENERGY: "Wh", "Energy.Active.Export.Register": "Wh",
    "Power.Active.Import": "W", "Power.Active.Export": "W", "Power.Reactive.Import": "var", "Power.Reactive.Export": "var",
    "Current.Import": "A", "Current.Export": "A", "Current.DC": "A", "Voltage": "V", "Voltage.DC": "V",
    "Frequency": "Hz", "Phase.Sequence.Error": "1",
}  # fmt: skip


def powermeter(values: Values, since: float, meter_id: str) -> Powermeter | None:
    """What EVerest is told; values that the hub heard before ``since`` (s, monotonic) are left out.

    None without the energy register, the one that must be there. Positive power is taken from the grid.
    """
    register = values.register(since)
    if register is None:
        return None

    def of(measurand: str, opposite: str = "") -> Callable[[Phase | None], float | None]:
        def find(phase: Phase | None) -> float | None:
            taken, given = values.get(measurand, phase, since), values.get(opposite, phase, since)
            if taken is None and given is None:
                return None
            return float(taken.number if taken else 0) - float(given.number if given else 0)

        return find

    # What a meter says without a phase is of L1 when it has one phase; of several it is a sum, which EVerest has no place for.
    by_line = _lines if values.polyphase(since) else _single_phase
    sequence = values.get("Phase.Sequence.Error", None, since)
    current, direct = of("Current.Import", "Current.Export"), of("Current.DC")(None)
    return Powermeter(
        timestamp=timestamp(register.time),
        meter_id=meter_id,
        energy_Wh_import=messages.Totals(total=float(register.number), **_lines(of(ENERGY))),
        energy_Wh_export=_totals(of("Energy.Active.Export.Register")),
        power_W=_totals(of("Power.Active.Import", "Power.Active.Export")),
        VAR=_totals(of("Power.Reactive.Import", "Power.Reactive.Export")),
        voltage_V=_any(messages.Voltage, by_line(of("Voltage")), DC=of("Voltage.DC")(None)),
        current_A=_any(messages.Current, by_line(current), N=current(Phase.N), DC=direct),
        frequency_Hz=_frequency(of("Frequency")),
        phase_seq_error=UNSET if sequence is None else bool(sequence.number),
        temperatures=tuple(
            messages.Temperature(temperature=float(value.number), **({"location": name} if name else {}))
            for name, value in values.temperatures(since)
        )
        or UNSET,
    )


Find = Callable[[Phase | None], float | None]


def _lines(find: Find) -> dict[str, Any]:
    return {phase.value: number for phase in LINES if (number := find(phase)) is not None}


def _single_phase(find: Find) -> dict[str, Any]:
    """The lines; of a meter that names none, L1."""
    found = _lines(find)
    alone = find(None)
    return found if found or alone is None else {"L1": alone}


def _totals(find: Find) -> messages.Totals | UnsetType:
    """EVerest needs the total; a meter that gives the lines only is added up."""
    lines, total = _lines(find), find(None)
    if total is None:
        if len(lines) != len(LINES):
            return UNSET
        total = sum(lines.values())
    return messages.Totals(total=total, **lines)


def _any(kind: Any, lines: dict[str, Any], **more: float | None) -> Any:
    members = lines | {name: number for name, number in more.items() if number is not None}
    return kind(**members) if members else UNSET


def _frequency(find: Find) -> messages.Frequency | UnsetType:
    found = _single_phase(find)
    return messages.Frequency(**found) if "L1" in found else UNSET


def timestamp(moment: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    return to_datetime(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ----------------------------------------------------------------------------------------------------------------- transactions


def boundary(device: str, register: Value) -> MeterReading:
    """The register at begin or end of a transaction, as the core keeps it."""
    number = register.number
    value, exponent = exact(number) if isinstance(number, Decimal) else (number, 0)
    reading = Reading(ReadingType(ENERGY, "Wh"), value, exponent)
    return MeterReading(device, register.received, register.received, (reading,), TimeSource.HUB)


def exact(number: Decimal) -> tuple[int, int]:
    """Digits and power of ten, as a Reading has them."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits)) or "0")
    return (-value if sign else value, exponent)


def register_of(reading: MeterReading) -> int | Decimal:
    """The register of a boundary, Wh, with exactly its digits."""
    number = reading.readings[0].number
    return Decimal(repr(number)) if isinstance(number, float) else number


def facts(meter: Device) -> dict[str, str]:
    """Which meter it is, as OCMF names it (MV, MM, MS, MF)."""
    found = {"MV": meter.vendor, "MM": meter.model, "MS": meter.serial or meter.identity, "MF": meter.firmware}
    return {name: value for name, value in found.items() if value}


class Boundary(NamedTuple):
    """A reading of a record: the register, why (TX: B, E), and the state of the clock then (U, I, S)."""

    reading: MeterReading
    reason: str
    clock: str


def draft(meter: Mapping[str, str], request: StartTransactionRequest, page: str, boundaries: Iterable[Boundary], version: str) -> ocmf.Draft:
    """The record to be signed. ``meter``: what ``facts`` gave."""
    return ocmf.Draft(
        GI=GATEWAY,
        GV=version,
        PG=page,
        MV=meter.get("MV"),
        MM=meter.get("MM"),
        MS=meter["MS"],
        MF=meter.get("MF"),
        IS=request.identification_status == "ASSIGNED",
        IL=_given(request.identification_level),
        IF=request.identification_flags,
        IT=request.identification_type,
        ID=_given(request.identification_data) or None,
        TT=_given(request.tariff_text),
        CT="EVSEID" if request.evse_id else None,
        CI=request.evse_id or None,
        RD=tuple(
            ocmf.NewReading(TM=ocmf.time_text(one.reading.time, one.clock), TX=one.reason, RV=register_of(one.reading), RI=OBIS, RU="Wh", ST="G")
            for one in boundaries
        ),
    )


def _given(value: str | UnsetType) -> str | None:
    return None if isinstance(value, UnsetType) else value


def signed(record: str, public_key: str, moment: int) -> messages.SignedMeterValue:
    """As meters in the field hand a record over (FACTS 2.8)."""
    return messages.SignedMeterValue(
        signed_meter_data=record, signing_method="", encoding_method="OCMF", public_key=public_key, timestamp=timestamp(moment)
    )


def kept(request: StartTransactionRequest) -> dict[str, Any]:
    """The request as JSON values, to be found again after a restart."""
    plain: dict[str, Any] = msgspec.to_builtins(request)
    return plain


def found_again(data: Mapping[str, Any]) -> StartTransactionRequest:
    """What ``kept`` gave."""
    return msgspec.convert(data, StartTransactionRequest)
