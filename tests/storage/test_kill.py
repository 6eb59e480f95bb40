"""``kill -9`` at any moment, hundreds of times, on one store that is opened again and again.

What this proves, and what not: a *process* that dies loses no acknowledged commit and no acknowledged sample (the contract allows those
of the last 100 ms), whatever it was doing: opening, recovering, writing, compacting. It says nothing about a machine that loses power:
the kernel keeps what a dead process has written. For that see ``test_fsync``: which writes are made durable before they are acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from gridloom.core.clock import Clock
from gridloom.core.ports import JournalFilter, SeriesFilter
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

KILLS = 300


async def test_hundreds_of_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage.killed", str(tmp_path), str(KILLS), str(seed)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == KILLS
    committed = appended = -1
    wrote = opened = 0
    for number, one in enumerate(rounds):
        assert one["killed"], f"seed {seed}: child {number} died by itself: {done.stderr[-3000:]}"
        if one["found"] is not None:
            opened += 1
            found_committed, entries, kept, last, quarantined = one["found"]
            assert not quarantined, f"seed {seed}: kill {number} damaged the store"
            assert found_committed >= committed, f"seed {seed}: kill {number} lost a commit"
            assert entries == found_committed, f"seed {seed}: kill {number} parted an entry from its document"
            assert last >= appended, f"seed {seed}: kill {number} lost an acknowledged sample"
            assert kept == last + 1, f"seed {seed}: kill {number} left a hole in the samples"
        if one["committed"] or one["appended"] >= 0:
            wrote += 1
        committed = max(committed, one["committed"])
        appended = max(appended, one["appended"])
    # Most kills must have hit a child at work, or the test tests nothing.
    assert wrote >= KILLS // 2
    assert opened >= KILLS // 2
    store = SqliteStore(tmp_path / "gridloom.db", Clock(), StorageSettings(background=False))
    await store.open()
    try:
        assert (await store.stats()).quarantined is None
        assert await store.journal.count(JournalFilter()) >= committed
        series = await store.samples.series(SeriesFilter())
        assert len(series) == 5
        for one in series:
            cursor = None
            expected = 0
            while True:
                page = await store.samples.read(one.number, 0, 2**61, cursor=cursor)
                for sample in page.samples:
                    assert sample.value == expected
                    expected += 1
                cursor = page.next
                if cursor is None:
                    break
            assert expected > appended
            assert one.count == expected
    finally:
        await store.close()
