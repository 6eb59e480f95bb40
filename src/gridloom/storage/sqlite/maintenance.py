"""The maintenance thread: sees when something is due, and does it a slice at a time."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from gridloom.core.clock import Clock
from gridloom.core.errors import StorageError
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite import files
from gridloom.storage.sqlite.catalogue import Catalogue
from gridloom.storage.sqlite.heads import Heads
from gridloom.storage.sqlite.readers import Readers
from gridloom.storage.sqlite.writer import Writer

if TYPE_CHECKING:
    from gridloom.storage.sqlite.compaction import ForgottenHead

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_FORGET_SECONDS = 3600.0
_CHECKPOINT_PAGES = 512
_LONGEST_WAL_PAGES = 8192


class Maintenance:
    """Compaction, roll-ups, retention and checkpoints, in the background or on demand (``run_all``), one at a time."""

    def __init__(
        self, path: Path, writer: Writer, readers: Readers, catalogue: Catalogue, heads: Heads, clock: Clock, settings: StorageSettings
    ) -> None:
        self._path = path
        self._writer = writer
        self._readers = readers
        self._catalogue = catalogue
        self._heads = heads
        self._clock = clock
        self._settings = settings
        self._stop = threading.Event()
        self._one = threading.Lock()
        self._thread: threading.Thread | None = None
        self._looked = sequence = writer.sequence
        self._looked_at = clock.monotonic()
        self._forgot_at = clock.monotonic()
        # (when, sequence number then): tells which rows are older than the live stream can be resumed.
        self._marks: deque[tuple[float, int]] = deque([(clock.monotonic(), sequence)])
        self._connection: sqlite3.Connection | None = None
        self._forgotten: ForgottenHead | None = None

    def start(self) -> None:
        """Begin in the background."""
        self._thread = threading.Thread(target=self._run, name="gridloom-store-maintenance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the slice at hand; waits."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._one:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self._look()
            except StorageError as error:
                # A full disk, a closing store: told by the writer; the next look tries again.
                log.debug("maintenance put off", extra={"path": str(self._path), "error": error.message})
            except Exception:
                # Maintenance must not end for ever on a fault in one device's data; readings and orders go on meanwhile.
                log.exception("maintenance failed", extra={"path": str(self._path)})

    def _look(self) -> None:
        now = self._clock.monotonic()
        self._mark(now)
        self.checkpoint()
        if self._writer.full:
            return
        grown = self._writer.sequence - self._looked
        if grown >= self._settings.compact_rows or (now - self._looked_at >= 30.0 and not self._stop.is_set()):
            self._looked, self._looked_at = self._writer.sequence, now
            with self._one:
                self._compact(everything=False)
        if now - self._forgot_at >= _FORGET_SECONDS:
            self._forgot_at = now
            with self._one:
                self._forget()

    def _mark(self, now: float) -> None:
        if self._writer.sequence != self._marks[-1][1]:
            self._marks.append((now, self._writer.sequence))
        while len(self._marks) > 1 and self._marks[1][0] <= now - self._settings.resume_seconds:
            self._marks.popleft()

    def _floor(self, now: float) -> int:
        """The sequence number up to which rows are older than ``resume_seconds``, or more than ``resume_rows`` ago."""
        when, sequence = self._marks[0]
        old = sequence if when <= now - self._settings.resume_seconds else 0
        return max(old, self._writer.sequence - self._settings.resume_rows)

    def run_all(self) -> None:
        """Everything that can be done, now. Raises StorageError."""
        with self._one:
            self._mark(self._clock.monotonic())
            self._compact(everything=True)
            self._forget()
        self.checkpoint()

    def _compact(self, *, everything: bool) -> None:
        from gridloom.storage.sqlite.compaction import Compaction, ForgottenHead  # numpy comes with it: not at start

        if self._forgotten is None:
            self._forgotten = ForgottenHead()
        compaction = Compaction(self._writer, self._readers, self._catalogue, self._heads, self._clock, self._settings)
        stopped = self._stop.is_set
        for work, devices in ((compaction.compact_device, compaction.due(everything)), (compaction.roll_device, compaction.unrolled())):
            for device_no in devices:
                if stopped():
                    return
                begun = self._clock.monotonic()
                work(device_no, stopped)
                if not everything:
                    # Half of the time at most: the event loop and those who ask want the interpreter too.
                    self._stop.wait((self._clock.monotonic() - begun) / self._clock.speed)
        compaction.forget_head(self._floor(self._clock.monotonic()), self._forgotten, stopped)

    def _forget(self) -> None:
        from gridloom.storage.sqlite.compaction import Compaction

        Compaction(self._writer, self._readers, self._catalogue, self._heads, self._clock, self._settings).forget(self._stop.is_set)

    def checkpoint(self) -> None:
        """Move what the WAL holds into the main file, without making anybody wait; only when it grew too long the writer does it itself."""
        if not self._one.acquire(blocking=False):
            return
        try:
            wal = files.beside(self._path)[0]
            if not wal.exists() or wal.stat().st_size < _CHECKPOINT_PAGES * 4096:
                return
            if self._connection is None:
                self._connection = files.connect(self._path, cache_kib=256)
            _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > _LONGEST_WAL_PAGES:
                self._writer.shorten_wal()
        except sqlite3.Error as error:
            log.warning("checkpoint failed", extra={"path": str(self._path), "error": str(error)})
        finally:
            self._one.release()
