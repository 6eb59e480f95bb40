"""TRANSLATION of the Settings API: a vendor's command to an order of the core, and an order's end to what its response channel is told.

Ranges that depend on nothing but the request are said here, each fault with the parameter, what is allowed and what came; what depends on the
device (its password, the pulse ratios that go with its CT ratio) the device's link refuses.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from gridloom.core import faults, verbs
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.model import Command, CommandState
from gridloom.integrations.ekm.messages import COMMANDS, HOLIDAYS, PERIODS, SEASONS, SECRETS, Kind, Moment, Response
from gridloom.integrations.ekm.models.settings import INTERVALS, LCD_ITEMS

_RELAY = re.compile(r"relay_?([12])", re.IGNORECASE)
_STATES = {"open": "open", "close": "closed", "closed": "closed"}
_PATTERN = re.compile(r"that matches \^\[0-9\]\{(?:1,)?([0-9]+)\}\$\(\?!\\n\)")
_CODE = re.compile(r"\A[a-z][a-z-]*: ")
_INTERVAL_NAMES = {number: name for name, number in INTERVALS.items()}
_DEMAND_MINUTES = {1: 15, 2: 30, 3: 60, 4: 60}
_LAST_DAYS = {month: monthrange(2024, month)[1] for month in range(1, 13)}  # of no particular year: the 29th of February may be meant
_LCD_NUMBERS = {name.casefold(): number for number, name in LCD_ITEMS.items()}
_RATIOS: tuple[int, ...] = (100, 200, 400, 600, 800, 1000, 1200, 1500, 2000, 3000, 4000, 5000)
Arguments = dict[str, Any]


def kind_of(target: str, command: str) -> Kind:
    """The row of a command. Raises InvalidInput (``$.target``, ``$.command``)."""
    commands = COMMANDS.get(target)
    if commands is None:
        raise _wrong("$.target", f"expected one of {', '.join(COMMANDS)}, got {target!r}")
    kind = commands.get(command)
    if kind is None:
        hint = faults.nearest(command, commands)
        raise _wrong("$.command", f"expected one of {', '.join(commands)} for target {target}, got {command!r}{hint}")
    return kind


def translate(target: str, command: str, params: Mapping[str, Any], zone: ZoneInfo) -> tuple[str, Arguments]:
    """Verb and arguments of the core. ``zone``: of the device's wall clock. Raises InvalidInput with every offending ``$.params.…``."""
    kind = kind_of(target, command)
    given = faults.read(kind.parameters, dict(params), command, path="$.params", hide=SECRETS)
    arguments = _TRANSLATORS[command](given, zone)
    for secret, name in (("meter_password", "password"), ("password", "password"), ("new_password", "new_password")):
        value = getattr(given, secret, None)
        if value is not None and name in _members(kind.verb):
            arguments[name] = value
    return kind.verb, arguments


def response(command: Command) -> Response:
    """What the channel is told of an order that has ended."""
    done = command.state is CommandState.DONE
    moment = command.sent or command.ended or command.created
    error = None if done else _CODE.sub("", command.error, count=1) or command.state.value
    kind = COMMANDS.get(command.origin.get("target", ""), {}).get(command.origin.get("command", ""))
    return Response(command.id, moment / 1_000_000, done, error, command.result if done and kind is not None and kind.data else None)


def in_words(error: InvalidInput) -> str:
    """The ``error`` of a 400: every offending parameter with what was expected and what came."""
    found = [f"{fault.path.removeprefix('$.')}: {fault.reason}" if fault.path != "$" else fault.reason for fault in error.faults]
    return _PATTERN.sub(_digits, "; ".join(found) or error.message)


# ------------------------------------------------------------------------------------------------------------------ details


def _digits(pattern: re.Match[str]) -> str:
    return f"of {'1 to ' if '{1,' in pattern[0] else ''}{pattern[1]} digits"


def _members(verb: str) -> tuple[str, ...]:
    members: tuple[str, ...] = verbs.TABLE[verb].arguments.__struct_fields__
    return members


def _wrong(path: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{path}: {reason}", (FieldFault(path, reason),))


def _nothing(given: Any, zone: ZoneInfo) -> Arguments:
    return {}


def _relay(given: Any, zone: ZoneInfo) -> Arguments:
    found = []
    relay, state = _RELAY.fullmatch(given.relay), _STATES.get(given.status.lower())
    if relay is None:
        found.append(FieldFault("$.params.relay", f"expected Relay_1 or Relay_2, got {given.relay!r}"))
    if state is None:
        found.append(FieldFault("$.params.status", f"expected open or close, got {given.status!r}"))
    if relay is None or state is None:
        raise InvalidInput("SetRelay", tuple(found))
    return {"relay": int(relay[1]), "state": state, "duration_s": given.duration}


def _clock(given: Moment, zone: ZoneInfo) -> Arguments:
    found: list[FieldFault] = []

    def number(name: str, low: int, high: int) -> int:
        value = int(getattr(given, name))
        if not low <= value <= high:
            found.append(FieldFault(f"$.params.{name}", f"expected {low} to {high}, got {value}"))
        return value

    parts = [
        number(name, low, high)
        for name, low, high in (("year", 2000, 2099), ("month", 1, 12), ("day", 1, 31), ("hour", 0, 23), ("minutes", 0, 59), ("seconds", 0, 59))
    ]
    if found:
        raise InvalidInput("the time", tuple(found))
    try:
        year, month, day, hour, minute, second = parts
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        raise _wrong("$.params.day", f"expected a day of {parts[0]:04}-{parts[1]:02}, got {parts[2]}") from None
    if moment.astimezone(UTC).astimezone(zone).replace(fold=0) != moment.replace(fold=0):
        raise _wrong("$.params.hour", f"there is no {moment:%Y-%m-%d %H:%M} in {zone.key}: clocks go forward then")
    return {"time": moment.isoformat()}


def _ct_ratio(given: Any, zone: ZoneInfo) -> Arguments:
    ratio = int(given.ct_ratio)
    if ratio not in _RATIOS:
        raise _wrong("$.params.ct_ratio", f"expected one of {', '.join(map(str, _RATIOS))}, got {ratio}")
    return {"ct_ratio": ratio}


def _lcd(given: Any, zone: ZoneInfo) -> Arguments:
    items, found = [], []
    for position, item in enumerate(given.display_fields):
        number = _LCD_NUMBERS.get(item.casefold()) if isinstance(item, str) else item if item in LCD_ITEMS else None
        if number is None and isinstance(item, str) and item.isascii() and item.isdigit() and int(item[:4]) in LCD_ITEMS:
            number = int(item[:4])
        if number is None:
            hint = faults.nearest(item, LCD_ITEMS.values()) if isinstance(item, str) else ""
            came = repr(item[:40]) if isinstance(item, str) else item
            reason = f"expected the name of a field ({LCD_ITEMS[1]}, {LCD_ITEMS[3]}…) or its number (1 to 45, 47, 51), got {came}{hint}"
            found.append(FieldFault(f"$.params.display_fields[{position}]", reason))
        else:
            items.append(number)
    if found:
        raise InvalidInput("SetLCD", tuple(found))
    return {"items": items}


def _groups(given: Any, count: int, parts: Mapping[str, str]) -> Iterator[dict[str, int]]:
    """What is numbered in the parameters. A group is whole or absent. ``parts``: our name -> the parameter's, with ``{}`` for the number."""
    found: list[FieldFault] = []
    groups = []
    for number in range(1, count + 1):
        group = {name: getattr(given, pattern.format(number)) for name, pattern in parts.items()}
        missing = [parts[name].format(number) for name, value in group.items() if value is None]
        if not missing:
            groups.append(group)
            if "day" in parts and group["day"] > (last := _LAST_DAYS[group["month"]]):
                reason = f"expected 1 to {last} in month {group['month']}, got {group['day']}"
                found.append(FieldFault(f"$.params.{parts['day'].format(number)}", reason))
        elif len(missing) < len(parts):
            found += [FieldFault(f"$.params.{name}", f"is missing: the others of its group ({number}) are given") for name in missing]
    if found:
        raise InvalidInput("parameters", tuple(found))
    yield from groups


def _schedule(given: Any, zone: ZoneInfo) -> Arguments:
    periods = list(_groups(given, PERIODS, {"hour": "Hour_{}", "minute": "Min_{}", "tariff": "Tariff_{}"}))
    if not periods:
        raise _wrong("$.params.Hour_1", "is missing: a schedule has at least one period")
    return {"schedule": given.Schedule, "periods": periods}


def _seasons(given: Any, zone: ZoneInfo) -> Arguments:
    parts = {"month": "Season_{}_Start_Month", "day": "Season_{}_Start_Day", "schedule": "Season_{}_Schedule"}
    seasons = list(_groups(given, SEASONS, parts))
    if not seasons:
        raise _wrong("$.params.Season_1_Start_Month", "is missing: a year has at least one season")
    return {"seasons": seasons}


def _holidays(given: Any, zone: ZoneInfo) -> Arguments:
    dates = list(_groups(given, HOLIDAYS, {"month": "Holiday_{}_Month", "day": "Holiday_{}_Day"}))
    if not dates:
        raise _wrong("$.params.Holiday_1_Month", "is missing: there is at least one date")
    return {"dates": dates}


def _scan(given: Any, zone: ZoneInfo) -> Arguments:
    if int(given.last) < int(given.first):
        raise _wrong("$.params.to", f"expected at least from ({given.first}), got {given.last}")
    if (count := int(given.last) - int(given.first) + 1) > verbs.SCAN_LIMIT:
        raise _wrong("$.params.to", f"expected at most {verbs.SCAN_LIMIT} addresses from {given.first} on, got {count}")
    return {"first": given.first, "last": given.last}


_TRANSLATORS: Mapping[str, Callable[[Any, ZoneInfo], Arguments]] = {
    **{command: _nothing for commands in COMMANDS.values() for command in commands},
    "SetCTRatio": _ct_ratio,
    "SetTime": _clock,
    "SetDateTime": _clock,
    "SetMaxDemandResetInterval": lambda given, _: {"interval": _INTERVAL_NAMES[given.interval]},
    "SetMaxDemandPeriod": lambda given, _: {"period_min": _DEMAND_MINUTES[given.max_demand_period]},
    "SetLCD": _lcd,
    "SetPulseInputRatio": lambda given, _: {"line": given.pulse_line, "ratio": given.pulse_input_ratio},
    "SetPulseOutputRatio": lambda given, _: {"line": given.pulse_line, "ratio": given.pulse_output_ratio},
    "SetRelay": _relay,
    "SetHolidayDates": _holidays,
    "SetSchedule": _schedule,
    "SetSeasonSchedules": _seasons,
    "SetWeekendHolidaySchedules": lambda given, _: {
        "weekend_schedule": given.weekend_schedule,
        "holiday_schedule": given.holiday_schedule,
    },
    "ResetDICount": lambda given, _: {"pin": given.pin},
    "SetDOLevel": lambda given, _: {"pin": given.pin, "level": given.level, "clear_watch": given.clear_watch},
    "ScanMeters": _scan,
    "SetPollInterval": lambda given, _: {"interval_s": given.seconds},
}
