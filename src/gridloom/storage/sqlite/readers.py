"""Reading connections in a few threads: the event loop never waits for the disk, and readers never wait for the writer (WAL)."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from gridloom.core.errors import StorageCorrupt, StorageError
from gridloom.storage.sqlite import files

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """``await run(work, …)`` calls ``work(connection, …)`` in a thread, inside one read transaction: all it reads is of one moment."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gridloom-store-reader")
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._closed = False
        self.corrupt = False

    async def run(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises StorageError when the store is closed or cannot be read, StorageCorrupt when it is damaged, and what ``work`` raises."""
        if self._closed:
            raise StorageError(f"{self._path}: the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self.call(work, *args, **kwargs))

    def call(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a thread that may wait."""
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return work(connection, *args, **kwargs)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if files.is_corrupt(error):
                self.corrupt = True
                raise StorageCorrupt(f"{self._path}: is damaged ({error}); stop the hub, then run: gridloom restore --from BACKUP") from error
            raise StorageError(f"{self._path}: cannot be read: {error}") from error
        except StorageCorrupt:
            self.corrupt = True
            raise

    def _connection(self) -> sqlite3.Connection:
        connection: Any = getattr(self._own, "connection", None)
        if connection is None:
            connection = files.connect(self._path, readonly=True)
            self._own.connection = connection
            self._all.append(connection)
        return connection  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Wait for what is being read, then close."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown, True)
        for connection in self._all:
            connection.close()
        self._all.clear()
