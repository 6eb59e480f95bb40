"""Chunks give back what was put in, whatever it was; cutting and merging keep every sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import StorageCorrupt
from gridloom.core.model import Context, MeterReading, Quality, Reading, ReadingType, TimeSource
from gridloom.storage import chunks, head
from gridloom.storage.chunks import Columns

TIMES = st.one_of(st.integers(0, head.LAST_TIME - 1), st.integers(0, 50).map(lambda k: 1_700_000_000_000_000 + k * 600_000_000), st.integers(0, 20))
INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-1000, 1000), st.integers(0, 10**9))
FLOATS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9999, 9999).map(lambda k: k / 10), st.just(-0.0))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.one_of(INTEGERS, FLOATS, TEXTS)


@st.composite
def readings(draw: st.DrawFn, values: st.SearchStrategy[Any], exponents: st.SearchStrategy[int]) -> Reading:
    value = draw(values)
    return Reading(
        ReadingType("Energy", "Wh"),
        value,
        draw(exponents) if isinstance(value, int) else 0,
        draw(st.sampled_from([Context.PERIODIC, Context.PERIODIC, *Context])),
        Quality(draw(st.sampled_from([0, 0, 0, 8, 1, 511]))),
    )


@st.composite
def told(draw: st.DrawFn) -> list[MeterReading]:
    """What a device may say: any mix of integers, floats and text, any order, repeated times, either clock."""
    values = draw(st.sampled_from([INTEGERS, INTEGERS, st.integers(0, 10**6), FLOATS, VALUES, TEXTS]))
    exponents = draw(st.sampled_from([st.just(0), st.just(-1), st.integers(-3, 3), st.integers(-100, 100)]))
    one = st.builds(
        lambda time, lag, reading, source: MeterReading("d", time, min(time + lag, head.LAST_TIME - 1), (reading,), source),
        TIMES,
        st.sampled_from([0, 0, 1_500_000, 86_400_000_000]),
        readings(values, exponents),
        st.sampled_from([TimeSource.HUB, TimeSource.HUB, TimeSource.DEVICE]),
    )
    return draw(st.lists(one, min_size=1, max_size=60))


def columns(batch: list[MeterReading]) -> Columns:
    """By way of the head, as the store does it."""
    rows = [(one.time, head.SOURCES.index(one.source), one.received, head.encode(one)) for one in batch]
    return chunks.rows_to_columns(1, rows, [0])[0]


Plain = tuple[int, TimeSource, Any, Any, Context, Quality, int]


def exact(value: Any, exponent: int) -> Any:
    """A number or text, comparable whatever exponent it was written with, and 1 is not 1.0, and 0.0 is not -0.0."""
    if isinstance(value, float):
        return "float", value, math.copysign(1.0, value)
    if isinstance(value, str):
        return "text", value
    while value and value % 10 == 0:
        value, exponent = value // 10, exponent + 1
    return "integer", value, exponent if value else 0


def expected(batch: list[MeterReading]) -> list[Plain]:
    """What is in a store after this: by a dictionary, the last one wins. Received to the second."""
    found: dict[tuple[int, int], Plain] = {}
    for one in batch:
        reading = one.readings[0]
        found[one.time, head.SOURCES.index(one.source)] = (
            one.time,
            one.source,
            exact(reading.value, reading.exponent),
            type(reading.value),
            reading.context,
            reading.quality,
            one.received // 1_000_000,
        )
    return [found[key] for key in sorted(found)]


def plain(found: Columns) -> list[Plain]:
    return [
        (one.time, one.source, exact(one.value, one.exponent), type(one.value), one.context, one.quality, one.received // 1_000_000)
        for one in chunks.samples(found)
    ]


@given(told())
def test_a_chunk_gives_back_what_was_put_in(batch: list[MeterReading]) -> None:
    merged = chunks.merge([columns(batch)])
    assert plain(merged) == expected(batch)
    assert plain(chunks.decode([chunks.encode(merged)])) == expected(batch)


@given(told(), st.integers(1, 12))
def test_many_chunks_are_decoded_at_once(batch: list[MeterReading], rows: int) -> None:
    merged = chunks.merge([columns(batch)])
    bodies = [chunks.encode(chunks.take(merged, slice(start, start + rows))) for start in range(0, len(merged), rows)]
    assert plain(chunks.decode(bodies)) == expected(batch)


@given(told(), told())
def test_of_equal_keys_the_later_part_wins(first: list[MeterReading], second: list[MeterReading]) -> None:
    assert plain(chunks.merge([columns(first), columns(second)])) == expected(first + second)


@given(told())
def test_a_head_row_gives_back_its_readings(batch: list[MeterReading]) -> None:
    whole = MeterReading("d", batch[0].time, batch[0].received, tuple(one.readings[0] for one in batch), batch[0].source)
    assert head.decode([one.type for one in whole.readings], head.encode(whole)) == whole.readings


@given(told(), st.integers(0, 3))
def test_columns_of_a_shape_are_told_apart(batch: list[MeterReading], other: int) -> None:
    """Several readings in a row: each column is its own, text and flags of its neighbours do not show in it."""
    rows = []
    for index, one in enumerate(batch):
        beside = batch[(index + other) % len(batch)].readings[0]
        both = MeterReading("d", one.time, one.received, (beside, one.readings[0]), one.source)
        rows.append((one.time, head.SOURCES.index(one.source), one.received, head.encode(both)))
    assert plain(chunks.merge([chunks.rows_to_columns(2, rows, [1])[0]])) == expected(batch)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=400), st.sampled_from([100_000_000, 10_000_000_000, 86_400_000_000]))
def test_cuts_part_no_two_samples_of_one_time_and_lose_none(steps: list[int], length: int) -> None:
    times = np.cumsum(np.array(steps, np.int64) // 50 * length)
    ends = chunks.cuts(times)
    assert ends[-1] == len(times)
    assert ends == sorted(set(ends))
    for end in ends[:-1]:
        assert times[end] != times[end - 1]


def test_a_dense_series_is_cut_by_day_and_by_rows() -> None:
    times = np.arange(0, 2 * chunks.DAY, 10_000_000)
    ends = chunks.cuts(times)
    day = [2048, 4096, 6144, 8192, 8640]
    assert ends == [*day, *(8640 + end for end in day)]


def test_a_sparse_series_goes_on_over_the_day() -> None:
    hourly = np.arange(0, 20 * chunks.DAY, 3_600_000_000)
    assert chunks.cuts(hourly) == [144, 288, 432, 480]  # whole days: six of them have 144 samples, at least SPARSE_ROWS
    assert chunks.cuts(np.arange(0, 90 * chunks.DAY, chunks.DAY)) == [32, 64, 90]  # one a day: SPARSE_DAYS


def test_regular_times_and_a_constant_cost_next_to_nothing() -> None:
    count = 1000
    times = np.arange(count) * 600_000_000
    assert len(chunks.encode(Columns(times, np.full(count, 5), times))) < 40


def test_the_usual_register_fits_four_bytes_a_sample() -> None:
    generator = np.random.default_rng(1)
    count = 1000
    times = np.arange(count) * 1_000_000 + generator.integers(0, 30_000, count)
    values = np.cumsum(generator.integers(0, 3, count))
    assert len(chunks.encode(Columns(times, values, times))) / count <= 4


def test_decimal_floats_are_as_small_as_integers_and_come_back_bit_for_bit() -> None:
    generator = np.random.default_rng(2)
    values = np.round(230 + generator.normal(0, 2, 1000), 1)
    times = np.arange(1000) * 1_000_000
    body = chunks.encode(Columns(times, values.view(np.int64), times, marks=np.full(1000, head.FLOAT, np.uint8)))
    assert len(body) / 1000 <= 2
    assert chunks.decode([body]).values.tobytes() == values.tobytes()


@settings(max_examples=300)
@given(told(), st.data())
def test_a_damaged_chunk_is_told_or_read_but_never_crashes(batch: list[MeterReading], data: st.DataObject) -> None:
    body = bytearray(chunks.encode(chunks.merge([columns(batch)])))
    place = data.draw(st.integers(6, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    try:
        found = chunks.decode([bytes(body)])
    except StorageCorrupt:
        return
    assert len(found) == len(found.values) == len(found.times)


def test_a_chunk_that_claims_to_be_huge_is_corrupt_before_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.arange(2_000) * 1_000_003
    body = chunks.encode(Columns(times, times * 7 % 1000, times))
    assert len(chunks.decode([body])) == 2_000
    monkeypatch.setattr(chunks, "_MOST_BYTES", 1_000)
    with pytest.raises(StorageCorrupt, match="more than any chunk"):
        chunks.decode([body])


def test_a_shortened_chunk_is_corrupt() -> None:
    times = np.arange(100) * 1_000_003
    body = chunks.encode(Columns(times, times * 7 % 1000, times))
    with pytest.raises(StorageCorrupt):
        chunks.decode([body[:-3]])
