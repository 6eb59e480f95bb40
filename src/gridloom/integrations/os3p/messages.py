"""The 42 messages of OS³P (annex 0.4, A6 and A7): 21 actions, each a request and a response, spelled as on the wire.

What an optional field does not say is None, or the default that the document gives it. JSON null is not absence; ``reading.read`` sees to it.
``reading`` reads and writes them; these types alone are the schemas but for what a type cannot say (a calendar, a URI, fields that need each other).

Moments are RFC 3339 text as the station wrote it: ``moment`` makes µs UTC of it. The three dates of the street lights (``at``, ``validFrom``,
``validTo``) are local text of which only the first ten characters count (I5): ``day``. Both take every text that ``reading`` lets through.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

# ----------------------------------------------------------------------------------------------------------------- words of the wire

Moment = Annotated[str, Meta(description="a date and time with its offset (RFC 3339)", extra_json_schema={"format": "date-time"})]
LocalDay = Annotated[
    str, Meta(description="YYYY-MM-DDT00:00:00 without offset; only the date counts (I5)", extra_json_schema={"format": "local-day"})
]
Uri = Annotated[str, Meta(description="RFC 3986", extra_json_schema={"format": "uri"})]
Contactor = Annotated[int, Meta(ge=1, le=4)]
"""One of the four contactors of a station (A8.1); the document names two of them."""
Natural = Annotated[int, Meta(ge=0)]
Id36 = Annotated[str, Meta(max_length=36)]
"""A requestId: the two status notifications echo what GetFile and UpdateFirmware gave, so they too take 36 characters (I6)."""
Text10 = Annotated[str, Meta(max_length=10)]
Text20 = Annotated[str, Meta(max_length=20)]
Text25 = Annotated[str, Meta(max_length=25)]
Text50 = Annotated[str, Meta(max_length=50)]
Text64 = Annotated[str, Meta(max_length=64)]
Text128 = Annotated[str, Meta(max_length=128)]

YesNo = Literal["Accepted", "Rejected"]
OverrideResult = Literal["Accepted", "Rejected", "RejectedLocalOverride"]
FileStatus = Literal["None", "Uploaded", "Uploading", "UploadFailed"]
FirmwareStatus = Literal["None", "Downloading", "Downloaded", "DownloadFailed", "Installing", "InstallationFailed", "Installed"]
Mode = Literal["Schedule", "LocalOverride", "RemoteOverride"]
Context = Literal["Interruption.Begin", "Interruption.End", "Sample.Clock", "Sample.Periodic", "Trigger", "Other"]
Location = Literal["In", "Out", "Body", "P1Meter"]
Unit = Literal["Wh", "kWh", "varh", "kvarh", "W", "kW", "VA", "VAh", "kVA", "var", "kvar", "A", "V", "K", "Hz", "C", "%"]
ErrorCode = Literal[
    "GroundFailure",
    "HighTemperature",
    "MVFaultIndicatorError",
    "NoError",
    "OtherError",
    "OverCurrentFailure",
    "PowerMeterFailure",
    "PowerSwitchFailure",
    "ResetFailure",
    "UnderVoltage",
    "OverVoltage",
    "WeakSignal",
]
Triggerable = Literal[
    "BootNotification",
    "GetFileStatusNotification",
    "FirmwareStatusNotification",
    "Heartbeat",
    "MeterValues",
    "StatusNotification",
    "StreetlightModeStatusNotification",
    "StreetlightStatusNotification",
]
# fmt: off
Measurand = Literal[
    "AmbientTemperature", "OilTemperature",
    "Voltage.L1N", "Voltage.L2N", "Voltage.L3N",
    "Current.L1", "Current.L2", "Current.L3", "Current.N", "Current.Sum",
    "PowerFactor.L1", "PowerFactor.L2", "PowerFactor.L3", "PowerFactor.Sum",
    "ActivePower.L1", "ActivePower.L2", "ActivePower.L3", "ActivePower.Sum",
    "ApparentPower.L1", "ApparentPower.L2", "ApparentPower.L3", "ApparentPower.Sum",
    "ReactivePower.L1", "ReactivePower.L2", "ReactivePower.L3", "ReactivePower.Sum",
    "RealEnergyConsumed.L1", "RealEnergyConsumed.L2", "RealEnergyConsumed.L3", "RealEnergyConsumed.Sum",
    "RealEnergyDelivered.L1", "RealEnergyDelivered.L2", "RealEnergyDelivered.L3", "RealEnergyDelivered.Sum",
    "ApparentEnergy.L1", "ApparentEnergy.L2", "ApparentEnergy.L3", "ApparentEnergy.Sum",
    "ReactiveEnergy.L1", "ReactiveEnergy.L2", "ReactiveEnergy.L3", "ReactiveEnergy.Sum",
    "THDv.L1N", "THDv.L2N", "THDv.L3N", "THDc.L1", "THDc.L2", "THDc.L3", "Frequency",
    "Energy.Active.Import.Register", "Power.Active.Import",
    "ReactiveEnergyInductive.L1", "ReactiveEnergyInductive.L2", "ReactiveEnergyInductive.L3", "ReactiveEnergyInductive.Sum",
    "ReactiveEnergyCapacitive.L1", "ReactiveEnergyCapacitive.L2", "ReactiveEnergyCapacitive.L3", "ReactiveEnergyCapacitive.Sum",
    "DayMax.Voltage.L1", "DayMax.Voltage.L2", "DayMax.Voltage.L3",
    "DayMax.Current.L1", "DayMax.Current.L2", "DayMax.Current.L3",
    "DayMax.ActivePower.L1", "DayMax.ActivePower.L2", "DayMax.ActivePower.L3",
    "DayMax.ReactivePower.L1", "DayMax.ReactivePower.L2", "DayMax.ReactivePower.L3", "DayMax.Energy.Active.Import.Register",
    "DayMin.Voltage.L1", "DayMin.Voltage.L2", "DayMin.Voltage.L3",
    "DayMin.ActivePower.L1", "DayMin.ActivePower.L2", "DayMin.ActivePower.L3",
    "DayMin.ReactivePower.L1", "DayMin.ReactivePower.L2", "DayMin.ReactivePower.L3",
]
# fmt: on


class Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An object inside a message."""


class Message(Part, frozen=True):
    """A whole payload."""


# ------------------------------------------------------------------------------------------------- what a Substation begins (A6)


class BootNotification(Message, frozen=True, kw_only=True):
    """A6.1: the station says what it is. A station that leaves out what it does not know is read with "" there (I17).

    As it came, a text may be longer than its schema allows.
    """

    vendor: Text20
    model: Text20
    stationNumber: Text10
    serialNumber: Text25
    firmwareVersion: Text50
    iccid: Text20
    imsi: Text20


class BootNotificationResponse(Message, frozen=True, kw_only=True):
    """A6.1. ``interval`` in seconds: Accepted: between heartbeats; Pending: until the next try; Rejected: before reconnecting (I18)."""

    status: Literal["Accepted", "Pending", "Rejected"]
    currentTime: Moment
    interval: int


class GetFileStatusNotification(Message, frozen=True, kw_only=True):
    """A6.2: how far the upload is that GetFile asked for; ``requestId`` is that of GetFile (N1)."""

    status: FileStatus
    requestId: Id36 | None = None


class GetFileStatusNotificationResponse(Message, frozen=True):
    """A6.2."""


class FirmwareStatusNotification(Message, frozen=True, kw_only=True):
    """A6.3: how far the update is that UpdateFirmware asked for (N2)."""

    status: FirmwareStatus
    requestId: Id36 | None = None


class FirmwareStatusNotificationResponse(Message, frozen=True):
    """A6.3."""


class Heartbeat(Message, frozen=True):
    """A6.4."""


class HeartbeatResponse(Message, frozen=True, kw_only=True):
    """A6.4."""

    currentTime: Moment


class SampledValue(Part, frozen=True, kw_only=True):
    """A6.5: one measured value; the defaults are those of Table 3.

    ``value`` is text and may be anything (I16). As it came, measurand, unit, location, context and format may hold words that no list has (N7).
    """

    value: str
    measurand: Measurand
    unit: Unit | None = None
    location: Location | None = None
    context: Context = "Sample.Periodic"
    format: Literal["Raw", "SignedData"] = "Raw"


class MeterValue(Part, frozen=True, kw_only=True):
    """A6.5: what was measured at one moment."""

    timestamp: Moment
    sampledValue: tuple[SampledValue, ...]


class MeterValues(Message, frozen=True, kw_only=True):
    """A6.5."""

    meterValue: tuple[MeterValue, ...]


class MeterValuesResponse(Message, frozen=True):
    """A6.5."""


class StatusNotification(Message, frozen=True, kw_only=True):
    """A6.6: ``status`` is that of the whole station; the error is in ``errorCode``. ``test``: of a hardware test (Table 4).

    As it came, ``errorCode`` may be a word that no list has, and a text may be longer than its schema allows.
    """

    status: Literal["Ok", "Faulted"]
    errorCode: ErrorCode
    info: Text128 | None = None
    timestamp: Moment | None = None
    vendorId: Text128 | None = None
    vendorErrorCode: Text64 | None = None
    test: bool = False


class StatusNotificationResponse(Message, frozen=True):
    """A6.6."""


class StreetlightModeStatusNotification(Message, frozen=True, kw_only=True):
    """A6.7: who switches the light since ``timestamp``. No ``contactorId``: all contactors. Answer only what is stored (N22)."""

    contactorId: Contactor | None = None
    mode: Mode
    timestamp: Moment


class StreetlightModeStatusNotificationResponse(Message, frozen=True):
    """A6.7."""


class StreetlightStatusNotification(Message, frozen=True, kw_only=True):
    """A6.8: the light went on or off at ``timestamp``. ``unexpected``: not by the station's order. Answer only what is stored (N22)."""

    contactorId: Contactor
    status: Literal["On", "Off"]
    timestamp: Moment
    unexpected: bool = False


class StreetlightStatusNotificationResponse(Message, frozen=True):
    """A6.8."""


# --------------------------------------------------------------------------------------------- what a Central System begins (A7)


class ChangeConfiguration(Message, frozen=True, kw_only=True):
    """A7.1."""

    key: str
    value: str


class ChangeConfigurationResponse(Message, frozen=True, kw_only=True):
    """A7.1: an unknown key, or one that may only be read, is Rejected (I24)."""

    status: YesNo


class ClearSingleStreetlightProfile(Message, frozen=True, kw_only=True):
    """A7.2: by ``profileId``, or by contactor and stack level; nothing given clears everything (S11, I27)."""

    profileId: Natural | None = None
    contactorId: Contactor | None = None
    stackLevel: Natural | None = None


class ClearSingleStreetlightProfileResponse(Message, frozen=True, kw_only=True):
    """A7.2."""

    status: Literal["Accepted", "Rejected", "Unknown"]


class GetConfiguration(Message, frozen=True, kw_only=True):
    """A7.3: no key means all of them (S7)."""

    key: tuple[str, ...] = ()


class ConfigurationKey(Part, frozen=True, kw_only=True):
    """A7.3: one setting of the station."""

    key: str
    readonly: bool
    value: str | None = None


class GetConfigurationResponse(Message, frozen=True, kw_only=True):
    """A7.3."""

    configurationKey: tuple[ConfigurationKey, ...] = ()
    unknownKey: tuple[str, ...] = ()


class GetEffectiveStreetlightDaySchedule(Message, frozen=True, kw_only=True):
    """A7.4: what the contactor does on the schedule day ``at``, from noon to noon (L12)."""

    contactorId: Contactor
    at: LocalDay


class EffectivePeriod(Part, frozen=True, kw_only=True):
    """A7.4: on from ``start`` until ``end``, HH:mm:ss on the local clock (I38)."""

    start: str
    end: str


class GetEffectiveStreetlightDayScheduleResponse(Message, frozen=True, kw_only=True):
    """A7.4."""

    contactorId: Contactor
    daySchedule: tuple[EffectivePeriod, ...]


class GetFile(Message, frozen=True, kw_only=True):
    """A7.5: upload a file to ``location``."""

    requestId: Id36 | None = None
    fileType: Literal["Syslog", "MeterValueHistory", "VendorSpecific"]
    location: Uri
    startTime: Moment | None = None
    stopTime: Moment | None = None

    def __repr__(self) -> str:
        return _masked(self, self.location)


class GetFileResponse(Message, frozen=True, kw_only=True):
    """A7.5: ``fileName`` is "" when Rejected (I40)."""

    status: YesNo
    fileName: str


class OverrideStreetlight(Message, frozen=True, kw_only=True):
    """A7.6: until ResumeStreetlight. No ``contactorId``: all contactors (S16)."""

    contactorId: Contactor | None = None
    action: Literal["On", "Off", "Suspend"]


class OverrideStreetlightResponse(Message, frozen=True, kw_only=True):
    """A7.6."""

    status: OverrideResult


class ResumeStreetlight(Message, frozen=True, kw_only=True):
    """A7.7: back to the schedule. No ``contactorId``: all contactors (S16)."""

    contactorId: Contactor | None = None


class ResumeStreetlightResponse(Message, frozen=True, kw_only=True):
    """A7.7."""

    status: OverrideResult


class Reset(Message, frozen=True):
    """A7.8: a hardware reset."""


class ResetResponse(Message, frozen=True, kw_only=True):
    """A7.8."""

    status: YesNo


class ResetMVFaultIndicator(Message, frozen=True):
    """A7.9: all fault indicators of the medium voltage."""


class ResetMVFaultIndicatorResponse(Message, frozen=True, kw_only=True):
    """A7.9."""

    status: YesNo


class PeriodBound(Part, frozen=True, kw_only=True):
    """A7.10 Table 18: Absolute has ``time``, HH:mm:ss[.mmm] local; Sunset and Sunrise have ``offset`` in seconds (L9)."""

    kind: Literal["Absolute", "Sunset", "Sunrise"]
    offset: Annotated[int, Meta(ge=-86400, le=86400)] | None = None
    time: str | None = None


class Period(Part, frozen=True, kw_only=True):
    """A7.10 Table 17: the light is on from ``start`` until ``end``."""

    start: PeriodBound
    end: PeriodBound


class StreetlightProfile(Part, frozen=True, kw_only=True):
    """A7.10 Table 16: of the profiles that are active on a day, the one with the highest stack level holds."""

    profileId: Natural
    stackLevel: Natural
    recurrencyKind: Literal["None", "Daily", "Weekly"]
    validFrom: LocalDay | None = None
    validTo: LocalDay | None = None
    daySchedule: Annotated[tuple[Period, ...], Meta(min_length=1, max_length=4)]


class SetStreetlightProfile(Message, frozen=True, kw_only=True):
    """A7.10 Table 15. ``clearAllSchedules``: first remove every profile of this contactor; all or nothing (L2)."""

    contactorId: Contactor
    clearAllSchedules: bool = False
    streetlightProfiles: Annotated[tuple[StreetlightProfile, ...], Meta(min_length=1)]


class SetStreetlightProfileResponse(Message, frozen=True, kw_only=True):
    """A7.10."""

    status: YesNo


class TestMVFaultIndicator(Message, frozen=True):
    """A7.11: all fault indicators of the medium voltage into test mode."""

    __test__ = False
    """The name is the protocol's; pytest is not to collect it."""


class TestMVFaultIndicatorResponse(Message, frozen=True, kw_only=True):
    """A7.11."""

    __test__ = False

    status: Literal["Accepted", "RejectedAlreadyFaulted", "Rejected"]


class TriggerMessage(Message, frozen=True, kw_only=True):
    """A7.12: send this message now. ``connectorId`` is a contactor, for the two street light messages only (I7)."""

    requestedMessage: Triggerable
    connectorId: int | None = None


class TriggerMessageResponse(Message, frozen=True, kw_only=True):
    """A7.12. As it came, ``status`` may also be NotImplemented (I25)."""

    status: YesNo


class UpdateFirmware(Message, frozen=True, kw_only=True):
    """A7.13: fetch firmware from ``location`` after ``retrieveDate``. ``retryInterval`` in seconds."""

    retrieveDate: Moment
    location: Uri
    retries: int | None = None
    retryInterval: int | None = None
    requestId: Id36 | None = None

    def __repr__(self) -> str:
        return _masked(self, self.location)


class UpdateFirmwareResponse(Message, frozen=True):
    """A7.13: empty; a station refuses with a CALLERROR (I41)."""


# ------------------------------------------------------------------------------------------------------------------- the table


class Action(NamedTuple):
    """One action: the types of its two payloads, who begins it and where the annex says so.

    ``optional``: a station may do without and then answers NotImplemented (A4.2); the document does not say which, so all that it does not need
    in order to be a station at all.
    """

    request: type[Message]
    response: type[Message]
    initiator: Literal["client", "server"]
    clause: str
    optional: bool


ACTIONS: dict[str, Action] = {
    "BootNotification": Action(BootNotification, BootNotificationResponse, "client", "A6.1", False),
    "GetFileStatusNotification": Action(GetFileStatusNotification, GetFileStatusNotificationResponse, "client", "A6.2", True),
    "FirmwareStatusNotification": Action(FirmwareStatusNotification, FirmwareStatusNotificationResponse, "client", "A6.3", True),
    "Heartbeat": Action(Heartbeat, HeartbeatResponse, "client", "A6.4", False),
    "MeterValues": Action(MeterValues, MeterValuesResponse, "client", "A6.5", True),
    "StatusNotification": Action(StatusNotification, StatusNotificationResponse, "client", "A6.6", False),
    "StreetlightModeStatusNotification": Action(StreetlightModeStatusNotification, StreetlightModeStatusNotificationResponse, "client", "A6.7", True),
    "StreetlightStatusNotification": Action(StreetlightStatusNotification, StreetlightStatusNotificationResponse, "client", "A6.8", True),
    "ChangeConfiguration": Action(ChangeConfiguration, ChangeConfigurationResponse, "server", "A7.1", True),
    "ClearSingleStreetlightProfile": Action(ClearSingleStreetlightProfile, ClearSingleStreetlightProfileResponse, "server", "A7.2", True),
    "GetConfiguration": Action(GetConfiguration, GetConfigurationResponse, "server", "A7.3", True),
    "GetEffectiveStreetlightDaySchedule": Action(
        GetEffectiveStreetlightDaySchedule, GetEffectiveStreetlightDayScheduleResponse, "server", "A7.4", True
    ),
    "GetFile": Action(GetFile, GetFileResponse, "server", "A7.5", True),
    "OverrideStreetlight": Action(OverrideStreetlight, OverrideStreetlightResponse, "server", "A7.6", True),
    "ResumeStreetlight": Action(ResumeStreetlight, ResumeStreetlightResponse, "server", "A7.7", True),
    "Reset": Action(Reset, ResetResponse, "server", "A7.8", True),
    "ResetMVFaultIndicator": Action(ResetMVFaultIndicator, ResetMVFaultIndicatorResponse, "server", "A7.9", True),
    "SetStreetlightProfile": Action(SetStreetlightProfile, SetStreetlightProfileResponse, "server", "A7.10", True),
    "TestMVFaultIndicator": Action(TestMVFaultIndicator, TestMVFaultIndicatorResponse, "server", "A7.11", True),
    "TriggerMessage": Action(TriggerMessage, TriggerMessageResponse, "server", "A7.12", True),
    "UpdateFirmware": Action(UpdateFirmware, UpdateFirmwareResponse, "server", "A7.13", True),
}
"""Every action of the annex, by its name (case-sensitive, R8)."""


# ---------------------------------------------------------------------------------------------------------------- moments and days

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LEAP = ":60"
"""Where the seconds of a leap second stand: characters 16 to 19."""


def moment(text: str) -> int:
    """µs UTC of a ``Moment``; digits after the microsecond are cut off, a leap second is the second after it. Raises ValueError.

    ValueError also for what no clock of ours can say: before the year 1 or after 9999 in UTC.
    """
    leap = text[16:19] == _LEAP
    written = datetime.fromisoformat((f"{text[:16]}:59{text[19:]}" if leap else text).upper())
    try:
        instant = (written.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except OverflowError as error:
        raise ValueError("beyond the calendar") from error
    return instant + 1_000_000 if leap else instant


def day(text: str) -> date:
    """The date of a ``LocalDay``: its first ten characters, never converted (I5). Raises ValueError."""
    return date.fromisoformat(text[:10])


def midnight(day: date) -> str:
    """The ``LocalDay`` of a date, as it is sent (I5)."""
    return f"{day.isoformat()}T00:00:00"


def _masked(message: msgspec.Struct, location: str) -> str:
    """The repr of a message whose location carries a password (S27)."""
    hidden = re.sub(r"//[^/?#]*@", "//***@", location)
    fields = ", ".join(f"{name}={hidden if name == 'location' else getattr(message, name)!r}" for name in message.__struct_fields__)
    return f"{type(message).__name__}({fields})"
