"""The store as files: one process at a time, damage is set aside and never loops, backups are verified, old versions are migrated."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage.conftest import DAY, HandClock

from gridloom.core.clock import Clock
from gridloom.core.errors import StorageCorrupt, StorageError
from gridloom.core.model import MeterReading, Reading, ReadingType
from gridloom.core.ports import AggregateQuery, Entry, JournalFilter, Operator, Put, SeriesFilter, Step
from gridloom.storage import head
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite import files, schema
from gridloom.storage.sqlite.store import SqliteStore

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
TYPE = ReadingType("Energy.Active.Import.Register", "Wh")
QUIET = StorageSettings(background=False)


def store_at(path: Path, clock: Clock | None = None) -> SqliteStore:
    return SqliteStore(path, clock or HandClock(START + 400 * DAY), QUIET)


async def filled(path: Path, samples: int = 5000) -> None:
    """A store with samples (some compacted), documents and events, closed in order."""
    store = store_at(path)
    await store.open()
    chance = random.Random(1)
    batch = [MeterReading(f"d{k % 5}", START + k * 60_000_000, START, (Reading(TYPE, chance.randrange(10**9)),)) for k in range(samples)]
    await store.samples.append(batch[: samples // 2])
    await store.compact()
    await store.samples.append(batch[samples // 2 :])
    await store.commit([Put("core", "x", str(k), b"{}" * 50, {"k": "v"}) for k in range(100)] + [Entry("event", "e", START, "d", "k", 1, b"{}")])
    await store.close()


async def works(store: SqliteStore) -> bool:
    """Whether a store takes and gives."""
    await store.samples.append([MeterReading("new", START, START, (Reading(TYPE, 7),))])
    await store.commit([Put("core", "new", "1", b"{}")])
    return [one.device for one in await store.samples.series(SeriesFilter(devices=("new",)))] == ["new"]


# ------------------------------------------------------------------------------------------------------- open and close


async def test_a_clean_close_leaves_one_file(tmp_path: Path) -> None:
    await filled(tmp_path / "gridloom.db")
    assert os.listdir(tmp_path) == ["gridloom.db"]
    assert (tmp_path / "gridloom.db").stat().st_mode & 0o077 == 0  # nobody else may read it


async def test_a_store_is_opened_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    store = store_at(path)
    await store.open()
    with pytest.raises(StorageError) as refused:
        await store_at(path).open()
    assert str(path) in refused.value.message
    assert f"pid {os.getpid()}" in refused.value.message
    await store.close()
    again = store_at(path)
    await again.open()
    assert await works(again)
    await again.close()


async def test_a_lock_left_behind_by_a_dead_process_does_not_keep_us_out(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path)
    files.lock_path(path).write_text("999999\n")
    store = store_at(path)
    await store.open()
    assert await works(store)
    await store.close()
    assert os.listdir(tmp_path) == ["gridloom.db"]


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as refused:
        await store_at(tmp_path / "file" / "gridloom.db").open()
    assert str(tmp_path / "file") in refused.value.message


def test_opening_a_store_imports_nothing_heavy(tmp_path: Path) -> None:
    """numpy and zstandard come with the first question or compaction: a hub must start fast and small."""
    program = """
import asyncio, sys
from pathlib import Path
from gridloom.core.clock import Clock
from gridloom.core.model import MeterReading, Reading, ReadingType
from gridloom.core.ports import SeriesFilter
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore
async def main():
    store = SqliteStore(Path(sys.argv[1]), Clock(), StorageSettings())
    await store.open()
    await store.samples.append([MeterReading("d", 1, 1, (Reading(ReadingType("Power", "W"), 1),))])
    assert (await store.samples.latest(SeriesFilter()))[0].value == 1
    await store.close()
asyncio.run(main())
assert "numpy" not in sys.modules and "zstandard" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "gridloom.db")], check=True, timeout=30)


# ---------------------------------------------------------------------------------------------------------- quarantine


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 - 100)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 50)


def garbage_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"this is not a database file any more " * 4)


def random_bytes_in_the_middle(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2 // schema.PAGE_SIZE * schema.PAGE_SIZE)
        file.write(random.Random(3).randbytes(2 * schema.PAGE_SIZE))


def all_zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncated, cut_to_nothing, garbage_header, random_bytes_in_the_middle, all_zero])
async def test_a_damaged_store_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path)
    damage(path)
    damaged = path.read_bytes()
    store = store_at(path)
    with caplog.at_level(logging.ERROR):
        await store.open()
    aside = (await store.stats()).quarantined
    assert aside is not None
    assert Path(aside).read_bytes() == damaged
    assert Path(aside).name.startswith("gridloom.db.quarantine-20270205T")  # the clock's own day
    assert "gridloom restore --from BACKUP" in caplog.text
    assert await works(store)
    await store.close()
    # The next start is an ordinary one: no loop.
    store = store_at(path)
    await store.open()
    assert (await store.stats()).quarantined == aside, "it is known until a backup is restored"
    assert [one.device for one in await store.samples.series(SeriesFilter())] == ["new"]
    await store.close()
    assert len(list(tmp_path.glob("*.quarantine-*"))) == 1


@pytest.mark.parametrize("damage", [truncated, cut_to_nothing, garbage_header, random_bytes_in_the_middle, all_zero])
async def test_a_damaged_store_stays_where_it_is_for_who_only_looks(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path)
    damage(path)
    damaged = path.read_bytes()
    with pytest.raises(StorageCorrupt) as told:
        await SqliteStore(path, HandClock(START), StorageSettings(background=False, quarantine=False)).open()
    assert told.value.message.startswith(f"{path}: the store is damaged: ")
    assert told.value.message.endswith("gridloom restore --from BACKUP")
    assert path.read_bytes() == damaged
    assert not list(tmp_path.glob("*.quarantine-*"))


@pytest.mark.parametrize("damage", [truncated, cut_to_nothing, garbage_header, all_zero])
async def test_a_backup_of_a_damaged_store_says_so(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path)
    damage(path)
    with pytest.raises(StorageCorrupt) as told:
        files.backup_file(path, tmp_path / "copy.db")
    assert told.value.message.startswith(f"{path}: the store is damaged: ")
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("copy.db")] == []


async def test_a_restore_ends_what_is_known_of_a_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path)
    garbage_header(path)
    store = store_at(path)
    await store.open()
    assert (await store.stats()).quarantined is not None
    await store.backup(str(tmp_path / "copy.db"))
    await store.close()
    files.restore(tmp_path / "copy.db", path, HandClock(START))
    store = store_at(path)
    await store.open()
    assert (await store.stats()).quarantined is None
    await store.close()


async def test_a_damaged_wal_goes_with_its_store(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path)
    wal, shm = files.beside(path)
    wal.write_bytes(b"w" * 5000)
    shm.write_bytes(b"s" * 5000)
    garbage_header(path)
    store = store_at(path)
    await store.open()
    aside = (await store.stats()).quarantined
    assert aside is not None
    left = {one.name for one in tmp_path.iterdir() if one.name.startswith(Path(aside).name)}
    assert Path(aside).name + "-wal" in left
    assert await works(store)
    await store.close()


async def test_two_quarantines_in_a_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    for _ in range(2):
        await filled(path)
        garbage_header(path)
        store = store_at(path)
        await store.open()
        await store.close()
    assert len([one for one in tmp_path.iterdir() if ".quarantine-" in one.name]) == 2


async def test_damage_found_while_running_is_told_and_dealt_with_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path, 40_000)
    store = store_at(path)
    await store.open()
    # Behind the store's back, as a dying disk would: every page but the first two.
    with open(path, "r+b") as file:
        file.seek(2 * schema.PAGE_SIZE)
        file.write(b"\xa5" * (path.stat().st_size - 2 * schema.PAGE_SIZE))
    with pytest.raises(StorageCorrupt) as told:
        await asyncio.gather(*(store.samples.read(number, 0, 2**61) for number in range(1, 6)), store.documents.find("core", "x"))
    assert "gridloom restore --from BACKUP" in told.value.message
    await store.close()
    assert files.lock_path(path).exists()  # not a clean end: the next start looks closely
    store = store_at(path)
    await store.open()
    assert (await store.stats()).quarantined is not None
    assert await works(store)
    await store.close()


def test_a_check_is_thorough_after_an_unclean_end_and_never_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gridloom.db"
    asyncio.run(filled(path))
    random_bytes_in_the_middle(path)
    monkeypatch.setattr(files, "_ALWAYS_CHECKED", 0)
    assert files.check(path, thorough=False, seconds=10, clock=Clock()) is None  # a big file after a clean end: only its header is looked at
    assert files.check(path, thorough=True, seconds=10, clock=Clock()) is not None


# --------------------------------------------------------------------------------------------------- backup and restore


async def test_a_backup_is_restored_and_its_cursors_are_new(tmp_path: Path) -> None:
    path, copy = tmp_path / "gridloom.db", tmp_path / "backup.db"
    await filled(path)
    store = store_at(path)
    await store.open()
    await store.backup(str(copy))
    (cursor,) = await store.samples.append([MeterReading("after", START, START, (Reading(TYPE, 1),))])
    await store.close()
    aside = files.restore(copy, path, HandClock(START))
    assert aside is not None
    assert aside.exists()
    store = store_at(path)
    await store.open()
    assert [one.device for one in await store.samples.series(SeriesFilter())] == ["d0", "d1", "d2", "d3", "d4"]
    assert len(await store.documents.find("core", "x", {"k": "v"})) == 100
    assert await store.journal.count(JournalFilter()) == 1
    (again,) = await store.samples.append([MeterReading("after", START, START, (Reading(TYPE, 1),))])
    assert again.split("-")[0] != cursor.split("-")[0]
    await store.close()
    assert copy.exists()
    assert {one.name for one in tmp_path.iterdir()} == {"gridloom.db", "backup.db", aside.name}


@pytest.mark.parametrize("damage", [truncated, cut_to_nothing, garbage_header, random_bytes_in_the_middle, all_zero])
async def test_a_damaged_backup_is_refused_and_nothing_is_touched(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path, copy = tmp_path / "gridloom.db", tmp_path / "backup.db"
    await filled(path)
    copy.write_bytes(path.read_bytes())
    damage(copy)
    before = path.read_bytes()
    with pytest.raises(StorageError) as refused:
        files.restore(copy, path, HandClock(START))
    assert str(copy) in refused.value.message
    assert path.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} == {"gridloom.db", "backup.db"}


async def test_a_backup_that_is_another_database_or_of_a_newer_gridloom_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    with pytest.raises(StorageCorrupt):
        files.restore(other, tmp_path / "gridloom.db", HandClock(START))
    await filled(tmp_path / "newer.db", 10)
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StorageError):
        files.restore(tmp_path / "newer.db", tmp_path / "gridloom.db", HandClock(START))
    with pytest.raises(StorageError):
        files.restore(tmp_path / "nothing.db", tmp_path / "gridloom.db", HandClock(START))
    assert not (tmp_path / "gridloom.db").exists()


async def test_a_store_that_is_open_is_not_replaced(tmp_path: Path) -> None:
    path, copy = tmp_path / "gridloom.db", tmp_path / "backup.db"
    await filled(path, 10)
    store = store_at(path)
    await store.open()
    await store.backup(str(copy))
    with pytest.raises(StorageError):
        files.restore(copy, path, HandClock(START))
    assert await works(store)
    await store.close()


async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = store_at(tmp_path / "gridloom.db")
    await store.open()
    with pytest.raises(StorageError):
        await store.backup(str(tmp_path / "no such folder" / "backup.db"))
    await store.close()
    assert os.listdir(tmp_path) == ["gridloom.db"]


# ----------------------------------------------------------------------------------------------------------- migrations


def version_1(path: Path) -> None:
    """A store as the first version wrote it: no roll-ups; head rows only."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    schema.migrate(connection, schema.STEPS[:1])
    connection.execute("INSERT INTO device (no, id) VALUES (1, 'tic:1')")
    connection.execute("INSERT INTO shape VALUES (1, ?)", (head.encode_shape((TYPE,)),))
    connection.execute("INSERT INTO series (no, device_no, measurand, unit) VALUES (1, 1, ?, ?)", (TYPE.measurand, TYPE.unit))
    for k in range(4 * 144):
        one = MeterReading("tic:1", START + k * 600_000_000, START, (Reading(TYPE, 10 * k),))
        connection.execute("INSERT INTO head VALUES (?,1,1,?,1,?,?)", (k + 1, one.time, one.received, head.encode(one)))
    connection.execute("INSERT INTO document VALUES ('core', 'x', 'a', 3, x'7b7d', '{\"k\":\"v\"}', NULL)")
    connection.execute("INSERT INTO document_key VALUES ('core', 'x', 'k', 'v', 'a')")
    connection.close()


async def test_a_store_of_version_1_is_migrated_with_a_copy_kept(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    version_1(path)
    store = store_at(path)
    await store.open()
    try:
        (series,) = await store.samples.series(SeriesFilter())
        assert series.count == 4 * 144
        (document,) = await store.documents.find("core", "x", {"k": "v"})
        assert document.version == 3
        await store.compact()
        (row,) = await store.samples.aggregate(AggregateQuery(SeriesFilter(), Operator.DELTA, Step.DAY, START, START + 4 * DAY))
        assert [one.value for one in row.buckets] == [1440, 1440, 1440, 1430]
        assert await works(store)
    finally:
        await store.close()
    connection = sqlite3.connect(path)
    assert schema.version(connection) == len(schema.STEPS)
    assert connection.execute("SELECT count(*) FROM rollup").fetchone()[0] > 0
    connection.close()
    kept = sqlite3.connect(tmp_path / f"gridloom.db.before-v{len(schema.STEPS)}")
    assert schema.version(kept) == 1
    assert kept.execute("SELECT count(*) FROM head").fetchone()[0] == 4 * 144
    kept.close()


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    def breaks(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        connection.execute("this is no SQL")

    connection = sqlite3.connect(tmp_path / "gridloom.db", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, [*schema.STEPS, breaks])
    assert schema.version(connection) == len(schema.STEPS)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone()[0] == 0
    connection.close()


async def test_a_store_of_a_newer_gridloom_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gridloom.db"
    await filled(path, 10)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError) as refused:
        await store_at(path).open()
    assert "999" in refused.value.message
    assert path.read_bytes()[100:] == before[100:]
