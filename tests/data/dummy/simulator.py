"""The other end of the wire."""
# ruff: noqa: I001
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gridloom.core.clock import Clock
from gridloom.core.hub import Health
from gridloom.integrations.dummy.config import Section
from gridloom.links.nullmodem import End


class Simulator:
    """Speaks a power and a register, raises an alarm after five words and clears it after ten, acknowledges orders."""

    name = "dummy simulator"

    def __init__(self, section: Section, clock: Clock, end: End) -> None:
        self._every, self._clock, self._end = float(section.every), clock, end
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Mapping[str, str]:
        """Begin."""
        self._tasks = [asyncio.create_task(self._speak()), asyncio.create_task(self._listen())]
        return {}

    async def wait(self) -> None:
        """Ends with the wire."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def health(self) -> Health:
        """Always well."""
        return Health(True)

    async def _speak(self) -> None:
        number = 0
        while not self._end.is_closing():
            number += 1
            self._end.write(f"P={230 + number % 7}\nnoise\nE={10_000 + number}\n".encode())
            if number in (5, 10):
                self._end.write(b"A=1\n" if number == 5 else b"A=0\n")
            await self._clock.sleep(self._every)

    async def _listen(self) -> None:
        while line := await self._end.readuntil(b"\n"):
            self._end.write(b"OK " + line[1:].partition(b"=")[0] + b"\n")
