"""A full disk pauses readings and refuses commits; the store stays up, says so, and goes on when there is space.

Two kinds of fullness: ``max_page_count``, which any machine can do, and, where this process may mount one, a real file system of a few MB (elsewhere
that test does not exist).
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gridloom.core.clock import Clock
from gridloom.core.errors import StorageFull
from gridloom.core.model import MeterReading, Reading, ReadingType
from gridloom.core.ports import Put, SeriesFilter
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

TYPE = ReadingType("Power", "W")


def _mount(folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False).returncode == 0


def _may_mount(folder: Path) -> bool:
    if not _mount(folder):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


def batch(number: int) -> list[MeterReading]:
    return [MeterReading(f"d{k}", number * 1000 + k, number * 1000 + k, (Reading(TYPE, k),) * 20) for k in range(100)]


async def fill(store: SqliteStore) -> int:
    """Append until it is refused; how many batches were kept."""
    for number in range(10_000):
        try:
            await store.samples.append(batch(number))
        except StorageFull:
            return number
    raise AssertionError("the disk never got full")


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[list[SqliteStore]]:
    stores: list[SqliteStore] = []
    yield stores
    for store in stores:
        await store.close()


async def check(store: SqliteStore, told: list[bool]) -> None:
    kept = await fill(store)
    assert kept > 0
    async with asyncio.timeout(5):
        while told != [True]:
            await asyncio.sleep(0.01)
    assert (await store.stats()).full
    with pytest.raises(StorageFull):
        await store.samples.append(batch(kept))
    # Reading goes on.
    series = await store.samples.series(SeriesFilter(devices=("d7",)))
    assert series[0].count == kept
    assert (await store.samples.latest(SeriesFilter(devices=("d7",))))[0].time == (kept - 1) * 1000 + 7


async def goes_on(store: SqliteStore, told: list[bool]) -> None:
    async with asyncio.timeout(10):
        while told != [True, False]:
            await asyncio.sleep(0.02)
    assert not (await store.stats()).full
    before = (await store.samples.series(SeriesFilter(devices=("d7",))))[0].count
    await store.samples.append(batch(20_000))
    assert (await store.samples.series(SeriesFilter(devices=("d7",))))[0].count == before + 1
    await store.commit([Put("test", "x", "after", b"{}")])


async def test_a_store_that_may_not_grow_pauses_and_goes_on(tmp_path: Path, opened: list[SqliteStore]) -> None:
    store = SqliteStore(tmp_path / "gridloom.db", Clock(), StorageSettings(background=False, probe_seconds=0.05))
    told: list[bool] = []
    store.watch_space(told.append)
    await store.open()
    opened.append(store)
    await asyncio.to_thread(store._writer.run_slice, lambda connection: connection.execute("PRAGMA max_page_count = 200").fetchone())
    await check(store, told)
    with pytest.raises(StorageFull):
        await store.commit([Put("test", "x", str(k), b"x" * 8000) for k in range(50)])
    assert await store.documents.find("test", "x") == []
    await asyncio.sleep(0.2)
    assert told == [True]  # probed meanwhile, in vain
    await asyncio.to_thread(store._writer.run_slice, lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
    await goes_on(store, told)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    assert _mount(folder)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def a_real_disk_that_is_full_pauses_and_goes_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 * 1024 * 1024))
    store = SqliteStore(small_disk / "gridloom.db", Clock(), StorageSettings(background=False, probe_seconds=0.05))
    told: list[bool] = []
    store.watch_space(told.append)
    await store.open()
    try:
        await check(store, told)
        with pytest.raises(StorageFull):
            await store.commit([Put("test", "x", str(k), b"x" * 8000) for k in range(50)])
        ballast.unlink()
        await goes_on(store, told)
    finally:
        await store.close()
    again = SqliteStore(small_disk / "gridloom.db", Clock(), StorageSettings(background=False))
    await again.open()
    try:
        assert (await again.stats()).quarantined is None
        assert (await again.documents.get("test", "x", "after")) is not None
    finally:
        await again.close()


with tempfile.TemporaryDirectory() as _folder:
    if _may_mount(Path(_folder) / "disk"):
        test_a_real_disk_that_is_full_pauses_and_goes_on = a_real_disk_that_is_full_pauses_and_goes_on
