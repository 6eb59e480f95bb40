"""What OS³P's measurands mean (annex A6.5): tables 1 and 2 as rows, and what a sent name, unit and location become in the core's words.

Direction is part of the core's names (``…Import…``, ``…Export…``). OS³P has no tariff registers: the P1 meter's register is the total of its tariffs.

**Unlisted names.** Two pairs of names mean the same at one place: ``RealEnergyConsumed.Sum`` and ``Energy.Active.Import.Register``,
``ActivePower.Sum`` and ``Power.Active.Import``. Table 1 lists the first of each for the station, the second for the P1 meter. Sent for the other
place (the document's own example does so, I14) they may come from another register, so they are a series of their own, whose location is ``unlisted``
(``P1Meter:unlisted``); so is a name that no table lists but that would be taken for one of the core's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from gridloom.core import measurands
from gridloom.core.errors import InvalidInput
from gridloom.core.measurands import Conversion, normalise_unit
from gridloom.core.model import Phase, Quality, ReadingType

P1METER = "P1Meter"
LOCATIONS = ("In", "Out", "Body", P1METER)
UNITS = frozenset({"Wh", "kWh", "varh", "kvarh", "W", "kW", "VA", "VAh", "kVA", "var", "kvar", "A", "V", "K", "Hz", "C", "%"})
"""The units that the schema allows; any other spelling is understood and flagged (I9)."""
UNLISTED = "unlisted"
SIGNED = "signed"
LONGEST_NAME = 100


class Row(msgspec.Struct, frozen=True):
    """One line of table 1 or 2. ``unit`` is spelled as there, None for ``-``; ``measurand``, ``base`` and ``phase`` are the core's.

    ``in_schema``: the enumeration of the schema has the name (it lacks BoardTemperature, I10). ``clause``: where the line stands.
    """

    name: str
    location: str | None
    unit: str | None
    measurand: str
    base: str
    phase: Phase | None
    deprecated: bool
    in_schema: bool
    clause: str


def _rows(name: str, suffixes: str, unit: str, measurand: str, location: str | None = None, *, table: int = 1) -> Iterator[Row]:
    """The lines of a name with each of its suffixes; ``.`` stands for none."""
    for suffix in suffixes.split():
        full = name if suffix == "." else f"{name}.{suffix}"
        phase = None if suffix in (".", "Sum") else Phase(suffix.removesuffix("N") or "N")
        base = measurands.TABLE[measurand].unit
        yield Row(full, location, unit or None, measurand, base, phase, table == 2, full != "BoardTemperature", f"A6.5 table {table}")


_L, _LN, _SUM, _ONE = "L1 L2 L3", "L1N L2N L3N", "L1 L2 L3 Sum", "."

# fmt: off
_ROWS = (
    *_rows("AmbientTemperature",                   _ONE,        "Celsius", "Temperature.Ambient"),
    *_rows("OilTemperature",                       _ONE,        "Celsius", "Temperature.Oil"),
    *_rows("BoardTemperature",                     _ONE,        "Celsius", "Temperature.Board"),
    *_rows("Voltage",                              _LN,         "V",       "Voltage"),
    *_rows("Current",                              "N " + _SUM, "A",       "Current.Import"),
    *_rows("PowerFactor",                          _SUM,        "",        "Power.Factor"),
    *_rows("ActivePower",                          _SUM,        "W",       "Power.Active.Import"),
    *_rows("ApparentPower",                        _SUM,        "VA",      "Power.Apparent.Import"),
    *_rows("ReactivePower",                        _SUM,        "var",     "Power.Reactive.Import"),
    *_rows("RealEnergyConsumed",                   _SUM,        "Wh",      "Energy.Active.Import.Register"),
    *_rows("RealEnergyDelivered",                  _SUM,        "Wh",      "Energy.Active.Export.Register"),
    *_rows("ApparentEnergy",                       _SUM,        "VAh",     "Energy.Apparent.Import.Register"),
    *_rows("ReactiveEnergy",                       _SUM,        "varh",    "Energy.Reactive.Import.Register"),
    *_rows("THDv",                                 _LN,         "%",       "THD.Voltage"),
    *_rows("THDc",                                 _L,          "%",       "THD.Current"),
    *_rows("Frequency",                            _ONE,        "Hz",      "Frequency"),
    *_rows("Current",                              _L,          "Amp",     "Current.Import",                       P1METER),
    *_rows("ActivePower",                          _L,          "kW",      "Power.Active.Import",                  P1METER),
    *_rows("Energy.Active.Import.Register",        _ONE,        "kWh",     "Energy.Active.Import.Register",        P1METER),
    *_rows("Power.Active.Import",                  _ONE,        "kW",      "Power.Active.Import",                  P1METER),
    *_rows("DayMax.Voltage",                       _L,          "V",       "DayMax.Voltage"),
    *_rows("DayMax.Current",                       _L,          "A",       "DayMax.Current.Import"),
    *_rows("DayMax.ActivePower",                   _L,          "W",       "DayMax.Power.Active.Import"),
    *_rows("DayMax.ReactivePower",                 _L,          "var",     "DayMax.Power.Reactive.Import"),
    *_rows("DayMax.Energy.Active.Import.Register", _ONE,        "kWh",     "DayMax.Energy.Active.Import.Register", P1METER),
    *_rows("DayMin.Voltage",                       _L,          "V",       "DayMin.Voltage"),
    *_rows("DayMin.ActivePower",                   _L,          "W",       "DayMin.Power.Active.Import"),
    *_rows("DayMin.ReactivePower",                 _L,          "var",     "DayMin.Power.Reactive.Import"),
    *_rows("ReactiveEnergyInductive",              _SUM,        "varh",    "Energy.Reactive.Inductive.Register", table=2),
    *_rows("ReactiveEnergyCapacitive",             _SUM,        "varh",    "Energy.Reactive.Capacitive.Register", table=2),
)
# fmt: on

TABLE: Mapping[tuple[str, str | None], Row] = MappingProxyType({(row.name, row.location): row for row in _ROWS})
"""Every line of tables 1 and 2 by name and location (``P1Meter``, or None for the station): 82 names, 6 of them at both places."""

_BY_NAME: Mapping[str, Row] = MappingProxyType({row.name: row for row in reversed(_ROWS)})
_LISTED = frozenset((row.location, row.measurand, row.phase) for row in _ROWS)
_LOCATIONS = MappingProxyType({word.lower(): word for word in LOCATIONS})


class Meaning(NamedTuple):
    """What a sent name, unit and location mean. A sent number times ``10**shift`` is in the unit of ``type``, or ``conversion`` makes it so.

    ``unreadable`` is the word of a unit that nobody knows: its numbers are kept as text.
    """

    type: ReadingType
    shift: int
    conversion: Conversion | None
    quality: Quality
    unreadable: str = ""


def meaning(name: str, unit: str | None = None, location: str | None = None, *, signed: bool = False) -> Meaning:
    """The series and the unit of a sampled value (I9-I14, N6-N8).

    A name that no table lists is kept as it is (at most 100 characters), with the base unit of the sent unit. Without a unit that of the table is
    taken (``assumed_unit``), of the row for the location if there is one; an unknown one is ``1``. Signed values are no numbers and a series of their
    own (location ``signed``).
    """
    place, quality = _place(location)
    row = TABLE.get((name, P1METER if place == P1METER else None)) or _BY_NAME.get(name)
    word = (unit or "").strip()
    if word in ("", "-", "none"):
        word = "" if row is None or row.unit is None else row.unit
        if row is None or row.unit is not None:
            quality |= Quality.ASSUMED_UNIT
    elif word not in UNITS:
        quality |= Quality.CONVERTED
    unreadable = ""
    try:
        conversion = normalise_unit(word or "1")
    except InvalidInput:
        conversion, unreadable = Conversion("1" if row is None else row.base), word[:LONGEST_NAME]
        quality |= Quality.SUSPECT
    if row is not None and conversion.unit != row.base:
        quality |= Quality.SUSPECT  # volts of a current: kept, but not believed
    marks = [place] if place else []
    if _is_unlisted(name, place, row):
        marks.append(UNLISTED)
    if signed:
        marks.append(SIGNED)
    where = ":".join(marks) or None
    if row is None:
        type = ReadingType(name[:LONGEST_NAME], conversion.unit, location=where)
    else:
        type = ReadingType(row.measurand, conversion.unit, row.phase, location=where)
    shift = _power_of_ten(conversion)
    return Meaning(type, shift or 0, conversion if shift is None else None, quality, unreadable)


def _place(location: str | None) -> tuple[str | None, Quality]:
    """The location as the schema spells it."""
    word = (location or "").strip()
    if word in ("", "-", "none"):
        return None, Quality.GOOD
    known = _LOCATIONS.get(word.lower())
    return (known or word[:LONGEST_NAME], Quality.GOOD if known == location else Quality.CONVERTED)


def _is_unlisted(name: str, place: str | None, row: Row | None) -> bool:
    """Another name is listed for what this one means at this place."""
    if row is None:
        return name in measurands.TABLE
    of = P1METER if place == P1METER else None
    return (name, of) not in TABLE and (of, row.measurand, row.phase) in _LISTED


def _power_of_ten(conversion: Conversion) -> int | None:
    """The exponent if the conversion only moves the decimal point."""
    digits = conversion.factor.normalize().as_tuple()
    if conversion.offset or conversion.divisor != Decimal(1) or digits.digits != (1,) or not isinstance(digits.exponent, int):
        return None
    return digits.exponent
