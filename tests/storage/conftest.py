"""Engines as subjects of the same suite: ``make_store`` gives stores of each engine; PostgreSQL will be the second entry of ENGINES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from gridloom.core.clock import Clock
from gridloom.core.ports import Store
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

HOUR = 3_600_000_000
DAY = 24 * HOUR


class HandClock(Clock):
    """A clock that a test sets by hand."""

    def __init__(self, now: int) -> None:
        super().__init__()
        self.time = now
        self._begun = now

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return (self.time - self._begun) / 1e6


Factory = Callable[[Path, Clock, StorageSettings], Store]


def _sqlite(folder: Path, clock: Clock, settings: StorageSettings) -> Store:
    return SqliteStore(folder / "gridloom.db", clock, settings)


ENGINES: dict[str, Factory] = {"sqlite": _sqlite}


class MakeStore(Protocol):
    """Gives an open store; the same ``name`` is the same store again (the one before it is closed first)."""

    def __call__(self, name: str = "store", *, clock: Clock | None = None, settings: StorageSettings | None = None) -> Awaitable[Store]: ...


@pytest.fixture(params=sorted(ENGINES))
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    factory = ENGINES[request.param]
    opened: dict[str, Store] = {}

    async def make(name: str = "store", *, clock: Clock | None = None, settings: StorageSettings | None = None) -> Store:
        if name in opened:
            await opened.pop(name).close()
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        store = factory(folder, clock or Clock(), settings or StorageSettings(background=False))
        await store.open()
        opened[name] = store
        return store

    yield make
    for store in opened.values():
        await store.close()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    return await make_store()
