"""The messages of the Push3 Device Settings API, spelled as on the wire: what is posted, what is answered, what comes on the response channel.

``COMMANDS`` is the table: which commands a target has, and the parameters of each. Shapes that EKM has not published are ours (FACTS 4.5 and 9): they
follow the names of EKM's own library; docs/reference/ekm.md lists them. A parameter that is not in the table is refused: a misspelled ``duration``
would hold a relay for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

SECRETS = ("meter_password", "new_password", "password")
"""Parameters that no answer repeats."""


class SendCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /sendCommand``. What is not named here is not looked at."""

    command: Annotated[str, Meta(max_length=100)]
    target: Annotated[str, Meta(max_length=100)]
    target_id: Annotated[str, Meta(min_length=1, max_length=100)]
    params: dict[str, Any] | None = None
    client: Annotated[str, Meta(max_length=100)] | None = None
    key: Annotated[str, Meta(max_length=500)] | None = None
    response_channel_id: Annotated[str, Meta(max_length=128)] | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The 200: the command was sent, or waits for its gateway; how it ends is told on the channel."""

    msg_id: str
    response_channel_id: str
    response_channel_host: str


class Response(msgspec.Struct, frozen=True):
    """How a command ended. ``timestamp``: seconds since the epoch, when the gateway received it."""

    msg_id: str
    timestamp: float
    success: bool
    error: str | None
    data: Any


class Failure(msgspec.Struct, frozen=True):
    """Every answer that is not 200."""

    error: str


# ------------------------------------------------------------------------------------------------------------------- parameters


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parameters; also those of a command that has none."""


class MeterParameters(Parameters, frozen=True, kw_only=True):
    """Of every meter command, also of those that need no password."""

    meter_password: Annotated[str, Meta(pattern=r"^[0-9]{8}$(?!\n)", description="eight digits")] = "00000000"  # noqa: S105  published


Number = Annotated[str, Meta(pattern=r"^[0-9]{1,5}$(?!\n)")] | int
"""A number that the document writes as text; one written as a number is taken, too. Its range is said where it is translated."""
Month = Annotated[int, Meta(ge=1, le=12)]
Day = Annotated[int, Meta(ge=1, le=31)]
Hour = Annotated[int, Meta(ge=0, le=23)]
Minute = Annotated[int, Meta(ge=0, le=59)]
Tariff = Annotated[int, Meta(ge=1, le=4)]
ScheduleNumber = Annotated[int, Meta(ge=1, le=6)]
PulseLine = Annotated[int, Meta(ge=1, le=3)]
Pin = Annotated[int, Meta(ge=1, le=4)]
Password = Annotated[str, Meta(min_length=1, max_length=64)]


class SetMeterPassword(MeterParameters, frozen=True, kw_only=True):
    """A lost password cannot be recovered."""

    new_password: Annotated[str, Meta(pattern=r"^[0-9]{8}$(?!\n)", description="eight digits")]


class SetCTRatio(MeterParameters, frozen=True, kw_only=True):
    """Amperes of the current transformers."""

    ct_ratio: Number


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Wall-clock time at the device."""

    year: Number
    month: Number
    day: Number
    hour: Number
    minutes: Number
    seconds: Number


class SetTime(Moment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weekday is the hub's business."""

    meter_password: Annotated[str, Meta(pattern=r"^[0-9]{8}$(?!\n)", description="eight digits")] = "00000000"  # noqa: S105  published


class SetMaxDemandResetInterval(MeterParameters, frozen=True, kw_only=True):
    """0 off, 1 monthly, 2 weekly, 3 daily, 4 hourly."""

    interval: Annotated[int, Meta(ge=0, le=4)]


class SetMaxDemandPeriod(MeterParameters, frozen=True, kw_only=True):
    """1: 15 minutes, 2: 30 minutes, 3 or 4: 60 minutes."""

    max_demand_period: Annotated[int, Meta(ge=1, le=4)]


class SetLCD(MeterParameters, frozen=True, kw_only=True):
    """Names (``kWh_Tot``) or numbers of what the display shows."""

    display_fields: Annotated[list[str | int], Meta(min_length=1, max_length=40)]


class SetPulseInputRatio(MeterParameters, frozen=True, kw_only=True):
    """Pulses per unit."""

    pulse_line: PulseLine
    pulse_input_ratio: Annotated[int, Meta(ge=0, le=9_999)]


class SetPulseOutputRatio(MeterParameters, frozen=True, kw_only=True):
    """Pulses per kWh. A meter has one output, so the line may be left out."""

    pulse_line: PulseLine = 1
    pulse_output_ratio: Annotated[int, Meta(ge=1, le=1_600)]


class SetRelay(MeterParameters, frozen=True, kw_only=True):
    """``duration`` in seconds, 0 holds."""

    relay: Annotated[str, Meta(max_length=20)]
    status: Annotated[str, Meta(max_length=20)]
    duration: Annotated[int, Meta(ge=0, le=9_999)]


class SetWeekendHolidaySchedules(MeterParameters, frozen=True, kw_only=True):
    """Numbers of schedules."""

    weekend_schedule: ScheduleNumber
    holiday_schedule: ScheduleNumber


class SetPassword(Parameters, frozen=True, kw_only=True):
    """Of an ioStack."""

    new_password: Password
    password: Password


class SetDateTime(Moment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an ioStack; parameters as SetTime."""

    password: Password | None = None


class ResetDICount(Parameters, frozen=True, kw_only=True):
    """Of one digital input."""

    pin: Pin
    password: Password | None = None


class SetDOLevel(Parameters, frozen=True, kw_only=True):
    """Of one digital output."""

    pin: Pin
    level: Annotated[int, Meta(ge=0, le=1)]
    clear_watch: bool = False
    password: Password | None = None


class ScanMeters(Parameters, frozen=True, kw_only=True):
    """Addresses, both included."""

    first: Annotated[str, Meta(pattern=r"^[0-9]{1,12}$(?!\n)", description="1 to 12 digits")] = msgspec.field(name="from")
    last: Annotated[str, Meta(pattern=r"^[0-9]{1,12}$(?!\n)", description="1 to 12 digits")] = msgspec.field(name="to")


class SetPollInterval(Parameters, frozen=True, kw_only=True):
    """Of all meters of the gateway."""

    seconds: Annotated[int, Meta(ge=1, le=86_400)]


def _numbered(name: str, fields: list[tuple[str, Any] | tuple[str, Any, Any]], what: str) -> type[MeterParameters]:
    made = msgspec.defstruct(
        name, fields, bases=(MeterParameters,), frozen=True, kw_only=True, forbid_unknown_fields=True, module=__name__, namespace={"__doc__": what}
    )
    assert issubclass(made, MeterParameters)
    return made


PERIODS, SEASONS, HOLIDAYS = 4, 4, 20
"""How many a schedule, a year and a year have."""

SetSchedule = _numbered(
    "SetSchedule",
    [("Schedule", ScheduleNumber)]
    + [(f"{part}_{n}", kind | None, None) for n in range(1, PERIODS + 1) for part, kind in (("Hour", Hour), ("Min", Minute), ("Tariff", Tariff))],
    "A schedule's periods: the tariff from an hour and minute on.",
)
SetSeasonSchedules = _numbered(
    "SetSeasonSchedules",
    [
        (f"Season_{n}_{part}", kind | None, None)
        for n in range(1, SEASONS + 1)
        for part, kind in (("Start_Month", Month), ("Start_Day", Day), ("Schedule", ScheduleNumber))
    ],
    "Which schedule is in force from a day of the year on.",
)
SetHolidayDates = _numbered(
    "SetHolidayDates",
    [(f"Holiday_{n}_{part}", kind | None, None) for n in range(1, HOLIDAYS + 1) for part, kind in (("Month", Month), ("Day", Day))],
    "All holidays; what is not named is none any more.",
)


class Kind(msgspec.Struct, frozen=True):
    """A command: its parameters, the core's verb for it, and whether it answers with data. ``published``: its shape is the maker's, not ours."""

    parameters: type[Parameters] | type[Moment]
    verb: str
    data: bool = False
    published: bool = True


# fmt: off
COMMANDS: Mapping[str, Mapping[str, Kind]] = MappingProxyType({
    "meter": MappingProxyType({
        "SetMeterPassword":           Kind(SetMeterPassword,           "ekm.password.set"),
        "SetCTRatio":                 Kind(SetCTRatio,                 "ekm.ct_ratio.set"),
        "SetTime":                    Kind(SetTime,                    "device.clock.set"),
        "SetMaxDemandResetInterval":  Kind(SetMaxDemandResetInterval,  "ekm.max_demand.interval.set"),
        "SetMaxDemandResetNow":       Kind(MeterParameters,            "ekm.max_demand.reset"),
        "SetMaxDemandPeriod":         Kind(SetMaxDemandPeriod,         "ekm.max_demand.period.set"),
        "SetLCD":                     Kind(SetLCD,                     "ekm.lcd.set"),
        "SetPulseInputRatio":         Kind(SetPulseInputRatio,         "ekm.pulse_input.ratio.set"),
        "SetPulseOutputRatio":        Kind(SetPulseOutputRatio,        "ekm.pulse_output.ratio.set"),
        "SetZeroResettableKWH":       Kind(MeterParameters,            "ekm.resettable_energy.reset"),
        "SetRelay":                   Kind(SetRelay,                   "relay.set"),
        "SetHolidayDates":            Kind(SetHolidayDates,            "ekm.holidays.set", published=False),
        "SetSchedule":                Kind(SetSchedule,                "ekm.schedule.set", published=False),
        "SetSeasonSchedules":         Kind(SetSeasonSchedules,         "ekm.seasons.set", published=False),
        "SetWeekendHolidaySchedules": Kind(SetWeekendHolidaySchedules, "ekm.weekend_holiday.set"),
        "GetSchedules":               Kind(MeterParameters,            "ekm.schedules.get", data=True),
        "GetTariffData":              Kind(MeterParameters,            "ekm.tariff_data.get", data=True),
    }),
    "iostack": MappingProxyType({
        "SetPassword":                Kind(SetPassword,                "ekm.iostack.password.set"),
        "ScanOneWire":                Kind(Parameters,                 "ekm.one_wire.scan", data=True),
        "GetStatus":                  Kind(Parameters,                 "device.status.get", data=True),
        "SetDateTime":                Kind(SetDateTime,                "device.clock.set", published=False),
        "ResetDICount":               Kind(ResetDICount,               "ekm.digital_input.reset"),
        "SetDOLevel":                 Kind(SetDOLevel,                 "ekm.digital_output.set"),
    }),
    "gateway": MappingProxyType({
        "GetStatus":                  Kind(Parameters,                 "device.status.get", data=True, published=False),
        "ScanMeters":                 Kind(ScanMeters,                 "ekm.meters.scan", data=True, published=False),
        "StopScan":                   Kind(Parameters,                 "ekm.meters.scan.stop", data=True, published=False),
        "SetPollInterval":            Kind(SetPollInterval,            "ekm.poll_interval.set", published=False),
    }),
})
# fmt: on
