"""Values keep every digit on their way out; pages go on where they ended."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridloom.core.errors import InvalidInput
from gridloom.core.model import Context, MeterReading, Phase, Quality, Reading, ReadingType, TimeSource
from gridloom.core.ports import Sample
from gridloom.web import paging, wire
from gridloom.web.operation import ENCODER

INT64 = st.integers(-(2**63), 2**63 - 1)
TYPES = st.builds(
    ReadingType,
    measurand=st.text(max_size=12),
    unit=st.sampled_from(["Wh", "W", "°C", "1"]),
    phase=st.none() | st.sampled_from(Phase),
    tariff=st.none() | st.text(max_size=6),
    location=st.none() | st.text(max_size=6),
)
VALUES = INT64 | st.floats(allow_nan=True, allow_infinity=True) | st.text(max_size=10)
READINGS = st.builds(
    Reading,
    type=TYPES,
    value=VALUES,
    exponent=st.integers(-18, 18),
    context=st.sampled_from(Context),
    quality=st.sampled_from([Quality.GOOD, Quality.DERIVED, Quality.SUSPECT | Quality.LATE]),
)


@given(INT64, st.integers(-60, 60))
@example(12300, -3)
@example(-5, -2)
@example(0, -4)
@example(7, 30)
@example(7, 31)
def test_a_value_keeps_its_exact_size(value: int, exponent: int) -> None:
    expected = Decimal(value) * Decimal(10) ** exponent
    written = json.loads(wire.value_text(value, exponent), parse_float=Decimal, parse_int=Decimal)
    assert written == expected
    assert json.loads(ENCODER.encode(wire.number(value, exponent)), parse_float=Decimal, parse_int=Decimal) == expected


def test_digits_are_those_the_device_resolved() -> None:
    assert wire.value_text(23010, -2) == "230.10"
    assert wire.value_text(-5, -3) == "-0.005"
    assert wire.value_text(12, 3) == "12000"
    assert wire.value_text(0.1, 0) == "0.1"
    assert wire.value_text(float("nan"), 0) == "null"
    assert wire.value_text('a"b', 0) == '"a\\"b"'


@given(st.lists(READINGS, min_size=1, max_size=4), st.text(max_size=10), st.integers(-(2**62), 2**62))
def test_the_fast_way_of_the_stream_says_the_same(readings: list[Reading], device: str, time: int) -> None:
    told = MeterReading(device, time, 1_767_225_600_123_456, tuple(readings), TimeSource.DEVICE)
    fast = json.loads(wire.stream_reading(told, None), parse_float=Decimal)
    slow = json.loads(ENCODER.encode(wire.meter_reading(told)), parse_float=Decimal)
    assert fast == slow


@given(READINGS, st.integers(0, 2**50))
def test_the_fast_way_of_samples_says_the_same(reading: Reading, time: int) -> None:
    sample = Sample(time, time + 5, TimeSource.HUB, reading.value, reading.exponent, reading.context, reading.quality)
    fast = json.loads("{" + wire.sample_members(sample) + "}", parse_float=Decimal)
    slow = json.loads(ENCODER.encode(wire.reading(reading)), parse_float=Decimal)
    assert fast.pop("received") == wire.moment(time + 5)
    assert fast.pop("time") == wire.moment(time)
    assert fast.pop("source") == "hub"
    assert fast == {name: slow[name] for name in slow if name in ("value", "context", "quality")}


def test_only_the_measurands_asked_for() -> None:
    told = MeterReading("x:1", 0, 0, (Reading(ReadingType("A", "W"), 1), Reading(ReadingType("B", "W"), 2)))
    assert [one["measurand"] for one in json.loads(wire.stream_reading(told, frozenset({"B"})))["readings"]] == ["B"]
    assert wire.stream_reading(told, frozenset({"C"})) == b""


def test_times_that_rfc_3339_cannot_write_are_the_nearest_it_can() -> None:
    assert wire.moment(-(2**63)) == "0001-01-01T00:00:00Z"
    assert wire.moment(2**63) == "9999-12-31T23:59:59.999999Z"
    assert wire.moment(1_767_225_600_123_456) == "2026-01-01T00:00:00.123456Z"


@given(st.lists(st.text(max_size=8), unique=True, max_size=20), st.integers(1, 7))
def test_pages_hold_everything_once(items: list[str], limit: int) -> None:
    ordered, seen, cursor = sorted(items), [], None
    while True:
        found, cursor = paging.page(ordered, lambda item: (item,), tuple[str], limit, cursor)
        seen += found
        if cursor is None:
            break
    assert seen == ordered


@given(st.text(max_size=30))
def test_a_cursor_of_nobody_is_refused_or_a_place(cursor: str) -> None:
    try:
        found, _ = paging.page(["a", "b"], lambda item: (item,), tuple[str], 5, cursor)
    except InvalidInput as error:
        found, path = [], error.faults[0].path
    else:
        path = "$.cursor"
    assert path == "$.cursor"
    assert set(found) <= {"a", "b"}


@pytest.mark.parametrize("key", [("",), ("é/:\x00",), ("x" * 500,)])
def test_cursors_carry_any_key(key: tuple[str]) -> None:
    assert paging.decode(paging.encode(key), tuple[str]) == key
