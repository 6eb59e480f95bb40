"""Maintenance by itself: what is due becomes chunks, slow devices hold nobody up, and who reads meanwhile sees everything once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.storage.conftest import DAY, HandClock

from gridloom.core.clock import Clock
from gridloom.core.errors import NotFound
from gridloom.core.model import MeterReading, Reading, ReadingType
from gridloom.core.ports import AggregateQuery, Operator, SeriesFilter, Step
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite import files
from gridloom.storage.sqlite.reading import Snapshot
from gridloom.storage.sqlite.store import SqliteStore

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
TYPE = ReadingType("Power.Active.Import", "W")


def one(device: str, number: int) -> MeterReading:
    at = START + number * 1_000_000
    return MeterReading(device, at, at, (Reading(TYPE, number),))


async def test_what_is_due_is_compacted_in_the_background(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gridloom.db", Clock(), StorageSettings(compact_rows=10))
    await store.open()
    try:
        await store.samples.append([one("d", k) for k in range(50)])
        async with asyncio.timeout(20):
            while (await store.stats()).chunks == 0:
                await asyncio.sleep(0.1)
        (series,) = await store.samples.series(SeriesFilter())
        assert series.count == 50
    finally:
        await store.close()


async def test_a_device_that_seldom_speaks_does_not_keep_the_head_from_shrinking(tmp_path: Path) -> None:
    clock = HandClock(START)
    store = SqliteStore(tmp_path / "gridloom.db", clock, StorageSettings(background=False, compact_rows=10))
    await store.open()
    maintenance = store._maintenance

    async def look() -> None:
        maintenance._mark(clock.monotonic())
        clock.time += 400_000_000
        maintenance._mark(clock.monotonic())
        await asyncio.to_thread(maintenance._compact, everything=False)

    try:
        await store.samples.append([one("seldom", 0), *(one("often", k) for k in range(20)), one("seldom", 1)])
        await look()
        assert (await store.stats()).head_rows == 2
        assert [series.count for series in await store.samples.series(SeriesFilter())] == [20, 2]
        await store.samples.append([one("often", k) for k in range(20, 40)])
        clock.time += DAY  # now the seldom one's are old, too
        await look()
        await look()
        assert (await store.stats()).head_rows == 0
        assert (await store.stats()).samples == 42
        assert [series.count for series in await store.samples.series(SeriesFilter())] == [40, 2]
        assert [value.value for value in await store.samples.latest(SeriesFilter())] == [39, 1]
    finally:
        await store.close()


async def test_who_reads_while_a_compaction_ends_sees_every_sample_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gridloom.db", HandClock(START + DAY), StorageSettings(background=False))
    await store.open()
    await store.samples.append([one("d", k) for k in range(100)])
    connection = files.connect(tmp_path / "gridloom.db", readonly=True)
    try:
        connection.execute("BEGIN")
        snapshot = Snapshot(connection, store._catalogue, store._heads)
        (row,) = snapshot.series_rows(SeriesFilter())
        await store.compact()  # between the moment that the snapshot is of and the look at the head
        await store.samples.append([one("d", 100)])
        assert snapshot.window(row, 0, 2**61).values.tolist() == list(range(100))
        connection.execute("ROLLBACK")
        after = Snapshot(connection, store._catalogue, store._heads)
        (row,) = after.series_rows(SeriesFilter())
        assert after.window(row, 0, 2**61).values.tolist() == list(range(101))
    finally:
        connection.close()
        await store.close()


async def test_questions_beside_appends_and_compactions_never_lose_a_sample(tmp_path: Path) -> None:
    """A count asked after an append was acknowledged is never below it, whatever compaction is doing."""
    store = SqliteStore(tmp_path / "gridloom.db", HandClock(START + 10 * DAY), StorageSettings(background=False))
    await store.open()
    acknowledged = 0
    done = False

    async def feed() -> None:
        nonlocal acknowledged, done
        for number in range(0, 3000, 10):
            await store.samples.append([one("d", k) for k in range(number, number + 10)])
            acknowledged = number + 10
        done = True

    async def compact() -> None:
        while not done:
            await store.compact()

    async def ask() -> None:
        await asyncio.sleep(0.01)
        while not done:
            least = acknowledged
            (row,) = await store.samples.aggregate(AggregateQuery(SeriesFilter(), Operator.COUNT, Step.TOTAL, START, START + DAY))
            assert int(row.buckets[0].value) >= least
            assert row.buckets[0].value == row.series.count

    try:
        await asyncio.gather(feed(), compact(), ask(), ask())
        (row,) = await store.samples.aggregate(AggregateQuery(SeriesFilter(), Operator.SUM, Step.TOTAL, START, START + DAY))
        assert row.buckets[0].value == sum(range(3000))
    finally:
        await store.close()


async def test_no_more_rows_are_kept_for_resuming_than_allowed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gridloom.db", HandClock(START), StorageSettings(background=False, resume_rows=10))
    await store.open()
    try:
        cursors = await store.samples.append([one("d", k) for k in range(50)])
        await store.compact()
        assert (await store.stats()).head_rows == 10
        assert [reading async for _, reading in store.samples.since(cursors[39])] == [one("d", k) for k in range(40, 50)]
        with pytest.raises(NotFound):
            [reading async for reading in store.samples.since(cursors[38])]
    finally:
        await store.close()
