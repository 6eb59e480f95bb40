"""One at a time per key, without a lock object for every device that ever was; and work that is not given up half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

R = TypeVar("R")


class KeyedLock:
    """Mutual exclusion by key, first come first served; a key nobody holds costs nothing."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def hold(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Hold all of the keys; taken in sorted order, so that two holders never wait for each other."""
        wanted = sorted(set(keys))
        taken = []
        for key in wanted:
            lock, users = self._held.get(key) or (asyncio.Lock(), 0)
            self._held[key] = (lock, users + 1)
        try:
            for key in wanted:
                lock = self._held[key][0]
                await lock.acquire()
                taken.append(lock)
            yield
        finally:
            for lock in taken:
                lock.release()
            for key in wanted:
                lock, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = (lock, users - 1)


async def finish(work: Coroutine[Any, Any, R]) -> R:
    """Await work that goes on to its end even if the one who waits is cancelled: what the store has and what memory knows must not part."""
    return await asyncio.shield(asyncio.ensure_future(work))
