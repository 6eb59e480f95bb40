"""The children of ``test_kill``: each opens the store, says what it finds, writes as fast as it can, says what was acknowledged, and is killed.

Run as ``python -m tests.storage.killed FOLDER KILLS SEED``. This process only forks and kills, so that a child costs milliseconds and not an
interpreter's start; it prints one JSON line per child: what was found at opening, and what was acknowledged until the kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import numpy as np

from gridloom.core.clock import Clock
from gridloom.core.model import MeterReading, Reading, ReadingType
from gridloom.core.ports import Entry, JournalFilter, Put, SeriesFilter
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite import aggregation, compaction, paging
from gridloom.storage.sqlite.store import SqliteStore

START = 1_767_225_600_000_000
TYPES = tuple(ReadingType(f"Quantity.{number}", "W") for number in range(5))
PRELOADED = (np, aggregation, compaction, paging)
"""What the store imports when it first needs it: once here, not in every child."""


def say(kind: str, *numbers: int) -> None:
    os.write(1, (" ".join([kind, *map(str, numbers)]) + "\n").encode())


async def child(folder: Path) -> None:
    store = SqliteStore(folder / "gridloom.db", Clock(), StorageSettings(background=False, resume_rows=500))
    await store.open()
    document = await store.documents.get("test", "count", "n")
    committed = 0 if document is None else int(document.body)
    entries = await store.journal.count(JournalFilter())
    series = await store.samples.series(SeriesFilter(measurands=("Quantity.0",)))
    kept = series[0].count if series else 0
    last = (series[0].last - START) // 1000 if series else -1
    say("found", committed, entries, kept, last, int((await store.stats()).quarantined is not None))

    async def commits() -> None:
        number = committed
        while True:
            number += 1
            await store.commit([Put("test", "count", "n", str(number).encode()), Entry("event", str(number), START, "d", "k", 1, b"{}")])
            say("committed", number)

    async def samples() -> None:
        number = last
        while True:
            at = START + (number + 1) * 1000
            await store.samples.append([MeterReading("d", at, at, tuple(Reading(one, number + 1) for one in TYPES))])
            number += 1
            say("appended", number)

    async def compactions() -> None:
        while True:
            await asyncio.sleep(random.random() * 0.02)
            await store.compact()

    await asyncio.gather(commits(), samples(), compactions())


def one(folder: Path, chance: random.Random) -> dict[str, object]:
    """Fork a child, kill it at a moment of chance, tell what it said."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        os.close(reading)
        random.seed()
        try:
            asyncio.run(child(folder))
        finally:
            os._exit(1)
    os.close(writing)
    # Mostly while it writes; sometimes while it opens or recovers.
    deadline = time.monotonic() + (chance.random() * 0.02 if chance.random() < 0.15 else 30.0)
    said = b""
    while time.monotonic() < deadline:
        if not select.select([reading], [], [], max(deadline - time.monotonic(), 0.0))[0]:
            break
        more = os.read(reading, 65536)
        if not more:
            break
        if not said:
            deadline = min(deadline, time.monotonic() + chance.random() * 0.06)
        said += more
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while more := os.read(reading, 65536):
        said += more
    os.close(reading)
    out: dict[str, object] = {"killed": os.WIFSIGNALED(status), "found": None, "committed": 0, "appended": -1}
    for line in said.decode().split("\n")[:-1]:
        kind, *numbers = line.split()
        if kind == "found":
            out["found"] = [int(number) for number in numbers]
        else:
            out[kind] = int(numbers[0])
    return out


def main() -> None:
    folder, kills, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    for _ in range(kills):
        os.write(1, (json.dumps(one(folder, chance)) + "\n").encode())


if __name__ == "__main__":
    main()
