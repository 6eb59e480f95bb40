"""The child of ``test_fsync``: appends and commits, and writes to standard output when each was acknowledged.

Run as ``python -m tests.storage.fsynced FOLDER``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gridloom.core.clock import Clock
from gridloom.core.model import MeterReading, Reading, ReadingType
from gridloom.core.ports import Entry, Put
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

COMMITS = 20


async def main(folder: Path) -> None:
    store = SqliteStore(folder / "gridloom.db", Clock(), StorageSettings(background=False))
    await store.open()
    for number in range(COMMITS):
        # A reading before each: its group is not synced by itself, and must not be taken for the commit.
        await store.samples.append([MeterReading("d", number, number, (Reading(ReadingType("Power", "W"), number),))])
        os.write(1, b"appended %d\n" % number)
        await store.commit([Put("test", "x", str(number), b"{}"), Entry("event", str(number), 0, "d", "k", 1, b"{}")])
        os.write(1, b"committed %d\n" % number)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
