"""The one thread that writes: group commit, guaranteed writes before samples, and what happens when the disk is full.

Whatever is queued when the thread comes round is one transaction: under load the groups grow by themselves, and idle there is no delay.
Guaranteed writes (``commit``) are taken first and fsync'd (synchronous=FULL); samples follow in bounded groups (synchronous=NORMAL: the WAL is
written, the operating system syncs it; a process crash loses nothing acknowledged, a power cut at most what the kernel held). Between groups one
slice of maintenance may run. Callers wait on asyncio futures, resolved once per group, not once per caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, FieldFault, GridloomError, InvalidInput, StorageCorrupt, StorageError, StorageFull
from gridloom.core.model import MeterReading, TimeSource
from gridloom.core.ports import Delete, Entry, Put, Write
from gridloom.storage import head
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite import files
from gridloom.storage.sqlite.catalogue import Catalogue, Kept, moment
from gridloom.storage.sqlite.heads import Heads

log = logging.getLogger(__name__)

_INSERTS = tuple((rows, f"INSERT INTO head VALUES {','.join(['(?,?,?,?,?,?,?)'] * rows)}") for rows in (256, 32, 4, 1))  # noqa: S608 - no values
"""Many head rows in one statement: sqlite3 gives the interpreter up for each, and getting it back beside a busy loop costs more than the rows."""
_PROBE_BYTES = 256 * 1024
_DEVICE = TimeSource.DEVICE

_NOT_KEEPABLE = (GridloomError, TypeError, ValueError, AttributeError, LookupError, OverflowError, RecursionError, struct.error)
"""What a MeterReading of the wrong types may raise on its way into a row."""

Slice = Callable[[sqlite3.Connection], Any]


class Waiting(msgspec.Struct):
    """Something queued, and who waits for it."""

    work: Any
    future: asyncio.Future[Any]
    size: int = 0


class Writer:
    """Owns the writing connection. ``submit_*`` are called on the event loop's thread, ``run_slice`` on a maintenance thread."""

    def __init__(self, path: Path, clock: Clock, settings: StorageSettings, catalogue: Catalogue, heads: Heads) -> None:
        self._path = path
        self._clock = clock
        self._settings = settings
        self._catalogue = catalogue
        self._heads = heads
        self._loop = asyncio.get_running_loop()
        self._commits: deque[Waiting] = deque()
        self._samples: deque[Waiting] = deque()
        self._slices: deque[tuple[Slice, Future[Any]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gridloom-store-writer", daemon=True)
        self._started: Future[None] = Future()
        self._failed: BaseException | None = None
        self._shorten = False
        self._synchronous = ""
        self._room: deque[asyncio.Future[None]] = deque()
        self.queued_rows = 0
        self.queued_bytes = 0
        self.full = False
        self.corrupt = False
        self.sequence = 0
        self.told_space: list[Callable[[bool], None]] = []

    # ------------------------------------------------------------------------------------------- the event loop's side

    async def start(self) -> None:
        """Open the connection in the thread and begin."""
        self._thread.start()
        await asyncio.wrap_future(self._started)

    async def append(self, batch: Sequence[MeterReading]) -> int:
        """Queue readings, wait until their group is committed; the sequence number of the last (they have consecutive ones).

        Raises StorageFull, InvalidInput.
        """
        rows = len(batch)
        size = sum([200 + 8 * len(reading.readings) for reading in batch])
        settings = self._settings
        while self.queued_rows and (self.queued_rows + rows > settings.queue_rows or self.queued_bytes + size > settings.queue_bytes):
            self._refuse_when_unable()
            room = self._loop.create_future()
            self._room.append(room)
            await room
        self._refuse_when_unable()
        future: asyncio.Future[int] = self._loop.create_future()
        self.queued_rows += rows
        self.queued_bytes += size
        self._samples.append(Waiting(batch, future, size))
        self._queued()
        return await future

    async def commit(self, writes: Sequence[Write]) -> tuple[int, frozenset[tuple[str, str]], tuple[int, ...]]:
        """Queue guaranteed writes and wait until they are on disk. Raises Conflict, StorageFull."""
        self._refuse_when_gone()
        future: asyncio.Future[tuple[int, frozenset[tuple[str, str]], tuple[int, ...]]] = self._loop.create_future()
        self._commits.append(Waiting(writes, future))
        self._queued()
        return await future

    async def stop(self) -> None:
        """Commit what is queued, checkpoint, close."""
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    def _queued(self) -> None:
        """Wake the thread; should it have ended since we looked, nobody else would answer what was just queued."""
        self._wake.set()
        if self._failed is not None:
            self._abandon()

    def _refuse_when_gone(self) -> None:
        if self._failed is not None:
            raise StorageError(f"{self._path}: the writer of the store has ended: {self._failed}") from self._failed
        if self._stopping:
            raise StorageError(f"{self._path}: the store is closed")

    def _refuse_when_unable(self) -> None:
        self._refuse_when_gone()
        if self.full:
            raise StorageFull(f"{self._path}: no space left on the disk; readings are not kept until there is")

    def _settle(self, done: Sequence[tuple[asyncio.Future[Any], Any]], rows: int, size: int) -> None:
        """On the loop: give every waiter its result or error."""
        self.queued_rows -= rows
        self.queued_bytes -= size
        for future, result in done:
            if not future.done():
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    # ---------------------------------------------------------------------------------------------- maintenance's side

    def run_slice(self, work: Slice) -> Any:
        """Run a piece of maintenance in a transaction of its own; waits for its end. Not on the event loop's thread.

        Raises StorageError when the store is closing, and whatever the work raises.
        """
        self._refuse_when_gone()
        future: Future[Any] = Future()
        self._slices.append((work, future))
        self._queued()
        return future.result()

    def shorten_wal(self) -> None:
        """Have the writer checkpoint by itself, soon: under steady writing nobody else ever finds the WAL at rest to begin it anew."""
        self._shorten = True
        self._wake.set()

    # --------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            connection = files.connect(self._path, cache_kib=8192)
        except sqlite3.Error as error:
            self._started.set_exception(StorageError(f"{self._path}: cannot be opened: {error}"))
            return
        try:
            # Checkpoints are maintenance's: done here they would make callers wait for two fsyncs of the main file.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._set_synchronous(connection, "FULL")
            self._started.set_result(None)
            self._work(connection)
        except BaseException as error:  # the last line of a thread: nobody else would hear of it; every waiter is told
            log.critical("the writer of the store has ended", exc_info=error, extra={"path": str(self._path)})
            self._failed = error
        finally:
            self._failed = self._failed or StorageError("closed")
            self._abandon()
            self._finish(connection)

    def _finish(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.warning("the last checkpoint failed; the next start reads the WAL", extra={"path": str(self._path), "error": str(error)})
        connection.close()

    def _abandon(self) -> None:
        """Nobody who waits may wait for ever."""
        error = StorageError(f"{self._path}: the store is closed")
        done: list[tuple[asyncio.Future[Any], Any]] = []
        for queue in (self._commits, self._samples):
            with contextlib.suppress(IndexError):
                while True:
                    done.append((queue.popleft().future, error))
        with contextlib.suppress(IndexError):
            while True:
                self._slices.popleft()[1].set_exception(error)
        self._tell(done, 0, 0)

    def _work(self, connection: sqlite3.Connection) -> None:
        while True:
            self._wake.clear()
            if self._commits:
                self._group_of_commits(connection)
            elif self._samples:
                self._group_of_samples(connection)
                self._one_slice(connection)
                if self._shorten:
                    self._checkpoint(connection)
            elif self._slices:
                self._one_slice(connection)
            elif self._stopping:
                return
            elif self._shorten:
                self._checkpoint(connection)
            else:
                timed = not self._wake.wait(self._settings.probe_seconds if self.full else None)
                if timed and self.full:
                    self._probe(connection)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        self._shorten = False
        try:
            connection.execute("PRAGMA busy_timeout = 50")  # a reader in the middle of a question is not waited for
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute("PRAGMA busy_timeout = 10000")
        except sqlite3.Error as error:
            log.warning("checkpoint failed", extra={"path": str(self._path), "error": str(error)})

    def _tell(self, done: Sequence[tuple[asyncio.Future[Any], Any]], rows: int, size: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, done, rows, size)

    def _set_synchronous(self, connection: sqlite3.Connection, level: str) -> None:
        if level != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level

    def _trouble(self, error: sqlite3.Error) -> StorageError:
        """What a failed transaction means for the caller, and for the store from now on."""
        if files.is_full(error):
            self._set_full(True, str(error))
            return StorageFull(f"{self._path}: no space left on the disk ({error})")
        if files.is_corrupt(error):
            self.corrupt = True
            log.error("the store is damaged; the next start checks it and sets it aside", extra={"path": str(self._path), "error": str(error)})
            return StorageCorrupt(f"{self._path}: the store is damaged ({error}); restart the hub, then: gridloom restore --from BACKUP")
        log.error("a transaction failed", extra={"path": str(self._path), "error": str(error)})
        return StorageError(f"{self._path}: {error}")

    def _set_full(self, full: bool, reason: str = "") -> None:
        if full == self.full:
            return
        self.full = full
        if full:
            log.error("no space left for the store: readings pause", extra={"path": str(self._path), "reason": reason})
        else:
            log.warning("there is space for the store again: readings go on", extra={"path": str(self._path)})
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell_space, full)

    def _tell_space(self, full: bool) -> None:
        for told in tuple(self.told_space):
            told(full)

    def _probe(self, connection: sqlite3.Connection) -> None:
        """See whether something fits again, by really writing it."""
        try:
            self._set_synchronous(connection, "FULL")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (_PROBE_BYTES,))
            connection.execute("DELETE FROM meta WHERE key = 'probe'")
        except sqlite3.Error:
            rollback(connection)
            return
        self._set_full(False)

    # -------------------------------------------------------------------------------------------------------- samples

    def _group_of_samples(self, connection: sqlite3.Connection) -> None:
        taken: list[Waiting] = []
        count = 0
        limit = self._settings.group_rows
        while self._samples and count < limit:
            waiting = self._samples.popleft()
            taken.append(waiting)
            count += len(waiting.work)
        done: list[tuple[asyncio.Future[Any], Any]] = []
        size = sum([waiting.size for waiting in taken])
        catalogue = self._catalogue
        sequence = self.sequence
        samples = 0
        values: list[Any] = []
        kept: list[Kept] = []
        try:
            if self.full:
                raise StorageFull(f"{self._path}: no space left on the disk; readings are not kept until there is")
            for waiting in taken:
                begun = sequence
                mark = len(kept)
                samples_before = samples
                try:
                    for reading in waiting.work:
                        body = head.encode(reading)
                        native = None if reading.native is None else msgspec.msgpack.encode(reading.native)
                        device, shape_no = catalogue.place(connection, reading)
                        sequence += 1
                        samples += len(reading.readings)
                        source = 0 if reading.source is _DEVICE else 1
                        values += (sequence, device.no, shape_no, reading.time, source, reading.received, body)
                        kept.append((device, shape_no, (reading.time, source, reading.received, body), native))
                except _NOT_KEEPABLE as error:  # one caller's bad value is that caller's alone
                    sequence = begun
                    samples = samples_before
                    del kept[mark:]
                    del values[7 * mark :]
                    done.append((waiting.future, error if isinstance(error, GridloomError) else _unkeepable(error)))
                else:
                    done.append((waiting.future, sequence))
            if kept or catalogue.unsaved:
                self._set_synchronous(connection, "NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                catalogue.save(connection)
                insert_rows(connection, values)
                self._save_natives(connection, kept)
                connection.execute("COMMIT")
                catalogue.saved()
        except (sqlite3.Error, StorageFull) as error:
            rollback(connection)
            failure = error if isinstance(error, StorageFull) else self._trouble(error)
            self._tell([(waiting.future, failure) for waiting in taken], count, size)
            return
        self._heads.add(self.sequence + 1, kept, samples)
        self.sequence = sequence
        catalogue.remember(kept)
        self._tell(done, count, size)

    def _save_natives(self, connection: sqlite3.Connection, kept: Sequence[Kept]) -> None:
        """Of native messages only the newest per device is kept: one row per device and group."""
        newest: dict[int, tuple[tuple[int, int], bytes]] = {}
        for device, _, row, native in kept:
            if native is not None:
                old = newest.get(device.no)
                now = moment(row)
                if old is None or now >= old[0]:
                    newest[device.no] = (now, native)
        if newest:
            connection.executemany(
                "INSERT INTO native VALUES (?,?,?) ON CONFLICT (device_no) DO UPDATE SET time = excluded.time, body = excluded.body"
                " WHERE excluded.time >= time",
                [(no, when[0], native) for no, (when, native) in newest.items()],
            )

    # ----------------------------------------------------------------------------------------------- guaranteed writes

    def _group_of_commits(self, connection: sqlite3.Connection) -> None:
        taken: list[Waiting] = []
        while self._commits and len(taken) < 256:
            taken.append(self._commits.popleft())
        done: list[tuple[asyncio.Future[Any], Any]] = []
        sequence = self.sequence
        try:
            self._set_synchronous(connection, "FULL")
            connection.execute("BEGIN IMMEDIATE")
            for waiting in taken:
                connection.execute("SAVEPOINT one")
                try:
                    answer = apply(connection, waiting.work, sequence)
                except (GridloomError, TypeError, ValueError, OverflowError, sqlite3.ProgrammingError) as error:
                    # This caller's alone (a lost compare-and-swap, something that SQLite cannot hold); the others of the group go on.
                    connection.execute("ROLLBACK TO one")
                    done.append((waiting.future, error))
                else:
                    sequence = answer[0]
                    done.append((waiting.future, answer))
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            rollback(connection)
            failure = self._trouble(error)
            self._tell([(waiting.future, failure) for waiting in taken], 0, 0)
            return
        self.sequence = sequence
        self._set_full(False)
        self._tell(done, 0, 0)

    # ------------------------------------------------------------------------------------------------------ maintenance

    def _one_slice(self, connection: sqlite3.Connection) -> None:
        if not self._slices:
            return
        work, future = self._slices.popleft()
        try:
            self._set_synchronous(connection, "NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            rollback(connection)
            future.set_exception(self._trouble(error))
        except BaseException as error:  # noqa: BLE001 - handed to the one who asked for the slice, who logs it
            rollback(connection)
            future.set_exception(error)
        else:
            future.set_result(result)


def _unkeepable(error: BaseException) -> InvalidInput:
    return InvalidInput(f"a reading cannot be kept: {error}", (FieldFault("$", str(error)),))


def rollback(connection: sqlite3.Connection) -> None:
    """End a failed transaction; SQLite may have ended it by itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def insert_rows(connection: sqlite3.Connection, values: list[Any]) -> None:
    """Head rows given as one flat list of seven values each."""
    place = 0
    for rows, statement in _INSERTS:
        width = 7 * rows
        while len(values) - place >= width:
            connection.execute(statement, values[place : place + width])
            place += width


def apply(connection: sqlite3.Connection, writes: Sequence[Write], sequence: int) -> tuple[int, frozenset[tuple[str, str]], tuple[int, ...]]:
    """Carry out one caller's writes. Returns the new sequence number, the entries that were already there, the versions. Raises Conflict."""
    duplicates: set[tuple[str, str]] = set()
    versions: list[int] = []
    # Entries first: whether they are new decides about writes that may stand before them.
    for write in writes:
        if isinstance(write, Entry):
            cursor = connection.execute(
                "INSERT OR IGNORE INTO journal VALUES (?,?,?,?,?,?,?,?)",
                (sequence + 1, write.stream, write.id, write.time, write.device, write.kind, write.severity, write.body),
            )
            if cursor.rowcount:
                sequence += 1
            else:
                duplicates.add((write.stream, write.id))
    for write in writes:
        if isinstance(write, Put):
            versions.append(0 if write.only_if_new in duplicates else _put(connection, write))
        elif isinstance(write, Delete):
            if write.only_if_new not in duplicates:
                _delete(connection, write)
        elif not isinstance(write, Entry):
            raise TypeError(f"a commit takes Put, Delete and Entry, not {type(write).__name__}")
    return sequence, frozenset(duplicates), tuple(versions)


def _version(connection: sqlite3.Connection, write: Put | Delete) -> int:
    row = connection.execute("SELECT version FROM document WHERE space = ? AND kind = ? AND id = ?", (write.space, write.kind, write.id)).fetchone()
    found = 0 if row is None else int(row[0])
    if write.expect is not None and write.expect != found:
        wanted = "no document" if write.expect == 0 else f"version {write.expect}"
        came = "there is none" if found == 0 else f"it is version {found}"
        raise Conflict(f"{write.space}/{write.kind}/{write.id}: expected {wanted}, {came}")
    return found


def _put(connection: sqlite3.Connection, write: Put) -> int:
    found = _version(connection, write)
    keys = msgspec.json.encode(dict(write.keys)).decode()
    place = (write.space, write.kind, write.id)
    if found:
        old = connection.execute("SELECT keys FROM document WHERE space = ? AND kind = ? AND id = ?", place).fetchone()[0]
        connection.execute(
            "UPDATE document SET version = ?, body = ?, keys = ?, expires = ? WHERE space = ? AND kind = ? AND id = ?",
            (found + 1, write.body, keys, write.expires, *place),
        )
        if old == keys:
            return found + 1
        connection.execute("DELETE FROM document_key WHERE space = ? AND kind = ? AND id = ?", place)
    else:
        connection.execute("INSERT INTO document VALUES (?,?,?,?,?,?,?)", (*place, 1, write.body, keys, write.expires))
    for name, value in write.keys.items():
        connection.execute("INSERT INTO document_key VALUES (?,?,?,?,?)", (write.space, write.kind, name, value, write.id))
    return found + 1


def _delete(connection: sqlite3.Connection, write: Delete) -> None:
    _version(connection, write)
    place = (write.space, write.kind, write.id)
    connection.execute("DELETE FROM document WHERE space = ? AND kind = ? AND id = ?", place)
    connection.execute("DELETE FROM document_key WHERE space = ? AND kind = ? AND id = ?", place)
