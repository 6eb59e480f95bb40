"""MeterValues -> readings of the core (annex A6.5): base units, exact decimals, one MeterReading per ``meterValue``. Pure.

**Times** are the station's. One that no clock can say, or from before 1970, gives way to the time of arrival, a microsecond apart so that no two
overwrite each other.

**Values.** A decimal becomes an integer and an exponent, digit by digit, never a float. Blanks, a decimal comma or an exponent are read and flagged
``converted`` (I16); what is no number, is signed, has more than 18 digits or a unit that nobody knows is kept as text (N7).

**Totals.** A ``meterValue`` with the energy of the three phases and no total gets their sum, marked ``derived``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Context as Arithmetic
from decimal import Decimal, localcontext
from operator import attrgetter
from typing import NamedTuple

from gridloom.core.clock import from_datetime
from gridloom.core.measurands import Conversion
from gridloom.core.model import Context, MeterReading, Phase, Quality, Reading, ReadingType, TimeSource
from gridloom.integrations.os3p.measurands import meaning
from gridloom.integrations.os3p.messages import MeterValue, MeterValues, SampledValue, moment

MOST_DIGITS = 18
"""Of a number; one more might not fit into 64 bits. Its exponent is limited alike."""
LONGEST_TEXT = 4_096
CACHED = 4_096
"""Combinations of name, unit, location, context and format whose meaning is remembered."""
_LONGEST_KEY = 400
"""Characters of such a combination: the words of a hostile station can be a megabyte long."""

_LAST = from_datetime(datetime(9998, 12, 31, tzinfo=UTC))
_DECIMAL = re.compile(r"([+-]?)([0-9]*)(?:[.,]([0-9]*))?(?:[eE]([+-]?[0-9]{1,3}))?")
_EXACT = Arithmetic(prec=60)
_PHASES = (Phase.L1, Phase.L2, Phase.L3)
_TOTALS = (("RealEnergyConsumed.L1", "RealEnergyConsumed.Sum"), ("RealEnergyDelivered.L1", "RealEnergyDelivered.Sum"))
"""Registers of a phase, and of all."""
_measurand_of = attrgetter("measurand")
_CONTEXTS = {context.value: context for context in Context}


class _Slow(NamedTuple):
    """Of values that need more than their decimal point moved: how they are converted, or the word of their unit that makes them ``text``."""

    conversion: Conversion | None
    unit: str
    text: bool


class _Plan(NamedTuple):
    """What becomes of a sampled value of some name, unit, location, context and format."""

    type: ReadingType
    shift: int
    context: Context
    quality: Quality
    slow: _Slow | None


_plans: dict[tuple[str, str | None, str | None, str, str], _Plan] = {}
_types: dict[ReadingType, ReadingType] = {}


def when(text: str | None, received: int) -> tuple[int, TimeSource]:
    """A station's time in µs UTC and whose clock it is of: that of arrival (``received``) when there is none that the store can keep."""
    if text:
        try:
            time = moment(text)
        except ValueError:  # beyond the calendar
            time = -1
        if 0 <= time < _LAST:
            return time, TimeSource.DEVICE
    return received, TimeSource.HUB


def readings(message: MeterValues, device: str, received: int) -> list[MeterReading]:
    """One MeterReading for each ``meterValue`` that has values; ``received`` in µs UTC. One that deviates is its native message."""
    return [_meter_reading(one, device, received, index) for index, one in enumerate(message.meterValue) if one.sampledValue]


def _meter_reading(one: MeterValue, device: str, received: int, index: int) -> MeterReading:
    time, source = when(one.timestamp, received)
    if source is TimeSource.HUB:
        time += index
    readings = _values(one.sampledValue)
    # What had to be understood is kept as it came, too (I9); of a station that speaks as documented the readings say all.
    odd = any(reading.quality is not Quality.GOOD and reading.quality is not Quality.DERIVED for reading in readings)
    return MeterReading(device, time, received, readings, source, one if odd else None)


def _values(sampled: Sequence[SampledValue]) -> tuple[Reading, ...]:
    found = []
    plans, is_number = _plans, str.isdecimal
    for one in sampled:
        key = (one.measurand, one.unit, one.location, one.context, one.format)
        plan = plans.get(key) or _plan(*key)
        type, shift, context, quality, slow = plan
        # The plain decimal, by far the most frequent; all else has time.
        whole, _, fraction = one.value.partition(".")
        digits = whole + fraction
        if slow is not None or len(digits) > MOST_DIGITS or not digits.isascii() or not is_number(digits.removeprefix("-")):
            found.append(_other(plan, one.value))
            continue
        exponent = shift - len(fraction)
        value = int(digits)
        if exponent > 0 and len(digits) + exponent <= MOST_DIGITS:
            value, exponent = value * 10**exponent, 0
        found.append(Reading(type, value, exponent, context, quality))
    names = set(map(_measurand_of, sampled))
    if any(part in names and total not in names for part, total in _TOTALS):
        found += _derived(found)
    return tuple(found)


def _plan(name: str, unit: str | None, location: str | None, context: str, format: str) -> _Plan:
    """The plan of a combination that was not seen yet. Types are the same objects however they were told: the store is fast with those."""
    if len(_plans) >= CACHED:
        _plans.clear()
        _types.clear()
    signed = format == "SignedData"
    found = meaning(name, unit, location, signed=signed)
    type = _types.get(found.type, found.type)
    slow = None
    if signed or found.unreadable or found.conversion is not None:
        slow = _Slow(found.conversion, found.unreadable, signed or bool(found.unreadable))
    plan = _Plan(type, found.shift, _CONTEXTS.get(context, Context.OTHER), found.quality, slow)
    key = (name, unit, location, context, format)
    if sum(len(word) for word in key if word is not None) <= _LONGEST_KEY:
        _types[type] = type
        _plans[key] = plan
    return plan


def _other(plan: _Plan, text: str) -> Reading:
    """What is no plain decimal, or needs more than its decimal point moved."""
    type, shift, context, quality, slow = plan
    number = None if slow is not None and slow.text else decimal(text)
    if number is not None:
        value, exponent, plain = number
        exponent += shift
        if slow is not None and slow.conversion is not None:
            value, exponent = _converted(value, exponent, slow.conversion)
        if exponent > 0 and len(str(abs(value))) + exponent <= MOST_DIGITS:
            value, exponent = value * 10**exponent, 0
        if abs(value) < 10**MOST_DIGITS:
            return Reading(type, value, exponent, context, quality if plain else quality | Quality.CONVERTED)
    kept = f"{text} {slow.unit}" if slow is not None and slow.unit else text
    return Reading(type, kept[:LONGEST_TEXT], 0, context, quality)


def _converted(value: int, exponent: int, conversion: Conversion) -> tuple[int, int]:
    """In the base unit, exact; Fahrenheit, which cannot be, to two decimal places more than were sent."""
    with localcontext(_EXACT):
        result = conversion.apply(Decimal(value).scaleb(exponent))
        if conversion.divisor != 1:
            result = result.quantize(Decimal(1).scaleb(min(exponent, 0) - 2))
    return _parts(result)


def decimal(text: str) -> tuple[int, int, bool] | None:
    """A number as (integer, exponent, whether it is a plain decimal as the document wants it); None when it is none or has too many digits (I16)."""
    stripped = text.strip()
    match = _DECIMAL.fullmatch(stripped) if len(stripped) <= 100 else None
    if match is None:
        return None
    sign, whole, fraction, power = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) - len(fraction)
    if not whole + fraction or len(digits) > MOST_DIGITS or abs(exponent) > MOST_DIGITS:
        return None
    value = int(digits or 0)
    plain = stripped == text and sign != "+" and not power and "," not in text
    return -value if sign == "-" else value, exponent, plain


def _derived(found: Sequence[Reading]) -> list[Reading]:
    """The total of each energy register of which all phases are told, as numbers, and no total."""
    phases: dict[tuple[str, str | None], dict[Phase, Reading]] = {}
    for one in found:
        if one.type.phase in _PHASES and not isinstance(one.value, str) and one.type.measurand.startswith("Energy.Active."):
            phases.setdefault((one.type.measurand, one.type.location), {})[one.type.phase] = one
    made = []
    told = {one.type for one in found}
    for (measurand, location), parts in phases.items():
        total = ReadingType(measurand, "Wh", location=location)
        if len(parts) < len(_PHASES) or total in told or any(part.type.unit != total.unit for part in parts.values()):
            continue
        quality = Quality.DERIVED
        for part in parts.values():
            quality |= part.quality
        with localcontext(_EXACT):
            value, exponent = _parts(sum((Decimal(part.number) for part in parts.values()), Decimal(0)))
        if abs(value) < 10**MOST_DIGITS:
            made.append(Reading(_types.setdefault(total, total), value, exponent, parts[Phase.L1].context, quality))
    return made


def _parts(number: Decimal) -> tuple[int, int]:
    """A decimal as an integer and its exponent."""
    sign, digits, exponent = number.as_tuple()
    value = int("".join(map(str, digits)))
    return -value if sign else value, int(exponent)
