"""What a station says about itself -> events and alarms of the core (annex A6.2, A6.3, A6.6-A6.8; CONFORMANCE N1-N3, N9-N12, N14-N21). Pure.

**Alarms.** An error code raises an alarm of its kind. Errors of a hardware test are alarms of the subject ``test``, no more than INFO (N11); those of
the vendor have the vendor's code as subject (N10), as far as they are not too many. An alarm ends by its fixed string in ``info`` (N12), and all of
them when the station says that it is Ok and there is no error (N9: ``status`` is of the station as a whole). The end of a test does not end a real
error; the end of an error also ends its test. Which alarms are raised the caller says (``raised``). Each notification is an event of its own, for a
station whose clock stands still may tell two errors of the same moment. Credentials in its texts are masked.

**Street lights.** The events are guaranteed: their ids are made of what makes them the same (N21). A contactor left out means all (N15): their
subject is empty.

**Times** are the station's where it gives one, else of the arrival.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from gridloom.core import events, ids
from gridloom.core.model import Context, Event, EventState, MeterReading, Reading, ReadingType, Severity, TimeSource
from gridloom.core.settings import masked
from gridloom.integrations.os3p.mapping import when
from gridloom.integrations.os3p.messages import (
    FirmwareStatusNotification,
    GetFileStatusNotification,
    StatusNotification,
    StreetlightModeStatusNotification,
    StreetlightStatusNotification,
)

TEST = "test"
FAULTED = "station.faulted"
NO_ERROR, OTHER_ERROR = "NoError", "OtherError"
OTHER = "other"
MOST_SUBJECTS = 100
"""Errors of the vendor that are alarms of their own, of one station; more are one alarm, whose subject is ``other``."""
_LONGEST_SUBJECT = 120

# ----------------------------------------------------------------------------------------------------------------- error codes


class Error(msgspec.Struct, frozen=True):
    """One error code: the alarm it raises, and the string in ``info`` that resolves it ("" where only "Ok without an error" does)."""

    code: str
    kind: str
    resolved: str
    clause: str

    @property
    def severity(self) -> Severity:
        """Of a real error; that of a test is INFO."""
        return events.TABLE[self.kind].severity


ERRORS: Mapping[str, Error] = MappingProxyType(
    {
        row.code: row
        for row in (
            Error("GroundFailure", "fault.ground", "Ground failure resolved", "A6.6 tables 5, 6"),
            Error("HighTemperature", "fault.temperature", "", "A6.6 schema"),
            Error("MVFaultIndicatorError", "fault.indicator", "Indicator fault (MV) resolved", "A6.6 tables 5, 6"),
            Error(OTHER_ERROR, "fault.other", "", "A6.6 table 4"),
            Error("OverCurrentFailure", "fault.overcurrent", "Over current error (MV) resolved", "A6.6 tables 5, 6"),
            Error("PowerMeterFailure", "fault.meter", "", "A6.6 schema"),
            Error("PowerSwitchFailure", "fault.switch", "", "A6.6 schema"),
            Error("ResetFailure", "fault.reset", "", "A6.6 schema"),
            Error("UnderVoltage", "fault.undervoltage", "", "A6.6 schema"),
            Error("OverVoltage", "fault.overvoltage", "", "A6.6 schema"),
            Error("WeakSignal", "fault.signal", "", "A6.6 schema"),
        )
    }
)
"""Every error code but NoError, which is none."""

VENDORS = ERRORS[OTHER_ERROR].kind
"""The alarms of which there may be many at once."""

KINDS = frozenset({row.kind for row in ERRORS.values()} | {FAULTED})
"""The alarms that StatusNotifications raise and end."""

_RESOLVED = MappingProxyType({row.resolved.lower(): row for row in ERRORS.values() if row.resolved})

Alarm = tuple[str, str]
"""Kind and subject."""


def status(
    message: StatusNotification, device: str, received: int, raised: Collection[Alarm], subjects: Collection[str] = frozenset()
) -> list[Event]:
    """The events of a StatusNotification. ``raised``: (kind, subject) of the device's alarms that are raised now, of KINDS or any; ``subjects``: of
    the vendor's errors that the device told before, whether or not they are raised now.

    ``received`` in µs UTC. Told are changes of ``station.faulted``, every error (also again), and the ends that this message means; text that ends
    nothing is ``fault.resolved``.
    """
    told = _Told(message, device, received)
    raised = [alarm for alarm in raised if alarm[0] in KINDS]
    ok = message.status == "Ok"
    if message.errorCode != NO_ERROR:
        told.error({subject for kind, subject in raised if kind == VENDORS}.union(subjects))
    else:
        ends = _ends(told.info, bool(message.test), raised)
        if told.info and not ends:
            told.event("fault.resolved", EventState.OCCURRED, "", told.info)
        if ok:
            ends += [alarm for alarm in sorted(raised) if alarm not in ends and alarm[0] != FAULTED]
        for kind, subject in ends:
            told.event(kind, EventState.CLEARED, subject, told.info or "The station is Ok and tells no error.")
    if ok and (FAULTED, "") in raised:
        told.event(FAULTED, EventState.CLEARED, "", "The station is Ok.")
    elif not ok and not message.test and (FAULTED, "") not in raised:
        told.event(FAULTED, EventState.RAISED, "", "The station is faulted.")
    return told.events


def _ends(info: str, test: bool, raised: Collection[Alarm]) -> list[Alarm]:
    """What one of the fixed strings ends (N12, I29)."""
    row = _RESOLVED.get(info.lower())
    if row is None:
        return []
    ended_test = (row.kind, TEST)
    if test:
        return [ended_test]
    return [(row.kind, ""), ended_test] if ended_test in raised else [(row.kind, "")]


class _Told:
    """The events of one StatusNotification."""

    def __init__(self, message: StatusNotification, device: str, received: int) -> None:
        self.message = message
        self.device = device
        self.received = received
        self.info = masked((message.info or "").strip())
        self.vendor, self.code = masked(message.vendorId or ""), masked(message.vendorErrorCode or "")
        self.time, self.source = when(message.timestamp, received)
        self.events: list[Event] = []
        given = {"info": self.info, "vendorId": self.vendor, "vendorErrorCode": self.code, "test": message.test}
        self.data = {"status": message.status, "code": masked(message.errorCode), **{name: value for name, value in given.items() if value}}

    def error(self, subjects: Collection[str]) -> None:
        """The alarm of the error code; a code that the document does not have is another error, and its own subject, if it is in ``subjects`` or
        there is room for it.
        """
        message, row = self.message, ERRORS.get(self.message.errorCode)
        subject = ""
        if row is None or row.code == OTHER_ERROR:
            words = (self.vendor, self.code) if row else (masked(message.errorCode),)
            subject = ":".join(word for word in words if word)
        row = row or ERRORS[OTHER_ERROR]
        words = (f"{subject}: {self.info}" if subject and self.info else subject or self.info, row.code)
        severity = row.severity
        if message.test:
            subject, severity = f"{TEST}:{subject}" if subject else TEST, Severity.INFO
        if row.kind == VENDORS and subject[:_LONGEST_SUBJECT] not in subjects and len(subjects) >= MOST_SUBJECTS:
            subject = f"{TEST}:{OTHER}" if message.test else OTHER
        self.event(row.kind, EventState.RAISED, subject, words[0] or words[1], severity)

    def event(self, kind: str, state: EventState, subject: str, message: str, severity: Severity | None = None) -> None:
        self.events.append(
            Event(
                id=ids.unique(self.received),
                kind=kind,
                device=self.device,
                time=self.time,
                received=self.received,
                severity=severity or events.TABLE[kind].severity,
                state=state,
                source=self.source,
                subject=subject[:_LONGEST_SUBJECT],
                message=message,
                data=self.data,
            )
        )


# ---------------------------------------------------------------------------------------------------------------- street lights


class LightChange(NamedTuple):
    """What a guaranteed notification says: of ``contactor`` (None: of all) ``field`` has become ``value``; and the event of it."""

    contactor: int | None
    field: Literal["status", "mode"]
    value: str
    event: Event


def light(message: StreetlightStatusNotification | StreetlightModeStatusNotification, device: str, received: int) -> LightChange:
    """The change that a Streetlight notification tells. Its event has the same id whenever it is delivered (N21); ``received`` in µs UTC."""
    contactor = message.contactorId
    time, source = when(message.timestamp, received)
    key = str(time) if source is TimeSource.DEVICE else message.timestamp  # a second delivery must have the same
    who = "All contactors" if contactor is None else f"Contactor {contactor}"
    field: Literal["status", "mode"]
    if isinstance(message, StreetlightStatusNotification):
        action, field, value = "StreetlightStatusNotification", "status", str(message.status)
        kind = "light.switched.unexpectedly" if message.unexpected else "light.switched"
        words = f"{who} went {value.lower()}{' without an order of the station' if message.unexpected else ''}."
    else:
        action, field, value = "StreetlightModeStatusNotification", "mode", str(message.mode)
        kind, words = "light.mode.changed", f"{who}: {value}."
    event = Event(
        id=ids.digest(device, action, "" if contactor is None else str(contactor), key, value),
        kind=kind,
        device=device,
        time=time,
        received=received,
        severity=events.TABLE[kind].severity,
        source=source,
        subject="" if contactor is None else f"contactor:{contactor}",
        message=words,
        data={"contactor": contactor, field: value},
    )
    return LightChange(contactor, field, value, event)


def light_reading(change: LightChange) -> MeterReading | None:
    """``Contactor.State`` of a switch (1 is on), for charts; None for a change of mode, and where no contactor is named."""
    if change.field != "status" or change.contactor is None:
        return None
    event = change.event
    type = ReadingType("Contactor.State", "1", location=f"contactor:{change.contactor}")
    reading = Reading(type, int(change.value == "On"), context=Context.OTHER)
    return MeterReading(event.device, event.time, event.received, (reading,), event.source)


# ----------------------------------------------------------------------------------------------------------- files and firmware


class Progress(NamedTuple):
    """What a status notification says of a transfer that goes on by itself.

    ``request`` is the requestId of the order, "" when none was sent; ``done``: True and False end the order, None does not. ``event`` is None when
    nothing goes on.
    """

    request: str
    done: bool | None
    words: str
    event: Event | None


class _Step(NamedTuple):
    kind: str
    done: bool | None
    words: str


FIRMWARE: Mapping[str, _Step] = MappingProxyType(
    {
        "Downloading": _Step("device.firmware.progress", None, "The station downloads the firmware."),
        "Downloaded": _Step("device.firmware.progress", None, "The station has downloaded the firmware."),
        "DownloadFailed": _Step("device.firmware.failed", False, "The station could not download the firmware."),
        "Installing": _Step("device.firmware.progress", None, "The station installs the firmware."),
        "InstallationFailed": _Step("device.firmware.failed", False, "The station could not install the firmware."),
        "Installed": _Step("device.firmware.installed", True, "The station has installed the firmware."),
    }
)
"""What a FirmwareStatusNotification means (A6.3); ``None`` is nothing: no update goes on (N3), perhaps not yet."""

FILE: Mapping[str, _Step] = MappingProxyType(
    {
        "Uploading": _Step("device.file.progress", None, "The station uploads the file."),
        "Uploaded": _Step("device.file.uploaded", True, "The station has uploaded the file."),
        "UploadFailed": _Step("device.file.failed", False, "The station could not upload the file."),
    }
)
"""What a GetFileStatusNotification means (A6.2)."""


def progress(message: FirmwareStatusNotification | GetFileStatusNotification, device: str, received: int) -> Progress:
    """The event of a status notification of a transfer, and whether it ends the order of that requestId (N1, N2). ``received`` in µs UTC."""
    request = message.requestId or ""
    step = (FIRMWARE if isinstance(message, FirmwareStatusNotification) else FILE).get(message.status)
    if step is None:
        return Progress(request, None, "", None)
    data: dict[str, Any] = {"status": message.status, **({"requestId": request} if request else {})}
    event = Event(
        id=ids.unique(received),
        kind=step.kind,
        device=device,
        time=received,
        received=received,
        severity=events.TABLE[step.kind].severity,
        message=step.words,
        data=data,
    )
    return Progress(request, step.done, step.words, event)
