"""Orders of the core -> requests to a station, and what became of them (annex A7, A4.2; CONFORMANCE S1-S27 as the Central System, L13).

A ``conversation`` yields the requests of one order, is told each response, and returns the order's result. Every request is checked by the schema
before the first one leaves; a fault is named by its path in the order's arguments. What OS³P has no words for is refused, never left out silently.

**A large set of profiles** that does not fit into one message goes out lowest stack level first, the first message carrying ``clearAllSchedules``,
between an OverrideStreetlight Suspend and a ResumeStreetlight, so that no light switches in between (L13). Resume is sent whatever happens after an
accepted Suspend; what was written is verified after it, for which no light is held. A contactor that is under a remote override is held by that
already: it is neither suspended nor resumed, which would end it.

**A file or a firmware** is on its way when the order is done; what becomes of it are events with the order's ``requestId`` (``statuses.progress``).
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from gridloom.core import clock, faults, ids, verbs
from gridloom.core.errors import DeviceError, DeviceTimeout, FieldFault, GridloomError, InvalidInput, Refused
from gridloom.core.model import Command
from gridloom.core.settings import masked
from gridloom.integrations.os3p.errors import PayloadRefused
from gridloom.integrations.os3p.messages import (
    ChangeConfiguration,
    ClearSingleStreetlightProfile,
    GetConfiguration,
    GetEffectiveStreetlightDaySchedule,
    GetFile,
    Message,
    OverrideStreetlight,
    Period,
    PeriodBound,
    Reset,
    ResetMVFaultIndicator,
    ResumeStreetlight,
    SetStreetlightProfile,
    StreetlightProfile,
    TestMVFaultIndicator,
    TriggerMessage,
    UpdateFirmware,
)
from gridloom.integrations.os3p.reading import read, write
from gridloom.links.calls import CallRefused

LARGEST = 8_192
"""Bytes of a SetStreetlightProfile: more profiles than that are sent in parts. No document says what a station can take."""

Steps = Generator[Message, Any, Any]
"""Requests out, responses in; returns the result."""
Call = Callable[[str, bytes], Awaitable[bytes]]
"""Sends a payload as a CALL of this action and returns the payload of the answer. Raises CallRefused, DeviceTimeout, Offline, Refused."""
Verify = Callable[[int, Sequence[StreetlightProfile]], Steps]
"""A conversation about what was just written to a contactor; returns what the order's result says of it, as ``verification``."""


class Known(msgspec.Struct, frozen=True):
    """What the hub knows of the station at this moment.

    ``url``: where the hub itself takes or offers the file of the order; ``overridden``: the contactors under a remote override;
    ``max_stack_level``: the station's StreetlightProfileMaxStackLevel; ``largest``: bytes of a message with profiles.
    """

    url: str | None = None
    overridden: frozenset[int] = frozenset()
    max_stack_level: int | None = None
    largest: int = LARGEST


NOTHING = Known()


async def execute(command: Command, call: Call, known: Known = NOTHING, *, verify: Verify | None = None) -> Any:
    """Carry out an order. Returns JSON values.

    Raises InvalidInput and Refused (Offline) when nothing was sent, DeviceError when the station said no, DeviceTimeout. When it is cancelled, what
    must not stay half done (a suspended light) is still brought to its end.
    """
    return await run(conversation(command, known, verify=verify), call)


async def run(steps: Steps, call: Call) -> Any:
    """Carry out a conversation. Returns what it returns, raises what it raises; as ``execute`` when it is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    try:
        request = next(steps)
        while True:
            action = type(request).__name__
            try:
                answer = await call(action, write(request))
                response = _read(action, answer)
            except GridloomError as error:
                request = steps.throw(error)
            except asyncio.CancelledError as error:
                cancelled = error
                request = steps.throw(DeviceTimeout("the order was given up while it was under way"))
            else:
                request = steps.send(response)
    except StopIteration as stop:
        if cancelled is not None:
            raise cancelled from None
        return stop.value
    except GridloomError:
        if cancelled is not None:
            raise cancelled from None
        raise


def _read(action: str, answer: bytes) -> Any:
    try:
        return read(action, answer, "server", response=True).message
    except PayloadRefused as error:
        raise DeviceError(f"the station's answer to {action} cannot be understood: {error.description}") from None


def conversation(command: Command, known: Known = NOTHING, *, verify: Verify | None = None) -> Steps:
    """The conversation of an order of VERBS. Raises InvalidInput and Refused at its first step, DeviceError when the station says no."""
    arguments = verbs.validate(command.verb, command.arguments)
    if command.verb == _SCHEDULE:
        return (yield from _schedule(arguments, known, verify))
    order = _ORDERS[command.verb]
    request = order.request(arguments, command, known)
    response = yield from ask(_checked(request))
    return order.result(request, response)


def request_id(command: Command) -> str:
    """The requestId that a station echoes: the operator's own, else 22 characters made of the order's id, short enough for both schemas (I6)."""
    given = command.arguments.get("request_id")
    return given if isinstance(given, str) else ids.digest("os3p", command.id)


# ------------------------------------------------------------------------------------------------------------- asking, being told


def ask(request: Message) -> Steps:
    """One request. Raises DeviceError in words when the station answers with a CALLERROR (A4.2)."""
    try:
        return (yield request)
    except CallRefused as error:
        what = type(request).__name__
        words = _CODES.get(error.error_code, "the station could not carry out {what}").format(what=what)
        described = f": {error.description}" if error.description else ""
        raise DeviceError(f"{words} ({error.error_code}{described})") from None


_CODES: Mapping[str, str] = MappingProxyType(
    {
        "NotImplemented": "the station does not have {what}",
        "NotSupported": "the station has {what}, but cannot do this",
        "SecurityError": "the station does not allow {what}",
        "ProtocolError": "the station takes {what} for incomplete",
        "FormationViolation": "the station does not understand {what}",
        "PropertyConstraintViolation": "the station does not take a value in {what}",
        "OccurenceConstraintViolation": "the station misses something in {what}, or finds too much",
        "TypeConstraintViolation": "the station does not take a type in {what}",
    }
)
_STATUSES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("*", "RejectedLocalOverride"): "a local override, by a switch in the station, is active",
        ("TestMVFaultIndicator", "RejectedAlreadyFaulted"): "an indicator is in alarm or under test already",
        ("TestMVFaultIndicator", "Rejected"): "it has no medium-voltage fault indicator",
        ("ResetMVFaultIndicator", "Rejected"): "it has no medium-voltage fault indicator",
        ("ClearSingleStreetlightProfile", "Unknown"): "it has no such profile",
        ("ChangeConfiguration", "Rejected"): "the key is unknown, may only be read, or does not take this value",
        ("*", "NotImplemented"): "it does not have this",
    }
)


def _accepted(request: Message, response: Any) -> dict[str, Any]:
    """Raises DeviceError unless the station accepted."""
    if response.status != "Accepted":
        action = type(request).__name__
        why = _STATUSES.get((action, response.status)) or _STATUSES.get(("*", response.status), "it gives no reason")
        raise DeviceError(f"the station rejects {action}: {why} ({response.status})")
    return {"status": "Accepted"}


NAMES: Mapping[str, str] = MappingProxyType(
    {
        "contactorId": "contactor", "connectorId": "contactor", "clearAllSchedules": "clear_all", "streetlightProfiles": "profiles",
        "profileId": "profile_id", "stackLevel": "stack_level", "recurrencyKind": "recurrence", "validFrom": "valid_from", "validTo": "valid_to",
        "daySchedule": "day_schedule", "offset": "offset_s", "requestedMessage": "message", "fileType": "what", "startTime": "begin",
        "stopTime": "end", "retrieveDate": "retrieve_time", "retryInterval": "retry_interval_s", "requestId": "request_id", "at": "date",
    }
)  # fmt: skip
"""The names of arguments by their names on the wire."""


def _checked(request: Message) -> Message:
    """The request, which the schema allows. Raises InvalidInput with paths in the order's arguments."""
    try:
        write(request)
    except InvalidInput as error:
        found = tuple(FieldFault(re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), fault.path), fault.reason) for fault in error.faults)
        raise InvalidInput(faults.summary(f"{type(request).__name__} cannot be sent", found), found) from None
    return request


def _wrong(path: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{path}: {reason}", (FieldFault(path, reason),))


def _moment(moment: datetime.datetime | None) -> str | None:
    """To the second, in UTC."""
    return None if moment is None else _at(clock.from_datetime(moment))


def _at(moment: int) -> str:
    return clock.rfc3339(moment // 1_000_000 * 1_000_000)


# ------------------------------------------------------------------------------------------------------------ orders of one request


def _trigger(arguments: verbs.DeviceTrigger, command: Command, known: Known) -> Message:
    """I7: a contactor for the two street-light messages only."""
    if arguments.connector is not None:
        raise _wrong("$.connector", "a substation has no connectors; a street light is a contactor")
    if arguments.contactor is not None and not arguments.message.startswith("Streetlight"):
        raise _wrong("$.contactor", f"{arguments.message} is not of a contactor")
    return TriggerMessage(requestedMessage=arguments.message, connectorId=arguments.contactor)  # type: ignore[arg-type]  # checked by the schema


def _reset(arguments: verbs.DeviceReset, command: Command, known: Known) -> Message:
    if arguments.kind == "soft":
        raise _wrong("$.kind", "OS³P has the hardware reset only (A7.8)")
    return Reset()


def _get_file(arguments: verbs.DeviceFilesGet, command: Command, known: Known) -> Message:
    types = {"syslog": "Syslog", "meter_value_history": "MeterValueHistory", "vendor_specific": "VendorSpecific"}
    if arguments.what not in types:
        raise _wrong("$.what", f"OS³P has {', '.join(types)} (A7.5)")
    for name in ("retries", "retry_interval_s"):
        if getattr(arguments, name) is not None:
            raise _wrong(f"$.{name}", "OS³P's GetFile has no retries (A7.5)")
    return GetFile(
        requestId=request_id(command),
        fileType=types[arguments.what],  # type: ignore[arg-type]
        location=_location(arguments.location, known),
        startTime=_moment(arguments.begin),
        stopTime=_moment(arguments.end),
    )


def _file_result(request: Message, response: Any) -> dict[str, Any]:
    _accepted(request, response)
    return {"status": "Accepted", "requestId": getattr(request, "requestId", ""), "fileName": masked(response.fileName)}


def _update(arguments: verbs.DeviceFirmwareUpdate, command: Command, known: Known) -> Message:
    for name in ("install_time", "signing_certificate", "signature"):
        if getattr(arguments, name) is not None:
            raise _wrong(f"$.{name}", "OS³P's UpdateFirmware has no such thing (A7.13)")
    return UpdateFirmware(
        retrieveDate=_moment(arguments.retrieve_time) or _at(command.created),
        location=_location(arguments.location, known),
        retries=arguments.retries,
        retryInterval=arguments.retry_interval_s,
        requestId=request_id(command),
    )


def _location(given: str | None, known: Known) -> str:
    location = given or known.url
    if location is None:
        raise Refused("the hub has no place for files of its own: give a location")
    return location


def _configuration(request: Message, response: Any) -> dict[str, Any]:
    return {
        "keys": [{"key": one.key, "value": _shown(one.key, one.value), "readonly": one.readonly} for one in response.configurationKey],
        "unknown": list(response.unknownKey),
    }


def _shown(key: str, value: str | None) -> str | None:
    return None if value is None else verbs.without_credentials(key, value)


def _clear(arguments: verbs.LightScheduleClear, command: Command, known: Known) -> Message:
    """I26: profileId or stackLevel, never both; neither only when ``everything`` says so (I27)."""
    return ClearSingleStreetlightProfile(profileId=arguments.profile_id, contactorId=arguments.contactor, stackLevel=arguments.stack_level)


def _effective(request: Message, response: Any) -> dict[str, Any]:
    """``periods`` in local time, in the order of the day from noon to noon (I38)."""
    return {"contactor": response.contactorId, "periods": [{"start": one.start, "end": one.end} for one in response.daySchedule]}


class _Order(NamedTuple):
    request: Callable[[Any, Command, Known], Message]
    result: Callable[[Message, Any], dict[str, Any]] = _accepted


_SCHEDULE = "light.schedule.set"
_ORDERS: Mapping[str, _Order] = MappingProxyType(
    {
        "device.configuration.set": _Order(lambda arguments, *_: ChangeConfiguration(key=arguments.key, value=arguments.value)),
        "device.configuration.get": _Order(lambda arguments, *_: GetConfiguration(key=tuple(arguments.keys)), _configuration),
        "device.files.get": _Order(_get_file, _file_result),
        "device.firmware.update": _Order(_update, lambda request, _: {"requestId": getattr(request, "requestId", "")}),
        "device.reset": _Order(_reset),
        "device.trigger": _Order(_trigger),
        "light.override": _Order(lambda arguments, *_: OverrideStreetlight(contactorId=arguments.contactor, action=arguments.action.capitalize())),
        "light.resume": _Order(lambda arguments, *_: ResumeStreetlight(contactorId=arguments.contactor)),
        "light.schedule.clear": _Order(_clear),
        "light.schedule.get": _Order(
            lambda arguments, *_: GetEffectiveStreetlightDaySchedule(contactorId=arguments.contactor, at=_day(arguments.date)), _effective
        ),
        "os3p.fault_indicator.reset": _Order(lambda *_: ResetMVFaultIndicator()),
        "os3p.fault_indicator.test": _Order(lambda *_: TestMVFaultIndicator()),
    }
)

VERBS = (*_ORDERS, _SCHEDULE)
"""What can be ordered of a station."""


# ------------------------------------------------------------------------------------------------------------------- the schedule


def _schedule(arguments: verbs.LightScheduleSet, known: Known, verify: Verify | None) -> Steps:
    contactor = arguments.contactor
    profiles = [_profile(one) for one in arguments.profiles]
    for index, one in enumerate(profiles):
        if known.max_stack_level is not None and one.stackLevel > known.max_stack_level:
            raise _wrong(f"$.profiles[{index}].stack_level", f"expected at most {known.max_stack_level}, got {one.stackLevel}")
    # As a whole first: its paths are those of the arguments.
    _checked(SetStreetlightProfile(contactorId=contactor, clearAllSchedules=arguments.clear_all, streetlightProfiles=tuple(profiles)))
    parts = [
        SetStreetlightProfile(contactorId=contactor, clearAllSchedules=arguments.clear_all and not index, streetlightProfiles=part)
        for index, part in enumerate(_parts(profiles, known.largest))
    ]
    writing = _written(parts)
    if len(parts) == 1 or contactor in known.overridden:
        yield from writing
    else:
        yield from _suspended(contactor, writing)
    result = {"status": "Accepted", "messages": len(parts), "profiles": len(profiles)}
    if verify is not None:
        result["verification"] = yield from verify(contactor, profiles)
    return result


def _written(parts: Sequence[SetStreetlightProfile]) -> Steps:
    """All parts. What fails after the first part says that the station has some of the profiles."""
    for index, part in enumerate(parts):
        try:
            _accepted(part, (yield from ask(part)))
        except (DeviceError, DeviceTimeout, Refused) as error:
            if index == 0:
                raise
            words = f"the station has {index} of {len(parts)} parts of the schedule: {error.message}"
            raise (DeviceTimeout(words) if isinstance(error, DeviceTimeout) else DeviceError(words)) from None


def _suspended(contactor: int, writing: Steps) -> Steps:
    """``writing`` while the lights of the contactor keep their state (A7.10); then Resume, also when it is not known whether Suspend was done."""
    suspend = OverrideStreetlight(contactorId=contactor, action="Suspend")
    failed: GridloomError | None = None
    try:
        _accepted(suspend, (yield from ask(suspend)))
    except DeviceTimeout as error:
        failed = error
    if failed is None:
        try:
            yield from writing
        except Refused as error:  # the connection ended: what is told as a refusal would mean that nothing was sent
            failed = DeviceError(error.message)
        except (DeviceError, DeviceTimeout) as error:
            failed = error
    resume = ResumeStreetlight(contactorId=contactor)
    try:
        _accepted(resume, (yield from ask(resume)))
    except (DeviceError, DeviceTimeout, Refused) as error:
        before = f"{failed.message}; " if failed is not None else "the schedule is written, but "
        raise DeviceError(f"{before}the lights of contactor {contactor} stay suspended: {error.message}") from None
    if failed is not None:
        raise failed


def _parts(profiles: Sequence[StreetlightProfile], largest: int) -> list[tuple[StreetlightProfile, ...]]:
    """Lowest stack level first, each part at most ``largest`` bytes, but at least one profile."""
    parts: list[list[StreetlightProfile]] = [[]]
    room = largest - _ENVELOPE
    for one in sorted(profiles, key=lambda profile: profile.stackLevel):
        size = len(msgspec.json.encode(one)) + 1
        if parts[-1] and size > room:
            parts.append([])
            room = largest - _ENVELOPE
        parts[-1].append(one)
        room -= size
    return [tuple(part) for part in parts]


_ENVELOPE = 160
"""Bytes of a SetStreetlightProfile and its CALL without profiles."""


def _profile(one: verbs.LightProfile) -> StreetlightProfile:
    return StreetlightProfile(
        profileId=one.profile_id,
        stackLevel=one.stack_level,
        recurrencyKind=one.recurrence.capitalize(),  # type: ignore[arg-type]
        validFrom=None if one.valid_from is None else _day(one.valid_from),
        validTo=None if one.valid_to is None else _day(one.valid_to),
        daySchedule=tuple(Period(start=_bound(period.start), end=_bound(period.end)) for period in one.day_schedule),
    )


def _bound(moment: verbs.LightMoment) -> PeriodBound:
    """I34: what is superfluous is not sent."""
    if moment.kind == "absolute":
        return PeriodBound(kind="Absolute", time=moment.time)
    return PeriodBound(kind="Sunset" if moment.kind == "sunset" else "Sunrise", offset=moment.offset_s)


def _day(date: datetime.date) -> str:
    """I5: midnight without an offset; only the date counts."""
    return f"{date.isoformat()}T00:00:00"
