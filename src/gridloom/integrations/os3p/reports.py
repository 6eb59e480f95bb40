"""Events about the admission of stations, made where nobody can wait: told soon, many in one commit, bounded however many strangers knock.

What strangers do is told of the hub, so many times in a while; it leaves the events of stations alone, which are bounded by their number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from gridloom.core.errors import GridloomError, NotFound
from gridloom.core.hub import Hub
from gridloom.core.model import Event
from gridloom.core.subjects import HUB

log = logging.getLogger(__name__)

AGAIN = 600.0
"""Seconds: of each kind about each identity one event within that time."""
MOST = 500
"""Events about strangers within that time."""
_AT_ONCE = 200


class Reports:
    """``tell`` and go on."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._told: set[tuple[str, str]] = set()
        self._strangers = 0
        self._since = hub.clock.monotonic()
        self._events: deque[Event] = deque()
        self._recording: asyncio.Task[None] | None = None
        self._left_out = hub.metrics.counter(
            "gridloom_os3p_reports_left_out_total", "Events about stations that were told a moment ago, or too many."
        )

    def tell(self, event: Event, identity: str) -> None:
        """Record the event, unless one of its kind about this identity was told in these ten minutes, or too many of strangers."""
        now = self._hub.clock.monotonic()
        if now - self._since >= AGAIN:
            self._since = now
            self._told.clear()
            self._strangers = 0
        key, stranger = (event.kind, identity), event.device == HUB
        if key in self._told or (stranger and self._strangers >= MOST):
            self._left_out.inc()
            return
        self._strangers += stranger
        self._told.add(key)
        self._events.append(event)
        if self._recording is None:
            self._recording = asyncio.create_task(self._record(), name="os3p reports")

    async def settle(self) -> None:
        """Returns when what was told is recorded."""
        while self._recording is not None:
            await asyncio.shield(self._recording)

    async def _record(self) -> None:
        try:
            while self._events:
                await asyncio.sleep(0)  # who comes in this turn of the loop comes along
                batch = [self._events.popleft() for _ in range(min(len(self._events), _AT_ONCE))]
                try:
                    await self._hub.intake.events([event for event in batch if self._is_there(event.device)])
                except GridloomError as error:
                    self._left_out.inc(len(batch))
                    log.error("events about stations could not be recorded", extra={"events": len(batch), "reason": error.message})
        finally:
            self._recording = None

    def _is_there(self, device: str) -> bool:
        if device == HUB:
            return True
        try:
            self._hub.registry.get(device)
        except NotFound:
            return False
        return True
