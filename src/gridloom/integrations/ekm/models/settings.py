"""TABLE: what can be written into an Omnimeter, into which register, and what each model takes (FACTS 1.8).

A row's ``name`` is the command of the Settings API. Numbers of days, schedules and tariffs are those that people use; what the wire counts
from 0 is said in the row's note.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Setting(NamedTuple):
    """``register`` (four hexadecimal digits; the last may count a line, a relay or a schedule) takes ``size`` characters of data."""

    name: str
    register: str
    size: int
    v3: bool
    clause: str


# fmt: off
_ROWS = (
    Setting("SetMeterPassword",            "0020",  8, True,  "eight digits; a lost password cannot be recovered"),
    Setting("SetMaxDemandResetNow",        "0040",  6, True,  "six zeros"),
    Setting("SetMaxDemandPeriod",          "0050",  1, True,  "1: 15 min, 2: 30 min, 3 or 4: 60 min (see Model.hour)"),
    Setting("SetTime",                     "0060", 14, True,  "YYMMDDWWhhmmss, Sunday is 01 (FACTS 1.7)"),
    Setting("SetSchedule",                 "0070", 48, True,  "0070 to 0075 are schedules 1 to 6: 4 x (HH MM TT), 24 zeros"),
    Setting("SetSeasonSchedules",          "0080", 48, True,  "4 x (MM DD SS), 24 zeros; SS counts from 1"),
    Setting("SetRelay",                    "0081",  5, False, "0081, 0082: 1 close or 0 open, then 4 digits of seconds, 0 holds"),
    Setting("SetPulseInputRatio",          "00A0",  4, False, "00A0 to 00A2 are lines 1 to 3"),
    Setting("SetHolidayDates",             "00B0", 80, True,  "20 x (MM DD); 0000 is unused"),
    Setting("SetWeekendHolidaySchedules",  "00C0",  4, True,  "schedule of weekends, schedule of holidays"),
    Setting("SetCTRatio",                  "00D0",  4, True,  "amperes of the current transformer"),
    Setting("SetLCD",                      "00D2", 80, False, "40 x item; 00 is unused"),
    Setting("SetZeroResettableKWH",        "00D3",  0, False, "no data"),
    Setting("SetPulseOutputRatio",         "00D4",  4, False, "pulses per kWh; what is allowed depends on the CT ratio"),
    Setting("SetMaxDemandResetInterval",   "00D5",  1, False, "0 off, 1 monthly, 2 weekly, 3 daily, 4 hourly"),
)
# fmt: on

SETTINGS: Mapping[str, Setting] = MappingProxyType({row.name: row for row in _ROWS})

INTERVALS: Mapping[str, int] = MappingProxyType({"off": 0, "monthly": 1, "weekly": 2, "daily": 3, "hourly": 4})
"""SetMaxDemandResetInterval, and the field Max_Demand_Rst."""

DEMAND_MINUTES: Mapping[int, int] = MappingProxyType({1: 15, 2: 30, 3: 60, 4: 60})
"""The field Max_Demand_Period; which of 3 and 4 a meter has for an hour is not settled (FACTS 0.3)."""


def _ratios(text: str) -> frozenset[int]:
    return frozenset(int(word) for word in text.split())


_200 = _ratios("1 2 4 5 8 10 16 20 25 32 40 50 80 100 160 200 400 800")
_400 = _ratios("1 2 4 5 8 10 16 20 25 40 50 80 100 200 400")
_1000 = _ratios("1 2 4 5 8 10 16 20 32 40 80 160")
PULSE_OUTPUT: Mapping[int, frozenset[int]] = MappingProxyType(
    {
        100: _ratios("1 2 4 5 8 10 16 20 25 32 40 50 64 80 100 160 200 320 400 800 1600"),
        200: _200,
        400: _400,
        600: _200,
        800: _ratios("1 2 4 5 8 10 20 25 40 50 100 200"),
        1000: _1000,
        1200: _400,
        1500: _ratios("1 2 4 5 8 10 16 20 32 40 64 80 160 320"),
        2000: _ratios("1 2 4 5 8 10 16 20 40 80"),
        3000: _1000,
        4000: _ratios("1 2 4 5 8 10 20 40"),
        5000: _ratios("1 2 4 8 16 32"),
    }
)
"""CT ratio -> the pulse output ratios that go with it (EKM's ekmdevice)."""


def _items() -> dict[int, str]:
    names = "kWh_Tot Rev_kWh_Tot RMS_Volts_Ln_1 RMS_Volts_Ln_2 RMS_Volts_Ln_3 Amps_Ln_1 Amps_Ln_2 Amps_Ln_3 RMS_Watts_Ln_1 RMS_Watts_Ln_2"
    names += " RMS_Watts_Ln_3 RMS_Watts_Tot Power_Factor_Ln_1 Power_Factor_Ln_2 Power_Factor_Ln_3 kWh_Tariff_1 kWh_Tariff_2 kWh_Tariff_3"
    names += " kWh_Tariff_4 Rev_kWh_Tariff_1 Rev_kWh_Tariff_2 Rev_kWh_Tariff_3 Rev_kWh_Tariff_4 Reactive_Pwr_Ln_1 Reactive_Pwr_Ln_2"
    names += " Reactive_Pwr_Ln_3 Reactive_Pwr_Tot Line_Freq Pulse_Cnt_1 Pulse_Cnt_2 Pulse_Cnt_3 kWh_Ln_1 Rev_kWh_Ln_1 kWh_Ln_2 Rev_kWh_Ln_2"
    names += " kWh_Ln_3 Rev_kWh_Ln_3 Reactive_Energy_Tot kWh_Rst Rev_kWh_Rst State_Inputs Max_Demand Raw_Pulse_1 Raw_Pulse_2 Raw_Pulse_3"
    return dict(enumerate(names.split(), 1)) | {47: "CT_Ratio", 51: "Calc_Fwd_kWh"}


LCD_ITEMS: Mapping[int, str] = MappingProxyType(_items())
"""What a display can show, by the number that SetLCD sends."""
LCD_PLACES = 40
