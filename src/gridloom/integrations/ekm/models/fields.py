"""TABLE: what stands at which byte of the 255-byte replies of an Omnimeter (FACTS 1.5; A and B are checked on real frames, V3 is EKM's library's).

Every reply is STX, model, firmware, address, fields, ``!`` CR LF ETX, CRC. Fields are ASCII digits, zero filled, unless their kind says otherwise.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Kind(enum.StrEnum):
    """How the bytes of a field are read."""

    DIGITS = "digits"  # an unsigned decimal number
    TEXT = "text"  # ASCII
    RAW = "raw"  # bytes of any value, shown as hexadecimal digits
    POWER_FACTOR = "power factor"  # L (lags), C (leads) or a space, and three digits: a hundred times cos φ


DIGITS, TEXT, RAW, POWER_FACTOR = Kind
ENERGY: Final = None
"""The exponent of a field whose decimals are those of the energy registers: kWh_Scale of the A reply; always one decimal on a v3 (FACTS 1.6)."""


class Field(NamedTuple):
    """``size`` bytes at ``offset``. The value is the number times ``10**exponent``, in EKM's unit (kWh, kVARh, V, A, W, VAR, Hz)."""

    name: str
    offset: int
    size: int
    kind: Kind
    exponent: int | None = 0


class Layout(NamedTuple):
    """One of the three replies. ``suffix`` is what a request for it has behind the address, ``request_type`` what the reply repeats of it."""

    name: str
    suffix: bytes
    fields: tuple[Field, ...]

    @property
    def request_type(self) -> bytes:
        """As in the field Request_Type; a v3 has none."""
        return self.suffix


# fmt: off
_V3 = (
    Field("reserved_10",             0,  1, RAW),
    Field("Model",                   1,  2, RAW),
    Field("Firmware",                3,  1, RAW),
    Field("Meter_Address",           4, 12, TEXT),
    Field("kWh_Tot",                16,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_1",           24,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_2",           32,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_3",           40,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_4",           48,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tot",            56,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_1",       64,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_2",       72,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_3",       80,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_4",       88,  8, DIGITS, ENERGY),
    Field("RMS_Volts_Ln_1",         96,  4, DIGITS, -1),
    Field("RMS_Volts_Ln_2",        100,  4, DIGITS, -1),
    Field("RMS_Volts_Ln_3",        104,  4, DIGITS, -1),
    Field("Amps_Ln_1",             108,  5, DIGITS, -1),
    Field("Amps_Ln_2",             113,  5, DIGITS, -1),
    Field("Amps_Ln_3",             118,  5, DIGITS, -1),
    Field("RMS_Watts_Ln_1",        123,  7, DIGITS),
    Field("RMS_Watts_Ln_2",        130,  7, DIGITS),
    Field("RMS_Watts_Ln_3",        137,  7, DIGITS),
    Field("RMS_Watts_Tot",         144,  7, DIGITS),
    Field("Cos_Theta_Ln_1",        151,  4, POWER_FACTOR),
    Field("Cos_Theta_Ln_2",        155,  4, POWER_FACTOR),
    Field("Cos_Theta_Ln_3",        159,  4, POWER_FACTOR),
    Field("RMS_Watts_Max_Demand",  163,  8, DIGITS, ENERGY),
    Field("Max_Demand_Period",     171,  1, DIGITS),
    Field("Meter_Time",            172, 14, TEXT),
    Field("CT_Ratio",              186,  4, DIGITS),
    Field("Pulse_Cnt_1",           190,  8, DIGITS),
    Field("Pulse_Cnt_2",           198,  8, DIGITS),
    Field("Pulse_Cnt_3",           206,  8, DIGITS),
    Field("Pulse_Ratio_1",         214,  4, DIGITS),
    Field("Pulse_Ratio_2",         218,  4, DIGITS),
    Field("Pulse_Ratio_3",         222,  4, DIGITS),
    Field("State_Inputs",          226,  3, DIGITS),
    Field("reserved_11",           229, 19, RAW),
    Field("Meter_Status_Code",     248,  1, RAW),
    Field("reserved_12",           249,  4, RAW),
    Field("crc16",                 253,  2, RAW),
)
_A = (
    Field("reserved_1",              0,  1, RAW),
    Field("Model",                   1,  2, RAW),
    Field("Firmware",                3,  1, RAW),
    Field("Meter_Address",           4, 12, TEXT),
    Field("kWh_Tot",                16,  8, DIGITS, ENERGY),
    Field("Reactive_Energy_Tot",    24,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tot",            32,  8, DIGITS, ENERGY),
    Field("kWh_Ln_1",               40,  8, DIGITS, ENERGY),
    Field("kWh_Ln_2",               48,  8, DIGITS, ENERGY),
    Field("kWh_Ln_3",               56,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Ln_1",           64,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Ln_2",           72,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Ln_3",           80,  8, DIGITS, ENERGY),
    Field("kWh_Rst",                88,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Rst",            96,  8, DIGITS, ENERGY),
    Field("RMS_Volts_Ln_1",        104,  4, DIGITS, -1),
    Field("RMS_Volts_Ln_2",        108,  4, DIGITS, -1),
    Field("RMS_Volts_Ln_3",        112,  4, DIGITS, -1),
    Field("Amps_Ln_1",             116,  5, DIGITS, -1),
    Field("Amps_Ln_2",             121,  5, DIGITS, -1),
    Field("Amps_Ln_3",             126,  5, DIGITS, -1),
    Field("RMS_Watts_Ln_1",        131,  7, DIGITS),
    Field("RMS_Watts_Ln_2",        138,  7, DIGITS),
    Field("RMS_Watts_Ln_3",        145,  7, DIGITS),
    Field("RMS_Watts_Tot",         152,  7, DIGITS),
    Field("Cos_Theta_Ln_1",        159,  4, POWER_FACTOR),
    Field("Cos_Theta_Ln_2",        163,  4, POWER_FACTOR),
    Field("Cos_Theta_Ln_3",        167,  4, POWER_FACTOR),
    Field("Reactive_Pwr_Ln_1",     171,  7, DIGITS),
    Field("Reactive_Pwr_Ln_2",     178,  7, DIGITS),
    Field("Reactive_Pwr_Ln_3",     185,  7, DIGITS),
    Field("Reactive_Pwr_Tot",      192,  7, DIGITS),
    Field("Line_Freq",             199,  4, DIGITS, -2),
    Field("Pulse_Cnt_1",           203,  8, DIGITS),
    Field("Pulse_Cnt_2",           211,  8, DIGITS),
    Field("Pulse_Cnt_3",           219,  8, DIGITS),
    Field("State_Inputs",          227,  1, DIGITS),
    Field("State_Watts_Dir",       228,  1, DIGITS),
    Field("State_Out",             229,  1, DIGITS),
    Field("kWh_Scale",             230,  1, DIGITS),
    Field("reserved_2",            231,  2, RAW),
    Field("Meter_Time",            233, 14, TEXT),
    Field("Request_Type",          247,  2, TEXT),
    Field("reserved_4",            249,  4, RAW),
    Field("crc16",                 253,  2, RAW),
)
_B = (
    Field("reserved_5",              0,  1, RAW),
    Field("Model",                   1,  2, RAW),
    Field("Firmware",                3,  1, RAW),
    Field("Meter_Address",           4, 12, TEXT),
    Field("kWh_Tariff_1",           16,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_2",           24,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_3",           32,  8, DIGITS, ENERGY),
    Field("kWh_Tariff_4",           40,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_1",       48,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_2",       56,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_3",       64,  8, DIGITS, ENERGY),
    Field("Rev_kWh_Tariff_4",       72,  8, DIGITS, ENERGY),
    Field("RMS_Volts_Ln_1",         80,  4, DIGITS, -1),
    Field("RMS_Volts_Ln_2",         84,  4, DIGITS, -1),
    Field("RMS_Volts_Ln_3",         88,  4, DIGITS, -1),
    Field("Amps_Ln_1",              92,  5, DIGITS, -1),
    Field("Amps_Ln_2",              97,  5, DIGITS, -1),
    Field("Amps_Ln_3",             102,  5, DIGITS, -1),
    Field("RMS_Watts_Ln_1",        107,  7, DIGITS),
    Field("RMS_Watts_Ln_2",        114,  7, DIGITS),
    Field("RMS_Watts_Ln_3",        121,  7, DIGITS),
    Field("RMS_Watts_Tot",         128,  7, DIGITS),
    Field("Cos_Theta_Ln_1",        135,  4, POWER_FACTOR),
    Field("Cos_Theta_Ln_2",        139,  4, POWER_FACTOR),
    Field("Cos_Theta_Ln_3",        143,  4, POWER_FACTOR),
    Field("RMS_Watts_Max_Demand",  147,  8, DIGITS, -1),
    Field("Max_Demand_Period",     155,  1, DIGITS),
    Field("Pulse_Ratio_1",         156,  4, DIGITS),
    Field("Pulse_Ratio_2",         160,  4, DIGITS),
    Field("Pulse_Ratio_3",         164,  4, DIGITS),
    Field("CT_Ratio",              168,  4, DIGITS),
    Field("Max_Demand_Rst",        172,  1, DIGITS),
    Field("CF_Ratio",              173,  4, DIGITS),
    Field("reserved_7",            177, 53, RAW),
    Field("Meter_Status_Code_A",   230,  1, RAW),
    Field("Meter_Status_Code_B",   231,  1, RAW),
    Field("Meter_Status_Code_C",   232,  1, RAW),
    Field("Meter_Time",            233, 14, TEXT),
    Field("Request_Type",          247,  2, TEXT),
    Field("reserved_9",            249,  4, RAW),
    Field("crc16",                 253,  2, RAW),
)
# fmt: on

V3 = Layout("V3", b"", _V3)
A = Layout("A", b"00", _A)
B = Layout("B", b"01", _B)
LAYOUTS = {layout.name: layout for layout in (V3, A, B)}
