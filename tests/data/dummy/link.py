"""WIRE: lines from the null modem to the intake, orders to the null modem."""
# ruff: noqa: I001
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from gridloom.core.errors import DeviceTimeout, Offline, StorageFull
from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub
from gridloom.core.model import Command
from gridloom.integrations.dummy import codec, mapping
from gridloom.integrations.dummy.config import Section
from gridloom.links.nullmodem import End

log = logging.getLogger(__name__)


class Link:
    """The hub's end of the wire."""

    name = "dummy"

    def __init__(self, section: Section, hub: Hub, end: End) -> None:
        self._section, self._hub, self._end = section, hub, end
        self._device = mapping.device(section.identity)
        self._task: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[int] = asyncio.Queue()
        self._bad = hub.metrics.counter("gridloom_dummy_bad_lines_total", "Lines that were none")

    async def start(self) -> Mapping[str, str]:
        """Register the device, count the starts in a document, say that it is there."""
        hub = self._hub
        await hub.registry.register(self._device)
        before = await hub.documents.get("start", "count")
        count = 1 if before is None else json.loads(before.body)["count"] + 1
        await hub.documents.commit([hub.documents.put("start", "count", json.dumps({"count": count}).encode())])
        await hub.intake.event(new_event("device.booted", self._device.id, hub.clock, data={"count": count}))
        self._link = hub.registry.attach(self._device.id, self._execute)
        self._link.online()
        self._task = asyncio.create_task(self._run(), name="dummy link")
        return {"dummy": "null modem"}

    async def wait(self) -> None:
        """Ends with the wire."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Close the link."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._link.detach()

    def health(self) -> Health:
        """Fine while the wire holds."""
        return Health(not self._end.is_closing(), "the wire is cut" if self._end.is_closing() else "")

    async def _run(self) -> None:
        reader = codec.Reader()
        while data := await self._end.read():
            for line in reader.feed(data):
                # A full disk is the intake's to count and to tell; the wire is read on, so that the newest is there when there is space.
                with contextlib.suppress(StorageFull):
                    await self._take(line)

    async def _take(self, line: codec.Line | codec.Bad) -> None:
        if isinstance(line, codec.Bad):
            self._bad.inc()
        elif line.name == "OK":
            self._answers.put_nowait(line.value)
        elif (found := mapping.reading(self._device.id, line, self._hub.clock.now())) is not None:
            await self._hub.intake.readings([found])
        elif (happened := mapping.event(self._device.id, line, self._hub.clock)) is not None:
            await self._hub.intake.event(happened)

    async def _execute(self, command: Command) -> Any:
        if self._end.is_closing():
            raise Offline(f"{self._device.id}: the wire is cut")
        relay, state = command.arguments["relay"], command.arguments["state"]
        self._end.write(codec.order(relay, state))
        try:
            number = await self._hub.clock.wait_for(self._answers.get(), 5)
        except TimeoutError:
            raise DeviceTimeout(f"{self._device.id}: no answer to relay {relay} within 5 s") from None
        return {"relay": number, "state": state}
