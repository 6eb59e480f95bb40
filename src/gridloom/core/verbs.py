"""What one can order, read and manage: one row per verb, with its argument type, its roles and the clause it comes from.

A verb that means the same on devices of several makes is neutral (``relay.set``, ``charge.stop``, ``light.override``): an API asks
for it by capability and knows nothing of the wire. What only one system has keeps that system's name in front (``ekm.*``,
``os3p.*``, ``ocpp.*``, ``everest.*``). A device's ``verbs`` are the rows of kind ``order`` that its link registered.

Each order has its own argument Struct: strict, frozen, snake_case, the unit at the end of the name (``duration_s``, ``current_a``,
``power_w``). The ranges are those of the documents where all models agree, else the widest; an integration's ``mapping``
narrows them to its device, and refuses before anything is sent. Times are RFC 3339 with a zone; an absent optional argument is None.

Clauses: OS³P is the annex 0.4 (``A7.6``) and its guide 0.91 (``G6``), C/R/B/N/S/L its numbered checklist; OCPP is 1.6J edition 2, OCPP-SEC the
security whitepaper's extension of 1.6J; EKM is the Settings API or the project's FACTS about it; EVerest the project's FACTS.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gridloom.core import faults, settings
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.model import Role

# ------------------------------------------------------------------------------------------------------------ words of arguments

Connector = Annotated[int, Meta(ge=0, le=255, description="connector of the charging station from 1; 0 is the station as a whole")]
Contactor = Annotated[int, Meta(ge=1, le=4, description="street-light contactor")]
Relay = Annotated[int, Meta(ge=1, le=16, description="relay or output, from 1")]
Pin = Annotated[int, Meta(ge=1, le=4, description="pin of the ioStack")]
Line = Annotated[int, Meta(ge=1, le=3, description="pulse line")]
Instant = Annotated[datetime.datetime, Meta(tz=True)]
Date = datetime.date
WallTime = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?$(?!\n)", description="local time HH:MM:SS[.mmm]")]
Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
Amperes = Annotated[float, Meta(ge=0, le=1_000, description="amperes on each phase in use")]
Watts = Annotated[float, Meta(ge=0, le=1_000_000, description="watts in all")]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=500)]
Location = Annotated[
    str, Meta(min_length=1, max_length=2_000, pattern=r"^(ftp|ftps|sftp|http|https)://", description="URI; secret, for it may hold credentials")
]
RequestId = Annotated[str, Meta(min_length=1, max_length=36)]
Digits8 = Annotated[str, Meta(pattern=r"^[0-9]{8}$(?!\n)", description="eight digits")]
Password = Annotated[str, Meta(min_length=1, max_length=64)]
MeterAddress = Annotated[str, Meta(pattern=r"^[0-9]{1,12}$(?!\n)", description="meter address, with or without leading zeros")]
Month = Annotated[int, Meta(ge=1, le=12)]
Day = Annotated[int, Meta(ge=1, le=31)]
Schedule = Annotated[int, Meta(ge=1, le=6, description="schedule of the meter, 1 to 6")]
Pem = Annotated[str, Meta(min_length=1, max_length=5_500, description="certificate, PEM")]


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all arguments. A rule over several arguments is the Struct's ``__post_init__``, which raises ValueError."""


class Nothing(Arguments, frozen=True, kw_only=True):
    """No arguments: of what is read or managed, the request itself says what is meant."""


# ------------------------------------------------------------------------------------------------------------ relays and devices


class RelaySet(Arguments, frozen=True, kw_only=True):
    """``duration_s`` 0 holds the state until the next order; above 0 it is a pulse. ``password``: of the device, where it wants one."""

    relay: Relay
    state: Literal["open", "closed"]
    duration_s: Annotated[int, Meta(ge=0, le=9_999)] = 0
    password: Password | None = None


class DevicePoll(Arguments, frozen=True, kw_only=True):
    """Read now, outside the polling schedule."""


class DeviceReset(Arguments, frozen=True, kw_only=True):
    """Without ``kind`` the device does the reset it knows (OS³P knows the hardware reset only)."""

    kind: Literal["soft", "hard"] | None = None


class DeviceFirmwareUpdate(Arguments, frozen=True, kw_only=True):
    """Either a ``location`` to fetch from, or the name of a ``file`` in the hub's own store. With a ``signature`` it is the signed update."""

    location: Location | None = None
    file: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    retrieve_time: Instant | None = None
    install_time: Instant | None = None
    retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    retry_interval_s: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    request_id: RequestId | None = None
    signing_certificate: Pem | None = None
    signature: Annotated[str, Meta(min_length=1, max_length=800)] | None = None

    def __post_init__(self) -> None:
        if (self.location is None) == (self.file is None):
            raise ValueError("expected either location or file")
        if (self.signing_certificate is None) != (self.signature is None):
            raise ValueError("signing_certificate and signature come together")


class DeviceFilesGet(Arguments, frozen=True, kw_only=True):
    """Without ``location`` the device uploads to the hub's own endpoint. ``begin`` and ``end`` bound what the file covers."""

    what: Literal["syslog", "meter_value_history", "vendor_specific", "diagnostics", "security_log"]
    location: Location | None = None
    begin: Instant | None = None
    end: Instant | None = None
    retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    retry_interval_s: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    request_id: RequestId | None = None

    def __post_init__(self) -> None:
        if self.begin is not None and self.end is not None and self.end < self.begin:
            raise ValueError("end is before begin")


class DeviceConfigurationGet(Arguments, frozen=True, kw_only=True):
    """No ``keys`` means all."""

    keys: Annotated[list[Annotated[str, Meta(min_length=1, max_length=500)]], Meta(max_length=1_000)] = []


class DeviceConfigurationSet(Arguments, frozen=True, kw_only=True):
    """A key of the device itself. The AuthorizationKey of OCPP is refused here: ``ocpp.authorization_key.set`` keeps it secret."""

    key: Annotated[str, Meta(min_length=1, max_length=500)]
    value: Annotated[str, Meta(max_length=10_000)]


class DeviceClockSet(Arguments, frozen=True, kw_only=True):
    """Without ``time`` the hub's clock at the moment of sending, in the device's own zone; with it, exactly that instant."""

    time: Instant | None = None
    password: Password | None = None


TRIGGERED = Literal[
    "BootNotification",
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "GetFileStatusNotification",
    "Heartbeat",
    "LogStatusNotification",
    "MeterValues",
    "SignChargePointCertificate",
    "StatusNotification",
    "StreetlightModeStatusNotification",
    "StreetlightStatusNotification",
]


class DeviceTrigger(Arguments, frozen=True, kw_only=True):
    """The message that the device should send now, by its name on the wire."""

    message: TRIGGERED
    connector: Connector | None = None
    contactor: Contactor | None = None


class DeviceIdentify(Arguments, frozen=True, kw_only=True):
    """Show itself to somebody who stands in front (blink, beep)."""

    duration_s: Annotated[int, Meta(ge=1, le=600)] = 10


class DeviceStatusGet(Arguments, frozen=True, kw_only=True):
    """What the device says about itself now, as the result of the order."""


class DeviceLedSet(Arguments, frozen=True, kw_only=True):
    """Brightness of the device's own lamps."""

    brightness_percent: Annotated[int, Meta(ge=0, le=100)]


# ------------------------------------------------------------------------------------------------------------ charging


class ChargeStart(Arguments, frozen=True, kw_only=True):
    """``identification``: the token or idTag on whose account is charged; the integration's configured one if absent."""

    connector: Connector | None = None
    identification: Word | None = None
    current_a: Amperes | None = None


class ChargeStop(Arguments, frozen=True, kw_only=True):
    """``transaction`` is the vendor's own key of it; without, whatever runs on the connector (or on the station)."""

    connector: Connector | None = None
    transaction: Word | None = None
    reason: Annotated[str, Meta(max_length=50)] | None = None


class ChargeLimit(Arguments, frozen=True, kw_only=True):
    """At most ``current_a`` on each phase or ``power_w`` in all; 0 suspends.

    After ``duration_s`` the limit beneath it is in force again: what the hub sets ends by itself when the hub dies. Absent: it stays.
    """

    connector: Connector | None = None
    current_a: Amperes | None = None
    power_w: Watts | None = None
    phases: Annotated[int, Meta(ge=1, le=3)] | None = None
    duration_s: Annotated[int, Meta(ge=1, le=604_800)] | None = None

    def __post_init__(self) -> None:
        if self.current_a is None and self.power_w is None:
            raise ValueError("expected current_a or power_w")


class ChargeLimitClear(Arguments, frozen=True, kw_only=True):
    """Lift the hub's own limit; the safe limit of the installation stays."""

    connector: Connector | None = None


class ChargeMode(Arguments, frozen=True, kw_only=True):
    """When charging may begin by itself; the names are Witty's."""

    mode: Literal["immediate", "deferred", "deferredExclusive"]


class ChargePause(Arguments, frozen=True, kw_only=True):
    """Suspend the running charge; the session stays open."""

    connector: Connector | None = None


class ChargeResume(Arguments, frozen=True, kw_only=True):
    """Go on with a suspended charge."""

    connector: Connector | None = None


class ChargeUnlock(Arguments, frozen=True, kw_only=True):
    """Release the cable."""

    connector: Annotated[int, Meta(ge=1, le=255)] = 1


class ChargeAvailability(Arguments, frozen=True, kw_only=True):
    """Take a connector (0: the station) into or out of service. ``priority``: against other sources that enable and disable (EVerest)."""

    available: bool
    connector: Connector = 0
    priority: Annotated[int, Meta(ge=0, le=10_000)] | None = None


# ------------------------------------------------------------------------------------------------------------ street lights


class LightOverride(Arguments, frozen=True, kw_only=True):
    """Without ``contactor`` all of them. ``suspend`` keeps the present state and stops the schedule."""

    action: Literal["on", "off", "suspend"]
    contactor: Contactor | None = None


class LightResume(Arguments, frozen=True, kw_only=True):
    """Follow the schedule again. Without ``contactor`` all of them."""

    contactor: Contactor | None = None


class LightMoment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A clock ``time``, or ``offset_s`` after (negative: before) sunset or sunrise."""

    kind: Literal["absolute", "sunset", "sunrise"]
    time: WallTime | None = None
    offset_s: Annotated[int, Meta(ge=-86_400, le=86_400)] | None = None

    def __post_init__(self) -> None:
        if self.kind == "absolute" and self.time is None:
            raise ValueError("an absolute moment needs time")
        if self.kind != "absolute" and self.offset_s is None:
            raise ValueError(f"a moment relative to {self.kind} needs offset_s")


class LightPeriod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lights are on from ``start`` to ``end``; never if the end is not after the start."""

    start: LightMoment
    end: LightMoment


class LightProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One day's periods and the days they are for, from noon to noon. The highest ``stack_level`` that is valid on a day is the whole day's."""

    profile_id: Annotated[int, Meta(ge=0)]
    stack_level: Annotated[int, Meta(ge=0)]
    recurrence: Literal["none", "daily", "weekly"]
    day_schedule: Annotated[list[LightPeriod], Meta(min_length=1, max_length=4)]
    valid_from: Date | None = None
    valid_to: Date | None = None

    def __post_init__(self) -> None:
        if self.recurrence != "daily" and self.valid_from is None:
            raise ValueError(f"recurrence {self.recurrence} needs valid_from")


class LightScheduleSet(Arguments, frozen=True, kw_only=True):
    """All of the profiles or none. ``clear_all`` first erases those of this contactor, atomically with the new ones."""

    contactor: Contactor
    profiles: Annotated[list[LightProfile], Meta(min_length=1, max_length=10_000)]
    clear_all: bool = False

    def __post_init__(self) -> None:
        for what, values in (("stack_level", [p.stack_level for p in self.profiles]), ("profile_id", [p.profile_id for p in self.profiles])):
            twice = sorted({value for value in values if values.count(value) > 1}) if len(set(values)) != len(values) else []
            if twice:
                raise ValueError(f"{what} {twice[0]} is used twice")


class LightScheduleClear(Arguments, frozen=True, kw_only=True):
    """By ``profile_id``, or by ``stack_level``; neither is all profiles (of the contactor), which ``everything`` must confirm."""

    contactor: Contactor | None = None
    profile_id: Annotated[int, Meta(ge=0)] | None = None
    stack_level: Annotated[int, Meta(ge=0)] | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        chosen = (self.profile_id is not None) + (self.stack_level is not None) + self.everything
        if chosen != 1:
            raise ValueError("expected exactly one of profile_id, stack_level and everything = true")


class LightScheduleGet(Arguments, frozen=True, kw_only=True):
    """What the device says is the effective schedule of the night that begins at noon of ``date``."""

    contactor: Contactor
    date: Date


# ------------------------------------------------------------------------------------------------------------ EKM


class EkmWrite(Arguments, frozen=True, kw_only=True):
    """Base of what writes into an Omnimeter: it wants its password. The default is the one meters are delivered with."""

    password: Digits8 = "00000000"  # noqa: S105  published by the maker


class EkmPasswordSet(EkmWrite, frozen=True, kw_only=True):
    """Of an Omnimeter. A lost password cannot be recovered."""

    new_password: Digits8


class EkmCtRatioSet(EkmWrite, frozen=True, kw_only=True):
    """Current transformer, amperes on the primary side."""

    ct_ratio: Literal[100, 200, 400, 600, 800, 1000, 1200, 1500, 2000, 3000, 4000, 5000]


class EkmMaxDemandIntervalSet(EkmWrite, frozen=True, kw_only=True):
    """How often the meter forgets its maximum demand by itself."""

    interval: Literal["off", "monthly", "weekly", "daily", "hourly"]


class EkmMaxDemandReset(EkmWrite, frozen=True, kw_only=True):
    """Forget the maximum demand now."""


class EkmMaxDemandPeriodSet(EkmWrite, frozen=True, kw_only=True):
    """Over how many minutes demand is averaged."""

    period_min: Literal[15, 30, 60]


class EkmLcdSet(EkmWrite, frozen=True, kw_only=True):
    """Numbers of the items that the display shows one after the other."""

    items: Annotated[list[Annotated[int, Meta(ge=1, le=51)]], Meta(min_length=1, max_length=40)]


class EkmPulseInputRatioSet(EkmWrite, frozen=True, kw_only=True):
    """Pulses per unit on an input."""

    line: Line
    ratio: Annotated[int, Meta(ge=0, le=9_999)]


class EkmPulseOutputRatioSet(EkmWrite, frozen=True, kw_only=True):
    """Pulses per kWh on the output; which ratios are allowed depends on the CT ratio. The Settings API has ``line``, the meter one output."""

    ratio: Annotated[int, Meta(ge=1, le=1_600)]
    line: Line = 1


class EkmResettableEnergyReset(EkmWrite, frozen=True, kw_only=True):
    """Zero the resettable kWh registers."""


class EkmHoliday(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A day of every year."""

    month: Month
    day: Day


class EkmHolidaysSet(EkmWrite, frozen=True, kw_only=True):
    """All holidays; what is not named is no holiday any more."""

    dates: Annotated[list[EkmHoliday], Meta(max_length=20)]


class EkmPeriod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From this time of day the tariff runs."""

    hour: Annotated[int, Meta(ge=0, le=23)]
    minute: Annotated[int, Meta(ge=0, le=59)]
    tariff: Annotated[int, Meta(ge=1, le=4)]


class EkmScheduleSet(EkmWrite, frozen=True, kw_only=True):
    """Tariff periods of one of the six day schedules."""

    schedule: Schedule
    periods: Annotated[list[EkmPeriod], Meta(min_length=1, max_length=4)]


class EkmSeason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From this day of the year the schedule is in force."""

    month: Month
    day: Day
    schedule: Schedule


class EkmSeasonsSet(EkmWrite, frozen=True, kw_only=True):
    """All seasons; what is not named is no season any more."""

    seasons: Annotated[list[EkmSeason], Meta(min_length=1, max_length=4)]


class EkmWeekendHolidaySchedulesSet(EkmWrite, frozen=True, kw_only=True):
    """Which schedule weekends and holidays have."""

    weekend_schedule: Schedule
    holiday_schedule: Schedule


class EkmSchedulesGet(Arguments, frozen=True, kw_only=True):
    """Schedules, seasons and holidays of the meter."""


class EkmTariffDataGet(Arguments, frozen=True, kw_only=True):
    """Registers of the last six months, import and export."""


class EkmIostackPasswordSet(Arguments, frozen=True, kw_only=True):
    """Of an ioStack."""

    new_password: Password
    password: Password


class EkmOneWireScan(Arguments, frozen=True, kw_only=True):
    """Look for devices on the 1-Wire inputs."""


class EkmDigitalInputReset(Arguments, frozen=True, kw_only=True):
    """Zero the pulse count of an input."""

    pin: Pin
    password: Password | None = None


class EkmDigitalOutputSet(Arguments, frozen=True, kw_only=True):
    """``clear_watch``: end a watch that owns the pin."""

    pin: Pin
    level: Literal[0, 1]
    clear_watch: bool = False
    password: Password | None = None


SCAN_LIMIT = 1_000_000
"""Addresses of one search: each takes about 0.17 s."""


class EkmMetersScan(Arguments, frozen=True, kw_only=True):
    """Ask every address from ``first`` to ``last`` whether a meter answers."""

    first: MeterAddress
    last: MeterAddress

    def __post_init__(self) -> None:
        if int(self.last) < int(self.first):
            raise ValueError("last is below first")
        if (count := int(self.last) - int(self.first) + 1) > SCAN_LIMIT:
            raise ValueError(f"at most {SCAN_LIMIT} addresses are asked by one order (two days), got {count}")


class EkmMetersScanStop(Arguments, frozen=True, kw_only=True):
    """End the search that goes on; what it has found is its result."""


class EkmPollIntervalSet(Arguments, frozen=True, kw_only=True):
    """How often the gateway reads its meters."""

    interval_s: Annotated[int, Meta(ge=1, le=86_400)]


# ------------------------------------------------------------------------------------------------------------ OS³P


class Os3pFaultIndicatorTest(Arguments, frozen=True, kw_only=True):
    """Put all medium-voltage fault indicators into test."""


class Os3pFaultIndicatorReset(Arguments, frozen=True, kw_only=True):
    """Reset all medium-voltage fault indicators."""


# ------------------------------------------------------------------------------------------------------------ OCPP 1.6J


class OcppReservationSet(Arguments, frozen=True, kw_only=True):
    """Keep a connector for somebody until ``expires``."""

    reservation: int
    connector: Connector
    identification: Annotated[str, Meta(min_length=1, max_length=20)]
    expires: Instant
    parent_identification: Annotated[str, Meta(min_length=1, max_length=20)] | None = None


class OcppReservationCancel(Arguments, frozen=True, kw_only=True):
    """By the number it was made with."""

    reservation: int


class OcppCacheClear(Arguments, frozen=True, kw_only=True):
    """Forget the authorisation cache."""


class OcppDataTransfer(Arguments, frozen=True, kw_only=True):
    """A vendor's own message."""

    vendor: Annotated[str, Meta(min_length=1, max_length=255)]
    message: Annotated[str, Meta(max_length=50)] | None = None
    data: Annotated[str, Meta(max_length=65_536)] | None = None


class OcppLocalListEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Without ``status`` the entry is taken off the list (differential update)."""

    identification: Annotated[str, Meta(min_length=1, max_length=20)]
    status: Literal["Accepted", "Blocked", "Expired", "Invalid", "ConcurrentTx"] | None = None
    expires: Instant | None = None
    parent_identification: Annotated[str, Meta(min_length=1, max_length=20)] | None = None


class OcppLocalListSet(Arguments, frozen=True, kw_only=True):
    """The list of who may charge while the station is offline."""

    version: Annotated[int, Meta(ge=1)]
    update: Literal["Full", "Differential"]
    entries: Annotated[list[OcppLocalListEntry], Meta(max_length=100_000)] = []


class OcppLocalListVersionGet(Arguments, frozen=True, kw_only=True):
    """Version of the list the station has."""


class OcppPeriod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """From ``start_s`` after the start of the schedule, ``limit`` of its unit, on ``phases``."""

    start_s: Annotated[int, Meta(ge=0)]
    limit: Annotated[float, Meta(ge=0)]
    phases: Annotated[int, Meta(ge=1, le=3)] | None = None


class OcppChargingProfileSet(Arguments, frozen=True, kw_only=True):
    """A charging profile as OCPP has it; for a plain limit use ``charge.limit``. ``limit`` in A or W as ``unit`` says."""

    connector: Connector
    profile_id: int
    stack_level: Annotated[int, Meta(ge=0)]
    purpose: Literal["ChargePointMaxProfile", "TxDefaultProfile", "TxProfile"]
    kind: Literal["Absolute", "Recurring", "Relative"]
    unit: Literal["A", "W"]
    periods: Annotated[list[OcppPeriod], Meta(min_length=1, max_length=1_000)]
    recurrency: Literal["Daily", "Weekly"] | None = None
    transaction: int | None = None
    valid_from: Instant | None = None
    valid_to: Instant | None = None
    start: Instant | None = None
    duration_s: Annotated[int, Meta(ge=0)] | None = None
    minimum_rate: Annotated[float, Meta(ge=0)] | None = None


class OcppChargingProfileClear(Arguments, frozen=True, kw_only=True):
    """Profiles that match all that is given; nothing given is all profiles."""

    profile_id: int | None = None
    connector: Connector | None = None
    purpose: Literal["ChargePointMaxProfile", "TxDefaultProfile", "TxProfile"] | None = None
    stack_level: Annotated[int, Meta(ge=0)] | None = None


class OcppCompositeScheduleGet(Arguments, frozen=True, kw_only=True):
    """What the station makes of all its profiles for the next ``duration_s``."""

    connector: Connector
    duration_s: Annotated[int, Meta(ge=1, le=604_800)]
    unit: Literal["A", "W"] | None = None


class OcppAuthorizationKeySet(Arguments, frozen=True, kw_only=True):
    """The station's own password for HTTP Basic (security profiles 1 and 2)."""

    key: Annotated[str, Meta(min_length=8, max_length=40)]


class OcppCertificateInstall(Arguments, frozen=True, kw_only=True):
    """A root certificate."""

    use: Literal["CentralSystemRootCertificate", "ManufacturerRootCertificate"]
    certificate: Pem


class OcppCertificateSigned(Arguments, frozen=True, kw_only=True):
    """The signed certificate (chain) that the station asked for."""

    chain: Annotated[str, Meta(min_length=1, max_length=10_000)]


class OcppCertificateHash(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which certificate, by hashes."""

    algorithm: Literal["SHA256", "SHA384", "SHA512"]
    issuer_name_hash: Annotated[str, Meta(min_length=1, max_length=128)]
    issuer_key_hash: Annotated[str, Meta(min_length=1, max_length=128)]
    serial: Annotated[str, Meta(min_length=1, max_length=40)]


class OcppCertificateDelete(Arguments, frozen=True, kw_only=True):
    """One that is installed."""

    certificate: OcppCertificateHash


class OcppCertificatesGet(Arguments, frozen=True, kw_only=True):
    """Hashes of the installed root certificates of a use."""

    use: Literal["CentralSystemRootCertificate", "ManufacturerRootCertificate"]


# ------------------------------------------------------------------------------------------------------------ EVerest


class EverestAuthorizationWithdraw(Arguments, frozen=True, kw_only=True):
    """Of a connector (``evse``), of a token, or of both together."""

    evse: Annotated[int, Meta(ge=0)] | None = None
    identification: Word | None = None

    def __post_init__(self) -> None:
        if self.evse is None and self.identification is None:
            raise ValueError("expected evse or identification")


class EverestErrorsGet(Arguments, frozen=True, kw_only=True):
    """Active errors of the charger."""


class EverestSessionCostSet(Arguments, frozen=True, kw_only=True):
    """What the running session costs so far, for the charger's display; ``amount`` is a decimal in ``currency``."""

    session: Word
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]
    amount: Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?$(?!\n)")]
    final: bool = False


class EverestTariffMessageSet(Arguments, frozen=True, kw_only=True):
    """A text about the price, for the charger's display."""

    text: Annotated[str, Meta(min_length=1, max_length=250)]
    session: Word | None = None
    language: Annotated[str, Meta(min_length=2, max_length=35)] | None = None


# ------------------------------------------------------------------------------------------------------------ the table

EVERYBODY = frozenset(Role)
READERS = EVERYBODY - {Role.INSTALLER}
"""Who sees consumption and costs: not the installer (Witty, "Sharing your installation")."""
ORDERERS = frozenset({Role.ADMIN, Role.OPERATOR, Role.OWNER})
SETTERS_UP = ORDERERS | {Role.INSTALLER}
"""Orders of commissioning, which tell nothing about consumption and switch nothing."""
STAFF = frozenset({Role.ADMIN, Role.OPERATOR})
OWNERS = frozenset({Role.ADMIN, Role.OWNER})
ADMINS = frozenset({Role.ADMIN})


class Verb(msgspec.Struct, frozen=True):
    """One row. ``arguments`` is the Struct they are validated against, ``secrets`` those never shown nor kept beyond the order's end.

    ``idempotent``: sending it twice does what sending it once does, so that it may be sent again after a crash.
    ``roles`` may use it within the scope of their grant; ``timeout`` in seconds from sending to the device's answer.
    ``supersedes``: only the newest counts, so it takes the place of a waiting order of the same verb for the same device and goes first.
    """

    name: str
    kind: Literal["order", "read", "manage"]
    meaning: str
    clause: str
    arguments: type[msgspec.Struct] = Nothing
    secrets: tuple[str, ...] = ()
    idempotent: bool = True
    roles: frozenset[Role] = ORDERERS
    timeout: float = 30.0
    supersedes: bool = False


_PASSWORD = ("password",)
_PASSWORDS = ("new_password", "password")
_LOCATION = ("location",)


def _order(
    name: str,
    arguments: type[Arguments],
    meaning: str,
    clause: str,
    *,
    secrets: tuple[str, ...] = (),
    idempotent: bool = True,
    roles: frozenset[Role] = ORDERERS,
    timeout: float = 30.0,
    supersedes: bool = False,
) -> Verb:
    return Verb(name, "order", meaning, clause, arguments, secrets, idempotent, roles, timeout, supersedes)


def _read(name: str, roles: frozenset[Role], meaning: str, clause: str = "") -> Verb:
    return Verb(name, "read", meaning, clause, roles=roles)


def _manage(name: str, roles: frozenset[Role], meaning: str, clause: str = "") -> Verb:
    return Verb(name, "manage", meaning, clause, roles=roles)


# fmt: off
_ORDERS = (
    # relays and devices of any make
    _order("relay.set",                      RelaySet,                      "Open or close a relay, for good or for some seconds.",
        "EKM SetRelay", secrets=_PASSWORD, idempotent=False),
    _order("device.poll",                    DevicePoll,                    "Read the device now and store what it says.", "EKM FACTS 1.2"),
    _order("device.reset",                   DeviceReset,                   "Restart the device.",
        "OS³P A7.8; OCPP 5.14", idempotent=False, timeout=60),
    _order("device.trigger",                 DeviceTrigger,                 "Have the device send one of its messages now.",
        "OS³P A7.12; OCPP 5.17; OCPP-SEC ExtendedTriggerMessage"),
    _order("device.identify",                DeviceIdentify,                "Have the device show itself.", "", idempotent=False, roles=SETTERS_UP),
    _order("device.status.get",              DeviceStatusGet,               "Ask the device how it is.",
        "EKM GetStatus; EVerest FACTS 2.9 get_evse", roles=SETTERS_UP),
    _order("device.clock.set",               DeviceClockSet,                "Set the device's clock.",
        "EKM SetTime, SetDateTime", secrets=_PASSWORD, idempotent=False, roles=SETTERS_UP),
    _order("device.configuration.get",       DeviceConfigurationGet,        "Read configuration keys of the device.",
        "OS³P A7.3; OCPP 5.8", roles=SETTERS_UP, timeout=60),
    _order("device.configuration.set",       DeviceConfigurationSet,        "Change a configuration key of the device.", "OS³P A7.1; OCPP 5.3"),
    _order("device.led.set",                 DeviceLedSet,                  "Set the brightness of the device's lamps.",
        "Witty IV.B.2.h ledPower; OCPP 9.1 LightIntensity"),
    _order("device.files.get",               DeviceFilesGet,                "Have the device upload a log or history file.",
        "OS³P A7.5; OCPP 5.9; OCPP-SEC GetLog", secrets=_LOCATION, timeout=60),
    _order("device.firmware.update",         DeviceFirmwareUpdate,          "Have the device fetch and install firmware.",
        "OS³P A7.13; OCPP 5.19; OCPP-SEC SignedUpdateFirmware", secrets=_LOCATION, idempotent=False, timeout=60),
    # charging
    _order("charge.start",                   ChargeStart,                   "Start a charging session.",
        "Witty IV.B.2.f; OCPP 5.11; EVerest FACTS 2.9 provided_token", idempotent=False, timeout=60),
    _order("charge.stop",                    ChargeStop,                    "End a charging session.",
        "Witty IV.B.2.g; OCPP 5.12; EVerest FACTS 2.9 stop_transaction", timeout=60),
    _order("charge.pause",                   ChargePause,                   "Suspend the running charge.", "EVerest FACTS 2.9 pause_charging"),
    _order("charge.resume",                  ChargeResume,                  "Go on with the suspended charge.", "EVerest FACTS 2.9 resume_charging"),
    _order("charge.limit",                   ChargeLimit,                   "Limit current or power of charging.",
        "OCPP 5.16; EVerest FACTS 2.9 set_external_limits", supersedes=True),
    _order("charge.limit.clear",             ChargeLimitClear,              "Lift the hub's limit.",
        "OCPP 5.5; EVerest FACTS 2.9 set_external_limits"),
    _order("charge.mode",                    ChargeMode,                    "Choose when charging begins by itself.", "Witty IV.B.2.e"),
    _order("charge.unlock",                  ChargeUnlock,                  "Release the cable.",
        "OCPP 5.18; EVerest FACTS 2.9 force_unlock", idempotent=False),
    _order("charge.availability",            ChargeAvailability,            "Take a connector into or out of service.",
        "OCPP 5.2; EVerest FACTS 2.9 enable_disable"),
    # street lights
    _order("light.override",                 LightOverride,                 "Force lights on or off, or freeze them.", "OS³P A7.6"),
    _order("light.resume",                   LightResume,                   "Let lights follow their schedule again.", "OS³P A7.7"),
    _order("light.schedule.set",             LightScheduleSet,              "Write street-light profiles.", "OS³P A7.10", timeout=300),
    _order("light.schedule.clear",           LightScheduleClear,            "Erase street-light profiles.", "OS³P A7.2"),
    _order("light.schedule.get",             LightScheduleGet,              "Ask for the effective schedule of a night.", "OS³P A7.4"),
    # OS³P alone
    _order("os3p.fault_indicator.test",      Os3pFaultIndicatorTest,        "Test all medium-voltage fault indicators.",
        "OS³P A7.11", idempotent=False),
    _order("os3p.fault_indicator.reset",     Os3pFaultIndicatorReset,       "Reset all medium-voltage fault indicators.",
        "OS³P A7.9", idempotent=False),
    # EKM Omnimeters
    _order("ekm.password.set",               EkmPasswordSet,                "Change the meter's password.",
        "EKM SetMeterPassword", secrets=_PASSWORDS, idempotent=False),
    _order("ekm.ct_ratio.set",               EkmCtRatioSet,                 "Tell the meter its current transformers.",
        "EKM SetCTRatio", secrets=_PASSWORD, roles=SETTERS_UP),
    _order("ekm.max_demand.interval.set",    EkmMaxDemandIntervalSet,       "Set how often maximum demand is reset.",
        "EKM SetMaxDemandResetInterval", secrets=_PASSWORD),
    _order("ekm.max_demand.reset",           EkmMaxDemandReset,             "Reset maximum demand now.",
        "EKM SetMaxDemandResetNow", secrets=_PASSWORD, idempotent=False),
    _order("ekm.max_demand.period.set",      EkmMaxDemandPeriodSet,         "Set the averaging period of demand.",
        "EKM SetMaxDemandPeriod", secrets=_PASSWORD),
    _order("ekm.lcd.set",                    EkmLcdSet,                     "Choose what the display shows.", "EKM SetLCD", secrets=_PASSWORD),
    _order("ekm.pulse_input.ratio.set",      EkmPulseInputRatioSet,         "Set the ratio of a pulse input.",
        "EKM SetPulseInputRatio", secrets=_PASSWORD, roles=SETTERS_UP),
    _order("ekm.pulse_output.ratio.set",     EkmPulseOutputRatioSet,        "Set the ratio of the pulse output.",
        "EKM SetPulseOutputRatio", secrets=_PASSWORD, roles=SETTERS_UP),
    _order("ekm.resettable_energy.reset",    EkmResettableEnergyReset,      "Zero the resettable registers.",
        "EKM SetZeroResettableKWH", secrets=_PASSWORD, idempotent=False),
    _order("ekm.holidays.set",               EkmHolidaysSet,                "Set the holidays.", "EKM SetHolidayDates", secrets=_PASSWORD),
    _order("ekm.schedule.set",               EkmScheduleSet,                "Set the tariff periods of a day schedule.",
        "EKM SetSchedule", secrets=_PASSWORD),
    _order("ekm.seasons.set",                EkmSeasonsSet,                 "Set which schedule which season has.",
        "EKM FACTS 1.8 SetSeasonSchedules", secrets=_PASSWORD),
    _order("ekm.weekend_holiday.set",        EkmWeekendHolidaySchedulesSet, "Set the schedules of weekends and holidays.",
        "EKM SetWeekendHolidaySchedules", secrets=_PASSWORD),
    _order("ekm.schedules.get",              EkmSchedulesGet,               "Read schedules, seasons and holidays.", "EKM GetSchedules"),
    _order("ekm.tariff_data.get",            EkmTariffDataGet,              "Read the registers of the last six months.", "EKM GetTariffData"),
    # EKM ioStack and gateway
    _order("ekm.iostack.password.set",       EkmIostackPasswordSet,         "Change the ioStack's password.",
        "EKM SetPassword", secrets=_PASSWORDS, idempotent=False),
    _order("ekm.one_wire.scan",              EkmOneWireScan,                "Look for 1-Wire devices.",
        "EKM ScanOneWire", roles=SETTERS_UP, timeout=60),
    _order("ekm.digital_input.reset",        EkmDigitalInputReset,          "Zero the pulse count of an input.",
        "EKM ResetDICount", secrets=_PASSWORD, idempotent=False),
    _order("ekm.digital_output.set",         EkmDigitalOutputSet,           "Set the level of an output.", "EKM SetDOLevel", secrets=_PASSWORD),
    _order("ekm.meters.scan",                EkmMetersScan,                 "Look for meters on the bus.",
        "EKM FACTS 9 ScanMeters", idempotent=False, roles=SETTERS_UP, timeout=259_200),
    _order("ekm.meters.scan.stop",           EkmMetersScanStop,             "End the search for meters; what it found is its result.",
        "EKM FACTS 9 ScanMeters", roles=SETTERS_UP),
    _order("ekm.poll_interval.set",          EkmPollIntervalSet,            "Set how often meters are read.",
        "EKM FACTS 9 SetPollInterval", roles=SETTERS_UP),
    # OCPP alone
    _order("ocpp.reservation.set",           OcppReservationSet,            "Reserve a connector.", "OCPP 5.13"),
    _order("ocpp.reservation.cancel",        OcppReservationCancel,         "Give a reservation up.", "OCPP 5.1"),
    _order("ocpp.cache.clear",               OcppCacheClear,                "Clear the authorisation cache.", "OCPP 5.4"),
    _order("ocpp.data_transfer",             OcppDataTransfer,              "Send a vendor's own message.", "OCPP 5.6", idempotent=False),
    _order("ocpp.local_list.set",            OcppLocalListSet,              "Send the local authorisation list.", "OCPP 5.15", timeout=120),
    _order("ocpp.local_list.version.get",    OcppLocalListVersionGet,       "Ask for the version of the local list.", "OCPP 5.10"),
    _order("ocpp.charging_profile.set",      OcppChargingProfileSet,        "Set a charging profile.", "OCPP 5.16"),
    _order("ocpp.charging_profile.clear",    OcppChargingProfileClear,      "Clear charging profiles.", "OCPP 5.5"),
    _order("ocpp.composite_schedule.get",    OcppCompositeScheduleGet,      "Ask what all profiles together allow.", "OCPP 5.7"),
    _order("ocpp.authorization_key.set",     OcppAuthorizationKeySet,       "Change the station's password.",
        "OCPP-SEC AuthorizationKey", secrets=("key",), idempotent=False),
    _order("ocpp.certificate.install",       OcppCertificateInstall,        "Install a root certificate.", "OCPP-SEC InstallCertificate"),
    _order("ocpp.certificate.signed",        OcppCertificateSigned,         "Deliver a signed certificate.", "OCPP-SEC CertificateSigned"),
    _order("ocpp.certificate.delete",        OcppCertificateDelete,         "Delete a certificate.", "OCPP-SEC DeleteCertificate"),
    _order("ocpp.certificates.get",          OcppCertificatesGet,           "List installed certificates.", "OCPP-SEC GetInstalledCertificateIds"),
    # EVerest alone
    _order("everest.authorization.withdraw", EverestAuthorizationWithdraw,  "Withdraw an authorisation.", "EVerest FACTS 2.9 withdraw_authorization"),
    _order("everest.errors.get",             EverestErrorsGet,              "Ask for the charger's active errors.", "EVerest FACTS 2.9 get_errors"),
    _order("everest.session_cost.set",       EverestSessionCostSet,         "Tell the charger what the session costs.",
        "EVerest FACTS 2.9 session_cost"),
    _order("everest.tariff_message.set",     EverestTariffMessageSet,       "Tell the charger a text about the price.",
        "EVerest FACTS 2.9 tariff_message"),
)

_READS = (
    _read("device.read",       EVERYBODY, "See a device: name, kind, state, capabilities; no values.", "Witty IV.A.4"),
    _read("site.read",         EVERYBODY, "See a site and which devices it has.", "Witty IV.A.1"),
    _read("alarms.read",       EVERYBODY, "See what is wrong now and was wrong before.", "Witty IV.A.4"),
    _read("readings.read",     READERS,   "See values, registers and aggregates.", "Witty IV.A.4"),
    _read("events.read",       READERS,   "See what happened.", "Witty IV.A.4"),
    _read("commands.read",     READERS,   "See orders and their results."),
    _read("transactions.read", READERS,   "See metered transactions and signed receipts."),
    _read("costs.read",        READERS,   "See costs and prices.", "Witty IV.A.4"),
    _read("tariffs.read",      READERS,   "See prices and their history.", "Witty IV.C.5"),
    _read("audit.read",        ORDERERS,  "See who ordered or changed what, when, from where."),
    _read("grants.read",       ORDERERS,  "See with whom a site is shared.", "Witty IV.A.4.e"),
    _read("webhooks.read",     ORDERERS,  "See subscriptions and their deliveries.", "Witty IV.A.3.a"),
    _read("files.read",        STAFF,     "Fetch files that devices uploaded.", "OS³P A7.5"),
    _read("hub.read",          STAFF,     "See health, metrics, queues and configuration of the hub."),
)

_MANAGES = (
    _manage("device.manage",            ORDERERS, "Add, name, move and remove devices.", "Witty IV.B.2.c, d, h"),
    _manage("device.approve",           STAFF,    "Accept or reject a device that has presented itself.", "OS³P A3.1"),
    _manage("device.credential.manage", STAFF,    "Set the secret that a device presents.", "OS³P G5.1; OCPP-SEC"),
    _manage("site.manage",              ORDERERS, "Create and change sites.", "Witty IV.A.2"),
    _manage("grant.manage",             OWNERS,   "Share a site, disable and end the sharing.", "Witty IV.A.4"),
    _manage("invitation.accept",        frozenset({Role.ADMIN, Role.INSTALLER}), "Accept an invitation to a site.", "Witty IV.A.4.d"),
    _manage("consent.manage",           OWNERS,   "Allow or refuse that house consumption leaves the hub.", "Witty IV.C.2 authorize-tic"),
    _manage("tariff.manage",            ORDERERS, "Set prices and which registers are off-peak.", "Witty IV.C.5.d"),
    _manage("alarm.acknowledge",        ORDERERS, "Say that an alarm was seen."),
    _manage("webhook.manage",           ORDERERS, "Subscribe, unsubscribe, test and replay notifications.", "Witty IV.A.3"),
    _manage("outbox.manage",            STAFF,    "Replay or drop what could not be delivered."),
    _manage("file.manage",              STAFF,    "Put firmware and other files where devices fetch them.", "OS³P A7.13"),
    _manage("key.manage",               STAFF,    "Create and revoke account keys, gateway keys and signing keys.", "EKM FACTS 9; EVerest FACTS 4.4"),
    _manage("account.manage",           ADMINS,   "Create and change accounts."),
    _manage("token.manage",             ADMINS,   "Create and revoke tokens."),
    _manage("hub.manage",               ADMINS,   "Back up, restore, compact and configure the hub."),
)
# fmt: on

TABLE: Mapping[str, Verb] = MappingProxyType({verb.name: verb for verb in (*_ORDERS, *_READS, *_MANAGES)})
"""Every verb by name, in the order of this file."""


def validate(verb: str, arguments: Mapping[str, Any]) -> Any:
    """The arguments (JSON values) as the verb's Struct. Raises InvalidInput with every offending path (``$.relay``…); secrets are not repeated."""
    row = _row(verb)
    return faults.read(row.arguments, dict(arguments), f"arguments of {verb}", hide=row.secrets)


def masked(verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for logs, answers and the audit trail: secrets that were given are ``***``.

    The ``value`` of a configuration key whose name is that of a secret counts as one; credentials in any other are masked.
    """
    secrets: Collection[str] = _row(verb).secrets
    shown = {name: "***" if name in secrets and value is not None else value for name, value in arguments.items()}
    if isinstance(shown.get("key"), str) and isinstance(shown.get("value"), str):
        shown["value"] = without_credentials(shown["key"], shown["value"])
    return shown


def without_credentials(key: str, value: str) -> str:
    """The value of a key of a device's configuration as people may see it."""
    return "***" if settings.is_secret_name(key) and value else settings.masked(value)


@lru_cache(maxsize=256)
def json_schema(verb: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of the verb's arguments; secrets are ``writeOnly``. Raises InvalidInput for an unknown verb. Do not change the result."""
    row = _row(verb)
    (schema,), definitions = msgspec.json.schema_components([row.arguments], ref_template="#/$defs/{name}")
    own: dict[str, Any] = definitions.pop(schema["$ref"].rpartition("/")[2])
    for name in row.secrets:
        own["properties"][name]["writeOnly"] = True
    return own | {"$defs": definitions} if definitions else own


def _row(verb: str) -> Verb:
    row = TABLE.get(verb)
    if row is None:
        reason = f"there is no verb {verb[:60]!r}{faults.nearest(verb, TABLE)}"
        raise InvalidInput(reason, (FieldFault("$.verb", reason),))
    return row
