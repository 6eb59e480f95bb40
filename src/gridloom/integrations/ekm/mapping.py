"""TRANSLATION: what an Omnimeter says -> readings and events of the core; orders of the core -> settings of an Omnimeter. Pure.

**Time.** A meter has a clock without zone and without daylight saving. It is read in the zone that the configuration gives the bus (else the
hub's); as long as that agrees with the hub to five minutes, values are of the meter's time. A clock that does not agree (reset by a power cut,
never set, left on winter time) is not believed: values are then of the hub's time, marked CLOCK_DEGRADED, and ``device.clock.wrong`` is raised.
The meter's own fourteen digits stay in the native message. Events are of the hub's time.

**Direction.** Power on the wire has no sign; State_Watts_Dir has (FACTS 1.6). A line that gives back has ``Power.Active.Export`` above 0 and import
0; the total is the sum with signs, marked DERIVED, as soon as one line gives back.

**How often.** What moves is in every reading; what seldom does (ratios, states, registers at zero) when it changes, and once an hour.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from gridloom.core import clock as clocks
from gridloom.core import events, ids, verbs
from gridloom.core.errors import DeviceError, FieldFault, InvalidInput, Unsupported
from gridloom.core.model import Device, DeviceKind, Event, EventState, MeterReading, Phase, Quality, Reading, ReadingType, TimeSource
from gridloom.integrations.ekm import codec
from gridloom.integrations.ekm.codec import DEFAULT_PASSWORD, Read, Write
from gridloom.integrations.ekm.models import MODELS, Model
from gridloom.integrations.ekm.models.fields import Layout
from gridloom.integrations.ekm.models.settings import DEMAND_MINUTES, INTERVALS, LCD_ITEMS, LCD_PLACES, SETTINGS

VENDOR = "EKM Metering"
GATEWAY = "gateway"
SLOW = 3_600_000_000
"""µs after which a value that does not change is sent again."""
CLOCK_WRONG, CLOCK_RIGHT = 300_000_000, 240_000_000
"""µs that a meter's clock may differ from ours before it is not believed, and from which on it is again."""
RELAYS, INPUTS = ("relay:1", "relay:2"), ("input:1", "input:2", "input:3")
IOSTACK_VERBS = ("ekm.iostack.password.set", "ekm.one_wire.scan", "device.status.get", "device.clock.set", "ekm.digital_input.reset",
                 "ekm.digital_output.set")  # fmt: skip
GATEWAY_VERBS = ("device.status.get", "ekm.meters.scan", "ekm.meters.scan.stop", "ekm.poll_interval.set")
_ANY_METER = ("device.poll", "ekm.schedules.get", "ekm.tariff_data.get", "device.status.get")
_PHASES = (Phase.L1, Phase.L2, Phase.L3)


def device_id(identity: str) -> str:
    """``ekm:`` and the twelve digits of a meter or ioStack, or ``gateway`` with its MAC address."""
    return f"ekm:{identity}"


def gateway_identity(mac: str) -> str:
    """Of the gateway that runs in this process; the MAC address is there if the configuration names one."""
    return f"{GATEWAY}-{mac.upper()}" if mac else GATEWAY


# -------------------------------------------------------------------------------------------------------------- readings


class _Plan(NamedTuple):
    """What becomes of a field that is a number: the value is ``number * 10**(exponent + kilo)`` in the base unit."""

    field: str
    type: ReadingType
    kilo: int
    always: bool


def _plans() -> tuple[_Plan, ...]:
    plans = []

    def add(field: str, measurand: str, unit: str, *, kilo: int = 0, always: bool = True, **more: Any) -> None:
        plans.append(_Plan(field, ReadingType(measurand, unit, **more), kilo, always))

    for prefix, way in (("", "Import"), ("Rev_", "Export")):
        add(f"{prefix}kWh_Tot", f"Energy.Active.{way}.Register", "Wh", kilo=3)
        for line, phase in enumerate(_PHASES, 1):
            add(f"{prefix}kWh_Ln_{line}", f"Energy.Active.{way}.Register", "Wh", kilo=3, phase=phase)
        for tariff in range(1, 5):
            add(f"{prefix}kWh_Tariff_{tariff}", f"Energy.Active.{way}.Register", "Wh", kilo=3, tariff=str(tariff))
        add(f"{prefix}kWh_Rst", f"Energy.Active.{way}.Resettable", "Wh", kilo=3)
    add("Reactive_Energy_Tot", "Energy.Reactive.Import.Register", "varh", kilo=3)
    for line, phase in enumerate(_PHASES, 1):
        add(f"RMS_Volts_Ln_{line}", "Voltage", "V", phase=phase)
        add(f"Amps_Ln_{line}", "Current.Import", "A", phase=phase)
        add(f"Reactive_Pwr_Ln_{line}", "Power.Reactive.Import", "var", phase=phase)
        add(f"Pulse_Cnt_{line}", "Pulse.Count", "1", location=INPUTS[line - 1])
        add(f"Pulse_Ratio_{line}", "Pulse.Ratio", "1", always=False, location=INPUTS[line - 1])
    add("Reactive_Pwr_Tot", "Power.Reactive.Import", "var")
    add("Line_Freq", "Frequency", "Hz")
    add("RMS_Watts_Max_Demand", "MaxDemand.Power.Active.Import", "W", always=False)
    add("CT_Ratio", "CT.Ratio", "1", always=False)
    add("CF_Ratio", "Pulse.Output.Ratio", "1", always=False)
    add("kWh_Scale", "Energy.Scale", "1", always=False)
    add("Max_Demand_Rst", "Demand.Reset.Interval", "1", always=False)
    return tuple(plans)


PLANS = _plans()


class _Field(NamedTuple):
    """A plan in one reply of one model. ``exponent`` None: that of the energy registers."""

    plan: _Plan
    begin: int
    end: int
    exponent: int | None


def _of_model(model: Model) -> tuple[tuple[_Field, ...], ...]:
    """Per reply; a field that two replies have is taken from the first."""
    seen: set[str] = set()
    found = []
    for layout in model.layouts:
        rows = {field.name: field for field in layout.fields}
        mine = [plan for plan in PLANS if plan.field in rows and plan.field not in seen]
        seen.update(plan.field for plan in mine)
        found.append(
            tuple(_Field(plan, rows[plan.field].offset, rows[plan.field].offset + rows[plan.field].size, rows[plan.field].exponent) for plan in mine)
        )
    return tuple(found)


_FIELDS: Mapping[str, tuple[tuple[_Field, ...], ...]] = MappingProxyType({name: _of_model(model) for name, model in MODELS.items()})
_IMPORT = tuple(ReadingType("Power.Active.Import", "W", phase) for phase in (*_PHASES, None))
_EXPORT = tuple(ReadingType("Power.Active.Export", "W", phase) for phase in (*_PHASES, None))
_DIRECTION = tuple(ReadingType("Power.Direction", "1", phase) for phase in _PHASES)
_FACTOR = tuple(ReadingType("Power.Factor", "1", phase) for phase in _PHASES)
_PERIOD = ReadingType("Demand.Period", "s")
_RELAY = tuple(ReadingType("Relay.State", "1", location=location) for location in RELAYS)
_INPUT = tuple(ReadingType("Input.State", "1", location=location) for location in INPUTS)
_WATTS = ("RMS_Watts_Ln_1", "RMS_Watts_Ln_2", "RMS_Watts_Ln_3", "RMS_Watts_Tot")


class Translation:
    """Translates one meter. Its memory is what was told last, so that events tell changes only."""

    def __init__(self, address: str, model: Model, zone: ZoneInfo, *, simulated: bool = False) -> None:
        self.device = device_id(address)
        self._model, self._zone = model, zone
        self._quality = Quality.SIMULATED if simulated else Quality.GOOD
        self._told: dict[ReadingType, tuple[tuple[int, int], int]] = {}  # what seldom moves: the value, and when it was told (µs)
        self._states: dict[str, tuple[int, ...] | None] = {}
        self._status = ""
        self._demand: int | None = None
        self._clock_wrong: bool | None = None
        self._now = 0

    def read(self, read: Read) -> tuple[MeterReading, list[Event]]:
        """What the meter said, and what happened since it said something the last time. ``read.received`` is the hub's clock (µs)."""
        self._now = read.received
        readings: list[Reading] = []
        decimals = codec.energy_decimals(read)
        for frame, rows in zip(read.frames, _FIELDS[self._model.name], strict=True):
            for row in rows:
                raw = frame[row.begin : row.end]
                if not raw.isdigit() and not (raw := raw.strip(b" ")).isdigit():
                    continue
                exponent = row.exponent
                if exponent is None:
                    if decimals is None:
                        continue
                    exponent = -decimals
                self._add(readings, row.plan.type, int(raw), exponent + row.plan.kilo, row.plan.always)
        first, layout = read.frames[0], self._model.layouts[0]
        self._power(readings, layout, first)
        self._seldom(readings, read)
        time, source, happened = self._clock(layout, first)
        if source is TimeSource.HUB:
            readings = [_degraded(one) for one in readings]
        happened += self._happened(read)
        return MeterReading(self.device, time, read.received, tuple(readings), source, read), happened

    def forget_states(self) -> None:
        """The meter was away: its next states are no changes."""
        self._states.clear()

    def _add(self, readings: list[Reading], type: ReadingType, value: int, exponent: int, always: bool) -> None:
        if not always or value == 0:
            told = self._told.get(type)
            if told is not None and told[0] == (value, exponent) and self._now - told[1] < SLOW:
                return
            self._told[type] = ((value, exponent), self._now)
        elif type in self._told:
            del self._told[type]  # it moves again: its next zero is news
        readings.append(Reading(type, value, exponent, quality=self._quality))

    def _power(self, readings: list[Reading], layout: Layout, frame: bytes) -> None:
        watts = [codec.number(layout, frame, name) for name in _WATTS]
        signs = codec.directions(codec.number(layout, frame, "State_Watts_Dir")) or (1, 1, 1)
        total, derived = watts[3], Quality.GOOD
        if signs != (1, 1, 1):
            total = sum(watt * sign for watt, sign in zip(watts, signs, strict=False) if watt is not None)
            derived = Quality.DERIVED
        signed = [None if watt is None else watt * sign for watt, sign in zip(watts, signs, strict=False)] + [total]
        for place, watt in enumerate(signed):
            if watt is not None:
                quality = self._quality | (derived if place == 3 else Quality.GOOD)
                readings.append(Reading(_IMPORT[place], max(watt, 0), quality=quality))
                if watt >= 0:
                    self._add(readings, _EXPORT[place], 0, 0, always=False)
                else:
                    self._told.pop(_EXPORT[place], None)
                    readings.append(Reading(_EXPORT[place], -watt, quality=quality))
        if codec.number(layout, frame, "State_Watts_Dir") is not None:
            for type, sign in zip(_DIRECTION, signs, strict=True):
                self._add(readings, type, sign, 0, always=False)

    def _seldom(self, readings: list[Reading], read: Read) -> None:
        first, layout = read.frames[0], self._model.layouts[0]
        for line, type in enumerate(_FACTOR, 1):
            digits = codec.field_of(layout, f"Cos_Theta_Ln_{line}", first)[1:]
            if digits.isdigit():
                readings.append(Reading(type, int(digits), -2, quality=self._quality))
        minutes = DEMAND_MINUTES.get(codec.number(self._model.layouts[-1], read.frames[-1], "Max_Demand_Period") or 0)
        if minutes is not None:
            self._add(readings, _PERIOD, minutes * 60, 0, always=False)
        relays = codec.outputs(codec.number(layout, first, "State_Out"))
        for types, states in ((_RELAY, relays), (_INPUT, codec.inputs(layout, first))):
            for type, state in zip(types, states or (), strict=False):
                self._add(readings, type, state, 0, always=False)

    # ------------------------------------------------------------------------------------------------------------- time

    def _clock(self, layout: Layout, frame: bytes) -> tuple[int, TimeSource, list[Event]]:
        """Whose time the values are of, and whether the meter's clock became wrong or right."""
        digits = codec.field_of(layout, "Meter_Time", frame).decode("ascii", "replace")
        moment = meter_time(digits, self._zone, self._now)
        difference = None if moment is None else moment - self._now
        wrong = difference is None or abs(difference) > (CLOCK_RIGHT if self._clock_wrong else CLOCK_WRONG)
        found = []
        if wrong != (self._clock_wrong or False):
            words = "says no time" if difference is None else f"differs by {abs(difference) // 1_000_000} s from the hub's, read in {self._zone.key}"
            message = f"the clock of the meter {words}: {codec.shown(digits)}" if wrong else ""
            state = EventState.RAISED if wrong else EventState.CLEARED
            found.append(self._event("device.clock.wrong", message, {"device_time": codec.shown(digits)}, state))
        self._clock_wrong = wrong
        if wrong or moment is None:
            return self._now, TimeSource.HUB, found
        return moment, TimeSource.DEVICE, found

    # ----------------------------------------------------------------------------------------------------------- events

    def _happened(self, read: Read) -> list[Event]:
        first, layout = read.frames[0], self._model.layouts[0]
        found = []
        for kind, subjects, states in (
            ("relay.changed", RELAYS, codec.outputs(codec.number(layout, first, "State_Out"))),
            ("input.changed", INPUTS, codec.inputs(layout, first)),
            ("energy.direction.changed", ("L1", "L2", "L3"), codec.directions(codec.number(layout, first, "State_Watts_Dir"))),
        ):
            before, self._states[kind] = self._states.get(kind), states
            if before is not None and states is not None and before != states:
                changed = [(subject, old, new) for subject, old, new in zip(subjects, before, states, strict=True) if old != new]
                found += [self._event(kind, "", {"from": old, "to": new}, subject=subject) for subject, old, new in changed]
        status = status_code(self._model, read)
        if self._status and status != self._status:
            found.append(self._event("device.status.changed", f"{self._status} -> {status}", {"from": self._status, "to": status}))
        self._status = status
        demand = codec.number(self._model.layouts[-1], read.frames[-1], "RMS_Watts_Max_Demand")
        if self._demand is not None and demand is not None and demand != self._demand:
            kind = "demand.peak" if demand > self._demand else "demand.reset"
            found.append(self._event(kind, "", {"watts": demand / 10, "before": self._demand / 10}))
        self._demand = demand
        return found

    def _event(self, kind: str, message: str, data: dict[str, Any], state: EventState | None = None, *, subject: str = "") -> Event:
        told = EventState.OCCURRED if state is None else state
        return Event(
            id=ids.at(self._now, self.device, kind, subject, told.value, message),
            kind=kind,
            device=self.device,
            time=self._now,
            received=self._now,
            severity=events.TABLE[kind].severity,
            state=told,
            subject=subject,
            message=message,
            data=data,
        )


def _degraded(reading: Reading) -> Reading:
    return Reading(reading.type, reading.value, reading.exponent, reading.context, reading.quality | Quality.CLOCK_DEGRADED)


def status_code(model: Model, read: Read) -> str:
    """Meter_Status_Code in hexadecimal: one byte of a v3, three (A to C) of a v4."""
    layout, frame = model.layouts[-1], read.frames[-1]
    names = ("Meter_Status_Code",) if len(model.layouts) == 1 else tuple(f"Meter_Status_Code_{letter}" for letter in "ABC")
    return "".join(codec.field_of(layout, name, frame).hex() for name in names)


def meter_time(digits: str, zone: ZoneInfo, near: int) -> int | None:
    """``YYMMDDWWhhmmss`` in a zone -> µs UTC; of an hour that the zone has twice the one nearer to ``near``. None for what is no time.

    The digits of the weekday are not looked at.
    """
    local = local_time(digits)
    if local is None:
        return None
    moments = [clocks.from_datetime(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1)]
    return min(moments, key=lambda moment: abs(moment - near))


def local_time(digits: str) -> datetime | None:
    """``YYMMDDWWhhmmss`` as a time without zone; None for what is no time."""
    if len(digits) != codec.TIME_DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    parts = [int(digits[at : at + 2]) for at in range(0, codec.TIME_DIGITS, 2)]
    try:
        return datetime(2000 + parts[0], parts[1], parts[2], parts[4], parts[5], parts[6])  # noqa: DTZ001  # the zone is put to it by whoever knows it
    except ValueError:
        return None


def time_digits(moment: int, zone: ZoneInfo) -> str:
    """µs UTC -> ``YYMMDDWWhhmmss`` in a zone, Sunday 01 to Saturday 07 (FACTS 1.7)."""
    local = clocks.to_datetime(moment).astimezone(zone)
    return f"{local:%y%m%d}{local.isoweekday() % 7 + 1:02d}{local:%H%M%S}"


# --------------------------------------------------------------------------------------------------------------- devices


def meter_verbs(model: Model) -> tuple[str, ...]:
    """What can be ordered of a meter of this model."""
    return (*_ANY_METER, *(verb for verb, setting in WRITES.items() if model.can(setting)))


def meter_measurands(model: Model) -> tuple[str, ...]:
    """What a meter of this model tells."""
    found = [row.plan.type.measurand for rows in _FIELDS[model.name] for row in rows]
    found += ["Power.Active.Import", "Power.Active.Export", "Power.Factor", "Demand.Period", "Input.State"]
    return tuple(dict.fromkeys([*found, *(["Power.Direction", "Relay.State"] if model.relays else [])]))


def meter_device(address: str, model: Model, bus: str, zone: str, frame: bytes | None = None) -> Device:
    """An Omnimeter on a bus, its clock set in ``zone``; ``frame``: one of its replies, if it has said anything yet."""
    known = {} if frame is None else {"model_code": codec.model_code(frame)}
    return Device(
        id=device_id(address), integration="ekm", identity=address, kind=DeviceKind.METER, vendor=VENDOR, model=f"Omnimeter {model.name}",
        serial=address, firmware="" if frame is None else codec.firmware(frame), verbs=meter_verbs(model), measurands=meter_measurands(model),
        attributes={"bus": bus, "generation": model.name, "timezone": zone, **known},
    )  # fmt: skip


def iostack_device(address: str, bus: str, driver: str) -> Device:
    """An ioStack; ``driver`` says in words what speaks with it."""
    return Device(
        id=device_id(address), integration="ekm", identity=address, kind=DeviceKind.IO, vendor=VENDOR, model="ioStack", serial=address,
        verbs=IOSTACK_VERBS, measurands=("Level.Digital", "Pulse.Count", "Voltage.Analog"), attributes={"bus": bus, "driver": driver},
    )  # fmt: skip


def gateway_device(mac: str) -> Device:
    """The gateway itself."""
    identity = gateway_identity(mac)
    attributes = {"mac": mac.upper()} if mac else {}
    return Device(device_id(identity), "ekm", identity, DeviceKind.GATEWAY, vendor="Gridloom", model="gateway", verbs=GATEWAY_VERBS,
                  attributes=attributes)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- orders

WRITES: Mapping[str, str] = MappingProxyType(
    {
        "relay.set": "SetRelay",
        "device.clock.set": "SetTime",
        "ekm.password.set": "SetMeterPassword",
        "ekm.ct_ratio.set": "SetCTRatio",
        "ekm.max_demand.interval.set": "SetMaxDemandResetInterval",
        "ekm.max_demand.reset": "SetMaxDemandResetNow",
        "ekm.max_demand.period.set": "SetMaxDemandPeriod",
        "ekm.lcd.set": "SetLCD",
        "ekm.pulse_input.ratio.set": "SetPulseInputRatio",
        "ekm.pulse_output.ratio.set": "SetPulseOutputRatio",
        "ekm.resettable_energy.reset": "SetZeroResettableKWH",
        "ekm.holidays.set": "SetHolidayDates",
        "ekm.schedule.set": "SetSchedule",
        "ekm.seasons.set": "SetSeasonSchedules",
        "ekm.weekend_holiday.set": "SetWeekendHolidaySchedules",
    }
)
"""Verb -> the command of the Settings API that is its setting."""


def write(verb: str, arguments: Any, model: Model, *, now: Callable[[], int], zone: ZoneInfo) -> Write:
    """An order as a setting of a meter of this model. ``arguments``: the verb's Struct; ``now`` (µs UTC) is asked when the setting is sent.

    Raises Unsupported (not for this model), InvalidInput with the path of the argument, what is allowed and what came. Nothing is sent then.
    """
    setting = SETTINGS[WRITES[verb]]
    if not model.can(setting.name):
        raise Unsupported(f"{setting.name} is not for this model: an Omnimeter {model.name} has no such setting")
    offset, data = _data(verb, arguments, model)
    register = f"{setting.register[:3]}{int(setting.register[3], 16) + offset:X}"
    once = not verbs.TABLE[verb].idempotent
    if verb == "device.clock.set":
        moment = None if arguments.time is None else clocks.from_datetime(arguments.time)
        return Write(register, lambda: time_digits(now() if moment is None else moment, zone), setting.name, once, read_back=True)
    if len(data) != setting.size:
        raise ValueError(f"{setting.name}: {len(data)} characters instead of {setting.size}")
    return Write(register, data, setting.name, once, arguments.ratio if verb == "ekm.pulse_output.ratio.set" else None)


def password_of(arguments: Any) -> str:
    """The password that an order brings, the maker's if none. Raises InvalidInput for one that no Omnimeter can have."""
    password: str = getattr(arguments, "password", None) or DEFAULT_PASSWORD
    if len(password) != 8 or not (password.isascii() and password.isdigit()):
        raise _refuse("password", "eight digits", "something else")
    return password


def _data(verb: str, arguments: Any, model: Model) -> tuple[int, str]:
    """What is added to the setting's register, and its data."""
    match verb:
        case "relay.set":
            if arguments.relay > model.relays:
                raise _refuse("relay", f"1 to {model.relays}", arguments.relay)
            return arguments.relay - 1, f"{int(arguments.state == 'closed')}{arguments.duration_s:04d}"
        case "ekm.password.set":
            return 0, arguments.new_password
        case "ekm.ct_ratio.set":
            return 0, f"{arguments.ct_ratio:04d}"
        case "ekm.max_demand.interval.set":
            return 0, str(INTERVALS[arguments.interval])
        case "ekm.max_demand.reset":
            return 0, "000000"
        case "ekm.max_demand.period.set":
            return 0, {15: "1", 30: "2", 60: model.hour}[arguments.period_min]
        case "ekm.lcd.set":
            for place, item in enumerate(arguments.items):
                if item not in LCD_ITEMS:
                    raise _refuse(f"items[{place}]", f"one of {', '.join(map(str, LCD_ITEMS))}", item)
            return 0, "".join(f"{item:02d}" for item in arguments.items).ljust(2 * LCD_PLACES, "0")
        case "ekm.pulse_input.ratio.set":
            return arguments.line - 1, f"{arguments.ratio:04d}"
        case "ekm.pulse_output.ratio.set":
            return 0, f"{arguments.ratio:04d}"
        case "ekm.holidays.set":
            dates = [(f"dates[{place}]", one.month, one.day) for place, one in enumerate(arguments.dates)]
            return 0, "".join(_date(*one) for one in dates).ljust(80, "0")
        case "ekm.schedule.set":
            periods = "".join(f"{one.hour:02d}{one.minute:02d}{one.tariff:02d}" for one in arguments.periods)
            return arguments.schedule - 1, periods.ljust(48, "0")
        case "ekm.seasons.set":
            seasons = [(f"seasons[{place}]", one.month, one.day) for place, one in enumerate(arguments.seasons)]
            parts = [_date(*date) + f"{one.schedule:02d}" for date, one in zip(seasons, arguments.seasons, strict=True)]
            return 0, "".join(parts).ljust(48, "0")
        case "ekm.weekend_holiday.set":
            return 0, f"{arguments.weekend_schedule:02d}{arguments.holiday_schedule:02d}"
    return 0, ""


def _date(path: str, month: int, day: int) -> str:
    days = calendar.monthrange(2024, month)[1]  # a leap year: 29 February is a day
    if day > days:
        raise _refuse(f"{path}.day", f"1 to {days} in month {month}", day)
    return f"{month:02d}{day:02d}"


def _refuse(path: str, expected: str, came: object) -> InvalidInput:
    reason = f"expected {expected}, got {came}"
    return InvalidInput(f"{path}: {reason}", (FieldFault(f"$.{path}", reason),))


# --------------------------------------------------------------------------------------------------------------- results


def clock_after(address: str, model: Model, frame: bytes, sent: str) -> dict[str, Any]:
    """What the meter's clock says behind a setting: its own digits, the same as a local time, and its weekday (Sunday 01).

    Raises DeviceError when that is not what was sent, up to the seconds that have gone by.
    """
    digits = codec.field_of(model.layouts[0], "Meter_Time", frame).decode("ascii", "replace")
    came, wanted = local_time(digits), local_time(sent)
    if came is None or wanted is None or not timedelta(0) <= came - wanted < timedelta(seconds=10):
        raise DeviceError(f"meter {address}: SetTime was acknowledged, but its clock says {codec.shown(digits)} instead of {sent}")
    return {"meter_time": digits, "local_time": came.isoformat(), "weekday": digits[6:8]}


def status(model: Model, read: Read) -> dict[str, Any]:
    """``device.status.get`` of a meter: what it says of itself."""
    found = codec.values(read, model.layouts)
    names = ("Firmware", "Model", "Meter_Time", "CT_Ratio", "State_Inputs", "State_Out", "State_Watts_Dir", "kWh_Scale", "Max_Demand_Period")
    return {"address": read.address, "generation": model.name, "status": status_code(model, read), "reliability": read.reliability} | {
        name: found[name] for name in names if name in found
    }
