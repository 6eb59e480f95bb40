"""The store as files: the lock that one process holds, the check at start, quarantine, backup and restore.

``NAME.lock`` exists while a process has the store open; finding it unheld means that the last end was not clean (the process or
the machine died), and the file is checked before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from gridloom.core.clock import Clock, to_datetime
from gridloom.core.errors import StorageCorrupt, StorageError
from gridloom.storage.sqlite import schema

log = logging.getLogger(__name__)

_ALWAYS_CHECKED = 32 * 1024 * 1024
"""Bytes up to which a store is checked at every start: that costs less than a tenth of a second."""


def lock_path(path: Path) -> Path:
    """Where the lock of a store is."""
    return path.with_name(path.name + ".lock")


def beside(path: Path) -> tuple[Path, Path]:
    """The WAL and the shared memory of a store."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


class Lock:
    """The right to use a store, held by one process at a time. ``unclean``: the previous holder did not give it back."""

    def __init__(self, path: Path) -> None:
        self.path = lock_path(path)
        self.unclean = False
        self._file: int | None = None

    def acquire(self) -> None:
        """Take it. Raises StorageError naming the process that has it."""
        while True:
            try:
                existed = True
                descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                existed = False
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
                os.close(descriptor)
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise StorageError(
                        f"{self.path.with_suffix('')}: another process (pid {holder or 'unknown'}) has this store open: stop it, or use its API"
                    ) from None
                raise StorageError(f"{self.path}: cannot be locked: {error.strerror}") from error
            # Its holder may have removed the file between our open and our lock: then we hold a file that nobody else sees.
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == os.fstat(descriptor).st_ino:
                    self.unclean = existed
                    os.ftruncate(descriptor, 0)
                    with contextlib.suppress(OSError):  # a full disk: the number is only for people
                        os.write(descriptor, f"{os.getpid()}\n".encode())
                    self._file = descriptor
                    return
            os.close(descriptor)

    def release(self, *, clean: bool) -> None:
        """Give it back. Not clean leaves the file, so that the next start checks the store."""
        if self._file is None:
            return
        if clean:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None


def is_full(error: sqlite3.Error) -> bool:
    """Whether this error means that nothing more fits on the disk (or that it no longer takes writes)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether this error means that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path, *, readonly: bool = False, cache_kib: int = 4096) -> sqlite3.Connection:
    """A connection in autocommit (we say BEGIN ourselves). May be closed by another thread than the one that used it."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        if readonly:
            connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def damaged(path: Path, reason: str) -> str:
    """What somebody is told who wants to use a damaged store that stays where it is."""
    return (
        f"{path}: the store is damaged: {reason}; nothing was changed. To go back to a backup: stop the hub, then run: gridloom restore --from BACKUP"
    )


def create(path: Path) -> None:
    """Make an empty file that only its owner may read, if there is none: the WAL takes its rights from it."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def fsync_path(path: Path) -> None:
    """Make a file or a folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(path: Path, *, thorough: bool, seconds: float, clock: Clock) -> str | None:
    """What is wrong with the file, or None. Opening it recovers the WAL of a process that died.

    ``thorough`` reads every page (``PRAGMA quick_check``) for at most ``seconds``; a small file is always read in full.
    Raises StorageError when the file cannot be opened for a reason that is not damage (rights, a full disk).
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    # Looked at before SQLite does: it removes the WAL of a file that it does not take for its own.
    with open(path, "rb") as file:
        header = file.read(512)
    if len(header) < 512 or not header.startswith(b"SQLite format 3\0"):
        return "file is not a database"
    connection: sqlite3.Connection | None = None
    overtime = False
    begun = clock.monotonic()

    def too_long() -> bool:
        nonlocal overtime
        overtime = clock.monotonic() - begun > seconds * clock.speed
        return overtime

    try:
        connection = connect(path)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if thorough or path.stat().st_size <= _ALWAYS_CHECKED:
            connection.set_progress_handler(too_long, 100_000)
            answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if answer != "ok":
                return answer
    except sqlite3.Error as error:
        if is_corrupt(error):
            return str(error)
        if overtime:
            log.warning("store check not finished", extra={"path": str(path), "seconds": seconds})
            return None
        raise StorageError(f"{path}: cannot be opened: {error}") from error
    finally:
        if connection is not None:
            connection.close()
    return None


def quarantine(path: Path, reason: str, clock: Clock) -> Path:
    """Move a damaged store with its WAL aside and say how to get back a good one. Returns where it is now."""
    stamp = to_datetime(clock.now()).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.quarantine-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.quarantine-{stamp}-{number}")
    path.rename(aside)
    for companion, suffix in zip(beside(path), ("-wal", "-shm"), strict=True):
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    fsync_path(path.parent)
    log.error(
        "the store is damaged and was set aside; a new one is begun. To go back to a backup: stop the hub, then run: gridloom restore --from BACKUP",
        extra={"path": str(path), "quarantine": str(aside), "reason": reason},
    )
    return aside


def backup(source: sqlite3.Connection, target: Path, *, pages: int = 256, stopped: Callable[[], bool] = lambda: False) -> None:
    """Copy the store as it is now to ``target``, in slices, while it is written to; durable when it returns.

    ``source`` must be a connection of its own: a read transaction on it holds the snapshot, so that writers do not make the copy begin again.
    Raises StorageError when the target exists or cannot be written.
    """
    if target.exists():
        raise StorageError(f"{target}: exists already; a backup never overwrites")
    partial = target.with_name(f"{target.name}.partial-{secrets.token_hex(4)}")

    def progress(_status: int, _remaining: int, _total: int) -> None:
        if stopped():
            raise StorageError(f"{target}: the store was closed during the backup")

    try:
        source.execute("BEGIN")
        try:
            source.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
            create(partial)
            copy = sqlite3.connect(partial, isolation_level=None)
            try:
                source.backup(copy, pages=pages, progress=progress, sleep=0.001)
                # The copy is one file that can be moved about: no WAL belongs to it.
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
        finally:
            source.execute("ROLLBACK")
        fsync_path(partial)
        partial.rename(target)
        fsync_path(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{target}: the backup failed: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def backup_file(path: Path, target: Path, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """``backup`` of the store at ``path``, by a connection of its own. Raises StorageCorrupt when the store is damaged, StorageError."""
    try:
        source = connect(path, readonly=True)
    except sqlite3.Error as error:
        if is_corrupt(error):
            raise StorageCorrupt(damaged(path, str(error))) from error
        raise StorageError(f"{path}: cannot be opened: {error}") from error
    try:
        backup(source, target, stopped=stopped)
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.Error) and is_corrupt(cause):
            raise StorageCorrupt(damaged(path, str(cause))) from cause
        raise
    finally:
        source.close()


def verify(path: Path, name: Path | None = None) -> None:
    """Read every page of a backup and see that it is a store. Raises StorageCorrupt or StorageError, naming the file (or ``name``) and the reason."""
    name = name or path
    if not path.is_file():
        raise StorageError(f"{name}: no such file")
    # Without a WAL beside it nothing can change under us, and nothing needs to be made beside it.
    mode = "mode=ro" if beside(path)[0].exists() else "immutable=1"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, isolation_level=None)
        try:
            answer = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if answer != "ok":
                raise StorageCorrupt(f"{name}: is damaged: {answer}")
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"meta", "head", "chunk", "document", "journal"} <= tables:
                raise StorageCorrupt(f"{name}: is an SQLite file but not a Gridloom store")
            found = schema.version(connection)
            if found > len(schema.STEPS):
                raise StorageError(f"{name}: has version {found}, this Gridloom knows up to {len(schema.STEPS)}")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageCorrupt(f"{name}: is not a usable backup: {error}") from error


def restore(backup_path: Path, target: Path, clock: Clock) -> Path | None:
    """Put a backup in the place of the store ``target``, which must not be open. Returns where the store that was there went, or None.

    The backup is verified before anything is touched, and copied, never moved. The restored store gets a new name for its cursors: those that
    clients hold belong to a history that is no longer true. Raises StorageError, StorageCorrupt.
    """
    if not backup_path.is_file():
        raise StorageError(f"{backup_path}: no such file")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(target)
    lock.acquire()
    partial = target.with_name(f"{target.name}.restoring-{secrets.token_hex(4)}")
    aside: Path | None = None
    try:
        # A file that was copied out of a hub at work may have its last commits in a WAL beside it.
        for original, copy in zip((backup_path, beside(backup_path)[0]), (partial, beside(partial)[0]), strict=True):
            if original.exists():
                shutil.copyfile(original, copy)
                os.chmod(copy, 0o600)
        verify(partial, backup_path)
        connection = sqlite3.connect(partial, isolation_level=None)
        try:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'store'", (secrets.token_hex(4),))
            connection.execute("DELETE FROM meta WHERE key = 'quarantined'")
            connection.execute("PRAGMA journal_mode = DELETE")
        finally:
            connection.close()
        fsync_path(partial)
        if target.exists():
            stamp = to_datetime(clock.now()).strftime("%Y%m%dT%H%M%S.%fZ")
            aside = target.with_name(f"{target.name}.replaced-{stamp}")
            # The old WAL goes first: left beside the new file it would be replayed into it.
            for one, suffix in zip((*beside(target), target), ("-wal", "-shm", ""), strict=True):
                if one.exists():
                    one.rename(aside.with_name(aside.name + suffix))
        partial.rename(target)
        fsync_path(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{target}: the backup could not be put in place: {error}") from error
    finally:
        for leftover in (partial, *beside(partial)):
            leftover.unlink(missing_ok=True)
        lock.release(clean=True)
    log.info("store restored", extra={"path": str(target), "backup": str(backup_path), "replaced": str(aside) if aside else ""})
    return aside
