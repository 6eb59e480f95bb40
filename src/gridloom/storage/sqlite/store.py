"""The SQLite store: opens, checks and migrates the file, and puts its parts together."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from gridloom.core.clock import Clock
from gridloom.core.errors import StorageCorrupt, StorageError
from gridloom.core.ports import Commit, Documents, Journal, Samples, StoreStats, Write
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite import files, schema
from gridloom.storage.sqlite.catalogue import Catalogue
from gridloom.storage.sqlite.cursors import Cursors
from gridloom.storage.sqlite.documents import SqliteDocuments
from gridloom.storage.sqlite.heads import Heads
from gridloom.storage.sqlite.journal import SqliteJournal
from gridloom.storage.sqlite.maintenance import Maintenance
from gridloom.storage.sqlite.readers import Readers
from gridloom.storage.sqlite.samples import SqliteSamples
from gridloom.storage.sqlite.writer import Writer

log = logging.getLogger(__name__)


class SqliteStore:
    """``ports.Store`` in one file. Made first, then opened; ``samples``, ``journal`` and ``documents`` exist once it is open."""

    samples: Samples
    journal: Journal
    documents: Documents

    def __init__(self, path: Path, clock: Clock, settings: StorageSettings) -> None:
        self.path = path
        self._clock = clock
        self._settings = settings
        self._lock = files.Lock(path)
        self._quarantined: str | None = None
        self._told: list[Callable[[bool], None]] = []
        self._open = False

    async def open(self) -> None:
        """See ``ports.Store.open``. Raises StorageError when another process has it, or the file or its folder cannot be used.

        Raises StorageCorrupt for a damaged file when the settings say no to ``quarantine``.
        """
        if self._open:
            raise StorageError(f"{self.path}: is open already")
        store, sequence = await asyncio.to_thread(self._prepare)
        self._catalogue = Catalogue()
        self._heads = Heads(sequence, self._catalogue)
        self._cursors = Cursors(store)
        self._readers = Readers(self.path, self._settings.readers)
        try:
            self._writer = Writer(self.path, self._clock, self._settings, self._catalogue, self._heads)
            self._writer.sequence = sequence
            self._writer.told_space = self._told
            await asyncio.to_thread(self._load)
            await self._writer.start()
            self._maintenance = Maintenance(self.path, self._writer, self._readers, self._catalogue, self._heads, self._clock, self._settings)
            if self._settings.background:
                self._maintenance.start()
        except BaseException:
            await self._readers.close()
            self._lock.release(clean=False)
            raise
        self.samples = SqliteSamples(self._writer, self._readers, self._catalogue, self._heads, self._cursors, self._settings.zone)
        self.journal = SqliteJournal(self._readers, self._cursors)
        self.documents = SqliteDocuments(self._readers)
        self._open = True

    def _prepare(self) -> tuple[str, int]:
        """Lock, check, migrate. Returns the store's name and its last sequence number."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path.parent}: cannot be made: {error.strerror}") from error
        self._lock.acquire()
        try:
            wrong = files.check(self.path, thorough=self._lock.unclean, seconds=self._settings.check_seconds, clock=self._clock)
            if wrong is not None:
                if not self._settings.quarantine:
                    raise StorageCorrupt(files.damaged(self.path, wrong))
                self._quarantined = str(files.quarantine(self.path, wrong, self._clock))
            return self._make()
        except BaseException:
            self._lock.release(clean=False)
            raise

    def _make(self) -> tuple[str, int]:
        try:
            files.create(self.path)
            connection = files.connect(self.path)
            try:
                connection.execute(f"PRAGMA page_size = {schema.PAGE_SIZE}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                self._migrate(connection)
                self._cut_days_anew(connection)
                self._remember_quarantine(connection)
                meta = dict(connection.execute("SELECT key, value FROM meta"))
                highest = connection.execute(
                    "SELECT max(coalesce((SELECT max(seq) FROM head), 0), coalesce((SELECT max(seq) FROM journal), 0), ?)", (meta["seq"],)
                ).fetchone()[0]
                return str(meta["store"]), int(highest)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: cannot be opened: {error}") from error

    def _migrate(self, connection: sqlite3.Connection) -> None:
        found = schema.version(connection)
        if 0 < found < len(schema.STEPS):
            kept = self.path.with_name(f"{self.path.name}.before-v{len(schema.STEPS)}")
            if not kept.exists():
                files.backup(connection, kept)
            log.info("migrating the store", extra={"path": str(self.path), "from": found, "to": len(schema.STEPS), "backup": str(kept)})
        schema.migrate(connection)

    def _cut_days_anew(self, connection: sqlite3.Connection) -> None:
        """When the zone of the configuration was changed, day roll-ups are made again from the samples; until then these answer."""
        zone = self._settings.zone
        before = connection.execute("SELECT value FROM meta WHERE key = 'zone'").fetchone()
        if before is not None and before[0] == zone:
            return
        connection.execute("BEGIN IMMEDIATE")
        if before is not None:
            log.info("the time zone was changed: day roll-ups are made again", extra={"path": str(self.path), "from": before[0], "to": zone})
            days = self._settings.retention.samples
            oldest = 0 if days is None else max(self._clock.now() - days * 86_400_000_000, 0)
            connection.execute("DELETE FROM rollup WHERE level = 2")
            connection.execute("UPDATE series SET rolled = NULL")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('rolled_from_2', ?)", (oldest,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('zone', ?)", (zone,))
        connection.execute("COMMIT")

    def _remember_quarantine(self, connection: sqlite3.Connection) -> None:
        """That this store is the new one after a damaged one is known until a backup is restored, however often it is opened."""
        if self._quarantined is not None:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('quarantined', ?)", (self._quarantined,))
            return
        row = connection.execute("SELECT value FROM meta WHERE key = 'quarantined'").fetchone()
        self._quarantined = None if row is None else str(row[0])

    def _load(self) -> None:
        self._readers.call(self._catalogue.load)

    async def close(self) -> None:
        """See ``ports.Store.close``. Safe to call again."""
        if not self._open:
            return
        self._open = False
        await asyncio.to_thread(self._maintenance.stop)
        await self._readers.close()
        await self._writer.stop()
        self._lock.release(clean=not (self._writer.corrupt or self._readers.corrupt))

    async def commit(self, writes: Sequence[Write]) -> Commit:
        """See ``ports.Store.commit``. Raises Conflict, StorageFull."""
        self._must_be_open()
        sequence, duplicates, versions = await self._writer.commit(writes)
        return Commit(self._cursors.text(sequence), duplicates, versions)

    async def compact(self) -> None:
        """See ``ports.Store.compact``. Rows stay in the head for ``resume_seconds`` after they were compacted. Raises StorageError."""
        self._must_be_open()
        await asyncio.to_thread(self._maintenance.run_all)

    async def backup(self, path: str) -> None:
        """See ``ports.Store.backup``. Raises StorageError when the target exists or cannot be written."""
        self._must_be_open()
        await asyncio.to_thread(self._backup, Path(path))

    def _backup(self, target: Path) -> None:
        files.backup_file(self.path, target, stopped=lambda: not self._open)

    async def stats(self) -> StoreStats:
        """See ``ports.Store.stats``."""
        self._must_be_open()
        return await self._readers.run(self._stats)

    def _stats(self, connection: sqlite3.Connection) -> StoreStats:
        self._heads.load(connection)
        rows, _, waiting = self._heads.sizes()
        samples, chunks, series = connection.execute("SELECT coalesce(sum(count), 0), coalesce(sum(chunks), 0), count(*) FROM series").fetchone()
        size = sum(one.stat().st_size for one in (self.path, *files.beside(self.path)) if one.exists())
        return StoreStats(samples + waiting, series, rows, chunks, size, self._writer.full, self._quarantined)

    def watch_space(self, told: Callable[[bool], None]) -> None:
        """See ``ports.Store.watch_space``. ``told`` is called on the event loop; may be given before ``open``."""
        self._told.append(told)

    def _must_be_open(self) -> None:
        if not self._open:
            raise StorageError(f"{self.path}: the store is not open")
