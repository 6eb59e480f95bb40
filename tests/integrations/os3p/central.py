"""The Central System over a real core and a real store, on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import World
from tests.integrations.os3p import station as raw

from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.hub import Hub
from gridloom.core.model import Admission, Command, CommandState, Device
from gridloom.core.settings import Address
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.files import Files
from gridloom.integrations.os3p.server import CentralSystem
from gridloom.integrations.os3p.stations import CHANGE, LIST, SHOW, Change, StationView

FIRST = "SUBS001"


def section(**more: Any) -> Section:
    """``[os3p]`` on a free port."""
    return Section(listen=Address("127.0.0.1:0"), **more)


def hub_of(world: World, path: Path) -> Hub:
    """As ``app`` makes it for the integration."""
    return Hub(
        clock=world.clock, bus=world.bus, intake=world.intake, commands=world.commands, registry=world.registry, transactions=world.transactions,
        alarms=world.alarms, accounts=world.accounts, outbox=world.outbox, documents=Space(world.store, "os3p"), query=world.query,
        metrics=world.metrics, http=lambda: "http://127.0.0.1:1", data_dir=path, timezone="Europe/Amsterdam",
    )  # fmt: skip


class Central:
    """A running Central System, and what one does to it."""

    def __init__(self, world: World, settings: Section, path: Path) -> None:
        self.world = world
        self.settings = settings
        self.hub = hub_of(world, path)
        self.service = CentralSystem(settings, self.hub, Files(settings, self.hub))
        self.where = ""

    async def start(self) -> Central:
        """Listen."""
        self.where = (await self.service.start())["os3p"]
        return self

    async def add(self, identity: str = FIRST, admission: Admission = Admission.KNOWN) -> Device:
        """An operator adds a station by hand."""
        return await self.world.registry.register(Device(f"os3p:{identity}", "os3p", identity, admission=admission), self.world.admin)

    async def decide(self, admission: Admission, identity: str = FIRST) -> None:
        """An operator accepts or rejects a station."""
        await self.world.registry.update(f"os3p:{identity}", self.world.admin, admission=admission)

    def device(self, identity: str = FIRST) -> Device:
        """As the registry has it."""
        return self.world.registry.get(f"os3p:{identity}")

    def online(self, identity: str = FIRST) -> bool:
        """As the registry has it."""
        return self.world.registry.online(f"os3p:{identity}")

    @contextlib.asynccontextmanager
    async def station(self, identity: str = FIRST, **more: Any) -> AsyncIterator[raw.Station]:
        """A raw station, connected."""
        async with raw.station(self.where, identity, **more) as one:
            yield one

    @contextlib.asynccontextmanager
    async def accepted(self, identity: str = FIRST, **more: Any) -> AsyncIterator[raw.Station]:
        """A station that is known, connected and accepted."""
        if self.service._stations.admission(identity) is None:
            await self.add(identity)
        async with self.station(identity, **more) as one:
            assert (await one.boot())["status"] == "Accepted"
            yield one

    async def order(self, verb: str, arguments: dict[str, Any] | None = None, identity: str = FIRST, **more: Any) -> Command:
        """Submit an order and wait for its end."""
        submitted = await self.world.commands.submit(self.world.admin, f"os3p:{identity}", verb, arguments or {}, **more)
        return await self.world.commands.wait(submitted.id, 20)

    async def submit(self, verb: str, arguments: dict[str, Any] | None = None, identity: str = FIRST, **more: Any) -> Command:
        """Submit an order and go on."""
        return await self.world.commands.submit(self.world.admin, f"os3p:{identity}", verb, arguments or {}, **more)

    async def all(self) -> list[StationView]:
        """As other rooms ask."""
        found: list[StationView] = await self.hub.bus.request(LIST, None, 5.0)
        return found

    async def show(self, identity: str = FIRST) -> StationView:
        """As other rooms ask."""
        found: StationView | None = await self.hub.bus.request(SHOW, identity, 5.0)
        assert found is not None
        return found

    async def change(self, identity: str = FIRST, **what: Any) -> StationView:
        """As other rooms ask."""
        found: StationView | None = await self.hub.bus.request(CHANGE, Change(identity, self.world.admin, **what), 5.0)
        assert found is not None
        return found

    async def events(self, prefix: str = "") -> list[str]:
        """``kind state`` of what the journal has, oldest first."""
        await self.service._reports.settle()
        return [line for line in await self.world.events() if line.startswith(prefix)]

    def count(self, metric: str) -> dict[str, float]:
        """A counter by its label values joined with a space."""
        family = next(family for family in self.world.metrics.collect() if family.name == metric)
        return {" ".join(value for _, value in line.labels): line.value for line in family.values}


@contextlib.asynccontextmanager
async def central(path: Path, settings: Section | None = None, clock: Clock | None = None) -> AsyncIterator[Central]:
    """Started, and stopped in the end."""
    world = await World(path, clock or Clock()).open()
    try:
        made = await Central(world, settings or section(), path).start()
        await world.commands.recover()
        try:
            yield made
        finally:
            await world.registry.close()
            await made.service.stop()
    finally:
        await world.close()


def ended(command: Command) -> tuple[CommandState, str]:
    """State and words of an order."""
    return command.state, command.error


@contextlib.contextmanager
def refused(code: str) -> Iterator[list[raw.CallError]]:
    """The call inside is answered with a CALLERROR of this code."""
    found: list[raw.CallError] = []
    with pytest.raises(raw.CallError) as raised:
        yield found
    assert raised.value.code == code, raised.value
    found.append(raised.value)
