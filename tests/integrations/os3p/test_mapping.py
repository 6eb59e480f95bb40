"""MeterValues become readings: base units, every digit, the station's time."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.clock import rfc3339
from gridloom.core.model import Context, MeterReading, Phase, Quality, Reading, ReadingType, TimeSource
from gridloom.integrations.os3p import mapping
from gridloom.integrations.os3p.mapping import MOST_DIGITS, decimal, readings
from gridloom.integrations.os3p.measurands import TABLE, Row
from gridloom.integrations.os3p.messages import MeterValue, MeterValues, SampledValue
from gridloom.integrations.os3p.reading import read, write
from gridloom.storage import head

DEVICE = "os3p:SUBS 1"
NOW = 1_795_222_683_000_000
IMPORT = "Energy.Active.Import.Register"
EXAMPLE = """{"meterValue": [
    {"timestamp": "2013-03-07T16:52:16Z", "sampledValue": [
        {"value": "12", "unit": "A", "measurand": "Current.L1"},
        {"value": "300", "unit": "kWh", "measurand": "Energy.Active.Import.Register"}]},
    {"timestamp": "2013-03-07T19:52:16Z", "sampledValue": [
        {"value": "20", "unit": "kWh", "measurand": "Energy.Active.Import.Register"},
        {"value": "40", "unit": "kW", "location": "P1Meter", "measurand": "ActivePower.L1"}]}]}"""
"""A6.5.2."""


def message(*sampled: dict[str, Any], timestamp: str = "2026-11-21T00:58:03Z") -> MeterValues:
    """As a station sends it, through the tolerant reader."""
    payload = json.dumps({"meterValue": [{"timestamp": timestamp, "sampledValue": list(sampled)}]})
    found: MeterValues = read("MeterValues", payload.encode(), "client").message
    return found


def values(*sampled: dict[str, Any]) -> tuple[Reading, ...]:
    (one,) = readings(message(*sampled), DEVICE, NOW)
    return one.readings


def value(text: str | float, measurand: str = "Frequency", **members: str) -> Reading:
    (one,) = values({"value": text, "measurand": measurand, **members})
    return one


def test_the_example() -> None:
    sent = read("MeterValues", EXAMPLE.encode(), "client").message
    first, second = readings(sent, DEVICE, NOW)
    assert (first.device, first.received, first.source) == (DEVICE, NOW, TimeSource.DEVICE)
    assert [rfc3339(one.time) for one in (first, second)] == ["2013-03-07T16:52:16Z", "2013-03-07T19:52:16Z"]
    unlisted = ReadingType(IMPORT, "Wh", location="unlisted")
    assert first.readings == (Reading(ReadingType("Current.Import", "A", Phase.L1), 12), Reading(unlisted, 300_000))
    assert second.readings == (
        Reading(unlisted, 20_000),
        Reading(ReadingType("Power.Active.Import", "W", Phase.L1, location="P1Meter"), 40_000),
    )
    assert second.native is None


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: f"{row.name}@{row.location}")
def test_every_measurand_gives_a_reading(row: Row) -> None:
    members = {name: word for name, word in (("unit", row.unit), ("location", row.location)) if word is not None}
    one = value("1.250", row.name, **members)
    assert one.type == ReadingType(row.measurand, row.base, row.phase, location=row.location)
    assert one.number == Decimal("1250" if row.unit in ("kW", "kWh") else "1.250")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None), st.sampled_from(["", "Hz", "kHz", "mHz", "MHz"]))
def test_numbers_keep_their_digits(number: Decimal, unit: str) -> None:
    text = format(number, "f")
    one = value(text, **({"unit": unit} if unit else {}))
    factor = {"": 0, "Hz": 0, "kHz": 3, "mHz": -3, "MHz": 6}[unit]
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len("".join(map(str, digits)).lstrip("0")) + max(exponent, 0) <= MOST_DIGITS and exponent >= -MOST_DIGITS:
        assert isinstance(one.value, int)
        assert Decimal(one.value).scaleb(one.exponent) == Decimal(text).scaleb(factor)
        assert one.exponent <= max(exponent, 0) + factor
    else:
        assert one.value in (text, int(number)) or one.number == number.scaleb(factor)


@given(st.text(max_size=30) | st.from_regex(r"[ ]?[+-]?[0-9]{0,30}[.,]?[0-9]{0,30}([eE][+-]?[0-9]{1,4})?[ ]?", fullmatch=True))
def test_any_text_is_kept_as_a_number_or_as_itself_and_can_be_stored(text: str) -> None:
    one = value(text)
    if isinstance(one.value, str):
        assert one.value == text
    else:
        assert one.number == Decimal(text.strip().replace(",", "."))
    head.encode(MeterReading(DEVICE, NOW, NOW, (one,)))


@pytest.mark.parametrize(
    ("text", "number", "quality"),
    [
        ("230.10", Decimal("230.10"), Quality.GOOD),
        ("-5", -5, Quality.GOOD),
        ("-0.50", Decimal("-0.50"), Quality.GOOD),
        ("007", 7, Quality.GOOD),
        ("230,1", Decimal("230.1"), Quality.CONVERTED),
        (" 230.1 ", Decimal("230.1"), Quality.CONVERTED),
        ("+4", 4, Quality.CONVERTED),
        ("1.5e3", 1500, Quality.CONVERTED),
        ("999999999999999999", 999_999_999_999_999_999, Quality.GOOD),
    ],
)
def test_spellings_of_numbers(text: str, number: object, quality: Quality) -> None:
    """I16."""
    one = value(text, unit="Hz")
    assert (one.number, one.quality) == (number, quality)


@pytest.mark.parametrize(
    "text", ["NaN", "inf", "", ".", "-", "1.2.3", "1,234.5", "--1", "5-3", "1_000", "٣", "0x10", "12 A", "1" * 19, "1e99", "1e-19"]
)
def test_what_is_no_number_is_kept_as_text(text: str) -> None:
    """N7, I16."""
    assert value(text, unit="Hz").value == text


def test_a_json_number_is_read() -> None:
    """I16."""
    assert value(50.02, unit="Hz").number == Decimal("50.02")
    assert value(50, unit="Hz").number == 50


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("293.15", "K", Decimal("20.00")),
        ("0", "K", Decimal("-273.15")),
        ("295", "K", Decimal("21.85")),
        ("68", "°F", 20),
        ("-40.0", "Fahrenheit", -40),
    ],
)
def test_temperatures_become_degrees_celsius(text: str, unit: str, number: object) -> None:
    one = value(text, "OilTemperature", unit=unit)
    assert one.type == ReadingType("Temperature.Oil", "°C")
    assert one.number == number


def test_a_number_that_conversion_makes_too_long_is_text() -> None:
    assert value("9" * MOST_DIGITS, "OilTemperature", unit="K").value == "9" * MOST_DIGITS


def test_a_number_in_an_unknown_unit_is_text() -> None:
    one = value("12.5", "Voltage.L1N", unit="furlong")
    assert (one.value, one.type.unit) == ("12.5 furlong", "V")
    assert Quality.SUSPECT in one.quality


def test_signed_data_is_text_beside_the_raw_value() -> None:
    raw, signed = values(
        {"value": "1", "measurand": "RealEnergyConsumed.Sum"}, {"value": "4711", "measurand": "RealEnergyConsumed.Sum", "format": "SignedData"}
    )
    assert (raw.value, raw.type.location) == (1, None)
    assert (signed.value, signed.type.location) == ("4711", "signed")


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (None, Context.PERIODIC),
        ("Sample.Periodic", Context.PERIODIC),
        ("Sample.Clock", Context.CLOCK),
        ("Trigger", Context.TRIGGER),
        ("Interruption.Begin", Context.INTERRUPTION_BEGIN),
        ("Interruption.End", Context.INTERRUPTION_END),
        ("Other", Context.OTHER),
        ("Sample.Sometimes", Context.OTHER),
    ],
)
def test_contexts(context: str | None, expected: Context) -> None:
    assert value("1", **({} if context is None else {"context": context})).context is expected


def test_the_phases_without_their_total_get_it() -> None:
    parts = [{"value": number, "unit": "Wh", "measurand": f"RealEnergyConsumed.L{phase}"} for phase, number in enumerate(("1.5", "20", "0.25"), 1)]
    *_, total = values(*parts)
    assert total == Reading(ReadingType(IMPORT, "Wh"), 2175, -2, quality=Quality.DERIVED)
    told = values(*parts, {"value": "22", "unit": "Wh", "measurand": "RealEnergyConsumed.Sum"})
    assert [one.number for one in told if one.type == ReadingType(IMPORT, "Wh")] == [22]
    assert len(values(*parts[:2])) == 2
    assert len(values(*parts[:2], {**parts[2], "value": "broken"})) == 3


def test_times_are_the_stations() -> None:
    (one,) = readings(message({"value": "1", "measurand": "Frequency"}, timestamp="2026-03-29T03:30:00.25+02:00"), DEVICE, NOW)
    assert (rfc3339(one.time), one.source, one.received) == ("2026-03-29T01:30:00.250000Z", TimeSource.DEVICE, NOW)


@pytest.mark.parametrize("timestamp", ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_that_no_store_keeps_are_those_of_arrival(timestamp: str) -> None:
    entry = MeterValue(timestamp=timestamp, sampledValue=(SampledValue(value="1", measurand="Frequency"),))
    told = readings(MeterValues(meterValue=(entry, entry)), DEVICE, NOW)
    assert [(one.time, one.source) for one in told] == [(NOW, TimeSource.HUB), (NOW + 1, TimeSource.HUB)]


def test_nothing_measured_is_no_reading() -> None:
    """I15: empty arrays are accepted."""
    assert readings(message(), DEVICE, NOW) == []
    assert readings(MeterValues(meterValue=()), DEVICE, NOW) == []


def test_what_had_to_be_understood_is_kept_as_it_came_and_can_be_written_again() -> None:
    """I9: raw and normalised. What was said as documented is not kept twice."""
    (plain,) = readings(message({"value": "12", "unit": "A", "measurand": "Current.L1"}), DEVICE, NOW)
    assert plain.native is None
    (one,) = readings(message({"value": "12", "measurand": "Current.L1"}), DEVICE, NOW)
    assert msgspec.convert(msgspec.to_builtins(one.native), MeterValue) == one.native
    assert b'"12"' in write(MeterValues(meterValue=(one.native,)))


def test_types_are_one_object_for_the_store_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = value("1", unit="Hz"), value("2", unit="Hz", context="Trigger")
    assert first.type is second.type
    monkeypatch.setattr(mapping, "CACHED", 10)
    for number in range(50):
        assert value("1", f"Vendor.{number}").type.measurand == f"Vendor.{number}"
    assert len(mapping._plans) <= 10
    assert len(mapping._types) <= 10


@given(st.integers(-(10**MOST_DIGITS) + 1, 10**MOST_DIGITS - 1), st.integers(0, MOST_DIGITS))
def test_decimals_are_read_digit_by_digit(mantissa: int, places: int) -> None:
    text = format(Decimal(mantissa).scaleb(-places), "f")
    assert decimal(text) == (mantissa, -places, True)


def test_words_of_any_length_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A station could fill the memory with distinct locations of a megabyte each."""
    monkeypatch.setattr(mapping, "_plans", {})
    monkeypatch.setattr(mapping, "_types", {})
    for number in range(20):
        assert value("1", location=f"{number}" * 1_000).value == 1
    assert not mapping._plans
    assert not mapping._types
    value("1", location="Body")
    assert len(mapping._plans) == 1
