"""Tables 1 and 2 of OS³P as rows, and what a sent name, unit and location mean."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.measurands import BASE_UNITS
from gridloom.core.measurands import TABLE as CORE
from gridloom.core.model import Phase, Quality, ReadingType
from gridloom.integrations.os3p.measurands import LOCATIONS, P1METER, TABLE, UNITS, Row, meaning

SPECS = Path(__file__).parents[2] / "data" / "specs" / "os3p_measurands.json"
IMPORT = "Energy.Active.Import.Register"


def received() -> list[dict[str, object]]:
    """Table 1 and 2 as they were received."""
    rows = json.loads(SPECS.read_text())
    assert isinstance(rows, list)
    return rows


def test_the_table_is_the_document() -> None:
    told = {
        (row["measurand"], row["location"]): (row["unit"], row["deprecated"], row["inSchemaEnum"], f"A6.5 table {2 if row['deprecated'] else 1}")
        for row in received()
    }
    assert {key: (row.unit, row.deprecated, row.in_schema, row.clause) for key, row in TABLE.items()} == told
    assert len(TABLE) == 88
    assert len({name for name, _ in TABLE}) == 82
    assert sum(row.deprecated for row in TABLE.values()) == 8
    assert [row.name for row in TABLE.values() if not row.in_schema] == ["BoardTemperature"]  # I10


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: f"{row.name}@{row.location}")
def test_every_row_stands_on_the_core(row: Row) -> None:
    core = CORE[row.measurand]
    assert core.unit == row.base
    stem, _, suffix = row.name.rpartition(".")
    phased = suffix in ("L1", "L2", "L3", "N", "L1N", "L2N", "L3N", "Sum")
    assert (stem if phased else row.name) in core.os3p
    assert row.phase == (Phase(suffix.removesuffix("N") or "N") if phased and suffix != "Sum" else None)


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: f"{row.name}@{row.location}")
def test_a_value_of_every_row_has_its_series_with_and_without_unit(row: Row) -> None:
    shift = 3 if row.unit in ("kW", "kWh") else 0
    expected = ReadingType(row.measurand, row.base, row.phase, location=row.location)
    told = meaning(row.name, row.unit, row.location)
    assert (told.type, told.shift, told.conversion) == (expected, shift, None)
    assert told.quality == (Quality.CONVERTED if row.unit in ("Celsius", "Amp") else Quality.GOOD)  # I9: these are not in the schema
    untold = meaning(row.name, None, row.location)
    assert (untold.type, untold.shift) == (expected, shift)  # I12
    assert untold.quality == (Quality.GOOD if row.unit is None else Quality.ASSUMED_UNIT)


def test_no_two_names_and_locations_share_a_series() -> None:
    """N8, and ``RealEnergyConsumed.Sum`` apart from a register without location."""
    names = sorted({name for name, _ in TABLE})
    pairs = list(itertools.product(names, (None, *LOCATIONS)))
    assert len({meaning(name, None, location).type for name, location in pairs}) == len(pairs)


def test_what_is_told_for_the_other_place_is_a_series_of_its_own() -> None:
    assert meaning("RealEnergyConsumed.Sum", "Wh").type == ReadingType(IMPORT, "Wh")
    assert meaning(IMPORT, "kWh", P1METER).type == ReadingType(IMPORT, "Wh", location=P1METER)
    assert meaning(IMPORT, "kWh").type == ReadingType(IMPORT, "Wh", location="unlisted")  # I14: the document's example
    assert meaning("RealEnergyConsumed.Sum", "Wh", P1METER).type == ReadingType(IMPORT, "Wh", location="P1Meter:unlisted")
    assert meaning("Power.Active.Import", "W").type == ReadingType("Power.Active.Import", "W", location="unlisted")
    assert meaning("ActivePower.Sum", "W", "In").type == ReadingType("Power.Active.Import", "W", location="In")


@pytest.mark.parametrize(
    ("unit", "base", "shift", "quality"),
    [
        ("Wh", "Wh", 0, Quality.GOOD),
        ("kWh", "Wh", 3, Quality.GOOD),
        ("varh", "varh", 0, Quality.GOOD),
        ("kvarh", "varh", 3, Quality.GOOD),
        ("W", "W", 0, Quality.GOOD),
        ("kW", "W", 3, Quality.GOOD),
        ("VA", "VA", 0, Quality.GOOD),
        ("VAh", "VAh", 0, Quality.GOOD),
        ("kVA", "VA", 3, Quality.GOOD),
        ("var", "var", 0, Quality.GOOD),
        ("kvar", "var", 3, Quality.GOOD),
        ("A", "A", 0, Quality.GOOD),
        ("V", "V", 0, Quality.GOOD),
        ("Hz", "Hz", 0, Quality.GOOD),
        ("C", "°C", 0, Quality.GOOD),
        ("%", "%", 0, Quality.GOOD),
        ("Amps", "A", 0, Quality.CONVERTED),
        ("Celsius", "°C", 0, Quality.CONVERTED),
        ("Cel", "°C", 0, Quality.CONVERTED),
        ("°C", "°C", 0, Quality.CONVERTED),
        ("KWH", "Wh", 3, Quality.CONVERTED),
        ("mA", "A", -3, Quality.CONVERTED),
    ],
)
def test_units_are_normalised(unit: str, base: str, shift: int, quality: Quality) -> None:
    """I9, with a name that no table has, so that the unit alone decides."""
    told = meaning("Vendor.Thing", unit)
    assert (told.type.unit, told.shift, told.conversion, told.quality) == (base, shift, None, quality)


def test_every_unit_of_the_schema_is_known() -> None:
    for unit in UNITS:
        told = meaning("Vendor.Thing", unit)
        assert told.type.unit in BASE_UNITS
        assert told.quality is Quality.GOOD
    assert meaning("OilTemperature", "K").conversion is not None


@pytest.mark.parametrize("nothing", ["", "-", "none", " "])
def test_a_unit_or_location_that_says_nothing_is_none(nothing: str) -> None:
    told = meaning("ActivePower.L1", nothing, nothing)
    assert told.type == ReadingType("Power.Active.Import", "W", Phase.L1)
    assert Quality.ASSUMED_UNIT in told.quality


def test_an_unknown_name_is_kept() -> None:
    """N7."""
    assert meaning("Vendor.Humidity", "%").type == ReadingType("Vendor.Humidity", "%")
    assert meaning("Vendor.Humidity", None, "Body") == (ReadingType("Vendor.Humidity", "1", location="Body"), 0, None, Quality.ASSUMED_UNIT, "")
    assert meaning("Current.Import", "A").type == ReadingType("Current.Import", "A", location="unlisted")  # not taken for Current.Sum
    assert len(meaning("x" * 5_000, "A", "y" * 5_000).type.measurand) == 100


def test_an_unknown_unit_makes_no_number() -> None:
    told = meaning("Voltage.L1N", "furlong")
    assert told.type == ReadingType("Voltage", "V", Phase.L1)
    assert told.unreadable == "furlong"
    assert Quality.SUSPECT in told.quality


def test_a_unit_of_something_else_is_kept_apart_and_not_believed() -> None:
    told = meaning("Voltage.L1N", "A")
    assert told.type == ReadingType("Voltage", "A", Phase.L1)
    assert told.quality == Quality.SUSPECT


def test_a_location_in_other_letters_is_the_same_place() -> None:
    told = meaning("Current.L1", "A", "p1meter")
    assert told.type.location == P1METER
    assert told.quality == Quality.CONVERTED


def test_signed_values_are_a_series_of_their_own() -> None:
    assert meaning("Frequency", "Hz", signed=True).type == ReadingType("Frequency", "Hz", location="signed")
    assert meaning("Current.L1", "A", P1METER, signed=True).type.location == "P1Meter:signed"


@given(st.text(max_size=40), st.none() | st.text(max_size=20), st.none() | st.text(max_size=20), st.booleans())
def test_nothing_that_can_be_sent_is_refused(name: str, unit: str | None, location: str | None, signed: bool) -> None:
    told = meaning(name, unit, location, signed=signed)
    assert told.type.unit in BASE_UNITS
    assert told == meaning(name, unit, location, signed=signed)
