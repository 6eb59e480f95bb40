"""TRANSLATION: groups and frames of a TIC line -> readings and events of the core. Pure; it is told what time it is.

One ``Mapping`` per line. Its memory is what was told last, so that events tell changes only; ``state`` gives that memory out, to be kept over
a restart.

**Time.** A frame of standard mode is of the meter's own time (DATE), unless the meter says that its clock is degraded; frames of historic mode, and
of a degraded clock, are of the hub's. Values with a horodate of their own (daily maxima, load curve, mean voltages) are MeterReadings of their own,
sent when they change. Events are of the hub's time: a meter whose clock is put back must not make the end of an alarm older than its beginning;
``device_time`` is in their data.

**How often.** What moves (power, current, voltage, registers that ever counted) is in every reading. What seldom does (contract, maxima, states,
registers at zero) is sent when it changes, and once an hour.

**Damage.** Groups with a wrong checksum are never looked at. That a label is absent says something (no overload any more) only in a frame that is
whole. A checksum of six bits lets some damage pass: another meter, contract, message or calendar is believed in an undamaged frame, or the second
time.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from types import MappingProxyType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core import clock, events, ids
from gridloom.core.model import (
    Device,
    DeviceKind,
    Event,
    EventState,
    MeterReading,
    Phase,
    Quality,
    Reading,
    ReadingType,
    TimeSource,
)
from gridloom.integrations.tic import status
from gridloom.integrations.tic.codec import Frame, Group, Horodate, identity, parse_horodate
from gridloom.integrations.tic.labels import FAMILIES, TABLE, Kind, Label, Mode
from gridloom.integrations.tic.messages import PortState, TicFrame, TicGroup

TOTAL = "Energy.Active.Import.Register"
RUNNING = "Tariff.Running"
SLOW = 3_600_000_000
"""µs after which a value that does not change is sent again."""
CLOCK_WRONG, CLOCK_RIGHT = 300_000_000, 240_000_000
"""µs that a meter's clock may differ from ours before it is told, and from which on it is right again."""

URGENT = frozenset({"ADPS", "ADIR1", "ADIR2", "ADIR3", "STGE", "ADSC", "ADCO", "ISOUSC", "PREF", "SINSTS"})
"""Labels that ``Mapping.group_events`` wants to see before the frame ends; others tell it nothing."""

_OVERLOADS: Table[str, Phase] = MappingProxyType({"ADPS": Phase.L1, "ADIR1": Phase.L1, "ADIR2": Phase.L2, "ADIR3": Phase.L3})
_THREE = frozenset(
    {"IINST1", "IINST2", "IINST3", "IMAX1", "IMAX2", "IMAX3", "PMAX", "PPOT", "ADIR1", "ADIR2", "ADIR3"}
    | {"IRMS2", "IRMS3", "URMS2", "URMS3", "UMOY2", "UMOY3", "SINSTS1", "SINSTS2", "SINSTS3"}
)
_BREAKER = "alarm:breaker.opened:"
_HARMLESS = frozenset({"delimiter", "parity"})
_PHASES = (Phase.L1, Phase.L2, Phase.L3)
_ALWAYS = frozenset({Kind.REGISTER, Kind.INSTANT, Kind.WARNING})


class MappingState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a Mapping knows of its meter: the values that were told last, by name. JSON, to be kept by the link as a document of the meter."""

    serial: str = ""
    facts: dict[str, str] = {}


class _Plan(NamedTuple):
    """What becomes of a label that is a number."""

    row: Label
    type: ReadingType
    always: bool


def _plan(row: Label) -> _Plan | None:
    if row.measurand is None or row.kind is Kind.BITS:
        return None
    unit = {"kVA": "VA", "min": "s", "": "1"}.get(row.unit, row.unit)
    phase = None if row.phase is None else Phase(row.phase)
    return _Plan(row, ReadingType(row.measurand, unit, phase, row.tariff), row.kind in _ALWAYS)


_PLANS: Table[str, _Plan] = MappingProxyType({row.name: plan for row in TABLE.values() if (plan := _plan(row)) is not None})
_REGISTERS = frozenset(row.name for row in TABLE.values() if row.kind is Kind.REGISTER and row.tariff is not None)
_TOTAL_TYPE = ReadingType(TOTAL, "Wh")
_RUNNING_TYPE = ReadingType(RUNNING, "1")
_RELAY_TYPES = tuple(ReadingType("Relay.State", "1", location=f"relay:{number}") for number in range(1, status.RELAYS + 1))
_MISSING_TYPES = tuple(ReadingType("Potential.Missing", "1", phase) for phase in _PHASES)
_DIRECTION_TYPE = ReadingType("Power.Direction", "1")


def device_id(serial: str) -> str:
    """``tic:`` and the serial number as the meter says it."""
    return f"tic:{serial}"


def _number(text: str) -> int | None:
    """A value of digits; None for anything else (a meter that is not configured says all sorts of things)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


class Mapping:
    """Translates one line. ``zone``: of the meter; ``state``: what was known before a restart; ``simulated``: mark readings as a simulator's."""

    def __init__(self, zone: ZoneInfo, state: MappingState | None = None, *, simulated: bool = False) -> None:
        self._zone = zone
        self._quality = Quality.SIMULATED if simulated else Quality.GOOD
        self.serial: str | None = None
        self._candidate: tuple[str, Frame] | None = None
        self._facts: dict[str, str] = {}
        self._changed = False
        self._forget()
        if state is not None and state.serial:
            self.serial = state.serial
            self._facts = dict(state.facts)

    def _forget(self) -> None:
        """What is of one meter and needs not outlive a restart."""
        self._now: dict[str, str] = {}  # newest values of labels that explain an overload
        self._address: str | None = None  # of the frame that is coming in
        self._sure = False  # the frame under way is whole and undamaged
        self._doubtful: dict[str, str] = {}
        self._raised: set[str] = set()  # alarms raised since the last frame
        self._slow: dict[ReadingType, tuple[int | str, int]] = {}
        self._made: dict[str, tuple[str, Quality, Reading]] = {}
        self._native: dict[str, tuple[Group, TicGroup]] = {}
        self._timed: dict[ReadingType, dict[str, str]] = {}
        self._attributes: dict[str, str] = {}
        self._measurands: set[str] = set()
        self._counted: set[str] = set()  # registers that ever stood above zero
        self._register: int | None = None
        self._device_time: int | None = None

    # -------------------------------------------------------------------------------------------------------------- who it is

    def identify(self, frame: Frame) -> str | None:
        """The serial number of the meter that sent the frame; if the frame's address is damaged, of the meter that was on this line before.

        Another meter than before is believed at once in a whole and undamaged frame, else when a second frame says the same; until then None: two
        damaged bits can cancel out in a checksum, and must not make a meter that does not exist.
        """
        serial = identity(frame)
        if serial is None or serial == self.serial:
            self._candidate = None
            return self.serial
        if self.serial is None or _is_whole(frame):
            return serial
        if self._candidate is not None and self._candidate[0] == serial and self._candidate[1] is not frame:
            return serial
        self._candidate = (serial, frame)
        return None

    def meet(self, serial: str, received: int, state: MappingState | None = None) -> list[Event]:
        """From now on the line is this meter's, ``state`` being what is known of it. Tells ``meter.changed`` if there was another one.

        ``frame`` does this by itself, with no state; a link that keeps states calls it first.
        """
        before = self.serial
        if serial == before:
            return []
        self.serial = serial
        self._candidate = None
        self._forget()
        self._facts = dict(state.facts) if state is not None and state.serial == serial else {}
        self._changed = True
        if before is None:
            return []
        message = f"Another meter is on the line: {serial}, before it was {before}."
        return [self._event("meter.changed", received, message=message, data={"from": before, "to": serial})]

    @property
    def state(self) -> MappingState:
        """What must outlive a restart, so that nothing is told twice."""
        return MappingState(self.serial or "", dict(self._facts))

    def changed_state(self) -> MappingState | None:
        """The state if it changed since this was last asked; to be written in the commit of the events that ``frame`` gave."""
        if not self._changed or self.serial is None:
            return None
        self._changed = False
        return self.state

    def device(self, frame: Frame, port: PortState) -> Device:
        """The meter as a device: kind, maker, contract and capabilities as far as this and earlier frames tell.

        Raises ValueError if nobody knows which meter it is (``identify`` gave None).
        """
        serial = self.identify(frame)
        if serial is None:
            raise ValueError(f"{port.name}: no frame with a good ADSC or ADCO was seen yet")
        if serial != self.serial:
            attributes: dict[str, str] = {}
            measurands: set[str] = set()
        else:
            attributes, measurands = self._attributes, self._measurands
        values = {group.label: group.value for group in frame.groups if group.valid}
        attributes.update(_attributes(frame, values))
        attributes["port"] = port.name
        measurands.add(TOTAL)
        measurands.update(plan.type.measurand for label in values if (plan := _PLANS.get(label)) is not None)
        if frame.mode is Mode.HISTORIC:
            measurands.update(("Current.Overload", RUNNING))
        if "PPOT" in values:
            measurands.add("Potential.Missing")
        if "NTARF" in values:
            measurands.add(RUNNING)
        if "STGE" in values:
            measurands.update(("Relay.State", "Power.Direction"))
        make = status.make(serial)
        if make is not None:
            attributes["year"] = str(make.year)
        return Device(
            id=device_id(serial),
            integration="tic",
            identity=serial,
            kind=DeviceKind.METER,
            vendor="" if make is None else make.vendor,
            model="" if make is None else make.model,
            serial=serial,
            firmware="",
            measurands=tuple(sorted(measurands)),
            attributes=dict(attributes),
        )

    # ----------------------------------------------------------------------------------------------------- before the frame ends

    def group_events(self, group: Group, received: int) -> list[Event]:
        """What cannot wait for the end of the frame: overload, and an opened breaking device. Nothing before the meter is known by a whole frame."""
        if not group.valid or group.label not in URGENT:
            return []
        label = group.label
        if label in ("ADSC", "ADCO"):
            self._address = group.value.strip()
            return []
        if self.serial is None or (self._address is not None and self._address != self.serial):
            return []
        if label in _OVERLOADS:
            return self._overload_by_current(label, group.value, received)
        if label == "STGE":
            register = status.stge(group.value)
            return [] if register is None else self._urgent(register, received)
        self._now[label] = group.value
        return []

    def _overload_by_current(self, label: str, value: str, received: int) -> list[Event]:
        phase = _OVERLOADS[label]
        current, subscribed = _number(value), _number(self._now.get("ISOUSC", ""))
        message = f"{label}: {current if current is not None else value} A" + (f" of {subscribed} A subscribed" if subscribed is not None else "")
        data = {"label": label, "current_a": current, "subscribed_a": subscribed}
        return self._alarm("overload", phase.value, True, received, f"{message} on {phase.value}.", data)

    def _urgent(self, register: int, received: int) -> list[Event]:
        """Bits of STGE that somebody acts on at once."""
        overload = status.STGE["overload"].of(register) == 1
        power, reference = _number(self._now.get("SINSTS", "")), _number(self._now.get("PREF", ""))
        reference = None if reference is None else reference * 1000
        message = "The reference power is exceeded." if overload else "The reference power is exceeded no longer."
        data = {"label": "STGE", "power_va": power, "reference_va": reference}
        told = self._alarm("overload", "", overload, received, message, data)
        cause = status.STGE["breaker"].word(register)
        key = _BREAKER
        if cause.word == "closed":
            if self._drop(key):
                told.append(self._event("breaker.closed", received, message="The breaking device is closed."))
        elif cause is not status.UNKNOWN and self._fact(key, cause.word)[0]:
            data = {"cause": cause.word, "cause_fr": cause.french}
            told.append(self._event("breaker.opened", received, EventState.RAISED, message=f"The breaking device is {cause.english}.", data=data))
        return told

    # ------------------------------------------------------------------------------------------------------------------- frames

    def frame(self, frame: Frame, received: int, port: PortState) -> tuple[list[MeterReading], list[Event]]:
        """Readings and events of a frame that was heard at ``received`` (µs UTC). Nothing as long as nobody knows which meter it is of.

        The first MeterReading carries the frame as its native message; others are of horodates.
        """
        self._address = None
        serial = self.identify(frame)
        if serial is None:
            return [], []
        told = self.meet(serial, received)
        groups = {group.label: group for group in frame.groups if group.valid}
        values = {label: group.value for label, group in groups.items()}
        for label in ("ISOUSC", "PREF", "SINSTS"):
            if label in values:
                self._now[label] = values[label]
        whole = self._sure = _is_whole(frame)
        register = status.stge(values.get("STGE", ""))
        date = groups.get("DATE")
        when = None if date is None else parse_horodate(date.horodate, self._zone)
        degraded = (when is not None and when.degraded) or (register is not None and status.STGE["clock"].of(register) == 1)
        quality = self._quality | Quality.CLOCK_DEGRADED if degraded else self._quality
        by_device = when is not None and not degraded
        self._device_time = None if when is None else when.time
        readings = self._readings(values, received, quality)
        readings += self._states(values, register, received, quality)
        first = MeterReading(
            device=device_id(serial),
            time=when.time if by_device and when is not None else received,
            received=received,
            readings=tuple(readings),
            source=TimeSource.DEVICE if by_device else TimeSource.HUB,
            native=self._tic_frame(frame, serial, received, port),
        )
        told += self._events(frame, groups, values, register, whole, received)
        if register is not None:
            told += self._status_events(register, received)
        told += self._clock_events(when, degraded, register, received)
        self._raised.clear()
        return [first, *self._of_horodates(groups, serial, received)], told

    def _tic_frame(self, frame: Frame, serial: str, received: int, port: PortState) -> TicFrame:
        groups = []
        for group in frame.groups:
            known = self._native.get(group.label)
            if known is None or known[0] is not group:  # the codec gives a repeated group as the same object
                known = (group, TicGroup(group.label, group.value, group.horodate, group.valid))
                if group.valid:
                    self._native[group.label] = known
            groups.append(known[1])
        return TicFrame(frame.mode, tuple(groups), serial, port.name, port.port_id, port.port_path, received, frame.partial)

    # ----------------------------------------------------------------------------------------------------------------- readings

    def _due(self, type: ReadingType, value: int | str, received: int) -> bool:
        """Whether a value that seldom changes is to be sent."""
        known = self._slow.get(type)
        if known is not None and known[0] == value and 0 <= received - known[1] < SLOW:
            return False
        self._slow[type] = (value, received)
        return True

    def _readings(self, values: dict[str, str], received: int, quality: Quality) -> list[Reading]:
        readings = []
        counted = self._counted
        for label, value in values.items():
            plan = _PLANS.get(label)
            if plan is None or plan.row.horodate:
                continue
            made = self._made.get(label)
            if made is None or made[0] != value or made[1] != quality:
                number = _number(value)
                if number is None:
                    continue
                if number and plan.row.kind is Kind.REGISTER:
                    counted.add(label)
                made = (value, quality, Reading(plan.type, number * plan.row.factor, plan.row.exponent, quality=quality))
                self._made[label] = made
            moves = plan.always and (plan.row.tariff is None or label in counted)
            if moves or self._due(plan.type, value, received):
                readings.append(made[2])
        if "EAST" not in values:
            total = self._sum(values)
            if total is not None:
                readings.append(Reading(_TOTAL_TYPE, total, quality=quality | Quality.DERIVED))
        return readings

    @staticmethod
    def _sum(values: dict[str, str]) -> int | None:
        """The total of historic mode: the sum of all registers of the option; None unless every one of them is there and good."""
        for labels in FAMILIES.values():
            numbers = [_number(values[label]) for label in labels if label in values]
            if numbers:
                good = [number for number in numbers if number is not None]
                return sum(good) if len(good) == len(labels) else None
        return None

    def _states(self, values: dict[str, str], register: int | None, received: int, quality: Quality) -> list[Reading]:
        """States as numbers (relays, missing phases, direction of energy), and the running tariff as text."""
        pairs: list[tuple[ReadingType, int | str]] = []
        running = _running(values)
        if running is not None:
            pairs.append((_RUNNING_TYPE, running))
        relays = status.relays(values.get("RELAIS", ""))
        if relays is not None:
            pairs += [(type, int(closed)) for type, closed in zip(_RELAY_TYPES, relays, strict=True)]
        missing = status.missing_phases(values.get("PPOT", ""))
        if missing is not None:
            pairs += [(type, int(one)) for type, one in zip(_MISSING_TYPES, missing, strict=True)]
        if register is not None:
            pairs.append((_DIRECTION_TYPE, -1 if status.STGE["direction"].of(register) else 1))
        return [Reading(type, value, quality=quality) for type, value in pairs if self._due(type, value, received)]

    def _of_horodates(self, groups: dict[str, Group], serial: str, received: int) -> list[MeterReading]:
        """Values that are of a time of their own, those of one time together, when they are new."""
        found: dict[int, list[Reading]] = {}
        for label, group in groups.items():
            if not group.horodate:
                continue
            plan = _PLANS.get(label)
            if plan is None:
                continue
            known = self._timed.setdefault(plan.type, {})
            if known.get(group.horodate) == group.value:
                continue
            when, number = parse_horodate(group.horodate, self._zone), _number(group.value)
            if when is None or number is None:
                continue
            known[group.horodate] = group.value
            while len(known) > 4:
                del known[next(iter(known))]
            quality = self._quality | Quality.CLOCK_DEGRADED if when.degraded else self._quality
            found.setdefault(when.time, []).append(Reading(plan.type, number, plan.row.exponent, quality=quality))
        return [MeterReading(device_id(serial), time, received, tuple(readings), TimeSource.DEVICE) for time, readings in sorted(found.items())]

    # ------------------------------------------------------------------------------------------------------------------- events

    def _event(
        self,
        kind: str,
        received: int,
        state: EventState = EventState.OCCURRED,
        *,
        subject: str = "",
        message: str = "",
        data: dict[str, Any] | None = None,
    ) -> Event:
        device = device_id(self.serial or "")
        data = {name: value for name, value in (data or {}).items() if value is not None}
        if self._device_time is not None:
            data["device_time"] = clock.rfc3339(self._device_time)
        said = msgspec.json.encode(data, order="sorted").decode()
        return Event(
            id=ids.at(received, device, kind, subject, state.value, said),
            kind=kind,
            device=device,
            time=received,
            received=received,
            severity=events.TABLE[kind].severity,
            state=state,
            subject=subject,
            message=message,
            data=data,
        )

    def _fact(self, key: str, value: str) -> tuple[bool, str | None]:
        """Keep a value. Whether it is another one than before, and which that was (None: nothing was known)."""
        before = self._facts.get(key)
        if before == value:
            return False, before
        self._facts[key] = value
        self._changed = True
        return True, before

    def _believe(self, key: str, value: str) -> tuple[bool, str | None]:
        """``_fact`` for words that seldom change and of which any may be right: of a damaged frame they are believed when they come twice."""
        if not self._sure and self._facts.get(key) != value and self._doubtful.get(key) != value:
            self._doubtful[key] = value
            return False, None
        self._doubtful.pop(key, None)
        return self._fact(key, value)

    def _drop(self, key: str) -> bool:
        """Forget a value. Whether there was one."""
        if self._facts.pop(key, None) is None:
            return False
        self._changed = True
        return True

    def _alarm(self, kind: str, subject: str, on: bool, received: int, message: str, data: dict[str, Any] | None = None) -> list[Event]:
        """Raise or clear, if that is a change."""
        key = f"alarm:{kind}:{subject}"
        if not (self._fact(key, "1")[0] if on else self._drop(key)):
            return []
        if on:
            self._raised.add(key)
        return [self._event(kind, received, EventState.RAISED if on else EventState.CLEARED, subject=subject, message=message, data=data)]

    def _events(
        self, frame: Frame, groups: dict[str, Group], values: dict[str, str], register: int | None, whole: bool, received: int
    ) -> list[Event]:
        """What the labels of a frame tell, but for STGE and the clock."""
        told: list[Event] = []
        three = not _THREE.isdisjoint(values)
        if whole or three:
            type = status.TIC_TYPES[frame.mode is Mode.STANDARD, three]
            changed, before = self._believe("type", type)
            if changed and before is not None:
                message = f"The TIC is {type}, it was {before}."
                told.append(self._event("line.mode.changed", received, message=message, data={"from": before, "to": type}))
                told += self._other_mode(received)
        told += self._contract_events(values, received)
        told += self._tariff_events(frame.mode, values, received)
        for label in _OVERLOADS:
            if label in values:
                told += self._overload_by_current(label, values[label], received)
        if whole and frame.mode is Mode.HISTORIC:
            for phase in _PHASES:
                if not any(label in values for label, of in _OVERLOADS.items() if of is phase):
                    told += self._alarm("overload", phase.value, False, received, f"The subscribed current is exceeded no longer on {phase.value}.")
        missing = status.missing_phases(values.get("PPOT", ""))
        for phase, absent in zip(_PHASES, missing or (), strict=False):
            message = f"{phase.value} has no voltage." if absent else f"{phase.value} has voltage again."
            told += self._alarm("potential.missing", phase.value, absent, received, message)
        told += self._relay_events(values, register, received)
        told += self._notice_events(frame.mode, groups, whole, received)
        for label in ("MSG1", "MSG2"):
            if label in values:
                text = status.message(values[label])
                if self._believe(label, text)[0] and text:
                    told.append(self._event("message.received", received, subject=label, message=text, data={"label": label, "text": text}))
        for label in ("NJOURF+1", "PJOURF+1", "PPOINTE", "HHPHC"):
            if label in values:
                told += self._calendar_event(label, values[label].strip(), received)
        if "MOTDETAT" in values:
            changed, before = self._believe("MOTDETAT", values["MOTDETAT"])
            if changed and before is not None:
                bits = status.motdetat(values["MOTDETAT"])
                data = {"label": "MOTDETAT", "from": before, "to": values["MOTDETAT"], "bits": None if bits is None else list(bits)}
                told.append(self._event("device.status.changed", received, message=f"MOTDETAT is {values['MOTDETAT']}.", data=data))
        if "PRM" in values:
            changed, before = self._believe("PRM", values["PRM"].strip())
            if changed and before is not None:
                data = {"label": "PRM", "from": before, "to": values["PRM"].strip()}
                told.append(self._event("meter.changed", received, message="The point of delivery behind the line changed.", data=data))
        return told

    def _other_mode(self, received: int) -> list[Event]:
        """The TIC changed its type: conditions are told in other words now, or no longer. What still holds is raised again by the same frame.

        An open breaking device is not declared closed, because nobody said so.
        """
        told = []
        for key in [key for key in self._facts if key.startswith("alarm:") and key not in self._raised and not key.startswith(_BREAKER)]:
            _, kind, subject = key.split(":")
            told += self._alarm(kind, subject, False, received, "The TIC changed and does not tell this any more, or tells it anew.")
        self._register = None
        return told

    def _contract_events(self, values: dict[str, str], received: int) -> list[Event]:
        changes = {}
        for name, value in _contract(values).items():
            changed, before = self._believe(f"contract:{name}", value)
            if changed and before is not None:
                changes[name] = {"from": before, "to": value}
        if not changes:
            return []
        message = ", ".join(f"{name}: {change['from']} -> {change['to']}" for name, change in changes.items())
        return [self._event("contract.changed", received, message=message, data={"changes": changes})]

    def _tariff_events(self, mode: Mode, values: dict[str, str], received: int) -> list[Event]:
        told: list[Event] = []
        running = _running(values)
        if running is not None:
            changed, before = self._fact(f"tariff:{mode.value}", running)
            if changed and before is not None:
                word = status.trimmed(values.get("LTARF", "") if mode is Mode.STANDARD else values["PTEC"])
                data = {"from": before, "to": running, "name": word or None}
                told.append(self._event("tariff.changed", received, message=f"{running} runs, before it was {before}.", data=data))
            if mode is Mode.HISTORIC:
                told += self._colour_event("today", status.colour_of(running) or "", received)
                told += self._peak_events("EJP" if running == "PM" else "", received)
        tomorrow = status.demain(values.get("DEMAIN", ""))
        if tomorrow is not None:
            told += self._colour_event("tomorrow", tomorrow, received)
        return told

    def _colour_event(self, day: str, colour: str, received: int) -> list[Event]:
        """A colour of today is told when it changes, one of tomorrow also when it is the first that is known."""
        changed, before = self._fact(f"colour:{day}", colour)
        if not changed or not colour or (before is None and day == "today"):
            return []
        message = f"Today is a {colour} day." if day == "today" else f"Tomorrow will be a {colour} day."
        return [self._event(f"tariff.{day}", received, message=message, data={"colour": colour, "from": before or None})]

    def _peak_events(self, peak: str, received: int) -> list[Event]:
        changed, before = self._fact("peak", peak)
        if not changed or before is None:
            return []
        told = []
        if before:
            told.append(self._event("peak.end", received, message="The mobile peak is over.", data={"peak": before}))
        if peak:
            told.append(self._event("peak.begin", received, message="A mobile peak runs.", data={"peak": peak}))
        return told

    def _notice_events(self, mode: Mode, groups: dict[str, Group], whole: bool, received: int) -> list[Event]:
        """Announced mobile peaks: PEJP, the moments DPMn and FPMn, and the notice in STGE."""
        if mode is Mode.HISTORIC:
            if "PEJP" not in groups:
                if whole:
                    self._drop("notice:EJP")
                return []
            minutes = _number(groups["PEJP"].value)
            if not self._fact("notice:EJP", "1")[0]:
                return []
            message = "A mobile peak begins" + ("." if minutes is None else f" in {minutes} minutes.")
            return [self._event("peak.notice", received, message=message, data={"peak": "EJP", "minutes": minutes})]
        told = []
        stge = groups.get("STGE")
        register = None if stge is None else status.stge(stge.value)
        announced = None if register is None else status.STGE["notice"].of(register)
        for number in (1, 2, 3):
            key = f"notice:PM{number}"
            begin, end = (self._moment(groups.get(f"{label}{number}")) for label in ("DPM", "FPM"))
            ahead = begin is not None and begin > (received if self._device_time is None else self._device_time)
            if announced != number and not ahead:
                if announced is not None and whole:
                    self._drop(key)
                continue
            changed, _ = self._fact(key, f"{begin or ''}/{end or ''}")
            if changed:
                message = f"Mobile peak {number} is announced" + ("." if begin is None else f" for {clock.rfc3339(begin)}.")
                data = {"peak": f"PM{number}", "begin": begin and clock.rfc3339(begin), "end": end and clock.rfc3339(end)}
                told.append(self._event("peak.notice", received, message=message, data=data))
        return told

    def _moment(self, group: Group | None) -> int | None:
        when = None if group is None else parse_horodate(group.horodate, self._zone)
        return None if when is None else when.time

    def _relay_events(self, values: dict[str, str], register: int | None, received: int) -> list[Event]:
        """Contact and virtual relays; of the contact STGE tells, too, and is asked when RELAIS is damaged."""
        relays = status.relays(values.get("RELAIS", ""))
        if relays is None:
            relays = () if register is None else (status.STGE["contact"].of(register) == 0,)
        told = []
        for number, closed in enumerate(relays, 1):
            changed, before = self._fact(f"relay:{number}", "closed" if closed else "open")
            if changed and before is not None:
                name = "The dry contact" if number == 1 else f"Virtual relay {number}"
                data = {"relay": number, "closed": closed, "virtual": number > 1}
                message = f"{name} is {'closed' if closed else 'open'}."
                told.append(self._event("relay.changed", received, subject=f"relay:{number}", message=message, data=data))
        return told

    def _calendar_event(self, label: str, value: str, received: int) -> list[Event]:
        changed, before = self._believe(label, value)
        if not changed or before is None:
            return []
        blocks = status.profile(value) if label in ("PJOURF+1", "PPOINTE") else None
        data = {"label": label, "from": before, "to": value, "blocks": None if blocks is None else [msgspec.to_builtins(block) for block in blocks]}
        return [self._event("tariff.calendar.changed", received, subject=label, message=f"{TABLE[label].english}: changed.", data=data)]

    def _status_events(self, register: int, received: int) -> list[Event]:
        """What STGE tells, but for the clock and what ``_notice_events`` and ``_relay_events`` read."""
        told = self._urgent(register, received)
        if register == self._register:
            return told
        self._register = register
        word = {name: field.word(register).word for name, field in status.STGE.items()}
        cover = word["cover"] == "open"
        told += self._alarm("cover.open", "", cover, received, f"The terminal cover is {word['cover']}.")
        high = word["overvoltage"] == "yes"
        told += self._alarm("fault.overvoltage", "", high, received, "The voltage is too high." if high else "The voltage is right again.")
        changed, before = self._fact("direction", word["direction"])
        if changed and before is not None:
            taken = word["direction"] == "positive"
            message = f"Active energy is {'taken' if taken else 'given'}."
            told.append(self._event("energy.direction.changed", received, message=message, data={"direction": "import" if taken else "export"}))
        if word["distributor"] != status.UNKNOWN.word:
            changed, before = self._fact("tariff:distributor", word["distributor"])
            if changed and before is not None:
                data = {"from": before, "to": word["distributor"]}
                message = f"{word['distributor']} runs, before it was {before}."
                told.append(self._event("tariff.changed", received, subject="distributor", message=message, data=data))
        names = ("euridis", "plc", "synchronised")
        changed, before = self._fact("communication", "/".join(word[name] for name in names))
        if changed and before is not None:
            data = {name: word[name] for name in names}
            message = ", ".join(f"{name}: {word[name]}" for name in names)
            told.append(self._event("meter.communication.changed", received, message=message, data=data))
        for day in ("today", "tomorrow"):
            told += self._colour_event(day, "" if word[day] == "none" else word[day], received)
        told += self._peak_events("" if word["peak"] == "none" else word["peak"], received)
        return told

    def _clock_events(self, when: Horodate | None, degraded: bool, register: int | None, received: int) -> list[Event]:
        """The meter says that its clock is degraded; or it does not, but its time is not ours."""
        told = []
        if degraded or register is not None:
            message = "The meter's clock is degraded." if degraded else "The meter's clock is right again."
            told += self._alarm("clock.degraded", "", degraded, received, message)
        if when is not None and not degraded:
            off = abs(when.time - received)
            if off > CLOCK_WRONG or off < CLOCK_RIGHT:
                seconds = round((when.time - received) / 1_000_000)
                message = f"The meter's clock is {abs(seconds)} s {'ahead' if seconds > 0 else 'behind'}."
                told += self._alarm("device.clock.wrong", "", off > CLOCK_WRONG, received, message, {"offset_s": seconds})
        return told


def _is_whole(frame: Frame) -> bool:
    """Every group is there and good: what is absent is absent."""
    return not frame.partial and all(damage.reason in _HARMLESS for damage in frame.damages)


def _running(values: dict[str, str]) -> str | None:
    """The running register as ``ReadingType.tariff`` names it; None if the frame does not tell."""
    if "PTEC" in values:
        return status.ptec(values["PTEC"])
    number = _number(values.get("NTARF", "").strip())
    return f"tariff{number}" if number is not None and 1 <= number <= 10 else None


def _contract(values: dict[str, str]) -> dict[str, str]:
    """The contract as far as the frame tells it."""
    found = {}
    option = status.optarif(values.get("OPTARIF", ""))
    if option is not None:
        found["option"] = option.name
    for label, name, unit in (("ISOUSC", "subscribed", "A"), ("PREF", "reference", "kVA"), ("PCOUP", "breaking", "kVA")):
        number = _number(values.get(label, ""))
        if number is not None:
            found[name] = f"{number} {unit}"
    calendar = status.trimmed(values.get("NGTF", ""))
    if calendar:
        found["calendar"] = calendar
    register = status.stge(values.get("STGE", ""))
    if register is not None:
        found["behaviour"] = status.STGE["behaviour"].word(register).word
    return found


def _attributes(frame: Frame, values: dict[str, str]) -> dict[str, str]:
    """Facts for people, as far as the frame tells them. The point of delivery is left out: it names a household."""
    standard = frame.mode is Mode.STANDARD
    found = {"mode": frame.mode.value, **_contract(values)}
    if not frame.partial or not _THREE.isdisjoint(values):
        found["tic_type"] = status.TIC_TYPES[standard, not _THREE.isdisjoint(values)]
    option = status.optarif(values.get("OPTARIF", ""))
    if standard:
        found["grid_subscription"] = "STANDARD"
    elif option is not None:
        found["grid_subscription"] = option.subscription
    contract = found.get("calendar") or found.get("option")
    if contract:
        found["contract"] = contract
    subscribed = found.get("reference") or found.get("subscribed")
    if subscribed:
        found["subscribed"] = subscribed
    if "VTIC" in values:
        found["tic_version"] = values["VTIC"].strip()
    return {name: found[name] for name in _SHOWN if name in found}


_SHOWN = ("mode", "tic_type", "contract", "grid_subscription", "subscribed", "breaking", "behaviour", "tic_version")
