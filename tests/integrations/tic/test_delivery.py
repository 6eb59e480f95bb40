"""From a line to the store: what becomes of events while its disk is full."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import World, until
from tests.integrations.tic.hub import Ears, hub_of, opened_world
from tests.integrations.tic.pty import STANDARD_SERIAL, standard

from gridloom.core.errors import StorageFull
from gridloom.core.events import new_event
from gridloom.core.subjects import HUB
from gridloom.integrations.tic import delivery as module
from gridloom.integrations.tic.codec import Frame, Parser
from gridloom.integrations.tic.delivery import Delivery, Figures
from gridloom.integrations.tic.messages import PortState

PORT = PortState("ttyTIC0", None, None, None, None, "reading", "", 0)
QUIET, COVER, OVERLOAD = "003A0001", "003A0011", "003A0081"
"""STGE: nothing; the terminal cover is open; too much power is drawn (an urgent event)."""

METER = f"tic:{STANDARD_SERIAL}"


class Bench:
    """A delivery that runs, over a store whose disk can be full."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.hub = hub_of(world, path)
        self.ears = Ears(self.hub)
        self.delivery = Delivery("ttyTIC0", self.hub, Figures(world.metrics), lambda mode, serial: None)
        self.task = asyncio.create_task(self.delivery.run())
        self.full = False
        self.refused = 0
        for place, name in ((world.store.samples, "append"), (world.store, "commit")):
            setattr(place, name, self._unless_full(getattr(place, name)))

    def _unless_full(self, method: Any) -> Any:
        async def checked(what: Any) -> Any:
            if self.full:
                self.refused += 1
                raise StorageFull("no space left")
            return await method(what)

        return checked

    def fill(self, full: bool) -> None:
        self.full = full
        self.world.intake._space_changed(full)

    def frame(self, stge: str) -> None:
        for value in Parser().feed(standard(stge=stge)):
            if isinstance(value, Frame):
                self.delivery.frame(value, PORT)

    async def known(self) -> None:
        """The meter is understood, and all it said so far is recorded."""
        self.frame(QUIET)
        await until(lambda: self.ears.frames)
        await self.world.registry.settle()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.delivery.close()

    def dropped(self) -> float:
        return self.delivery._figures.events.value(port="ttyTIC0")

    def raised(self, kind: str) -> bool:
        return self.world.alarms.raised(METER, kind) is not None


@contextlib.asynccontextmanager
async def bench(path: Path) -> AsyncIterator[Bench]:
    async with opened_world(path) as world:
        made = Bench(world, path)
        try:
            yield made
        finally:
            await made.stop()


async def test_what_finds_the_disk_full_is_recorded_when_there_is_space(tmp_path: Path) -> None:
    async with bench(tmp_path) as line:
        await line.known()
        line.fill(True)
        line.frame(COVER)
        await until(lambda: line.refused == 2)  # the readings, which are lost, and what they showed
        line.frame(COVER)  # the mapping does not say it again
        await until(lambda: line.refused == 3)
        assert not line.raised("cover.open")
        line.fill(False)
        await until(lambda: line.raised("cover.open"))
        assert await line.world.events("cover.open") == ["cover.open raised"]
        document = await line.hub.documents.get("meter", STANDARD_SERIAL)
        assert document is not None
        assert b"cover.open" in document.body  # so that its end is told after a restart
        line.frame(QUIET)
        await until(lambda: not line.raised("cover.open"))
        assert line.dropped() == 0
        assert not line.task.done()


async def test_urgent_events_are_told_while_others_wait_for_space(tmp_path: Path) -> None:
    async with bench(tmp_path) as line:
        await line.known()
        line.fill(True)
        line.frame(COVER)
        await until(lambda: line.refused == 2)
        line.frame(OVERLOAD)
        await until(lambda: line.raised("overload"))
        assert line.ears.kinds("overload") == ["overload raised"]
        line.delivery._happen([new_event("line.found", HUB, line.hub.clock)])
        await until(lambda: len(line.delivery._kept[0]) == 4)
        assert line.refused == 5
        assert line.ears.kinds("overload") == ["overload raised"]  # nothing is tried again while the disk is known to be full
        line.fill(False)
        await until(lambda: len(line.ears.kinds("overload")) == 2)  # now with a cursor
        assert (await line.world.events())[-4:] == ["cover.open raised", "overload raised", "cover.open cleared", "line.found occurred"]


async def test_what_waits_for_space_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS", 3)
    async with bench(tmp_path) as line:
        await line.known()
        line.fill(True)
        for number in range(5):
            line.delivery._happen([new_event("line.found", HUB, line.hub.clock, subject=str(number))])
            await until(lambda: not line.delivery._events)
        await until(lambda: line.dropped() == 2)
        line.fill(False)
        await until(lambda: line.ears.kinds("line.found") == ["line.found occurred"] * 3)
        assert [event.subject for event in line.ears.events if event.kind == "line.found"] == ["2", "3", "4"]
        line.fill(True)
        refused = line.refused
        line.delivery._happen([new_event("line.found", HUB, line.hub.clock, subject="5")])
        await until(lambda: line.refused > refused)
        await line.stop()  # ends, though there is no space
        assert line.dropped() == 3
        line.full = False
