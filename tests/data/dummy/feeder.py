"""For the kill tests: feeds events, orders and samples as fast as it can, and notes in a ledger what the hub acknowledged.

A line of the ledger is one ``write`` to a file: it survives kill -9 of the process. ``offered`` lines are noted before the hub is asked,
the others after it answered.
"""
# ruff: noqa: I001
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub
from gridloom.core.model import Command, Device, MeterReading, Reading, ReadingType
from gridloom.integrations.dummy.config import Section

METER, BOX = "dummy:meter", "dummy:box"
TYPE = ReadingType("Power.Active.Import", "W")


class Feeder:
    """Three loops until the process is killed."""

    name = "dummy feeder"

    def __init__(self, section: Section, hub: Hub) -> None:
        self._hub = hub
        self._ledger = os.open(section.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Mapping[str, str]:
        """Begin."""
        for id in (METER, BOX):
            await self._hub.registry.register(Device(id=id, integration="dummy", identity=id[6:], verbs=("relay.set",), measurands=(TYPE.measurand,)))
        self._link = self._hub.registry.attach(BOX, self._execute)
        self._link.online()
        self._tasks = [asyncio.create_task(loop()) for loop in (self._events, self._orders, self._samples, self._samples)]
        return {}

    async def wait(self) -> None:
        """Raises what a loop raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def health(self) -> Health:
        """Always well."""
        return Health(True)

    def _note(self, *words: object) -> None:
        os.write(self._ledger, (" ".join(map(str, words)) + "\n").encode())

    async def _events(self) -> None:
        while True:
            event = new_event("device.booted", METER, self._hub.clock)
            await self._hub.intake.event(event)
            self._note("event", event.id)

    async def _orders(self) -> None:
        principal = self._hub.accounts.system("dummy")
        while True:
            command = await self._hub.commands.submit(principal, BOX, "relay.set", {"relay": 1, "state": "closed"})
            self._note("order", command.id)
            ended = await self._hub.commands.wait(command.id, 30)
            self._note("ended", ended.id, ended.state)

    async def _execute(self, command: Command) -> Any:
        self._note("executed", command.id)
        await asyncio.sleep(0.01)
        return {"state": "closed"}

    async def _samples(self) -> None:
        last = 0
        while True:
            now = max(self._hub.clock.now(), last + 1)
            last = now
            self._note("offered", now)
            await self._hub.intake.readings([MeterReading(METER, now, now, (Reading(TYPE, now % 1000),))])
            self._note("sample", now)
            await asyncio.sleep(0.002)
