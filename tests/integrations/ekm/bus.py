"""A simulated bus on a pty with a fast line, and what was told about it; a raw meter that shares no code with the product."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.core.world import World
from tests.integrations.tic.pty import Pty

from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.errors import GridloomError
from gridloom.core.hub import Hub
from gridloom.core.metrics import Metrics
from gridloom.integrations.ekm import simulator
from gridloom.integrations.ekm.codec import Read
from gridloom.integrations.ekm.config import Bus as Settings
from gridloom.integrations.ekm.config import SerialPort
from gridloom.integrations.ekm.link import Bus, Figures, Polled, State
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.simulator import Line, Omnimeter, Simulator
from gridloom.links.serial import Ports

BAUD = 115_200
V4, V3 = "000300000234", "000000010017"


class Ears:
    """Hears what a bus tells."""

    def __init__(self) -> None:
        self.ports: list[tuple[State, str]] = []
        self.reads: list[Read] = []
        self.failures: list[GridloomError] = []

    def port(self, bus: Bus, state: State, reason: str) -> None:
        self.ports.append((state, reason))

    def read(self, bus: Bus, meter: Polled, read: Read) -> None:
        self.reads.append(read)

    def failed(self, bus: Bus, meter: Polled, error: GridloomError) -> None:
        self.failures.append(error)


class Street:
    """A simulated line behind ``path``, and a bus that reads it."""

    def __init__(self, path: Path, *meters: str) -> None:
        self.path = path
        self.clock = Clock()
        self.line = Line([simulator.meter(text, self.clock, load=simulator.steady(1500, -700, 300)) for text in meters or (f"{V4}:v4",)])
        self.simulator = Simulator(path, self.line, baud=BAUD, turnaround=0.0005)
        self.ears = Ears()
        self.metrics = Metrics()
        self.buses: list[asyncio.Task[None]] = []

    @property
    def meter(self) -> Omnimeter:
        return self.line.meters[0]

    async def bus(self, *polled: str, every: float = 60.0, ports: Ports | None = None, port: str = "", **settings: Any) -> Bus:
        """Start one; ``polled`` as ``ADDRESS:MODEL``."""
        made = Settings(port=SerialPort(port or str(self.path)), baud=BAUD, poll_seconds=every, **{"timeout": 0.06, "silent_after": 0.3} | settings)
        bus = Bus(made, self.clock, self.ears, Figures(self.metrics), ports=ports or Ports())
        for text in polled:
            address, _, model = text.partition(":")
            bus.meters.append(Polled(address, MODELS[model], None, 0.0))
        self.buses.append(asyncio.create_task(bus.run()))
        return bus

    def count(self, name: str, **labels: str) -> float:
        """Of a metric, over all lines that have these labels."""
        families = [family for family in self.metrics.collect() if family.name == name]
        return sum(value.value for family in families for value in family.values if labels.items() <= dict(value.labels).items())


@contextlib.asynccontextmanager
async def street(path: Path, *meters: str) -> AsyncIterator[Street]:
    """One that is torn down in the end."""
    made = Street(path / "bus", *meters)
    await made.simulator.start()
    try:
        yield made
    finally:
        for task in made.buses:
            task.cancel()
        await asyncio.gather(*made.buses, return_exceptions=True)
        await made.simulator.stop()


class Raw:
    """The meter's end of a pty; ``answer`` says what comes back for the bytes that came. Whoever plugs a new one is another adapter."""

    def __init__(self, link: Path, answer: Callable[[bytes], bytes]) -> None:
        self.link, self.answer = link, answer
        self.heard = b""
        self.pty: Pty | None = None

    async def __aenter__(self) -> Raw:
        self.plug()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self.unplug()

    def plug(self) -> None:
        self.pty = Pty()
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(self.pty.name)

    def unplug(self) -> None:
        self.link.unlink(missing_ok=True)
        if self.pty is not None:
            self.pty.close()
            self.pty = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            if self.pty is None:
                continue
            try:
                data = os.read(self.pty.master, 4096)
            except (BlockingIOError, OSError):
                continue
            self.heard += data
            said = self.answer(data)
            if said and self.pty is not None:
                self.pty.write(said)


def hub_of(world: World, path: Path, clock: Clock | None = None, **more: Any) -> Hub:
    """As ``app`` makes it for the integration."""
    return Hub(
        clock=clock or world.clock, bus=world.bus, intake=world.intake, commands=world.commands, registry=world.registry,
        transactions=world.transactions, alarms=world.alarms, accounts=world.accounts, outbox=world.outbox, documents=Space(world.store, "ekm"),
        query=world.query, metrics=world.metrics, http=lambda: "http://127.0.0.1:1", data_dir=path, timezone="Europe/Paris", **more,
    )  # fmt: skip
