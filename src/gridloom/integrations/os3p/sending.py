"""A message that an operator sends by its name on the wire -> the order of the core that is carried out as this message (annex A7).

Roles, the durable queue, audit and results are those of orders; the words are those of the document, also in what is refused: every fault is named
by its path in the ``payload``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gridloom.core import faults
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.integrations.os3p import messages as wire
from gridloom.integrations.os3p.orders import NAMES
from gridloom.integrations.os3p.reading import write


class Order(NamedTuple):
    """A verb of ``core.verbs`` and its arguments."""

    verb: str
    arguments: dict[str, Any]


class _Row(NamedTuple):
    verb: str
    arguments: Callable[[Any], dict[str, Any]] = lambda message: {}


def _bound(bound: wire.PeriodBound) -> dict[str, Any]:
    return _given(kind=bound.kind.lower(), time=bound.time, offset_s=bound.offset)


def _profile(profile: wire.StreetlightProfile) -> dict[str, Any]:
    return _given(
        profile_id=profile.profileId,
        stack_level=profile.stackLevel,
        recurrence=profile.recurrencyKind.lower(),
        valid_from=_day(profile.validFrom),
        valid_to=_day(profile.validTo),
        day_schedule=[{"start": _bound(period.start), "end": _bound(period.end)} for period in profile.daySchedule],
    )


def _day(text: str | None) -> str | None:
    """I5: the date alone."""
    return None if text is None else text[:10]


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


_FILES = {"Syslog": "syslog", "MeterValueHistory": "meter_value_history", "VendorSpecific": "vendor_specific"}
_ROWS: Mapping[str, _Row] = MappingProxyType(
    {
        "ChangeConfiguration": _Row("device.configuration.set", lambda one: {"key": one.key, "value": one.value}),
        "ClearSingleStreetlightProfile": _Row(
            "light.schedule.clear", lambda one: _given(profile_id=one.profileId, contactor=one.contactorId, stack_level=one.stackLevel)
        ),
        "GetConfiguration": _Row("device.configuration.get", lambda one: {"keys": list(one.key or ())}),
        "GetEffectiveStreetlightDaySchedule": _Row("light.schedule.get", lambda one: {"contactor": one.contactorId, "date": _day(one.at)}),
        "GetFile": _Row(
            "device.files.get",
            lambda one: _given(what=_FILES[one.fileType], location=one.location, begin=one.startTime, end=one.stopTime, request_id=one.requestId),
        ),
        "OverrideStreetlight": _Row("light.override", lambda one: _given(action=one.action.lower(), contactor=one.contactorId)),
        "Reset": _Row("device.reset"),
        "ResetMVFaultIndicator": _Row("os3p.fault_indicator.reset"),
        "ResumeStreetlight": _Row("light.resume", lambda one: _given(contactor=one.contactorId)),
        "SetStreetlightProfile": _Row(
            "light.schedule.set",
            lambda one: _given(
                contactor=one.contactorId, clear_all=one.clearAllSchedules, profiles=[_profile(profile) for profile in one.streetlightProfiles]
            ),
        ),
        "TestMVFaultIndicator": _Row("os3p.fault_indicator.test"),
        "TriggerMessage": _Row("device.trigger", lambda one: _given(message=one.requestedMessage, contactor=one.connectorId)),
        "UpdateFirmware": _Row(
            "device.firmware.update",
            lambda one: _given(
                location=one.location, retrieve_time=one.retrieveDate, retries=one.retries, retry_interval_s=one.retryInterval,
                request_id=one.requestId,
            ),
        ),
    }
)  # fmt: skip
MESSAGES = tuple(_ROWS)
"""The messages that can be sent to a station."""
VERBS = tuple(sorted({row.verb for row in _ROWS.values()}))
"""What can be ordered of a station."""

_WIRE = {ours: theirs for theirs, ours in NAMES.items() if theirs != "connectorId"}
_OWN_PLACE = "http://hub/"
"""Stands for a location that the hub fills in when the order is carried out."""
_NOW = "1970-01-01T00:00:00Z"


def verb(message: str) -> str:
    """Of the order that this message is. Raises InvalidInput."""
    row = _ROWS.get(message)
    if row is None:
        raise _wrong("$.message", f"{message[:60]!r} is no message to a station{faults.nearest(message, _ROWS)}; there are {', '.join(_ROWS)}")
    return row.verb


def order(message: str, payload: Mapping[str, Any], *, file: str | None = None, everything: bool = False) -> Order:
    """The order that a message with this payload is.

    Beyond the document: GetFile without ``location`` goes to the hub itself, UpdateFirmware may name a firmware of the hub (``file``) instead of a
    ``location`` and leave ``retrieveDate`` out (now); a ClearSingleStreetlightProfile that clears everything has to say so (I27).
    Raises InvalidInput with every path, before anything is ordered.
    """
    found = verb(message)
    filled = dict(payload)
    if message == "GetFile":
        filled.setdefault("location", _OWN_PLACE)
    elif message == "UpdateFirmware":
        filled.setdefault("retrieveDate", _NOW)
        if file is not None and "location" not in payload:
            filled["location"] = _OWN_PLACE
    if file is not None and (message != "UpdateFirmware" or "location" in payload):
        raise _wrong("$.file", "is for UpdateFirmware without a location")
    arguments = _ROWS[message].arguments(_checked(message, filled))
    for name, here in (("location", "location"), ("retrieve_time", "retrieveDate")):
        if here not in payload:
            arguments.pop(name, None)
    if file is not None:
        arguments["file"] = file
    if message == "ClearSingleStreetlightProfile":
        if not {"profile_id", "stack_level"} & set(arguments) and not everything:
            raise _wrong("$.everything", "must be true: without profileId and stackLevel every profile (of the contactor) is erased (I27)")
        if everything:
            arguments["everything"] = True
    elif everything:
        raise _wrong("$.everything", "is for ClearSingleStreetlightProfile")
    return Order(found, arguments)


def _checked(message: str, payload: Mapping[str, Any]) -> Any:
    """The payload as the schema has it. Raises InvalidInput."""
    what = f"{message} cannot be sent"
    read = faults.read(wire.ACTIONS[message].request, dict(payload), what, path="$.payload", hide=("location",))
    try:
        write(read)
    except InvalidInput as error:
        found = tuple(FieldFault(fault.path.replace("$", "$.payload", 1), fault.reason) for fault in error.faults)
        raise InvalidInput(faults.summary(what, found), found) from None
    return read


def in_its_words(message: str, error: InvalidInput) -> InvalidInput:
    """The faults of an order, in the words of the message."""
    found = tuple(FieldFault(_path(message, fault.path), re.sub(r"\w+_\w+", _word, fault.reason)) for fault in error.faults)
    return InvalidInput(faults.summary(f"{message} cannot be sent", found), found) if found else error


def _path(message: str, path: str) -> str:
    if not path.startswith("$.arguments"):
        return path
    path = path.replace("$.arguments", "$", 1)
    if message == "TriggerMessage":
        path = path.replace("contactor", "connectorId")
    if message == "GetConfiguration":
        path = path.replace("keys", "key")
    return re.sub(r"\w+", _word, path).replace("$", "$.payload", 1)


def _word(found: re.Match[str]) -> str:
    return _WIRE.get(found[0], found[0])


def _wrong(path: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{path}: {reason}", (FieldFault(path, reason),))
