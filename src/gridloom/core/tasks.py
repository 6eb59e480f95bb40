"""What a service is that runs one task (``core.hub.Service``): how it is waited for, and how it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_AGAIN = 0.5
"""Real seconds after which a task that goes on is cancelled again: asyncio.wait_for of Python 3.11 loses a cancellation that meets its end."""


class OneTask:
    """Base of such services: ``begin`` belongs into ``start``, ``end`` into ``stop``."""

    _task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the task was begun and has not ended."""
        return self._task is not None and not self._task.done()

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` until it ends or ``end`` is called."""
        self._task = asyncio.get_running_loop().create_task(work, name=name)

    async def wait(self) -> None:
        """Until the task ends by itself; raises what ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def end(self) -> None:
        """Cancel the task and wait for its end. Never raises."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_AGAIN)
